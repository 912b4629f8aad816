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

/// The watch over a peer that waits for an answer.
///
/// One that will send no more may still be reading (`nc -N`, or shutdown(2)), and has a right to its
/// answer. It looks the same as one that closed, until the kernel of that answers a keepalive probe with a
/// reset: that takes up to two minutes.
pub(crate) struct Departure<'s> {
    stream: &'s TcpStream,
    /// It asked for all that it wants: it need not send more.
    asked: bool,
    /// Waits for an error: all that can be seen once it has finished, or sent what is not read yet.
    /// Boxed: few are watched for so long.
    broken: Option<Pin<Box<dyn Future<Output = ()> + 's>>>,
}

impl<'s> Departure<'s> {
    /// Of the peer of `stream`; `asked`: it has sent a request whole, and may finish.
    pub(crate) fn of(stream: &'s TcpStream, asked: bool) -> Self {
        Self {
            stream,
            asked,
            broken: None,
        }
    }

    /// Waits until the peer is gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.broken.is_none() {
            match ready!(poll_peer(self.stream, cx)) {
                Peer::Gone => return Poll::Ready(()),
                Peer::Finished if !self.asked => return Poll::Ready(()),
                Peer::Finished | Peer::Spoke => {}
            }
        }
        let stream = self.stream;
        self.broken
            .get_or_insert_with(|| {
                Box::pin(async move {
                    let _ = stream.ready(Interest::ERROR).await;
                })
            })
            .as_mut()
            .poll(cx)
    }
}
