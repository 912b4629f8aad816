//! A kept context while builds read it.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::record;

/// A context that stays as it is until this is dropped.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    known: Arc<Known>,
    _lock: File,
}

/// What is known of a folder's files without reading them.
#[derive(Debug)]
pub struct Known {
    dir: PathBuf,
    tree: String,
    /// Digests by path, read when the first is asked for: an unchanged build asks for none.
    digests: OnceLock<HashMap<String, String>>,
}

impl Kept {
    pub(super) fn new(dir: &Path, tree: String, lock: File) -> Self {
        Self {
            folder: dir.join(TREE),
            known: Arc::new(Known {
                dir: dir.to_owned(),
                tree,
                digests: OnceLock::new(),
            }),
            _lock: lock,
        }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What need not be read of it. Only good while this is held.
    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }
}

impl Known {
    /// A digest of all that the folder holds, but for times.
    pub(crate) fn tree(&self) -> &str {
        &self.tree
    }

    /// A file is not what it was when it was taken in: all is sent again for the next build.
    pub(crate) fn distrust(&self) {
        // Where this fails, the next build finds the same.
        let _ = record::remove(&self.dir);
    }

    /// Of the content of the file at a path relative to the folder; `None`: it has to be read.
    pub(crate) fn digest_of(&self, path: &str) -> Option<&str> {
        let digests = self.digests.get_or_init(|| {
            let record = record::read(&self.dir);
            let entries = record.map_or_else(Vec::new, |record| record.entries);
            let digest = |one: record::Recorded| Some((one.entry.path, one.digest?));
            entries.into_iter().filter_map(digest).collect()
        });
        digests.get(path).map(String::as_str)
    }
}

/// Where a kept context's files are, in its own folder.
pub(super) const TREE: &str = "tree";
