//! The engines: what runs replicas, behind the one trait of `layby_model::engine`.
//!
//! Every engine keeps its replicas in a [`roster`], which accepts orders and says what is to be done
//! next by the pure rules of [`lifecycle`]; what an engine adds is how a thing is done.

pub mod embedded;
pub mod fake;
pub mod lifecycle;
pub mod roster;
mod slots;
mod span;
