//! Reading and writing without a system call too many.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::buffer::Buffer;

/// Reads what is there into `buffer`; 0: the peer will send no more.
///
/// This goes through tokio's `AsyncRead`, not `try_read`: a read that did not fill the buffer tells tokio
/// that the socket is empty, which saves the next read from finding that out with a system call.
pub(crate) fn poll_read(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut Buffer,
) -> Poll<io::Result<usize>> {
    let mut room = ReadBuf::new(buffer.room());
    ready!(Pin::new(stream).poll_read(cx, &mut room))?;
    let len = room.filled().len();
    buffer.put(len);
    Poll::Ready(Ok(len))
}

/// Writes all of `bytes`.
pub(crate) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
) -> io::Result<()> {
    poll_fn(|cx| {
        while !bytes.is_empty() {
            let len = ready!(Pin::new(&mut *stream).poll_write(cx, bytes))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes = &bytes[len..];
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// What can be told of a peer without reading what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Its connection is broken.
    Gone,
    /// It will send no more; it may still be reading.
    Finished,
    /// It sent something: what comes after that cannot be seen.
    Spoke,
}

/// Waits until something can be told of the peer of `stream`.
pub(crate) fn poll_peer(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Peer> {
    let mut byte = [0];
    match ready!(stream.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
        Ok(0) => Poll::Ready(Peer::Finished),
        Ok(_) => Poll::Ready(Peer::Spoke),
        Err(_) => Poll::Ready(Peer::Gone),
    }
}

/// Whether there is something to be read now, asked of the kernel: tokio may not have heard of it yet.
pub(crate) fn has_input(stream: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut [0], flags).is_ok_and(|len| len > 0)
}

/// Which end of what a peer sends is taken for its going away.
///
/// One that will send no more may still be reading (`nc -N`, or shutdown(2)). It looks the same as one that closed, until
/// the kernel of that answers a keepalive probe with a reset: that takes up to two minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Any, whatever it sent before, once it has waited for [`LINGERS`] after it: then it is not worth a replica's time any more.
    Finished,
    /// One before it said anything. What it said may be all that was meant, and wants to be passed on.
    Silent,
    /// None, only a broken connection: it asked for all that it wants, and its answer is under way.
    Broken,
}

/// So long whoever will send no more is still taken for one that reads: most that wait are served by then.
const LINGERS: Duration = Duration::from_secs(3);

/// The watch over a peer that waits for an answer.
pub(crate) struct Departure<'s> {
    stream: &'s TcpStream,
    leaving: Leaving,
    /// Waits for what can be seen behind bytes that are not read yet. Boxed: few are watched for so long.
    last: Option<Last<'s>>,
}

type Last<'s> = Pin<Box<dyn Future<Output = ()> + 's>>;

impl<'s> Departure<'s> {
    /// Of the peer of `stream`.
    pub(crate) fn of(stream: &'s TcpStream, leaving: Leaving) -> Self {
        Self {
            stream,
            leaving,
            last: None,
        }
    }

    /// Waits until the peer is gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = self.stream;
        let last = match &mut self.last {
            Some(last) => last,
            None => {
                let last = match (ready!(poll_peer(stream, cx)), self.leaving) {
                    (Peer::Gone, _) | (Peer::Finished, Leaving::Silent) => return Poll::Ready(()),
                    (Peer::Finished, Leaving::Finished) => Box::pin(lingers(stream)) as Last<'s>,
                    (Peer::Spoke, Leaving::Finished) => Box::pin(finishes(stream)),
                    (Peer::Spoke, Leaving::Silent | Leaving::Broken)
                    | (Peer::Finished, Leaving::Broken) => Box::pin(breaks(stream)),
                };
                self.last.insert(last)
            }
        };
        last.as_mut().poll(cx)
    }
}

/// Until the connection is broken.
async fn breaks(stream: &TcpStream) {
    let _ = stream.ready(Interest::ERROR).await;
}

/// The same, of one that has finished: for a while only.
async fn lingers(stream: &TcpStream) {
    let _ = timeout(LINGERS, breaks(stream)).await;
}

/// The same, of one whose end stands behind bytes that are not read: of all that this can be told of, epoll tells only that the
/// peer has finished (EPOLLRDHUP).
async fn finishes(stream: &TcpStream) {
    let _ = stream.ready(Interest::PRIORITY).await;
    lingers(stream).await;
}
