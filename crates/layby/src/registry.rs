//! The listener of the embedded registry.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpUserTimeout;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt;

use crate::parent::Handed;

/// So many connections at a time; clients open a few each.
const CONNECTIONS: usize = 1_024;
/// How long the head of a request may take to come, also of the next one on a connection.
const HEAD: Duration = Duration::from_secs(30);
/// How long what was sent may wait for its reader, in milliseconds.
const UNREAD_MS: u32 = 60_000;
/// Between a connection that could not be taken and the next.
const AFTER_ERROR: Duration = Duration::from_millis(100);

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
    let own = handed.own_tcp(NAME);
    let own = own.filter(|socket| socket.local_addr().is_ok_and(there));
    if let Some(listener) = own.or_else(|| handed.tcp(wanted(asked))) {
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
    tokio::spawn(serve_within(listener, router, CONNECTIONS, HEAD))
}

/// With so many connections at a time, each of which sends a request's head within `head` or is closed.
async fn serve_within(listener: TcpListener, router: Router, connections: usize, head: Duration) {
    let room = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        // Those that find no room wait in the kernel.
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        while open.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or there are no files left: both pass.
                tracing::debug!(%error, "the registry could not take a connection");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        // Who does not read holds a connection only for so long (tcp(7)).
        let _ = setsockopt(&stream, TcpUserTimeout, &UNREAD_MS);
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        });
        open.spawn(async move {
            let _turn = turn;
            // Errors of single connections are theirs.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(head)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Extension;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Whether the other end has closed within a few seconds.
    async fn is_closed(stream: &mut TcpStream) -> bool {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        read.await.is_ok()
    }

    #[tokio::test]
    async fn who_says_nothing_is_hung_up_on_and_makes_room_for_others() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let addr = listener.local_addr().expect("it has one");
        let said = |Extension(ConnectInfo(peer)): Extension<ConnectInfo<SocketAddr>>| async move {
            peer.ip().to_string()
        };
        let router = Router::new().fallback(said);
        let serving = tokio::spawn(serve_within(
            listener,
            router,
            2,
            Duration::from_millis(200),
        ));
        let mut silent = TcpStream::connect(addr).await.expect("to connect");
        let mut slow = TcpStream::connect(addr).await.expect("to connect");
        slow.write_all(b"GET / HTTP/1.1\r\nhost: ")
            .await
            .expect("to write");
        // There is room for two: this one waits until they are gone.
        let mut third = TcpStream::connect(addr).await.expect("to connect");
        let request = b"GET / HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n\r\n";
        third.write_all(request).await.expect("to write");
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), third.read_to_string(&mut answer));
        read.await.expect("it gets its turn").expect("to read");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"),
            "{answer}"
        );
        assert!(is_closed(&mut silent).await && is_closed(&mut slow).await);
        serving.abort();
    }
}
