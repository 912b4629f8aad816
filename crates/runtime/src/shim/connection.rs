//! One client of a shim: lines in, lines out, neither without bounds.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::protocol::{Do, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, Message, Request, VERSION};

/// How much may lie unread for a client before it is cut off.
const MAX_UNREAD_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// One client's connection.
pub(super) struct Connection {
    /// Never used twice.
    pub(super) number: u64,
    /// Whether it is told of every change of the state.
    pub(super) watches: bool,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    open: bool,
}

/// Who waits for what: a client's number and its request's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) client: u64,
    pub(super) id: u64,
}

/// What every request has, whatever it asks for.
#[derive(Deserialize)]
struct Head {
    v: u32,
    id: u64,
}

impl Connection {
    /// `None` when the stream cannot be kept from blocking.
    pub(super) fn new(number: u64, stream: UnixStream) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        Some(Self {
            number,
            watches: false,
            stream,
            input: Vec::new(),
            output: Vec::new(),
            open: true,
        })
    }

    /// False when the other side is gone, or was cut off.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// What to poll, and for what.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        let out = if self.output.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::POLLOUT
        };
        PollFd::new(self.stream.as_fd(), PollFlags::POLLIN | out)
    }

    /// The socket, for a helper that hands descriptors over. `None` while a message is on its way: it would get into
    /// the midst of that.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        (self.output.is_empty() && self.open).then(|| self.stream.as_fd())
    }

    /// Writes all that is left, and waits a second for it at most.
    pub(super) fn flush(&mut self) {
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_write_timeout(Some(Duration::from_secs(1)));
        let _ = self.stream.write_all(&self.output);
        self.output.clear();
    }

    /// Reads what is there and takes whole lines out of it.
    pub(super) fn read(&mut self, requests: &mut Vec<(Asked, Result<Do>)>) {
        let mut buffer = [0; 4096];
        while self.open {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.open = false,
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.open = false,
            }
            while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                requests.push(self.parse(&line));
            }
            if self.input.len() > MAX_REQUEST_BYTES {
                self.open = false;
            }
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    fn parse(&self, line: &[u8]) -> (Asked, Result<Do>) {
        let asked = |id| Asked {
            client: self.number,
            id,
        };
        let head: Head = match serde_json::from_slice(line) {
            Ok(head) => head,
            Err(error) => {
                let message = format!("this is no request: {error}");
                return (asked(0), Err(Error::Failed(message)));
            }
        };
        if head.v > VERSION {
            let message = format!(
                "this shim speaks version {VERSION} of its protocol, and not {} yet: deploy the service again",
                head.v
            );
            return (asked(head.id), Err(Error::Failed(message)));
        }
        match serde_json::from_slice::<Request>(line) {
            Ok(request) => (asked(head.id), Ok(request.order)),
            Err(error) => {
                let message = format!("this is no request: {error}");
                (asked(head.id), Err(Error::Failed(message)))
            }
        }
    }

    /// Sends a message; one who does not read for too long is cut off.
    pub(super) fn say(&mut self, message: &Message) {
        // Plain data always serializes.
        if serde_json::to_writer(&mut self.output, message).is_ok() {
            self.output.push(b'\n');
        }
        if self.output.len() > MAX_UNREAD_BYTES {
            self.open = false;
        }
        self.write();
    }

    /// Writes what fits.
    pub(super) fn write(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => {
                    self.output.drain(..length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.open &= error.kind() == ErrorKind::WouldBlock;
                    return;
                }
            }
        }
        self.output = Vec::new();
    }
}
