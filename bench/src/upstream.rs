//! An HTTP upstream that costs next to nothing: every request gets the same bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::args::Args;

/// The answer to every request: `body_bytes` of body, and headers as a service sends them.
pub(crate) fn answer(body_bytes: usize) -> Vec<u8> {
    let body = "x".repeat(body_bytes);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Length: {body_bytes}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// One connection of an upstream.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// How much of the end of a head was seen: requests may come in pieces.
    matched: usize,
}

impl Connection {
    /// Takes over an accepted connection.
    pub(crate) fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, matched: 0 })
    }

    /// Reads what is there and answers each request in it; false: the connection has ended.
    pub(crate) fn serve(&mut self, answer: &[u8], buffer: &mut [u8]) -> bool {
        match self.stream.read(buffer) {
            Ok(0) => false,
            Ok(len) => {
                let ends = self.count_ends(&buffer[..len]);
                (0..ends).all(|_| self.stream.write_all(answer).is_ok())
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// How many heads end in `bytes`. Requests have no bodies here.
    fn count_ends(&mut self, bytes: &[u8]) -> usize {
        const END: &[u8] = b"\r\n\r\n";
        if self.matched == 0 && bytes.ends_with(END) && bytes.len() < 1024 {
            return 1; // as it nearly always is
        }
        let mut ends = 0;
        for byte in bytes {
            self.matched = match self.matched {
                at if END[at] == *byte => at + 1,
                _ => usize::from(*byte == b'\r'),
            };
            if self.matched == END.len() {
                ends += 1;
                self.matched = 0;
            }
        }
        ends
    }
}

/// `layby-bench upstream`.
pub(crate) fn run(args: &mut Args) -> anyhow::Result<()> {
    let listen: SocketAddr = args.need("listen")?;
    let answer = answer(args.get("body")?.unwrap_or(600));
    args.finish()?;
    let socket = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    socket.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(
        socket.as_fd(),
        EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX),
    )?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; 65536];
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue, // as after it was frozen: signal(7)
            count => count?,
        };
        for event in &events[..count] {
            if event.data() == u64::MAX {
                while let Ok((stream, _)) = socket.accept() {
                    let connection = Connection::new(stream)?;
                    let at = u64::try_from(connections.len())?;
                    let interest = EpollEvent::new(EpollFlags::EPOLLIN, at);
                    epoll.add(connection.stream.as_fd(), interest)?;
                    connections.push(Some(connection));
                }
                continue;
            }
            let at = usize::try_from(event.data())?;
            if let Some(connection) = &mut connections[at]
                && !connection.serve(&answer, &mut buffer)
            {
                connections[at] = None;
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
