//! crates/net
