//! Which contexts are kept: their names, their locks, and how the oldest make room.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::kept::TREE;
use super::{Place, list, record};
use crate::build::cache::Key;
use crate::error::{io_error, storing};
use crate::{Error, Store, digest, lock};

/// One that was not used for so long is let go.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most bytes of all of them; the one in use may go beyond.
const MAX_BYTES: u64 = 8 << 30;
/// Most of them.
const MAX_COUNT: usize = 100;
/// So often it is tried to lock one that is being let go at the same time.
const TRIES: u32 = 10;
const LOCK: &str = "lock";

/// A kept context, from outside.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) last_used: SystemTime,
    /// On the disk, about.
    pub(crate) bytes: u64,
}

/// The name of a context's folder.
pub(super) fn name(place: Place<'_>) -> String {
    let mut key = Key::new("layby context place 1");
    key.field(place.owner);
    key.field(place.key);
    digest::hex_of(&key.finish()).unwrap_or_default().to_owned()
}

/// Keeps those who would change it out; `None`: somebody changes it now. Makes its folder.
pub(super) fn lock_shared(store: &Store, name: &str) -> Result<Option<File>, Error> {
    locked(store, name, lock::try_shared)
}

/// Keeps everybody else out; `None`: somebody uses it now. Makes its folder.
pub(super) fn lock_alone(store: &Store, name: &str) -> Result<Option<File>, Error> {
    locked(store, name, lock::try_exclusive)
}

fn locked(
    store: &Store,
    name: &str,
    take: impl Fn(&Path, &str) -> Result<Option<File>, Error>,
) -> Result<Option<File>, Error> {
    let dir = store.contexts_dir().join(name);
    for _ in 0..TRIES {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(storing("a build context", &dir))?;
        match take(&dir, LOCK) {
            Ok(None) => return Ok(None),
            Ok(Some(file)) if is_at(&file, &dir.join(LOCK)) => return Ok(Some(file)),
            // It was let go in between.
            Ok(Some(_)) => {}
            Err(_) if !dir.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether this open file is the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    let inode = |found: &fs::Metadata| (found.dev(), found.ino());
    let (open, there) = (file.metadata(), fs::metadata(path));
    matches!((open, there), (Ok(open), Ok(there)) if inode(&open) == inode(&there))
}

/// All that are there.
pub(crate) fn all(store: &Store) -> Result<Vec<Found>, Error> {
    let parent = store.contexts_dir();
    let mut found = Vec::new();
    for entry in fs::read_dir(&parent).map_err(io_error("list", &parent))? {
        let entry = entry.map_err(io_error("list", &parent))?;
        let dir = entry.path();
        if let Ok(name) = entry.file_name().into_string() {
            found.push(Found {
                name,
                last_used: last_used(&dir),
                bytes: record::bytes(&dir).unwrap_or(0),
            });
        }
    }
    Ok(found)
}

/// One that says nothing is as old as can be.
fn last_used(dir: &Path) -> SystemTime {
    let times = record::used_at(dir).max(list::left_at(dir));
    times.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Lets go of the oldest, until one of this name and with so many bytes fits beside the rest.
pub(super) fn make_room(store: &Store, wanted: Option<(&str, u64)>) -> Result<(), Error> {
    let mut others = all(store)?;
    others.retain(|one| wanted.is_none_or(|(name, _)| one.name != name));
    others.sort_by_key(|one| one.last_used);
    let mut count = others.len() + usize::from(wanted.is_some());
    let sizes = others.iter().map(|one| one.bytes);
    let mut total = sizes.fold(wanted.map_or(0, |(_, bytes)| bytes), u64::saturating_add);
    for one in others {
        if count <= MAX_COUNT && total <= MAX_BYTES {
            break;
        }
        if forget(store, &one.name)? {
            count -= 1;
            total = total.saturating_sub(one.bytes);
        }
    }
    Ok(())
}

/// Lets go of one, unless it is used now.
pub(crate) fn forget(store: &Store, name: &str) -> Result<bool, Error> {
    let dir = store.contexts_dir().join(name);
    let Some(_alone) = lock_alone(store, name)? else {
        return Ok(false);
    };
    remove(&dir).map_err(io_error("remove", &dir))?;
    Ok(true)
}

/// The record first: what is left after kill -9 is believed by nobody. The lock last.
fn remove(dir: &Path) -> io::Result<()> {
    record::remove(dir)?;
    remove_tree(dir)?;
    fs::remove_dir_all(dir)
}

/// Takes away a tree, which has no record any more.
pub(super) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(TREE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lets go of what is too old or too much, and of what nobody believes: after a kill, and of an earlier boot.
pub(crate) fn collect(store: &Store) -> Result<(), Error> {
    let now = SystemTime::now();
    for one in all(store)? {
        let dir = store.contexts_dir().join(&one.name);
        // One from the future is as young as can be.
        if now.duration_since(one.last_used).unwrap_or_default() > KEPT {
            forget(store, &one.name)?;
        } else if record::header(&dir).is_none()
            && dir.join(TREE).exists()
            && let Some(_alone) = lock_alone(store, &one.name)?
            && record::header(&dir).is_none()
        {
            let removed = record::remove(&dir).and_then(|()| remove_tree(&dir));
            removed.map_err(io_error("remove", &dir))?;
        }
    }
    make_room(store, None)
}
