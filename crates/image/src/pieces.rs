//! A bounded pipe between threads, of whole pieces: what one has read, the next need not copy.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// So many pieces may be under way: enough that no side waits for the other's every step.
const PIECES: usize = 16;

/// The writing end. Dropped without [`Sender::end`], the reader sees that it is not whole.
pub(crate) struct Sender(SyncSender<Option<Vec<u8>>>);

/// The reading end.
pub(crate) struct Pipe {
    pieces: Receiver<Option<Vec<u8>>>,
    now: Vec<u8>,
    at: usize,
    ended: bool,
}

/// A pipe.
pub(crate) fn pipe() -> (Sender, Pipe) {
    let (send, pieces) = sync_channel(PIECES);
    let pipe = Pipe {
        pieces,
        now: Vec::new(),
        at: 0,
        ended: false,
    };
    (Sender(send), pipe)
}

impl Sender {
    /// Waits until there is room. `false`: nobody reads any more.
    pub(crate) fn send(&mut self, piece: Vec<u8>) -> bool {
        self.0.send(Some(piece)).is_ok()
    }

    /// Says that this was all.
    pub(crate) fn end(self) {
        // A reader that is gone needs no end.
        let _ = self.0.send(None);
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.now.len() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.recv() {
                Ok(Some(piece)) => (self.now, self.at) = (piece, 0),
                Ok(None) => self.ended = true,
                Err(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::BrokenPipe,
                        "it was broken off",
                    ));
                }
            }
        }
        let n = buffer.len().min(self.now.len() - self.at);
        buffer[..n].copy_from_slice(&self.now[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
