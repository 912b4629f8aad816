//! Garbage collection: what neither the index, nor a digest in use, nor a repository of the registry reaches is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::build::cache;
use crate::error::io_error;
use crate::{Error, Store, layer, lock, registry};

/// How long others may take to be done: whoever waits here holds up deploys, and a build may take hours.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes unreachable blobs, unpacked layers and cache entries. Returns the bytes of the blobs.
pub(crate) fn collect(store: &Store, in_use: &[String]) -> Result<u64, Error> {
    let alone = lock::exclusive_within(&store.locks_dir(), lock::CONTENT, PATIENCE)?;
    let _alone = alone.ok_or(Error::Busy)?;
    let index = store.index()?;
    let mut blobs = registry::held(store)?;
    let mut layers = BTreeSet::new();
    let named = index.manifests.iter().map(|entry| &entry.digest);
    for digest in named.chain(in_use) {
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
    let mut freed_bytes = 0;
    remove_others(
        &store.blobs_dir(),
        |name| blobs.contains(&format!("sha256:{name}")),
        &mut freed_bytes,
    )?;
    remove_others(
        &store.layers_dir(),
        |name| name == layer::EMPTY || layers.contains(&format!("sha256:{name}")),
        &mut 0,
    )?;
    // An entry whose layer is gone is a miss when it is next read; here it is only swept up.
    let known = |name: &str| {
        let text = || fs::read_to_string(store.cache_dir().join(name)).unwrap_or_default();
        let digest = |text: String| text.split_whitespace().next().unwrap_or("").to_owned();
        cached.entries.contains(name) || blobs.contains(&digest(text()))
    };
    remove_others(&store.cache_dir(), known, &mut 0)?;
    empty_dir(&store.temp_dir())?;
    Ok(freed_bytes)
}

/// Removes all that is in a directory.
pub(crate) fn empty_dir(dir: &Path) -> Result<(), Error> {
    remove_others(dir, |_| false, &mut 0)
}

fn remove_others(
    dir: &Path,
    keep: impl Fn(&str) -> bool,
    freed_bytes: &mut u64,
) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        if entry.file_name().to_str().is_some_and(&keep) {
            continue;
        }
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
        let removed = if metadata.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            *freed_bytes += metadata.len();
            fs::remove_file(&path)
        };
        removed.map_err(io_error("remove", &path))?;
    }
    Ok(())
}
