//! An agency's stack on Layby: pictures of product labels are uploaded, read by an OCR API that sleeps between, corrected
//! by analysts, checked by rules, and exported. The README says how its parts go together.

pub mod dataset;
pub mod digest;
pub mod edit;
pub mod health;
pub mod index;
pub mod label;
pub mod library;
pub mod mapi;
pub mod moment;
pub mod picture;
pub mod queue;
pub mod reader;
pub mod reading;
pub mod samples;
pub mod serve;
pub mod store;
pub mod web;
