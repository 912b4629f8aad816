//! Phase 5: forward. Gets a connection to the claimed replica; [`crate::exchange`] uses it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::balance::Claim;
use crate::pool::Upstream;
use crate::worker::Worker;

/// How long connecting to a replica may take. It is on this machine: longer means that it is not there.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one attempt may take. Where nobody answers, the line before the replica's socket is full (listen(2)), and the
/// kernel would ask again only after 1 s, and after 2 s more.
const ATTEMPT: Duration = Duration::from_millis(100);

/// A connection to `port` of the claimed replica: an idle one, unless a new one is asked for.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    claim: &Claim,
    port: u16,
    new: bool,
) -> io::Result<Upstream> {
    if !new {
        let idle = worker
            .pool
            .borrow_mut()
            .take(claim.upstream().replica, port);
        if let Some(upstream) = idle {
            return Ok(upstream);
        }
    }
    let addr = SocketAddr::new(claim.upstream().ip, port);
    Box::pin(open(addr)).await.map(Upstream::new)
}

/// Opens a connection.
pub(crate) async fn open(addr: SocketAddr) -> io::Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match tokio::time::timeout(ATTEMPT, TcpStream::connect(addr)).await {
            Ok(stream) => {
                let stream = stream?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(late) if begun.elapsed() >= CONNECT => return Err(late.into()),
            Err(_) => {}
        }
    }
}
