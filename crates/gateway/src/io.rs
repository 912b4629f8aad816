//! Reading and writing without a system call too many.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
