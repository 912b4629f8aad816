//! Why a gateway cannot start.

use std::io;
use std::net::SocketAddr;

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP address, or any for connections to virtual addresses, cannot be listened on.
    #[error("cannot listen on {addr}: {why}; stop what uses it or choose another address")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What is in the way, in a few words.
        why: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A worker thread or its runtime cannot be started.
    #[error("cannot start a gateway thread: the machine is out of threads or file descriptors")]
    Thread {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
