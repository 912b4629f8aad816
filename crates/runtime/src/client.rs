//! A blocking client of a shim: for tests, and for tools that do one thing at a time.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::error::{Error, Result, Trying};
use crate::protocol::{
    Answer, Do, ExecResult, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, Message, Request, SandboxState,
    Trouble,
};
use crate::sys;

/// How long a shim may take to begin what was asked of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most descriptors that come with a message.
const MAX_ENDS: usize = 3;

/// What a request came to that hands descriptors over.
#[derive(Debug)]
pub enum Begun {
    /// It is under way: the client's ends, and where the reply will come.
    Attached(Vec<OwnedFd>, Reply),
    /// It is done.
    Done(ExecResult),
}

/// The connection of something under way. Dropping it ends that.
#[derive(Debug)]
pub struct Reply {
    /// Where the reply comes, as the next line.
    pub stream: UnixStream,
    /// The beginning of that line, which came with the ends.
    pub begun: Vec<u8>,
}

impl Reply {
    /// Waits for the reply.
    ///
    /// # Errors
    /// When what was under way failed, or the shim is gone.
    pub fn wait(mut self) -> Result<ExecResult> {
        let mut byte = [0];
        while !self.begun.contains(&b'\n') {
            let read = self.stream.read(&mut byte);
            match read.trying(|| "hear from the shim".into())? {
                0 => return Err(ended()),
                _ => self.begun.extend_from_slice(&byte),
            }
        }
        done(&self.begun)
    }
}

/// Reads the reply to what was under way.
///
/// # Errors
/// The reply says that it failed ([`Error::Fatal`]: there is no such container or file), or is none.
pub fn done(line: &[u8]) -> Result<ExecResult> {
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let message = serde_json::from_slice(line)
        .map_err(std::io::Error::from)
        .trying(|| "understand the shim".into())?;
    match message {
        Message::Ok {
            ok: Answer::Exec(result),
            ..
        } => Ok(result),
        Message::Error { error, .. } => Err(from_trouble(error)),
        Message::Ok { .. } | Message::Attached { .. } | Message::State { .. } => Err(
            Error::Failed("the shim answered what nobody asked".to_owned()),
        ),
    }
}

/// Asks the shim at `socket` for something that hands descriptors over ([`Do::Attach`], [`Do::Copy`]), on a
/// connection of its own, and waits until it has begun.
///
/// # Errors
/// When it could not be begun ([`Error::Fatal`]: there is no such container or file), or the shim is of a Layby that
/// did not know it yet.
pub fn begin(socket: &Path, order: Do) -> Result<Begun> {
    let what = || format!("ask the shim at {}", socket.display());
    let mut stream = UnixStream::connect(socket).trying(what)?;
    stream.set_read_timeout(Some(PATIENCE)).trying(what)?;
    let request = Request {
        v: order.version(),
        id: 1,
        order,
    };
    let mut line = serde_json::to_vec(&request)
        .map_err(std::io::Error::from)
        .trying(what)?;
    line.push(b'\n');
    if line.len() > MAX_REQUEST_BYTES {
        return Err(Error::Failed(format!(
            "the command is too long: it may take {MAX_REQUEST_BYTES} bytes at most"
        )));
    }
    stream.write_all(&line).trying(what)?;
    let mut ends = Vec::new();
    let mut came = Vec::new();
    let end = loop {
        if let Some(end) = came.iter().position(|b| *b == b'\n') {
            break end + 1;
        }
        if receive_with_ends(&stream, &mut came, &mut ends).trying(what)? == 0 {
            return Err(ended());
        }
    };
    let begun = came.split_off(end);
    match serde_json::from_slice(&came) {
        Ok(Message::Attached { .. }) if !ends.is_empty() => {
            stream.set_read_timeout(None).trying(what)?;
            Ok(Begun::Attached(ends, Reply { stream, begun }))
        }
        // One that does not know the request does not know whose it is either.
        Ok(Message::Error { id: 0, .. }) => Err(Error::Failed(
            "its shim is of an older Layby, which cannot do this: deploy the service again"
                .to_owned(),
        )),
        _ => done(&came).map(Begun::Done),
    }
}

fn receive_with_ends(
    stream: &UnixStream,
    came: &mut Vec<u8>,
    ends: &mut Vec<OwnedFd>,
) -> std::io::Result<usize> {
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; MAX_ENDS]);
    let length = {
        let mut into = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                ends.extend(received.into_iter().map(sys::received));
            }
        }
        message.bytes
    };
    came.extend_from_slice(&buffer[..length]);
    Ok(length)
}

fn ended() -> Error {
    Error::Failed("the shim has ended".to_owned())
}

fn from_trouble(Trouble { fatal, message }: Trouble) -> Error {
    if fatal {
        Error::Fatal(message)
    } else {
        Error::Failed(message)
    }
}

/// A connection to a shim.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    next: u64,
    /// States that came while a reply was waited for.
    states: VecDeque<SandboxState>,
}

impl Client {
    /// Connects to the shim that listens at `socket`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(socket: &Path) -> Result<Self> {
        let what = || format!("connect to the shim at {}", socket.display());
        let stream = UnixStream::connect(socket).trying(what)?;
        Ok(Self {
            stream: BufReader::new(stream),
            next: 0,
            states: VecDeque::new(),
        })
    }

    /// Starts the containers.
    ///
    /// # Errors
    /// [`Error::Fatal`] when no later try can succeed.
    pub fn start(&mut self) -> Result<SandboxState> {
        self.ask_state(Do::Start)
    }

    /// Stops the containers and waits until they have ended.
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn stop(&mut self) -> Result<SandboxState> {
        self.ask_state(Do::Stop)
    }

    /// How things are.
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn state(&mut self) -> Result<SandboxState> {
        self.ask_state(Do::State)
    }

    /// How things are; from now on [`Client::next_state`] tells every change.
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn watch(&mut self) -> Result<SandboxState> {
        self.ask_state(Do::Watch)
    }

    /// Stops the containers and ends the shim.
    ///
    /// # Errors
    /// When something could not be removed; the shim ends all the same.
    pub fn quit(&mut self) -> Result<SandboxState> {
        self.ask_state(Do::Quit)
    }

    /// Ends a container (empty: the first) as if it had ended by itself.
    ///
    /// # Errors
    /// When it does not run, is frozen, or there is none of this name ([`Error::Fatal`]).
    pub fn end(&mut self, container: &str, grace_ms: Option<u64>) -> Result<SandboxState> {
        self.ask_state(Do::End {
            container: container.to_owned(),
            grace_ms,
        })
    }

    /// Runs a command in a container (empty: the first) and waits for its end.
    ///
    /// # Errors
    /// [`Error::Fatal`] when it cannot be executed.
    pub fn exec(&mut self, container: &str, argv: &[&str], timeout_ms: u64) -> Result<ExecResult> {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        match self.ask(Do::Exec {
            container: container.to_owned(),
            argv,
            timeout_ms,
        })? {
            Answer::Exec(result) => Ok(result),
            Answer::State(_) => Err(Error::Failed(
                "the shim answered an exec with a state".to_owned(),
            )),
        }
    }

    /// The next change of the state, after [`Client::watch`]. `None` when none came in time.
    ///
    /// # Errors
    /// When the shim is gone.
    pub fn next_state(&mut self, timeout: Duration) -> Result<Option<SandboxState>> {
        if let Some(state) = self.states.pop_front() {
            return Ok(Some(state));
        }
        let what = || "listen to the shim".to_owned();
        self.stream
            .get_ref()
            .set_read_timeout(Some(timeout))
            .trying(what)?;
        let read = self.receive();
        self.stream.get_ref().set_read_timeout(None).trying(what)?;
        match read {
            Ok(Message::State { state }) => Ok(Some(state)),
            Ok(_) => Err(Error::Failed(
                "the shim answered what nobody asked".to_owned(),
            )),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn ask_state(&mut self, order: Do) -> Result<SandboxState> {
        match self.ask(order)? {
            Answer::State(state) => Ok(state),
            Answer::Exec(_) => Err(Error::Failed(
                "the shim answered with an exec's result".to_owned(),
            )),
        }
    }

    fn ask(&mut self, order: Do) -> Result<Answer> {
        self.next += 1;
        let request = Request {
            v: order.version(),
            id: self.next,
            order,
        };
        let what = || "ask the shim".to_owned();
        let mut line = serde_json::to_vec(&request)
            .map_err(std::io::Error::from)
            .trying(what)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).trying(what)?;
        loop {
            match self.receive()? {
                Message::Ok { id, ok } if id == self.next => return Ok(ok),
                Message::Error { id, error } if id == self.next => {
                    return Err(from_trouble(error));
                }
                // At most one for each change, which only our own orders and containers' ends bring.
                Message::State { state } => self.states.push_back(state),
                Message::Ok { .. } | Message::Error { .. } | Message::Attached { .. } => {}
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let what = || "hear from the shim".to_owned();
        let mut line = Vec::new();
        let limit = MAX_MESSAGE_BYTES as u64;
        (&mut self.stream)
            .take(limit)
            .read_until(b'\n', &mut line)
            .trying(what)?;
        if line.is_empty() {
            return Err(ended());
        }
        serde_json::from_slice(&line)
            .map_err(std::io::Error::from)
            .trying(what)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::protocol::Attach;

    #[test]
    fn a_shim_that_does_not_know_a_request_yet_is_said_to_be_old() {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).expect("bound");
        // What one of the first version says: it cannot read whose request it is.
        let old = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).expect("a request");
            let answer = r#"{"id":0,"error":{"fatal":false,"message":"this is no request"}}"#;
            writeln!(stream.get_mut(), "{answer}").expect("answered");
            line
        });
        let error = begin(&socket, Do::Attach(Attach::default())).expect_err("refused");
        assert!(error.to_string().contains("older Layby"), "{error}");
        let line = old.join().expect("no panic");
        assert!(line.starts_with(r#"{"v":2,"#), "{line}");
    }
}
