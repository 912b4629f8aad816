//! What a product label says, and whether that is as it should be: pure, for the web application, the OCR API and the tests alike.

pub mod category;
pub mod computed;
pub mod extract;
pub mod fields;
pub mod nutrient;
pub mod quantity;
pub mod rule;
pub mod rules;
