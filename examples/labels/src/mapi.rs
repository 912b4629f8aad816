//! mapi, the heavy part: reads pictures and applies rules, behind an HTTP API with an OpenAPI document. It keeps no state:
//! kill it in the middle of a picture, and whoever asked asks again.

pub mod cache;
pub mod prepare;
pub mod refusal;
pub mod server;
pub mod tesseract;
