//! What can go wrong with the node's network.

use std::io;
use std::path::PathBuf;

/// Why the network could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name given for the node does not fit into device names.
    #[error("{name:?} cannot name a node's network: use 1 to 9 of a-z and 0-9")]
    Name {
        /// As it was given.
        name: String,
    },
    /// The name given for a replica does not fit into a file's name.
    #[error(
        "{id:?} cannot name a network namespace: use 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'"
    )]
    Id {
        /// As it was given.
        id: String,
    },
    /// No netlink socket could be opened.
    #[error("cannot talk to the kernel's network (rtnetlink)")]
    Socket(#[source] io::Error),
    /// The kernel refused a change of the network.
    #[error("the kernel refused to {what}")]
    Netlink {
        /// What was asked for: a verb and what it is done to.
        what: String,
        /// Its answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was to be done.
        what: String,
        /// Its answer.
        #[source]
        source: nix::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `nft` is missing or refused its input.
    #[error(
        "nft could not {what}: {output} (is Debian's package nftables installed, and is this root?)"
    )]
    Nft {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        output: String,
    },
    /// Every candidate for the subnet is in use on this machine.
    #[error(
        "no /16 in 10.0.0.0/8 or 172.16.0.0/12 is free on this machine: remove routes or addresses of those ranges"
    )]
    NoSubnet,
    /// Every address of an app's subnet is attached.
    #[error("all addresses of {subnet} are in use: remove replicas of the app first")]
    NoAddress {
        /// The subnet.
        subnet: String,
    },
    /// Every subnet of the node belongs to an app.
    #[error(
        "all {} networks of the node are in use: take an app down first",
        crate::subnet::APPS
    )]
    NoBridge,
    /// The name given for an app cannot be noted on a device.
    #[error("{app:?} cannot name an app's network: use 1 to 63 of a-z, 0-9 and '-'")]
    App {
        /// As it was given.
        app: String,
    },
    /// The thread that makes a namespace could not run.
    #[error("cannot start a thread to make a network namespace")]
    Thread(#[source] io::Error),
    /// The name server of the containers cannot listen.
    #[error("the name server of the containers cannot be opened")]
    Dns(#[source] io::Error),
    /// Parts of a tear-down failed; all others were done.
    #[error("not all of the network could be removed: {}", list(.0))]
    Leftovers(Vec<Error>),
}

fn list(errors: &[Error]) -> String {
    let texts: Vec<String> = errors.iter().map(whole).collect();
    texts.join("; ")
}

/// An error with its causes, in one line.
pub(crate) fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Collects the errors of a tear-down, which never stops at the first.
#[derive(Debug, Default)]
pub(crate) struct Collect(Vec<Error>);

impl Collect {
    pub(crate) fn add(&mut self, result: Result<(), Error>) {
        self.0.extend(result.err());
    }

    pub(crate) fn finish(mut self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            _ => Err(Error::Leftovers(self.0)),
        }
    }
}
