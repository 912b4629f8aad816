//! What one build step adds: a list of entries that wholly determines its layer.
//!
//! The digest of the list is the cache's key. Nothing else goes into the layer: not the order in which files were
//! found, nor their times, nor what lies below. So the same input gives the same layer on any machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::blob::{self, BlobWriter};
use crate::digest::{self, Hashing};
use crate::error::io_error;
use crate::layout::{Descriptor, LAYER_TYPE};
use crate::{Error, Store};

/// Changes when the same entries would give another layer.
const FORMAT: &str = "layby layer 1";
/// The most entries of one layer.
const MAX_ENTRIES: usize = 1_000_000;

/// The entries of a layer by path. Sorted by bytes, so a directory comes before what is in it.
#[derive(Debug, Default)]
pub(crate) struct Content {
    entries: BTreeMap<PathBuf, Entry>,
}

/// One entry of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Directory,
    File {
        /// Where its bytes are.
        source: PathBuf,
        size_bytes: u64,
        /// Of its bytes.
        digest: String,
        /// `security.capability`, if it has one.
        capability: Option<Vec<u8>>,
    },
    Symlink(PathBuf),
}

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: String,
}

impl Content {
    /// Adds an entry; a later one replaces an earlier one, but a directory stays as it was first entered.
    pub(crate) fn insert(&mut self, parts: &[OsString], entry: Entry) -> Result<(), String> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(format!(
                "would make a layer of more than {MAX_ENTRIES} files"
            ));
        }
        let path: PathBuf = parts.iter().collect();
        let is_dir = |entry: &Entry| matches!(entry.kind, Kind::Directory);
        match self.entries.get(&path) {
            Some(there) if is_dir(there) && is_dir(&entry) => return Ok(()),
            Some(there) if is_dir(there) != is_dir(&entry) => {
                return Err(format!(
                    "has both a directory and a file for /{}",
                    path.display()
                ));
            }
            _ => {}
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    /// Whether there is an entry at the path.
    pub(crate) fn contains(&self, parts: &[OsString]) -> bool {
        self.entries
            .contains_key(&parts.iter().collect::<PathBuf>())
    }

    /// Whether there is nothing to add.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The layer of these entries, and whether it was in the cache.
    pub(crate) fn store(&self, store: &Store, epoch_s: u64) -> Result<(Layer, bool), Error> {
        let key = self.key(epoch_s);
        let path = store.cache_dir().join(key.trim_start_matches("sha256:"));
        if let Some(layer) = read_cache(store, &path) {
            return Ok((layer, true));
        }
        let layer = self.write(store, epoch_s)?;
        let line = format!(
            "{} {} {}\n",
            layer.descriptor.digest, layer.descriptor.size, layer.diff_id
        );
        blob::replace_file(&store.temp_dir(), &path, line.as_bytes(), "the build cache")?;
        Ok((layer, false))
    }

    fn key(&self, epoch_s: u64) -> String {
        let mut hasher = Sha256::new_with_prefix(FORMAT);
        hasher.update(epoch_s.to_le_bytes());
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (path, entry) in &self.entries {
            field(path.as_os_str().as_bytes());
            for number in [entry.mode, entry.uid, entry.gid] {
                field(&number.to_le_bytes());
            }
            match &entry.kind {
                Kind::Directory => field(b"d"),
                Kind::File {
                    digest, capability, ..
                } => {
                    field(b"f");
                    field(digest.as_bytes());
                    field(capability.as_deref().unwrap_or_default());
                }
                Kind::Symlink(target) => {
                    field(b"l");
                    field(target.as_os_str().as_bytes());
                }
            }
        }
        digest::finish(hasher)
    }

    fn write(&self, store: &Store, epoch_s: u64) -> Result<Layer, Error> {
        let writer = BlobWriter::new(&store.temp_dir(), "a layer of the build")?;
        let gzip = GzEncoder::new(writer, Compression::fast());
        let mut tar = tar::Builder::new(Hashing::new(gzip));
        for (path, entry) in &self.entries {
            if let Err(failed) = append(&mut tar, path, entry, epoch_s) {
                return Err(match failed {
                    Failed::Source(error) => error,
                    Failed::Write(error) => tar.get_ref().get_ref().get_ref().failed(error),
                });
            }
        }
        // The encoders are taken apart only where the blob is at hand to say what failed: on a full disk the last
        // bytes are refused here.
        if let Err(error) = tar.finish().and_then(|()| tar.get_mut().flush()) {
            return Err(tar.get_ref().get_ref().get_ref().failed(error));
        }
        let full = |error| {
            crate::error::storing("a layer of the build", &store.temp_dir().join("blob"))(error)
        };
        let (gzip, diff_id, _) = tar.into_inner().map_err(full)?.finish();
        let writer = gzip.finish().map_err(full)?;
        let (digest, size_bytes) = store.commit(writer.finish()?)?;
        Ok(Layer {
            descriptor: Descriptor::new(&format!("{LAYER_TYPE}+gzip"), &digest, size_bytes),
            diff_id,
        })
    }
}

/// Which side failed while an entry was written.
enum Failed {
    Source(Error),
    Write(io::Error),
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    entry: &Entry,
    epoch_s: u64,
) -> Result<(), Failed> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(epoch_s);
    header.set_size(0);
    match &entry.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            // By convention with a slash at the end.
            let path = path.join("");
            tar.append_data(&mut header, path, io::empty())
                .map_err(Failed::Write)
        }
        Kind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, path, target)
                .map_err(Failed::Write)
        }
        Kind::File {
            source,
            size_bytes,
            digest,
            capability,
        } => {
            if let Some(capability) = capability {
                let record = ("SCHILY.xattr.security.capability", capability.as_slice());
                tar.append_pax_extensions([record]).map_err(Failed::Write)?;
            }
            header.set_entry_type(EntryType::Regular);
            header.set_size(*size_bytes);
            let file = open_source(source)
                .map_err(|error| Failed::Source(io_error("read", source)(error)))?;
            let mut reader = Hashing::new(file.take(*size_bytes));
            tar.append_data(&mut header, path, &mut reader)
                .map_err(Failed::Write)?;
            // The key was made from what was read the first time.
            let (_, found, _) = reader.finish();
            if found != *digest {
                let text = format!(
                    "{} changed while it was being copied; build again",
                    source.display()
                );
                return Err(Failed::Source(Error::Build(text)));
            }
            Ok(())
        }
    }
}

/// The size and digest of a file's bytes.
pub(crate) fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut open_source(path)?, &mut hashing)?;
    let (_, digest, size_bytes) = hashing.finish();
    Ok((size_bytes, digest))
}

/// Opens a file of a context or a layer; not a link that took its place meanwhile.
fn open_source(path: &Path) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits();
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(nofollow).unwrap_or(0))
        .open(path)
}

/// What the cache says, if its layer is still there.
fn read_cache(store: &Store, path: &Path) -> Option<Layer> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let (digest, size, diff_id) = (words.next()?, words.next()?, words.next()?);
    let there = fs::metadata(store.blob_path(digest).ok()?).ok()?;
    let size_bytes = size.parse().ok().filter(|size| *size == there.len())?;
    digest::hex_of(diff_id)?;
    Some(Layer {
        descriptor: Descriptor::new(&format!("{LAYER_TYPE}+gzip"), digest, size_bytes),
        diff_id: diff_id.to_owned(),
    })
}
