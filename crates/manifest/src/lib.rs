//! crates/manifest
