//! Linux containers: the shim that holds them, their limits, their root file system, their logs.
//!
//! All `unsafe` of the project lives in this crate. It knows no tokio and none of the project's other
//! crates: its types are plain data.
//!
//! A *sandbox* is one or more containers in one network namespace and one parent cgroup, held by one
//! *shim*: a process of its own that outlives whoever started it ([`shim`]). The node starts it with
//! [`shim::spawn`] and talks to it over a socket ([`protocol`]); freezing ([`freezer`]) goes past it.

mod error;
pub mod protocol;
mod spec;

pub use error::Error;
pub use spec::{Bundle, ContainerConfig, SandboxSpec};
