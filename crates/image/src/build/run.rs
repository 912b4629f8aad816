//! What a RUN step asks of the machine. The builder only orders; a runtime carries it out.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Runs the command of a RUN step.
///
/// It caps CPU and memory of the step so that a build never starves what runs, and kills what the command left
/// behind before it returns.
pub trait RunStep: Send + Sync {
    /// Blocks until the command has ended; gives its exit code (128 and the signal's number where one ended it).
    /// `output` gets what it writes to both of its streams, as it comes.
    ///
    /// # Errors
    /// A sentence for the user when the command could not be run at all.
    fn run(&self, step: &RunRequest, output: &mut dyn FnMut(&[u8])) -> Result<i32, String>;
}

/// A build's place among those that are carried out at a time.
pub trait Place: Send + Sync {
    /// A step of it waits for another build, and does nothing meanwhile.
    fn leave(&self);
    /// It goes on. Blocks until there is a place.
    fn come_back(&self);
}

/// One command, and what it sees.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Unpacked layers in overlayfs form, topmost first; never empty.
    pub lower: Vec<PathBuf>,
    /// An empty folder of the store. Afterwards it holds what the step wrote, in overlayfs form (0/0 character
    /// devices for what is gone, `trusted.overlay.opaque` for what was replaced), owners as they are inside.
    pub upper: PathBuf,
    /// An empty folder on the same file system, for overlayfs.
    pub work: PathBuf,
    /// Program and arguments; the program is looked for in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Absolute; is there.
    pub cwd: String,
    /// `user[:group]`, names or numbers, as an image's config says; empty: root.
    pub user: String,
    /// What is mounted, in this order. Mount points that were not there are not to be left in `upper`.
    pub mounts: Vec<RunMount>,
    /// Which network it has.
    pub network: RunNetwork,
    /// Further lines of `/etc/hosts`: name and address.
    pub hosts: Vec<(String, String)>,
    /// Becomes true when nobody wants the outcome any more: the command is to be killed soon after (look at
    /// [`RunRequest::is_over`] several times a second).
    pub stop: Arc<AtomicBool>,
    /// When it is to be killed at the latest.
    pub deadline: Option<Instant>,
}

impl RunRequest {
    /// Whether it is to be killed now.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.deadline.is_some_and(|at| Instant::now() >= at)
    }
}

/// A mount of a RUN step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// Absolute.
    pub target: String,
    /// What is shown there.
    pub source: RunSource,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunSource {
    /// A folder or a file of the machine, owners inside the same as on disk.
    Bind(PathBuf),
    /// Memory, empty at first.
    Tmpfs {
        /// The most it holds; `None`: as the runner sees fit.
        size_bytes: Option<u64>,
    },
}

/// The network of a RUN step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// Like a service's: the outside by masquerade.
    #[default]
    Default,
    /// Only `lo`.
    None,
    /// The machine's own; the runner may refuse it.
    Host,
}
