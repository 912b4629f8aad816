//! The registry against the OCI Distribution Specification 1.1, category by category as its conformance suite has them
//! (pull, push, content discovery, content management), and against what a node asks of it beside that.

mod discovery;
mod kit;
mod management;
mod node;
mod pull;
mod push;
