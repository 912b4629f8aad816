//! The async client of one replica's shim: one connection, which also tells every change of its state.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layby_runtime::protocol::{
    Answer, Do, ExecResult, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, Message, Request, SandboxState,
    Trouble,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};

/// How long a shim may take beyond what an order itself takes. It is one process with nothing else to do, but the
/// machine may be slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a shim may take to be gone once it has quit.
const ENDING: Duration = Duration::from_secs(1);

/// How many requests may wait to be written; who has one more waits itself.
const QUEUE: usize = 16;

/// A connection to a shim.
#[derive(Debug)]
pub(super) struct Shim {
    /// To [`write_lines`], which alone writes: whoever asks may give up at any moment, and a line cut short would spoil
    /// every later one.
    lines: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Rings when the connection has ended.
    over: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Who waits for which reply.
    waiting: BTreeMap<u64, oneshot::Sender<Result<Answer, Trouble>>>,
    next: u64,
    state: SandboxState,
    gone: bool,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shim {
    /// Connects to the shim that listens at `socket`, and asks for its state. From then on `changed` is called after
    /// each change of it, and once when the connection ends; a state is known before the reply that it comes from.
    pub(super) async fn connect(
        socket: &Path,
        changed: impl Fn() + Send + 'static,
    ) -> Result<Self, Trouble> {
        let stream = open(socket).await.map_err(|error| {
            trouble(format!("no shim answers at {}: {error}", socket.display()))
        })?;
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared::default());
        let (lines, queue) = mpsc::channel(QUEUE);
        tokio::spawn(listen(read, Arc::clone(&shared), changed));
        tokio::spawn(write_lines(write, queue));
        let shim = Self { lines, shared };
        let state = shim.ask_state(Do::Watch, Duration::ZERO).await?;
        // A newer one may have come with a change in between; it is told again then.
        shim.shared.with(|inner| {
            if inner.state == SandboxState::default() {
                inner.state = state;
            }
        });
        Ok(shim)
    }

    /// The state as last heard; `None` once the shim is gone.
    pub(super) fn state(&self) -> Option<SandboxState> {
        self.shared
            .with(|inner| (!inner.gone).then(|| inner.state.clone()))
    }

    /// Starts the containers; `takes`: how long those may take that have to end first.
    pub(super) async fn start(&self, takes: Duration) -> Result<SandboxState, Trouble> {
        self.ask_state(Do::Start, takes).await
    }

    /// Stops the containers; `grace`: how long they may take.
    pub(super) async fn stop(&self, grace: Duration) -> Result<SandboxState, Trouble> {
        self.ask_state(Do::Stop, grace).await
    }

    /// Stops the containers and ends the shim.
    pub(super) async fn quit(&self, grace: Duration) -> Result<SandboxState, Trouble> {
        self.ask_state(Do::Quit, grace).await
    }

    /// Waits until one that has quit is gone; whether it is.
    pub(super) async fn has_ended(&self) -> bool {
        let ended = async {
            loop {
                let rings = self.shared.over.notified();
                if self.state().is_none() {
                    return;
                }
                rings.await;
            }
        };
        tokio::time::timeout(ENDING, ended).await.is_ok()
    }

    /// Ends a container as if it had ended by itself.
    pub(super) async fn end(
        &self,
        container: String,
        grace_ms: Option<u64>,
    ) -> Result<(), Trouble> {
        let order = Do::End {
            container,
            grace_ms,
        };
        // One that does not know the request could not say whose it was either.
        if self
            .state()
            .is_some_and(|state| state.version < order.version())
        {
            let text = "its shim is of an older Layby, which cannot end one container alone";
            return Err(trouble(text.to_owned()));
        }
        self.ask_state(order, Duration::ZERO).await.map(|_| ())
    }

    /// Runs a command.
    pub(super) async fn exec(
        &self,
        container: String,
        argv: Vec<String>,
        timeout_ms: u64,
    ) -> Result<ExecResult, Trouble> {
        let order = Do::Exec {
            container,
            argv,
            timeout_ms,
        };
        match self.ask(order, Duration::from_millis(timeout_ms)).await? {
            Answer::Exec(result) => Ok(result),
            Answer::State(_) => Err(trouble("the shim answered an exec with a state".to_owned())),
        }
    }

    async fn ask_state(&self, order: Do, takes: Duration) -> Result<SandboxState, Trouble> {
        match self.ask(order, takes).await? {
            Answer::State(state) => Ok(state),
            Answer::Exec(_) => Err(trouble(
                "the shim answered with an exec's result".to_owned(),
            )),
        }
    }

    async fn ask(&self, order: Do, takes: Duration) -> Result<Answer, Trouble> {
        let (send, receive) = oneshot::channel();
        let gone = || trouble("the shim has ended".to_owned());
        let id = self.shared.with(|inner| {
            inner.next += 1;
            if !inner.gone {
                inner.waiting.insert(inner.next, send);
            }
            inner.next
        });
        let request = Request {
            v: order.version(),
            id,
            order,
        };
        let answered = async {
            let line = line(&request)?;
            self.lines.send(line).await.map_err(|_| gone())?;
            receive.await.unwrap_or_else(|_| Err(gone()))
        };
        let answered = tokio::time::timeout(takes.saturating_add(PATIENCE), answered).await;
        self.shared.with(|inner| inner.waiting.remove(&id));
        answered.unwrap_or_else(|_| Err(trouble("the shim does not answer".to_owned())))
    }
}

/// Opens a connection; waits while the shim is too busy to take one more, which is no sign that it is gone.
async fn open(socket: &Path) -> io::Result<UnixStream> {
    let begun = tokio::time::Instant::now();
    loop {
        match UnixStream::connect(socket).await {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

/// A request as it goes over the wire. One that is too long is refused here: the shim would cut the connection, and
/// a replica without one counts as lost.
fn line(request: &Request) -> Result<Vec<u8>, Trouble> {
    let line = serde_json::to_vec(request);
    let mut line = line.map_err(|error| trouble(format!("cannot ask the shim: {error}")))?;
    line.push(b'\n');
    if line.len() > MAX_REQUEST_BYTES {
        return Err(trouble(format!(
            "the command is too long: it may take {MAX_REQUEST_BYTES} bytes at most"
        )));
    }
    Ok(line)
}

/// Writes whole lines, until nobody asks any more or the shim does not listen.
async fn write_lines(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = queue.recv().await {
        // What went wrong, [`listen`] sees too, and tells those who wait.
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Reads what the shim says, until it ends.
async fn listen(read: OwnedReadHalf, shared: Arc<Shared>, changed: impl Fn()) {
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_MESSAGE_BYTES as u64;
        let got = (&mut read).take(limit).read_until(b'\n', &mut line).await;
        if !got.is_ok_and(|bytes| bytes > 0) {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(Message::Ok { id, ok }) => answer(&shared, id, Ok(ok)),
            Ok(Message::Error { id, error }) => answer(&shared, id, Err(error)),
            // Those who are handed descriptors have connections of their own.
            Ok(Message::Attached { .. }) => {}
            Ok(Message::State { state }) => {
                shared.with(|inner| inner.state = state);
                changed();
            }
            // Not a reason to give its containers up.
            Err(error) => tracing::warn!("a shim said what cannot be understood: {error}"),
        }
    }
    shared.with(|inner| {
        inner.gone = true;
        inner.waiting.clear();
    });
    shared.over.notify_waiters();
    changed();
}

fn answer(shared: &Shared, id: u64, answer: Result<Answer, Trouble>) {
    if let Some(waiting) = shared.with(|inner| inner.waiting.remove(&id)) {
        // Who gave up waiting need not be told.
        let _ = waiting.send(answer);
    }
}

/// Trouble that another try may overcome.
fn trouble(message: String) -> Trouble {
    Trouble {
        fatal: false,
        message,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_order_given_up_in_the_midst_spoils_no_later_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("shim.sock");
        let listener = UnixListener::bind(&socket).expect("bound");
        let state = || Answer::State(SandboxState::default());
        let (resume, resumed) = oneshot::channel::<()>();
        // A shim that answers the first order and then is busy, until it is told to go on.
        let busy = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepted");
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut resumed = Some(resumed);
            while let Some(line) = lines.next_line().await.expect("read") {
                let request: Request = serde_json::from_str(&line).expect("a whole request");
                let reply = Message::Ok {
                    id: request.id,
                    ok: state(),
                };
                let mut reply = serde_json::to_vec(&reply).expect("json");
                reply.push(b'\n');
                write.write_all(&reply).await.expect("written");
                if let Some(resumed) = resumed.take() {
                    resumed.await.expect("told");
                }
            }
        });
        let shim = Shim::connect(&socket, || ()).await.expect("connected");
        // Together more than a socket takes, so that one is cut in the midst of its line.
        for _ in 0..12 {
            let argv = vec!["x".repeat(MAX_REQUEST_BYTES - 1024)];
            let asked = shim.exec(String::new(), argv, 60_000);
            let given_up = tokio::time::timeout(Duration::from_millis(20), asked).await;
            assert!(given_up.is_err(), "nobody answers yet");
        }
        resume.send(()).expect("it waits");
        let answer = shim.start(Duration::ZERO).await.expect("an answer");
        assert_eq!(answer, SandboxState::default());
        drop(shim);
        busy.await.expect("every line was whole");
    }

    #[test]
    fn a_request_longer_than_a_shim_reads_is_refused() {
        let request = |words: usize| Request {
            v: 1,
            id: 1,
            order: Do::Exec {
                container: String::new(),
                argv: vec!["x".repeat(words)],
                timeout_ms: 1,
            },
        };
        assert!(line(&request(MAX_REQUEST_BYTES - 1024)).is_ok());
        assert!(line(&request(MAX_REQUEST_BYTES)).is_err());
    }
}
