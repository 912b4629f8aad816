//! What the node is as a process: alone on its data, with room for many connections, heard on standard error.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::paths::Paths;

/// Keeps a second node from the same data; the lock goes with the process, however it ends.
///
/// # Errors
/// A node runs on it already, or the file cannot be opened.
pub(crate) fn lock(paths: &Paths) -> Result<File> {
    hold(&paths.lock(), paths)
}

/// Keeps a second keeper from the same data, also while it has no node.
///
/// # Errors
/// As [`lock`].
pub(crate) fn lock_keeper(paths: &Paths) -> Result<File> {
    hold(&paths.data_dir.join("keeper"), paths)
}

fn hold(lock: &Path, paths: &Paths) -> Result<File> {
    let file = File::create(lock).with_context(|| format!("cannot open {}", lock.display()))?;
    // `layby up` and `layby node stop` look whether it is held, and hold it themselves for that moment.
    let mut tries = 0;
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && tries < 20 {
        tries += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "a node runs on {} already: use it, or end it with `layby node stop`",
                paths.data_dir.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", lock.display()))
        }
    }
}

/// Each connection of the gateway is a file; the usual soft limit of 1,024 is for programs that use select(2).
pub(crate) fn allow_many_connections() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// Writes the node's log where its starter reads it.
pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LAYBY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,layby=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
