//! The process that a node was started by: what it hands down, what it is told, and Layby's own for where there is no
//! other.

mod handed;
mod keep;
mod notify;

pub(crate) use handed::{API, HTTP, Handed, REGISTRY};
pub(crate) use keep::keep;
