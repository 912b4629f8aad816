//! The listener of virtual addresses: all connections to any of them are redirected to it by the node's network.
//!
//! The kernel remembers where a redirected connection was going. One that was not redirected was going to the listener
//! itself, which is no virtual address, and is closed.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::OriginalDst;
use tokio::net::TcpStream;

use crate::handed::Handed;
use crate::listen::Sockets;

/// Opens `count` sockets on one port of all addresses: that of the last run, which the file `remembered` holds, if it
/// can be had. Connections that the kernel redirects by the rules of the last run then find the new one.
pub(crate) fn open(handed: &Handed, remembered: &Path, count: usize) -> io::Result<Sockets> {
    let known = fs::read_to_string(remembered).unwrap_or_default();
    let known: u16 = known.trim().parse().unwrap_or(0);
    let any = |port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let opened = handed.open(any(known), count);
    let opened = opened.or_else(|_| handed.open(any(0), count))?;
    if opened.addr.port() != known
        && let Err(error) = fs::write(remembered, format!("{}\n", opened.addr.port()))
    {
        let path = remembered.display();
        tracing::warn!("cannot write {path}: {error}; the next start takes another port");
    }
    Ok(opened)
}

/// Where a connection was going before it was redirected (or was not).
pub(crate) fn destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let found = getsockopt(stream, OriginalDst)?;
    let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
    Ok(SocketAddrV4::new(ip, u16::from_be(found.sin_port)).into())
}
