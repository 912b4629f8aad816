//! The bodies of requests and answers, and how a file becomes one without being held in memory.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

/// A request's body.
pub type Incoming = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// An answer's body.
pub type Outgoing = UnsyncBoxBody<Bytes, io::Error>;

/// So much of a file is read at once; there are two of these for each answer under way.
const PIECE_BYTES: usize = 256 << 10;

/// No body.
pub(super) fn empty() -> Outgoing {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is in memory.
pub(super) fn whole(bytes: Bytes) -> Outgoing {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The next `length` bytes of a file, each piece read when the disk has a turn for it.
pub(super) fn of_file(file: File, length: u64, disk: Arc<Semaphore>) -> Outgoing {
    if length == 0 {
        return empty();
    }
    FileBody {
        left: length,
        reading: Some(read(file, length, Arc::clone(&disk))),
        disk,
    }
    .boxed_unsync()
}

/// Reads on a thread that may block, one piece ahead of what is sent; no thread waits for the client.
struct FileBody {
    /// Bytes that were not sent yet.
    left: u64,
    reading: Option<JoinHandle<Read>>,
    disk: Arc<Semaphore>,
}

/// The file and what was read of it, or the thread that broke off.
type Read = Result<(File, io::Result<Bytes>), JoinError>;

fn read(file: File, left: u64, disk: Arc<Semaphore>) -> JoinHandle<Read> {
    tokio::spawn(async move {
        let _turn = disk.acquire().await;
        read_piece(file, left).await
    })
}

fn read_piece(mut file: File, left: u64) -> JoinHandle<(File, io::Result<Bytes>)> {
    tokio::task::spawn_blocking(move || {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut piece = vec![0; length];
        let done = file.read_exact(&mut piece).map(|()| Bytes::from(piece));
        (file, done)
    })
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let done = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let (file, piece) = done.and_then(|read| read).map_err(io::Error::other)?;
        let piece = piece?;
        self.left -= piece.len() as u64;
        if self.left > 0 {
            self.reading = Some(read(file, self.left, Arc::clone(&self.disk)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
