//! A blocking client of a shim: for tests, and for tools that do one thing at a time.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result, Trying};
use crate::protocol::{
    Answer, Do, ExecResult, MAX_MESSAGE_BYTES, Message, Request, SandboxState, Trouble, VERSION,
};

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
            v: VERSION,
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
                Message::Error {
                    id,
                    error: Trouble { fatal, message },
                } if id == self.next => {
                    return Err(if fatal {
                        Error::Fatal(message)
                    } else {
                        Error::Failed(message)
                    });
                }
                // At most one for each change, which only our own orders and containers' ends bring.
                Message::State { state } => self.states.push_back(state),
                Message::Ok { .. } | Message::Error { .. } => {}
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
            return Err(Error::Failed("the shim has ended".to_owned()));
        }
        serde_json::from_slice(&line)
            .map_err(std::io::Error::from)
            .trying(what)
    }
}
