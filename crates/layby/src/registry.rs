//! The listener of the embedded registry.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Where it listens when nothing is said: the port that the field's tools take for a registry's.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

/// Opens the listener: where it was asked to, or else at the usual place, or else at any free port of this machine
/// alone.
///
/// # Errors
/// It was asked for a place that cannot be had.
pub(crate) async fn bind(asked: Option<SocketAddr>) -> Result<(TcpListener, SocketAddr)> {
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
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Serves the registry until it is aborted.
pub(crate) fn serve(listener: TcpListener, router: Router) -> JoinHandle<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        // It never ends by itself: errors of single connections are theirs.
        let _ = axum::serve(listener, service).await;
    })
}
