//! The control plane: a table of what should be true, one task per service that takes the next step,
//! and the HTTP API. It sees engines only through the `Engine` trait, and the gateway only through three wires.

pub mod api;
mod config;
mod control;
mod error;
mod store;

pub use config::{ControlConfig, StopRequest, Wires};
pub use control::Control;
pub use error::Error;
