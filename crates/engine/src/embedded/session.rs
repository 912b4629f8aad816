//! A command with somebody at its other end: its bytes go between the node and its pipes or terminal, past the shim,
//! which only says how it ended.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use layby_model::access::{ExecEvent, ExecInput, ExecSession, TtySize};
use layby_model::engine::{BoxFuture, EngineError};
use layby_runtime::client::{self, Begun, Reply};
use layby_runtime::protocol::{Attach, Do, ExecResult, MAX_MESSAGE_BYTES};
use layby_runtime::{Error, tty};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::blocking::blocking;

/// How much is moved at once.
const PIECE_BYTES: usize = 32 * 1024;
/// So many pieces may be under way to whoever reads them.
const PIECES: usize = 8;
/// How long more output may be on its way when the command has ended.
const LINGER: Duration = Duration::from_millis(300);
/// So much of it: more does not fit in a pipe. What goes on writing is another process.
const LINGER_BYTES: usize = 128 * 1024;

/// Runs a command through the shim that listens at `socket`.
pub(super) async fn attach(socket: PathBuf, request: Attach) -> Result<ExecSession, EngineError> {
    let with_stdin = request.stdin;
    let (ends, reply) = begin(socket, Do::Attach(request)).await?;
    let broken = |error: io::Error| {
        EngineError::Failed(format!("cannot use the ends of the command: {error}"))
    };
    let (send, receive) = mpsc::channel(PIECES);
    let (input, outputs) = sides(ends, with_stdin).map_err(broken)?;
    let reply = UnixReply::new(reply).map_err(broken)?;
    tokio::spawn(run(outputs, reply, send));
    Ok(ExecSession {
        output: Box::pin(ReceiverStream::new(receive)),
        input: Box::new(input),
    })
}

/// Begins something at a shim whose other ends come here.
pub(super) async fn begin(
    socket: PathBuf,
    order: Do,
) -> Result<(Vec<OwnedFd>, Reply), EngineError> {
    match ask(socket, order).await? {
        Begun::Attached(ends, reply) => Ok((ends, reply)),
        Begun::Done(result) => Err(EngineError::Failed(format!(
            "the shim began nothing: {}",
            result.output
        ))),
    }
}

/// Asks a shim on a connection of its own.
pub(super) async fn ask(socket: PathBuf, order: Do) -> Result<Begun, EngineError> {
    let begun = blocking(move || client::begin(&socket, order)).await;
    begun.map_err(|error| explain(&error))
}

/// What no later try can mend is not there.
pub(super) fn explain(error: &Error) -> EngineError {
    if error.fatal() {
        EngineError::NotFound(error.sentence())
    } else {
        EngineError::Failed(error.sentence())
    }
}

/// Where a shim says how something ended; dropping it ends that.
pub(super) struct UnixReply {
    stream: UnixStream,
    line: Vec<u8>,
}

impl UnixReply {
    pub(super) fn new(reply: Reply) -> io::Result<Self> {
        reply.stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(reply.stream)?,
            line: reply.begun,
        })
    }

    /// Waits for it.
    pub(super) async fn wait(&mut self) -> Result<ExecResult, EngineError> {
        if !self.line.contains(&b'\n') {
            let limit = MAX_MESSAGE_BYTES as u64;
            let mut read = BufReader::new(&mut self.stream).take(limit);
            let read = read.read_until(b'\n', &mut self.line).await;
            if !read.is_ok_and(|bytes| bytes > 0) {
                return Err(EngineError::Failed("the shim has ended".to_owned()));
            }
        }
        client::done(&self.line).map_err(|error| explain(&error))
    }
}

/// Where input goes.
enum Input {
    Terminal(pipe::Sender),
    Pipe(pipe::Sender),
    Closed,
}

/// The way in, and the ways out.
fn sides(ends: Vec<OwnedFd>, with_stdin: bool) -> io::Result<(Input, Vec<pipe::Receiver>)> {
    let mut ends = ends.into_iter();
    match (ends.next(), ends.next(), ends.next()) {
        (Some(input), Some(output), Some(errors)) => {
            let input = match with_stdin {
                true => Input::Pipe(pipe::Sender::from_owned_fd(input)?),
                false => Input::Closed,
            };
            let outputs = [output, errors].map(pipe::Receiver::from_owned_fd);
            Ok((input, outputs.into_iter().collect::<io::Result<_>>()?))
        }
        (Some(terminal), _, _) => {
            // It is no pipe, but is read, written and waited for like one; the shim made it not to block.
            let copy = terminal.try_clone()?;
            let input = Input::Terminal(pipe::Sender::from_owned_fd_unchecked(copy)?);
            let output = pipe::Receiver::from_owned_fd_unchecked(terminal)?;
            Ok((input, vec![output]))
        }
        (None, _, _) => Err(io::Error::other("none came")),
    }
}

impl ExecInput for Input {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let written = match self {
                Self::Pipe(way) | Self::Terminal(way) => way.write_all(bytes).await,
                Self::Closed => Err(io::ErrorKind::BrokenPipe.into()),
            };
            written.map_err(|_| EngineError::Failed("the command reads no more".to_owned()))
        })
    }

    fn close(&mut self) {
        match self {
            Self::Pipe(_) | Self::Closed => *self = Self::Closed,
            Self::Terminal(terminal) => {
                // As who sits at it would: Ctrl-D. One whose buffer is full has other worries.
                let _ = terminal.try_write(&[4]);
            }
        }
    }

    fn resize(&mut self, size: TtySize) -> Result<(), EngineError> {
        match self {
            Self::Pipe(_) | Self::Closed => Ok(()),
            Self::Terminal(terminal) => {
                tty::set_size(terminal, size.columns, size.rows).map_err(|error| {
                    EngineError::Failed(format!("the terminal cannot be resized: {error}"))
                })
            }
        }
    }
}

/// Sends what comes from a command on, and last how it ended. Ends early, and the command with it, when nobody reads.
async fn run(outputs: Vec<pipe::Receiver>, mut reply: UnixReply, send: mpsc::Sender<ExecEvent>) {
    let (ended, end) = watch::channel(false);
    let events: [fn(Vec<u8>) -> ExecEvent; 2] = [ExecEvent::Stdout, ExecEvent::Stderr];
    let copies = outputs.into_iter().zip(events);
    let copies = copies.map(|(output, event)| copy(output, event, send.clone(), end.clone()));
    let all = futures_util::future::join_all(copies);
    let replied = async {
        let result = reply.wait().await;
        ended.send_replace(true);
        result
    };
    let (_, result) = tokio::select! {
        both = async { tokio::join!(all, replied) } => both,
        () = send.closed() => return,
    };
    let last = match result {
        Ok(result) => {
            if !result.output.is_empty() {
                let mut sentence = result.output.into_bytes();
                sentence.push(b'\n');
                let _ = send.send(ExecEvent::Stderr(sentence)).await;
            }
            ExecEvent::Exit(result.code)
        }
        Err(error) => ExecEvent::Failed(error.to_string()),
    };
    // Whoever has gone need not be told.
    let _ = send.send(last).await;
}

/// Sends one output on, until its end; when the command has ended, what was on its way.
async fn copy(
    mut output: pipe::Receiver,
    event: fn(Vec<u8>) -> ExecEvent,
    send: mpsc::Sender<ExecEvent>,
    mut end: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = LINGER_BYTES;
    loop {
        let lingered = async {
            if end.wait_for(|ended| *ended).await.is_ok() {
                tokio::time::sleep(LINGER).await;
            }
        };
        let read = tokio::select! {
            biased;
            read = output.read(&mut buffer) => read,
            () = lingered => return,
        };
        // Linux has no word for a terminal in which nobody is any more but EIO: any error is the end.
        let Ok(length @ 1..) = read else { return };
        if *end.borrow() {
            left = left.saturating_sub(length);
        }
        if send.send(event(buffer[..length].to_vec())).await.is_err() || left == 0 {
            return;
        }
    }
}
