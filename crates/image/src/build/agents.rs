//! `RUN --mount=type=ssh`: a socket in the step that leads to somebody's SSH agent. No key comes here, only what is asked of
//! the agent and what it answers; and no connection outlives its step.

use std::fs::{File, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

/// Leads a connection of a step to the agent; what it gives breaks the connection off when dropped. Must not block.
pub type Agent = Arc<dyn Fn(UnixStream) -> Box<dyn Send> + Send + Sync>;

/// So many connections a step may make through one socket; each `ssh` makes one or two.
const MAX_CONNECTIONS: usize = 4096;
/// How long to wait where no connection can be taken: this process may have too many files open.
const PAUSE: Duration = Duration::from_millis(100);
/// The socket's name in its folder.
const NAME: &str = "agent";

/// A socket that leads to an agent until this is dropped.
pub(super) struct Door {
    dir: TempDir,
    over: Arc<AtomicBool>,
    /// The listener itself, to end its waiting by.
    listening: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Makes the socket in a folder of its own.
    pub(super) fn open(
        dir: TempDir,
        agent: &Agent,
        mode: u32,
        owner: (u32, u32),
    ) -> io::Result<Self> {
        let (_folder, short) = short(&dir)?;
        let listener = UnixListener::bind(short)?;
        let path = dir.path().join(NAME);
        if owner != (0, 0) {
            std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))?;
        }
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        // The kernel knows no other kind of socket (unix(7)).
        let listening = UnixStream::from(OwnedFd::from(listener.try_clone()?));
        let over = Arc::new(AtomicBool::new(false));
        let (agent, is_over) = (Arc::clone(agent), Arc::clone(&over));
        let serving = std::thread::Builder::new().name("build-agent".to_owned());
        let thread = serving.spawn(move || serve(&listener, &agent, &is_over))?;
        Ok(Self {
            dir,
            over,
            listening,
            thread: Some(thread),
        })
    }

    /// Where the socket is.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // It waits for a connection: from here on accept(2) fails. This takes no descriptor and no room in the queue.
        let _ = self.listening.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // What it had open goes with it.
            let _ = thread.join();
        }
    }
}

/// A name of the socket, and what has to be open meanwhile: names of sockets have at most 107 bytes (unix(7)), and the
/// store may lie deep.
fn short(dir: &TempDir) -> io::Result<(File, String)> {
    let folder = File::open(dir.path())?;
    let path = format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd());
    Ok((folder, path))
}

fn serve(listener: &UnixListener, agent: &Agent, over: &AtomicBool) {
    let mut open = Vec::new();
    loop {
        let accepted = listener.accept();
        if over.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            // One too many is closed at once.
            Ok((stream, _)) if open.len() < MAX_CONNECTIONS => open.push(agent(stream)),
            Ok(_) => {}
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
