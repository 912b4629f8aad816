//! crates/image
