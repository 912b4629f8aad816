//! A repository on disk: which blobs, manifests and tags are its own. The content itself lies in the node's store.
//!
//! ```text
//! registry/<name with + for />/
//!   blobs/<algorithm>-<hex>        the blob's SHA-256, where its name is another; else empty
//!   manifests/<algorithm>-<hex>    what is known of the manifest, as JSON
//!   referrers/<subject>/<manifest> empty: that manifest names this subject
//!   tags/<tag>                     the digest, who pushed it, when, as JSON
//!   uploads/<id>                   a blob that is not whole yet
//! ```
//! Each file appears whole and on disk, and what it leads to is there before it: a crash at any point leaves at most
//! something that nobody names.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::route::Name;
use crate::error::{io_error, storing};
use crate::layout::to_json;
use crate::{Error, Store, blob};

/// So many repositories may a node have.
pub(super) const MAX_REPOSITORIES: usize = 10_000;

/// What is known of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Under which the store has it.
    pub(super) sha256: String,
    pub(super) media_type: String,
    pub(super) size: u64,
    /// The manifest that it says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    /// With a subject: its type, for the referrers API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    /// With a subject: its annotations, for the referrers API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// Where a tag leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tag {
    pub(super) digest: String,
    /// Who moved it there.
    #[serde(default)]
    pub(super) pushed_by: String,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub(super) pushed_at: u64,
}

impl Tag {
    /// One that `who` sets now.
    pub(super) fn now(digest: &Digest, who: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            digest: digest.to_string(),
            pushed_by: who.to_owned(),
            pushed_at: now.map_or(0, |since| since.as_secs()),
        }
    }
}

/// One repository. It may not be there yet.
pub(super) struct Repository<'a> {
    store: &'a Store,
    dir: PathBuf,
}

impl<'a> Repository<'a> {
    pub(super) fn new(store: &'a Store, name: &Name) -> Self {
        Self {
            store,
            dir: store.registry_dir().join(name.file_name()),
        }
    }

    /// Whether anything was ever pushed to it.
    pub(super) fn exists(&self) -> bool {
        self.dir.join("blobs").exists() || self.dir.join("manifests").exists()
    }

    /// Whether something may be pushed to it: it is there, or there is room for one more.
    pub(super) fn may_be_made(&self) -> Result<bool, Error> {
        Ok(self.dir.exists() || names(&self.store.registry_dir())?.len() < MAX_REPOSITORIES)
    }

    /// Removes it if it holds nothing. The caller keeps others from adding something.
    pub(super) fn remove_if_empty(&self) {
        let marks = self.dir.join("referrers");
        for subject in names(&marks).unwrap_or_default() {
            let _ = fs::remove_dir(marks.join(subject));
        }
        // Those that are not there or not empty stay as they are.
        for part in ["blobs", "manifests", "referrers", "tags", "uploads"] {
            let _ = fs::remove_dir(self.dir.join(part));
        }
        let _ = fs::remove_dir(&self.dir);
    }

    /// The SHA-256 of a blob of it; a manifest is not one.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<String>, Error> {
        let path = self.dir.join("blobs").join(digest.file_name());
        match fs::read_to_string(&path) {
            Ok(_) if digest.is_sha256() => Ok(Some(digest.as_str().to_owned())),
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Makes a blob of the store one of this repository's.
    pub(super) fn add_blob(&self, digest: &Digest, sha256: &str) -> Result<(), Error> {
        let text = if digest.is_sha256() { "" } else { sha256 };
        self.write(&["blobs"], &digest.file_name(), text.as_bytes())
    }

    /// Takes a blob from it. `false`: it had none.
    pub(super) fn remove_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.remove(&self.dir.join("blobs").join(digest.file_name()))
    }

    /// A manifest of it.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Option<Record>, Error> {
        self.read(&self.dir.join("manifests").join(digest.file_name()))
    }

    /// Makes a manifest of the store one of this repository's.
    pub(super) fn add_manifest(&self, digest: &Digest, record: &Record) -> Result<(), Error> {
        if let Some(subject) = record.subject.as_deref().and_then(Digest::parse) {
            // First, since a mark without its manifest is passed over, and not the other way round.
            self.write(
                &["referrers", &subject.file_name()],
                &digest.file_name(),
                b"",
            )?;
        }
        self.write(&["manifests"], &digest.file_name(), &to_json(record))
    }

    /// The tags that lead to a manifest.
    pub(super) fn tags_of(&self, digest: &Digest) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for tag in self.tags()? {
            if self
                .tag(&tag)?
                .is_some_and(|to| to.digest == digest.as_str())
            {
                found.push(tag);
            }
        }
        Ok(found)
    }

    /// Takes a manifest from it, to which no tag leads any more. `false`: it had none.
    pub(super) fn remove_manifest(&self, digest: &Digest) -> Result<bool, Error> {
        let Some(record) = self.manifest(digest)? else {
            return Ok(false);
        };
        self.remove(&self.dir.join("manifests").join(digest.file_name()))?;
        if let Some(subject) = record.subject.as_deref().and_then(Digest::parse) {
            let marks = self.dir.join("referrers").join(subject.file_name());
            self.remove(&marks.join(digest.file_name()))?;
            // Only when it was the last.
            let _ = fs::remove_dir(&marks);
        }
        Ok(true)
    }

    /// Where a tag leads.
    pub(super) fn tag(&self, tag: &str) -> Result<Option<Tag>, Error> {
        self.read(&self.dir.join("tags").join(tag))
    }

    /// Lets a tag lead somewhere.
    pub(super) fn set_tag(&self, tag: &str, to: &Tag) -> Result<(), Error> {
        self.write(&["tags"], tag, &to_json(to))
    }

    /// Takes a tag away. `false`: there is none.
    pub(super) fn remove_tag(&self, tag: &str) -> Result<bool, Error> {
        self.remove(&self.dir.join("tags").join(tag))
    }

    /// All tags, in no order.
    pub(super) fn tags(&self) -> Result<Vec<String>, Error> {
        names(&self.dir.join("tags"))
    }

    /// All manifests, in no order.
    pub(super) fn manifests(&self) -> Result<Vec<Digest>, Error> {
        let names = names(&self.dir.join("manifests"))?;
        Ok(names
            .iter()
            .filter_map(|n| Digest::from_file_name(n))
            .collect())
    }

    /// All blobs, in no order.
    pub(super) fn blobs(&self) -> Result<Vec<Digest>, Error> {
        let names = names(&self.dir.join("blobs"))?;
        Ok(names
            .iter()
            .filter_map(|n| Digest::from_file_name(n))
            .collect())
    }

    /// The manifests that name this subject, by digest.
    pub(super) fn referrers(&self, subject: &Digest) -> Result<Vec<Digest>, Error> {
        let marks = names(&self.dir.join("referrers").join(subject.file_name()))?;
        let mut found: Vec<Digest> = marks
            .iter()
            .filter_map(|n| Digest::from_file_name(n))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// How long ago a blob was made one of this repository's.
    pub(super) fn blob_age(&self, digest: &Digest) -> Option<std::time::Duration> {
        let path = self.dir.join("blobs").join(digest.file_name());
        fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()
    }

    /// When a manifest was pushed last.
    pub(super) fn pushed_at(&self, digest: &Digest) -> SystemTime {
        let path = self.dir.join("manifests").join(digest.file_name());
        let found = fs::metadata(path).and_then(|found| found.modified());
        found.unwrap_or_else(|_| SystemTime::now())
    }

    /// Where its uploads are, made when it is not there yet.
    pub(super) fn uploads_dir(&self) -> Result<PathBuf, Error> {
        let dir = self.dir.join("uploads");
        make(&dir)?;
        Ok(dir)
    }

    /// Where an upload of it is, or would be.
    pub(super) fn upload_path(&self, id: &str) -> PathBuf {
        self.dir.join("uploads").join(id)
    }

    fn write(&self, dirs: &[&str], name: &str, bytes: &[u8]) -> Result<(), Error> {
        let dir = dirs
            .iter()
            .fold(self.dir.clone(), |dir, part| dir.join(part));
        let new = !dir.exists();
        make(&dir)?;
        let path = dir.join(name);
        // Written again also when it says the same: its age counts from when it was last pushed.
        blob::replace_file(
            &self.store.temp_dir(),
            &path,
            bytes,
            "an entry of the registry",
        )?;
        if new {
            // The folders above have names as well.
            blob::sync_dir_of(&dir)?;
            blob::sync_dir_of(&self.dir)?;
        }
        Ok(())
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, Error> {
        match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", path)(error)),
            Ok(_) => {}
        }
        let what = format!("the registry's {}", path.display());
        crate::layout::parse(&blob::read_bounded(path)?, &what).map(Some)
    }

    fn remove(&self, path: &Path) -> Result<bool, Error> {
        match fs::remove_file(path) {
            Ok(()) => blob::sync_dir_of(path).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("remove", path)(error)),
        }
    }
}

/// The names of all repositories, in no order.
pub(super) fn all(store: &Store) -> Result<Vec<Name>, Error> {
    let names = names(&store.registry_dir())?;
    Ok(names
        .iter()
        .filter_map(|n| Name::from_file_name(n))
        .collect())
}

/// The names in a folder; none if there is no such folder.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn make(dir: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(storing("the registry", dir))
}
