//! The name server of the containers: their own app's names, and for all else the machine's resolvers, or those that the
//! container has of its own.
//!
//! It has a thread of its own, so that a container that asks without end slows nobody but the others that ask. The
//! fence leads questions from a bridge's port 53 here and lets nobody else in; whose they are is told by their
//! address, which the fence has checked. Nothing is cached: the machine's resolver does that.

mod answer;
mod forward;
mod own;
mod resolvers;
mod serve;

pub use own::NameServers;
pub(crate) use own::{Own, OwnServers};
pub(crate) use resolvers::machines as machines_resolvers;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;

use tokio::sync::watch;

use crate::subnet::Subnet;
use crate::{AppAliases, AppNames};

/// How many ports are tried until one is free for UDP and TCP.
const TRIES: u8 = 16;

/// All by which questions are answered.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The node's range.
    pub(crate) node: Subnet,
    /// The apps, by the numbers of their bridges.
    pub(crate) apps: BTreeMap<u8, String>,
    /// The names of each app.
    pub(crate) names: Arc<AppNames>,
    /// Their names for hosts elsewhere.
    pub(crate) aliases: Arc<AppAliases>,
}

/// A running name server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Dns {
    /// The port that it listens on, on all addresses.
    pub(crate) port: u16,
    /// Who is asked for containers that have name servers of their own.
    pub(crate) own: Arc<OwnServers>,
    directory: watch::Sender<Option<Arc<Directory>>>,
}

impl Dns {
    /// Opens it, on `port` if that can be had. Questions wait until [`Dns::set`] is called for the first time: an
    /// answer that there is no such name would be believed.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let (udp, tcp) = listen(port)?;
        let port = udp.local_addr()?.port();
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (directory, watched) = watch::channel(None);
        let own = Arc::new(OwnServers::default());
        let served = Arc::clone(&own);
        std::thread::Builder::new()
            .name("layby-dns".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve::serve(udp, tcp, watched, served)) {
                    tracing::error!("the name server of the containers has ended: {error}");
                }
            })?;
        Ok(Self {
            port,
            own,
            directory,
        })
    }

    /// Answers by `directory` from now on.
    pub(crate) fn set(&self, directory: Directory) {
        self.directory.send_replace(Some(Arc::new(directory)));
    }
}

/// Two sockets on one port, `wanted` if that is free.
fn listen(wanted: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let open = |port: u16| {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        let port = udp.local_addr()?.port();
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        Ok((udp, tcp))
    };
    let mut opened = open(wanted);
    for _ in 0..TRIES {
        if opened.is_ok() {
            break;
        }
        opened = open(0);
    }
    opened
}
