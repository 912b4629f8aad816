//! crates/control
