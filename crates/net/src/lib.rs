//! The node's network: one bridge, a namespace with an address for each replica, the fence around them.
//!
//! What is attached stands in the kernel alone (the alias of each veth device): a restart of the node
//! reads it back, a restart of the machine clears it. Only the choice of the subnet is kept in a file.

mod address;
mod claims;
mod error;
mod firewall;
mod link;
mod names;
mod namespace;
mod network;
mod plug;
mod subnet;

pub use error::Error;
pub use network::{Attachment, Network, NetworkConfig};
