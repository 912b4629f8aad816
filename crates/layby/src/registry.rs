//! The listener of the embedded registry.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connections::{self, Limits};
use crate::parent::{self, Handed};

/// Where it listens when nothing is said: the port that the field's tools take for a registry's.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

/// The name under which a parent is given the listener to hold.
const NAME: &str = "registry";

/// Where it listens if it can.
pub(crate) fn wanted(asked: Option<SocketAddr>) -> SocketAddr {
    asked.unwrap_or(USUAL)
}

/// Opens the listener: where it was asked to, or else at the usual place, or else at any free port of this machine
/// alone. One that was handed down is used instead.
///
/// # Errors
/// It was asked for a place that cannot be had.
pub(crate) async fn bind(
    asked: Option<SocketAddr>,
    handed: &mut Handed,
) -> Result<(TcpListener, SocketAddr)> {
    let there = |addr: SocketAddr| asked.is_none_or(|asked| asked == addr);
    let named = handed.named_tcp(parent::REGISTRY);
    let own = handed.own_tcp(NAME);
    let own = own.filter(|socket| socket.local_addr().is_ok_and(there));
    let found = named.or(own).or_else(|| handed.tcp(wanted(asked)));
    if let Some(listener) = found {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        return Ok((TcpListener::from_std(listener)?, addr));
    }
    let listener = match asked {
        Some(addr) => TcpListener::bind(addr).await.with_context(|| {
            format!("the registry cannot listen on {addr}: name another --registry")
        })?,
        None => match TcpListener::bind(USUAL).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?
            }
            listener => {
                listener.with_context(|| format!("the registry cannot listen on {USUAL}"))?
            }
        },
    };
    handed.let_go(NAME); // one at another place
    handed.hold(NAME, &listener);
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Serves the registry until it is aborted, and with it every connection.
pub(crate) fn serve(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        let plain = |stream| async { Ok(stream) };
        let (_never, closing) = watch::channel(false);
        connections::serve(listener, router, Limits::default(), plain, closing).await;
    })
}
