//! Locks between threads and processes: flock(2) on files in the store. Dropping the file releases the lock.
//!
//! Order, so that nobody waits in a circle: content, then one unpack stripe, then the index. Who has the trash waits for none.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Error;
use crate::error::io_error;

/// Held shared by whoever adds content that nothing refers to yet; exclusively by the garbage collection.
pub(crate) const CONTENT: &str = "content";
/// Held by whoever deletes what was collected.
pub(crate) const TRASH: &str = "trash";
/// Held while index.json is read and replaced.
pub(crate) const INDEX: &str = "index";

/// How often a lock is asked for that is not waited for endlessly.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until nobody holds the lock exclusively.
pub(crate) fn shared(dir: &Path, name: &str) -> Result<File, Error> {
    let path = dir.join(name);
    let file = open(&path)?;
    file.lock_shared().map_err(io_error("lock", &path))?;
    Ok(file)
}

/// The lock if nobody holds it exclusively now.
pub(crate) fn try_shared(dir: &Path, name: &str) -> Result<Option<File>, Error> {
    let path = dir.join(name);
    let file = open(&path)?;
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

/// Waits until nobody holds the lock.
pub(crate) fn exclusive(dir: &Path, name: &str) -> Result<File, Error> {
    let path = dir.join(name);
    let file = open(&path)?;
    file.lock().map_err(io_error("lock", &path))?;
    Ok(file)
}

/// The lock, if nobody holds it any more before the time is over.
pub(crate) fn exclusive_within(
    dir: &Path,
    name: &str,
    patience: Duration,
) -> Result<Option<File>, Error> {
    let end = Instant::now() + patience;
    loop {
        let locked = try_exclusive(dir, name)?;
        if locked.is_some() || Instant::now() >= end {
            return Ok(locked);
        }
        std::thread::sleep(LOOK);
    }
}

/// The lock if nobody holds it now.
pub(crate) fn try_exclusive(dir: &Path, name: &str) -> Result<Option<File>, Error> {
    let path = dir.join(name);
    let file = open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let opened: io::Result<File> = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(io_error("open", path))
}
