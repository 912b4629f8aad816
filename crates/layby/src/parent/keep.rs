//! `layby serve --keep`: holds the node's listening sockets, starts the node, and starts it again when it dies.
//!
//! What systemd does for a service with `Restart=` and a store of descriptors, for machines without it, by the same
//! words: the node gives its sockets away by sd_notify(3), and the next one takes them over by sd_listen_fds(3). While
//! there is no node, connections wait in them. What this process was handed down itself goes on to each node.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use listenfd::ListenFd;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, close};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::notify;
use crate::exit::{Code, Exit};
use crate::paths::Paths;
use crate::process;

/// So many sockets are held; the node's further ones go with it.
const MAX_SOCKETS: usize = 4096;
/// A node that lived so long was well: it is started again at once.
const WELL: Duration = Duration::from_secs(10);
/// The pause before the second start in a row, which doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest word that is listened to, in bytes.
const WORD_BYTES: usize = 4096;

/// Keeps a node until it ends by itself, or this process is asked to end.
///
/// # Errors
/// What keeps the first node from being ready is told by that; its exit code is handed on.
pub(crate) fn keep(paths: &Paths) -> Result<()> {
    paths.create()?;
    let _lock = process::lock_keeper(paths)?;
    process::log_to_stderr();
    process::allow_many_connections();
    let parents = handed_down()?;
    // One thread: between the layout of the sockets and the start of the node nobody else opens a descriptor.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let socket = paths.run_dir.join("keeper.sock");
    let ended = runtime.block_on(run(socket.clone(), parents));
    let _ = fs::remove_file(socket);
    // The node could not: this process was still in there.
    if let Ok(_alone) = process::lock(paths) {
        paths.remove_run_dir();
    }
    ended
}

/// What this process was handed down, and its names (sd_listen_fds(3)). To be called before there is any other thread.
fn handed_down() -> Result<Vec<(String, OwnedFd)>> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut sockets = ListenFd::from_env();
    let mut all = Vec::new();
    for at in 0..sockets.len() {
        let name = names.next().unwrap_or_default();
        // Both close it on exec; each node gets a copy.
        if let Ok(Some(socket)) = sockets.take_tcp_listener(at) {
            all.push((name, socket.into()));
        } else if let Ok(Some(socket)) = sockets.take_unix_listener(at) {
            all.push((name, socket.into()));
        } else {
            bail!("what is handed down as number {at} of LISTEN_FDS is no socket to listen on");
        }
    }
    Ok(all)
}

async fn run(path: PathBuf, parents: Vec<(String, OwnedFd)>) -> Result<()> {
    let mut keeper = Keeper::new(path, parents)?;
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut starts_in_a_row = 0;
    loop {
        let mut node = keeper.start()?;
        let started = Instant::now();
        let (status, asked) = tokio::select! {
            status = keeper.listen_until_ended(&mut node) => (status?, false),
            _ = term.recv() => (keeper.end(&mut node).await?, true),
            _ = int.recv() => (keeper.end(&mut node).await?, true),
        };
        if asked || status.success() || !keeper.was_ready {
            return as_result(status);
        }
        starts_in_a_row = match started.elapsed() >= WELL {
            true => 0,
            false => starts_in_a_row + 1,
        };
        let pause = pause(starts_in_a_row);
        match pause.is_zero() {
            true => tracing::warn!("the node ended ({status}); starting it again"),
            false => tracing::warn!("the node ended ({status}); starting it again in {pause:?}"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
        }
    }
}

/// The pause before a start after so many that came to nothing.
fn pause(starts_in_a_row: u32) -> Duration {
    match starts_in_a_row {
        0 | 1 => Duration::ZERO, // the first death is an accident
        n => (PAUSE * (1 << (n - 2).min(10))).min(PAUSE_MAX),
    }
}

/// The node has said why it ended.
fn as_result(status: ExitStatus) -> Result<()> {
    match status.success() || status.signal() == Some(Signal::SIGTERM as i32) {
        true => Ok(()),
        false => Err(Exit::new(Code::Failed, "").into()),
    }
}

/// What is kept from one node to the next.
struct Keeper {
    program: PathBuf,
    arguments: Vec<OsString>,
    path: PathBuf,
    words: UnixDatagram,
    /// What this process was handed down, by the names that its own parent gave; several may have one.
    parents: Vec<(String, OwnedFd)>,
    sockets: BTreeMap<String, OwnedFd>,
    /// Some node was ready: what it was started with is right.
    was_ready: bool,
}

impl Keeper {
    fn new(path: PathBuf, parents: Vec<(String, OwnedFd)>) -> Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {} // left by one that was killed
        }
        let words = UnixDatagram::bind(&path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            program: env::current_exe()?,
            arguments: env::args_os()
                .skip(1)
                .filter(|arg| arg != "--keep")
                .collect(),
            path,
            words,
            parents,
            sockets: BTreeMap::new(),
            was_ready: false,
        })
    }

    /// Starts a node, and hands it the sockets.
    fn start(&self) -> Result<Child> {
        let (first, laid_out) = self.lay_out()?;
        let names: Vec<&str> = self.all().map(|(name, _)| name).collect();
        let node = Command::new(&self.program)
            .args(&self.arguments)
            .env("LAYBY_KEEP", "false")
            .env(notify::SOCKET, &self.path)
            .env("LISTEN_FDS", laid_out.len().to_string())
            .env("LISTEN_FDS_FIRST_FD", first.to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env_remove("LISTEN_PID") // it is not known yet; who starts the node knows what else it starts
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()));
        for number in laid_out {
            let _ = close(number); // the node has its own
        }
        node
    }

    /// What a node gets.
    fn all(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        let parents = self.parents.iter().map(|(name, socket)| (name, socket));
        let all = parents.chain(&self.sockets);
        all.map(|(name, socket)| (name.as_str(), socket))
    }

    /// Copies of the sockets that outlive an exec, one after another from some number on.
    fn lay_out(&self) -> Result<(RawFd, Vec<RawFd>)> {
        let open = fs::read_dir("/proc/self/fd")?.flatten();
        let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
        let first = numbers.max().unwrap_or(2) + 1;
        let mut copies = Vec::new();
        for (_, socket) in self.all() {
            let wanted = first + copies.len() as RawFd;
            copies.push(fcntl(socket, FcntlArg::F_DUPFD(wanted))?);
        }
        Ok((first, copies))
    }

    /// Listens to the node until it has ended.
    async fn listen_until_ended(&mut self, node: &mut Child) -> Result<ExitStatus> {
        loop {
            tokio::select! {
                status = node.wait() => {
                    while self.hear() {} // its last words
                    return Ok(status?);
                }
                readable = self.words.readable() => {
                    readable?;
                    while self.hear() {}
                }
            }
        }
    }

    /// Asks the node to end, and waits until it has.
    async fn end(&mut self, node: &mut Child) -> Result<ExitStatus> {
        if let Some(pid) = node.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM); // it may just have ended
        }
        self.listen_until_ended(node).await
    }

    /// Takes in one word of the node; false: there is none.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; WORD_BYTES];
        let words = &self.words;
        let heard = words.try_io(Interest::READABLE, || {
            layby_runtime::receive(words.as_fd(), &mut buffer)
        });
        let Ok((length, descriptors)) = heard else {
            return false;
        };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let name = value("FDNAME").unwrap_or_default();
        if value("READY") == Some("1") {
            self.was_ready = true;
        }
        if value("FDSTOREREMOVE") == Some("1") {
            self.sockets.remove(name);
        }
        if value("FDSTORE") == Some("1") && self.sockets.len() < MAX_SOCKETS && !name.contains(':')
        {
            let sockets = descriptors
                .into_iter()
                .map(|socket| (name.to_owned(), socket));
            self.sockets.extend(sockets);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_dies_again_and_again_is_started_less_and_less_often() {
        let pauses: Vec<u128> = (0..=10).map(|n| pause(n).as_millis()).collect();
        assert_eq!(
            pauses,
            [0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }

    #[tokio::test]
    async fn sockets_are_kept_until_they_are_let_go_and_handed_on_in_a_row() {
        let dir = tempfile::tempdir().expect("a folder");
        let parents = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let parents = vec![("api".to_owned(), parents.into())];
        let mut keeper = Keeper::new(dir.path().join("keeper"), parents).expect("a keeper");
        let node = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        node.connect(&keeper.path).expect("it listens");
        let say = |text: &str, socket: Option<RawFd>| {
            use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
            use std::os::fd::AsRawFd;
            let fds = socket.as_slice();
            let rights = [ControlMessage::ScmRights(fds)];
            let rights = if fds.is_empty() { &[] } else { &rights[..] };
            let bytes = [std::io::IoSlice::new(text.as_bytes())];
            sendmsg::<()>(node.as_raw_fd(), &bytes, rights, MsgFlags::empty(), None).expect("sent");
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        for name in ["a", "b", "c"] {
            say(&format!("FDSTORE=1\nFDNAME={name}"), Some(fd));
        }
        say("READY=1\nFDSTORE=1\nFDNAME=x:y", Some(fd));
        say("FDSTOREREMOVE=1\nFDNAME=b", None);
        keeper.words.readable().await.expect("words");
        while keeper.hear() {}
        assert!(keeper.was_ready);
        assert_eq!(keeper.sockets.keys().collect::<Vec<_>>(), ["a", "c"]);
        let (first, copies) = keeper.lay_out().expect("room");
        assert_eq!(copies, [first, first + 1, first + 2]);
        let names: Vec<&str> = keeper.all().map(|(name, _)| name).collect();
        assert_eq!(names, ["api", "a", "c"]);
        copies
            .into_iter()
            .for_each(|copy| close(copy).expect("it is open"));
    }
}
