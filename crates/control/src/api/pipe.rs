//! Bodies of requests and answers as blocking readers and writers, for code that knows no async.

use std::io::{self, Read, Write};

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// So many pieces may be under way.
const PIECES: usize = 16;
/// How much is written before it is sent on, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A request's body, to be read on a blocking thread.
pub(super) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

/// Begins to read a body.
pub(super) fn reader(body: Body) -> BodyReader {
    let (send, pieces) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut data = body.into_data_stream();
        while let Some(piece) = data.next().await {
            // The reader may have seen enough.
            if send.send(piece.map_err(io::Error::other)).await.is_err() {
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
    pieces: mpsc::Sender<io::Result<Bytes>>,
    now: Vec<u8>,
}

/// A writer and the body that it fills.
pub(super) fn writer() -> (BodyWriter, Body) {
    let (pieces, receive) = mpsc::channel(PIECES);
    let writer = BodyWriter {
        pieces,
        now: Vec::new(),
    };
    (writer, Body::from_stream(ReceiverStream::new(receive)))
}

impl BodyWriter {
    /// Breaks the body off, so that the client sees that it is not whole.
    pub(super) fn fail(self, error: io::Error) {
        // It may be gone.
        let _ = self.pieces.blocking_send(Err(error));
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
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone");
        self.pieces.blocking_send(Ok(piece)).map_err(gone)
    }
}
