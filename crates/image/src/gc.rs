//! Garbage collection: what neither the index, nor a digest in use, nor a repository of the registry reaches is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build::cache;
use crate::error::io_error;
use crate::{Error, Store, contexts, layer, lock, registry, unnamed};

/// How long others may take to be done: whoever waits here holds up deploys, and a build may take hours.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Removes unreachable blobs, unpacked layers and cache entries. Returns the bytes of the blobs. `moved` is called when all of
/// that is out of the way, and nobody need be kept away any more: deleting large layers takes long.
pub(crate) fn collect(
    store: &Store,
    in_use: &[String],
    moved: impl FnOnce(),
) -> Result<u64, Error> {
    let away = move_away(store, in_use)?;
    moved();
    contexts::collect(store)?;
    // Those who delete come one after another. What a crash leaves, the next one deletes.
    let _one_at_a_time = lock::exclusive(&store.locks_dir(), lock::TRASH)?;
    away.folders.iter().try_for_each(|folder| delete(folder))?;
    Ok(away.freed_bytes)
}

/// What is in the trash, whole.
struct Away {
    folders: Vec<PathBuf>,
    /// Of the blobs that came last.
    freed_bytes: u64,
}

/// Moves what is unreachable into the trash, all at once for everybody else.
fn move_away(store: &Store, in_use: &[String]) -> Result<Away, Error> {
    let alone = lock::exclusive_within(&store.locks_dir(), lock::CONTENT, PATIENCE)?;
    let _alone = alone.ok_or(Error::Busy)?;
    let mut trash = Trash::open(store)?;
    let index = store.index()?;
    let mut blobs = registry::held(store)?;
    let mut layers = BTreeSet::new();
    let named = index.manifests.iter().map(|entry| &entry.digest);
    unnamed::forget_old(store)?;
    let unnamed = unnamed::kept(store)?;
    for digest in named.chain(in_use).chain(&unnamed) {
        // An unreadable image keeps everything: better a full disk than a layer pulled from under a container.
        let (manifest, _) = match store.read_manifest(digest) {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        layers.extend(store.read_config(&manifest)?.diff_ids);
        blobs.insert(digest.clone());
        blobs.insert(manifest.config.digest);
        blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
    }
    // Whatever built stages have no image of their own lives only by the build cache.
    let cached = cache::held(store)?;
    blobs.extend(cached.blobs);
    layers.extend(cached.layers);
    let blob = |name: &str| blobs.contains(&format!("sha256:{name}"));
    let freed_bytes = trash.take_others(&store.blobs_dir(), blob)?;
    trash.take_others(&store.diffs_dir(), blob)?;
    trash.take_others(&store.origins_dir(), blob)?;
    trash.take_others(&store.layers_dir(), |name| {
        name == layer::EMPTY || layers.contains(&format!("sha256:{name}"))
    })?;
    // An entry whose layer is gone is a miss when it is next read; here it is only swept up.
    let known = |name: &str| {
        let text = || fs::read_to_string(store.cache_dir().join(name)).unwrap_or_default();
        let digest = |text: String| text.split_whitespace().next().unwrap_or("").to_owned();
        cached.entries.contains(name) || blobs.contains(&digest(text()))
    };
    trash.take_others(&store.cache_dir(), known)?;
    trash.take_others(&store.temp_dir(), |_| false)?;
    // Nobody else moves anything there now.
    let folders = listed(&store.trash_dir())?;
    Ok(Away {
        folders,
        freed_bytes,
    })
}

/// Where things wait for being deleted.
pub(crate) struct Trash {
    dir: PathBuf,
    count: usize,
}

impl Trash {
    /// An empty one of its own.
    pub(crate) fn open(store: &Store) -> Result<Self, Error> {
        let dir = store.trash_dir();
        let new = tempfile::TempDir::new_in(&dir).map_err(io_error("make a folder in", &dir))?;
        Ok(Self {
            dir: new.keep(),
            count: 0,
        })
    }

    /// Takes what is in a directory and not to be kept. Returns the bytes of the files.
    fn take_others(&mut self, dir: &Path, keep: impl Fn(&str) -> bool) -> Result<u64, Error> {
        let mut bytes = 0;
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            if entry.file_name().to_str().is_some_and(&keep) {
                continue;
            }
            let path = entry.path();
            let metadata = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
            if !metadata.is_dir() {
                bytes += metadata.len();
            }
            self.take(&path)?;
        }
        Ok(bytes)
    }

    /// Takes one thing.
    pub(crate) fn take(&mut self, path: &Path) -> Result<(), Error> {
        let place = self.dir.join(self.count.to_string());
        self.count += 1;
        fs::rename(path, place).map_err(io_error("remove", path))
    }
}

/// Removes all that is in a directory.
pub(crate) fn empty_dir(dir: &Path) -> Result<(), Error> {
    listed(dir)?.iter().try_for_each(|path| delete(path))
}

/// What is in a directory.
fn listed(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).map_err(io_error("list", dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths
        .collect::<Result<_, _>>()
        .map_err(io_error("list", dir))
}

/// Removes something; what somebody else has removed meanwhile is fine.
fn delete(path: &Path) -> Result<(), Error> {
    let removed = fs::symlink_metadata(path).and_then(|metadata| match metadata.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    });
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
