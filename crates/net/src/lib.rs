//! The node's network: a bridge for each app, a namespace with an address for each replica, the fence around them,
//! the name server inside.
//!
//! What is attached stands in the kernel alone (the aliases of the bridges and of each veth device): a restart of the
//! node reads it back, a restart of the machine clears it. Only the choice of the node's range is kept in a file.

mod address;
mod bridges;
mod claims;
mod dns;
mod doors;
mod error;
mod fence;
mod foreign;
mod link;
mod names;
mod namespace;
mod network;
mod nft;
mod plug;
mod subnet;
mod survey;
mod watch;

pub use dns::NameServers;
pub use error::Error;
pub use network::{AppAliases, AppNames, Attachment, Network, NetworkConfig};
pub use subnet::APP_ADDRESSES;
