//! A TLS connection of which it is told in plain words that it was cut: the library's own lead to its manual.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream with such words.
pub(crate) struct Cut<S>(pub(crate) S);

/// An end that was not announced (RFC 8446, section 6.1): the other side, or the way to it, went in the midst of something.
fn told(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it was cut in the midst of it"),
        _ => error,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(context, buffer));
        Poll::Ready(read.map_err(told))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn that_a_connection_was_cut_is_said_without_a_link() {
        let text = "peer closed connection: https://manual.example/eof";
        let cut = io::Error::new(ErrorKind::UnexpectedEof, text);
        let stream = failing(cut);
        let told = Cut(stream).read_u8().await.expect_err("cut").to_string();
        assert!(told.contains("was cut") && !told.contains("http"), "{told}");
    }

    /// A stream that has nothing but this error.
    fn failing(error: io::Error) -> impl AsyncRead + Unpin {
        let pieces = futures_util::stream::iter([Err::<&[u8], _>(error)]);
        tokio_util::io::StreamReader::new(pieces)
    }
}
