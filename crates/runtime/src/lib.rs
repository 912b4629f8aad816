//! crates/runtime
