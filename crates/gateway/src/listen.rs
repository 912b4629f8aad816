//! Sockets to accept from: one per worker for each address, all on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use layby_model::route::Socket;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use crate::portowner;
use crate::route::Entry;
use crate::worker::{InUse, Opening, Order};

/// What may wait in a socket's queue until its worker accepts, also while there is none and somebody else holds the socket.
/// As many as the kernel allows by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// A peer that vanished without a word is noticed after this (and some probes).
const KEEPALIVE_IDLE_S: u32 = 60;
const KEEPALIVE_INTERVAL_S: u32 = 10;

/// The sockets of one address.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Where they really listen.
    pub(crate) addr: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
    /// They are handles of one socket, which somebody else holds as well: what is not accepted is not lost.
    pub(crate) shared: bool,
}

impl Sockets {
    /// The orders by which workers accept from them.
    pub(crate) fn orders(self, entry: Entry, in_use: &InUse) -> impl Iterator<Item = Order> {
        let in_use = InUse::clone(in_use);
        self.sockets.into_iter().map(move |socket| {
            Order::Open(Opening {
                entry,
                socket,
                shared: self.shared,
                in_use: InUse::clone(&in_use),
            })
        })
    }
}

/// Opens `count` sockets on `addr`; with port 0 all on the same free port.
pub(crate) fn open(addr: SocketAddr, count: usize) -> io::Result<Sockets> {
    // SO_REUSEPORT would share the port with any other process of the same user that sets it too: a
    // socket without it finds out first whether the port is free. It never listens: what came to it
    // would be reset when it closes.
    let probe = TcpListener::from(bound(addr, false)?);
    let addr = probe.local_addr()?;
    drop(probe);
    let sockets = (0..count).map(|_| {
        let fd = bound(addr, true)?;
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(TcpListener::from(fd))
    });
    Ok(Sockets {
        addr,
        sockets: sockets.collect::<io::Result<_>>()?,
        shared: false,
    })
}

/// Opens one socket on `addr`, alone; gives also where it really listens.
pub(crate) fn open_one(addr: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let fd = bound(addr, false)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    let socket = TcpListener::from(fd);
    Ok((socket.local_addr()?, socket))
}

/// A bound socket.
fn bound(addr: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &shared)?;
    set_options(&fd)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(fd)
}

/// Accepted sockets inherit what is set here, which saves setting it on each.
pub(crate) fn set_options(fd: &impl AsFd) -> io::Result<()> {
    setsockopt(fd, sockopt::TcpNoDelay, &true)?;
    setsockopt(fd, sockopt::KeepAlive, &true)?;
    setsockopt(fd, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(fd, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
    Ok(())
}

/// What stands in the way of listening there, in a few words, with the culprit if it can be seen.
pub(crate) fn why(socket: Socket, error: &io::Error) -> String {
    let Socket { addr, is_udp } = socket;
    let port = match is_udp {
        true => format!("UDP port {}", addr.port()),
        false => format!("port {}", addr.port()),
    };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => {
            let owner = portowner::find(socket).map_or_else(
                || "another process".to_owned(),
                |owner| format!("{} (pid {})", owner.name, owner.pid),
            );
            format!("{port} on {} is in use by {owner}", addr.ip())
        }
        Some(Errno::EADDRNOTAVAIL) => {
            format!("this machine does not have the address {}", addr.ip())
        }
        Some(Errno::EACCES) => format!("{port} needs root"),
        _ => format!("{port} on {} cannot be opened: {error}", addr.ip()),
    }
}
