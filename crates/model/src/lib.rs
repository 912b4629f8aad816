//! The words, the rules and the decisions of Layby.
//!
//! Nothing here does IO, reads a clock, or draws a random number: facts come in as values, decisions
//! go out as values. What a word means is said once, on its type.

pub mod access;
pub mod advice;
pub mod capacity;
pub mod deadline;
pub mod depends;
pub mod diff;
pub mod engine;
mod error;
pub mod fail;
pub mod hook;
pub mod job;
pub mod mounts;
pub mod names;
pub mod network;
pub mod options;
pub mod plan;
pub mod power;
pub mod privilege;
pub mod replica;
pub mod route;
pub mod scale;
pub mod secret;
pub mod share;
pub mod spec;
pub mod state;

pub use error::error_chain;
pub use names::{AppName, NameError, ReplicaId, RevisionId, ServiceId, ServiceName};
pub use state::{State, Wakefulness};
