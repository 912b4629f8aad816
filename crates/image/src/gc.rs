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

/// Removes unreachable blobs, unpacked layers and cache entries. Returns the bytes of the blobs.
pub(crate) fn collect(store: &Store, in_use: &[String]) -> Result<u64, Error> {
    let _one_at_a_time = lock::exclusive(&store.locks_dir(), lock::TRASH)?;
    let moved = move_away(store, in_use);
    // Deleting large layers takes long, and nobody is to wait for it. What a crash leaves, the next one deletes.
    empty_dir(&store.trash_dir())?;
    let freed_bytes = moved?;
    contexts::collect(store)?;
    Ok(freed_bytes)
}

/// Moves what is unreachable into the trash, all at once for everybody else.
fn move_away(store: &Store, in_use: &[String]) -> Result<u64, Error> {
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
    Ok(freed_bytes)
}

/// Where things wait for being deleted.
struct Trash {
    dir: PathBuf,
    count: usize,
}

impl Trash {
    /// An empty one of its own.
    fn open(store: &Store) -> Result<Self, Error> {
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
            let place = self.dir.join(self.count.to_string());
            self.count += 1;
            fs::rename(&path, place).map_err(io_error("remove", &path))?;
        }
        Ok(bytes)
    }
}

/// Removes all that is in a directory.
pub(crate) fn empty_dir(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
        let removed = if metadata.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(io_error("remove", &path))?;
    }
    Ok(())
}
