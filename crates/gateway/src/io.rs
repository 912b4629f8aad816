//! Reading and writing without a system call too many.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

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
    /// Any, whatever it sent before: it is not worth a replica's time any more (as nginx has it).
    Finished,
    /// One before it said anything. What it said may be all that was meant, and wants to be passed on.
    Silent,
    /// None, only a broken connection: it asked for all that it wants, and its answer is under way.
    Broken,
}

/// The watch over a peer that waits for an answer.
pub(crate) struct Departure<'s> {
    stream: &'s TcpStream,
    leaving: Leaving,
    /// Waits for what can be seen behind bytes that are not read yet. Boxed: few are watched for so long.
    last: Option<Pin<Box<dyn Future<Output = ()> + 's>>>,
}

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
        if self.last.is_none() {
            match (ready!(poll_peer(self.stream, cx)), self.leaving) {
                (Peer::Gone, _) => return Poll::Ready(()),
                (Peer::Finished, Leaving::Finished | Leaving::Silent) => return Poll::Ready(()),
                (Peer::Finished, Leaving::Broken) | (Peer::Spoke, _) => {}
            }
        }
        let interest = match self.leaving {
            // Of all that this can be told of, epoll tells only that the peer has finished (EPOLLRDHUP).
            Leaving::Finished => Interest::PRIORITY,
            Leaving::Silent | Leaving::Broken => Interest::ERROR,
        };
        let stream = self.stream;
        self.last
            .get_or_insert_with(|| {
                Box::pin(async move {
                    let _ = stream.ready(interest).await;
                })
            })
            .as_mut()
            .poll(cx)
    }
}
