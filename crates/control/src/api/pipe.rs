//! Bodies of requests and answers as blocking readers and writers, for code that knows no async.
//!
//! Such code goes at its client's pace on a thread that the node has few of: a client that stalls is given up,
//! and [`Plane::at_clients_pace`](crate::plane::Plane::at_clients_pace) bounds how many there are.

use std::io::{self, Read, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::plane::CLIENT_IDLE;

/// So many pieces may be under way.
const PIECES: usize = 16;
/// So much of a body is still taken in when its answer is known, in bytes.
const UNREAD_BYTES: usize = 64 << 20;
/// How much is written before it is sent on, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A request's body, to be read on a blocking thread.
pub(super) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

/// Begins to read a body; it breaks off when nothing comes for [`CLIENT_IDLE`].
pub(super) fn reader(body: Body) -> BodyReader {
    reader_within(body, CLIENT_IDLE)
}

fn reader_within(body: Body, idle: Duration) -> BodyReader {
    let (send, pieces) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut data = body.into_data_stream();
        let mut unread = 0;
        loop {
            let piece = match tokio::time::timeout(idle, data.next()).await {
                Ok(Some(piece)) => piece.map_err(io::Error::other),
                Ok(None) => return,
                Err(_) => Err(stalled("sent", idle)),
            };
            let last = piece.is_err();
            let length = piece.as_ref().map_or(0, Bytes::len);
            if send.send(piece).await.is_err() {
                // The reader has seen enough. A client that is cut while it sends may never read why.
                unread += length;
            }
            if last || unread > UNREAD_BYTES {
                return;
            }
        }
    });
    BodyReader {
        pieces,
        now: Bytes::new(),
    }
}

impl Read for BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.now = piece?,
                None => return Ok(0),
            }
        }
        let n = into.len().min(self.now.len());
        into[..n].copy_from_slice(&self.now.split_to(n));
        Ok(n)
    }
}

/// An answer's body, to be written on a blocking thread.
pub(super) struct BodyWriter {
    pieces: mpsc::Sender<Bytes>,
    ended: oneshot::Sender<io::Result<()>>,
    now: Vec<u8>,
    runtime: Handle,
    idle: Duration,
}

/// A writer and the body that it fills; writing fails when nothing is taken for [`CLIENT_IDLE`].
pub(super) fn writer() -> (BodyWriter, Body) {
    writer_within(CLIENT_IDLE)
}

fn writer_within(idle: Duration) -> (BodyWriter, Body) {
    let (pieces, receive) = mpsc::channel(PIECES);
    let (ended, end) = oneshot::channel();
    let writer = BodyWriter {
        pieces,
        ended,
        now: Vec::new(),
        runtime: Handle::current(),
        idle,
    };
    let end = stream::once(async move {
        match end.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => Some(Err(io::Error::other("the answer was broken off"))),
        }
    });
    let end = end.filter_map(std::future::ready);
    let body = ReceiverStream::new(receive).map(Ok).chain(end);
    (writer, Body::from_stream(body))
}

impl BodyWriter {
    /// Ends the body. Without this, or with an error, the client sees that it is not whole.
    pub(super) fn end(self, how: io::Result<()>) {
        // It may be gone.
        let _ = self.ended.send(how);
    }
}

impl Write for BodyWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.now.extend_from_slice(data);
        if self.now.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.now.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.now));
        let taken = async { tokio::time::timeout(self.idle, self.pieces.send(piece)).await };
        match self.runtime.block_on(taken) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the client is gone",
            )),
            Err(_) => Err(stalled("took", self.idle)),
        }
    }
}

fn stalled(what: &str, idle: Duration) -> io::Error {
    let text = format!("the client {what} nothing for {} s", idle.as_secs_f32());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_client_that_stalls_in_mid_body_is_given_up() {
        let begun = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"begun"))]);
        let body = Body::from_stream(begun.chain(stream::pending()));
        let mut reader = reader_within(body, SHORT);
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            (reader.read_to_end(&mut text).map(|_| ()), text)
        });
        let (ended, text) = read.await.expect("no panic");
        assert_eq!(text, b"begun");
        let error = ended.expect_err("it is not whole");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_and_sees_that_it_is_not_whole() {
        let (mut writer, body) = writer_within(SHORT);
        let written = tokio::task::spawn_blocking(move || {
            let written = writer.write_all(&vec![0; PIECE_BYTES * (PIECES + 9)]);
            let mut more = Ok(());
            for _ in 0..PIECES + 9 {
                more = more.and_then(|()| writer.write_all(&[0; PIECE_BYTES]));
            }
            written.and(more)
        });
        let error = written.await.expect("no panic").expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        let ends: Vec<_> = body.into_data_stream().collect().await;
        assert!(ends.last().is_some_and(Result::is_err));
    }

    #[tokio::test]
    async fn a_body_that_is_ended_is_whole() {
        let (mut writer, body) = writer_within(SHORT);
        let written = tokio::task::spawn_blocking(move || {
            let written = writer.write_all(b"all").and_then(|()| writer.flush());
            writer.end(written);
        });
        let pieces: Vec<_> = body.into_data_stream().collect().await;
        written.await.expect("no panic");
        let pieces: Result<Vec<Bytes>, _> = pieces.into_iter().collect();
        assert_eq!(pieces.expect("whole"), ["all"]);
    }
}
