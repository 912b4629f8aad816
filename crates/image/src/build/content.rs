//! What one build step adds: a list of entries that wholly determines its layer.
//!
//! The digest of the list is the cache's key. Nothing else goes into the layer: not the order in which files were
//! found, nor their times, nor what lies below. So the same input gives the same layer on any machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::FileType;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::cache::{self, Key};
use super::stage::given_up;
use super::stop::Stoppable;
use crate::blob::BlobWriter;
use crate::digest::Hashing;
use crate::error::{io_error, storing};
use crate::layout::{Descriptor, LAYER_TYPE};
use crate::unpack::Limits;
use crate::{Error, Store, layer};

/// Changes when the same entries would give another layer.
const FORMAT: &str = "layby layer 2";
/// What names of deleted files begin with in a layer (image-spec, layer.md, "Whiteouts").
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The most entries of one layer.
const MAX_ENTRIES: usize = 1_000_000;

/// The entries of a layer by path. Sorted by bytes, so a directory comes before what is in it.
#[derive(Debug, Default)]
pub(crate) struct Content {
    entries: BTreeMap<PathBuf, Entry>,
    /// What entries' sources lie in until the layer is made: unpacked archives, downloads.
    kept: Vec<TempDir>,
    has_links: bool,
    /// Of the files that were measured so far.
    size_bytes: u64,
}

/// One entry of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// When its source was changed, seconds and nanoseconds. Only the unpacked layer gets it: the tar is the same
    /// whenever it is made.
    pub(crate) mtime: (i64, u32),
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
    /// The same file as another entry, which comes before it.
    Link(PathBuf),
    /// A device or pipe.
    Special {
        kind: FileType,
        /// Major and minor number.
        device: (u32, u32),
    },
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
        self.has_links |= matches!(entry.kind, Kind::Link(_));
        let Some(replaced) = self.entries.insert(path.clone(), entry) else {
            return Ok(());
        };
        if self.has_links {
            // Those that were the same file are not the new one.
            for other in self.entries.values_mut() {
                if matches!(&other.kind, Kind::Link(first) if *first == path) {
                    other.kind = replaced.kind.clone();
                }
            }
        }
        Ok(())
    }

    /// Counts a file before its bytes are read: one with a large hole is made in no time, and read for days.
    pub(crate) fn measure(&mut self, size_bytes: u64) -> Result<(), String> {
        self.size_bytes = self.size_bytes.saturating_add(size_bytes);
        match self.size_bytes <= max_bytes() {
            true => Ok(()),
            false => Err(format!("would make a layer {}", too_large())),
        }
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

    /// The first name that a layer would have for a deletion.
    pub(crate) fn mistakable(&self) -> Option<&Path> {
        let is_mark = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.as_bytes().starts_with(WHITEOUT)
        };
        self.entries.keys().find(is_mark).map(PathBuf::as_path)
    }

    /// Keeps a folder until the layer is made.
    pub(crate) fn keep(&mut self, dir: TempDir) {
        self.kept.push(dir);
    }

    /// A directory that is there gets these attributes.
    pub(crate) fn replace_directory(&mut self, parts: &[OsString], entry: &Entry) {
        if let Some(there) = self.entries.get_mut(&parts.iter().collect::<PathBuf>()) {
            *there = entry.clone();
        }
    }

    /// The layer of these entries, and whether it was in the cache.
    pub(crate) fn store(
        &self,
        store: &Store,
        epoch_s: Option<u64>,
        reads_cache: bool,
        stop: &Arc<AtomicBool>,
    ) -> Result<(Layer, bool), Error> {
        let key = self.key(epoch_s.unwrap_or(0));
        if reads_cache && let Some(Some(layer)) = cache::read(store, &key) {
            return Ok((layer, true));
        }
        let layer = self.write(store, epoch_s.unwrap_or(0), stop)?;
        // With a given date that is what all files are to have.
        if epoch_s.is_none() {
            let dir = layer::unpacked_one(store, &layer.descriptor.digest, &layer.diff_id)?;
            self.set_times(&dir)?;
        }
        cache::write(store, &key, Some(&layer))?;
        Ok((layer, false))
    }

    /// Build tools compare times, and web servers tell them: on this machine files keep those of their sources.
    fn set_times(&self, dir: &Path) -> Result<(), Error> {
        // Backwards, since a directory's time changes with what is in it.
        for (path, entry) in self.entries.iter().rev() {
            let path = dir.join(path);
            layer::set_time(&path, entry.mtime.0, entry.mtime.1)
                .map_err(io_error("set the time of", &path))?;
        }
        Ok(())
    }

    /// Of all that decides about the layer.
    pub(crate) fn key(&self, epoch_s: u64) -> String {
        let mut key = Key::new(FORMAT);
        key.field(epoch_s.to_le_bytes());
        for (path, entry) in &self.entries {
            key.field(path.as_os_str().as_bytes());
            for number in [entry.mode, entry.uid, entry.gid] {
                key.field(number.to_le_bytes());
            }
            match &entry.kind {
                Kind::Directory => key.field(b"d"),
                Kind::File {
                    digest, capability, ..
                } => {
                    key.field(b"f");
                    key.field(digest);
                    key.field(capability.as_deref().unwrap_or_default());
                }
                Kind::Symlink(target) => {
                    key.field(b"l");
                    key.field(target.as_os_str().as_bytes());
                }
                Kind::Link(first) => {
                    key.field(b"h");
                    key.field(first.as_os_str().as_bytes());
                }
                Kind::Special { kind, device } => {
                    key.field(b"s");
                    key.field(kind.as_raw_mode().to_le_bytes());
                    key.field(device.0.to_le_bytes());
                    key.field(device.1.to_le_bytes());
                }
            }
        }
        key.finish()
    }

    fn write(&self, store: &Store, epoch_s: u64, stop: &Arc<AtomicBool>) -> Result<Layer, Error> {
        let mut writer = LayerWriter::new(store, "a layer of the build", stop)?;
        for (path, entry) in &self.entries {
            if let Kind::File { size_bytes, .. } = entry.kind {
                writer.measure(path, size_bytes)?;
            }
            writer.append(|tar| append(tar, path, entry, epoch_s))?;
        }
        writer.finish(store)
    }

    /// Makes the files themselves, in an empty folder. With `may_link` they may be the same as their sources.
    pub(crate) fn materialise(&self, dir: &Path, may_link: bool) -> Result<(), Error> {
        for (path, entry) in &self.entries {
            let to = dir.join(path);
            let made = match &entry.kind {
                Kind::Directory => fs::create_dir(&to),
                Kind::Symlink(target) => std::os::unix::fs::symlink(target, &to),
                Kind::Link(first) => fs::hard_link(dir.join(first), &to),
                Kind::File { source, .. } if may_link && fs::hard_link(source, &to).is_ok() => {
                    continue;
                }
                Kind::File { source, .. } => open_source(source).and_then(|mut from| {
                    let mut file = File::create_new(&to)?;
                    io::copy(&mut from, &mut file).map(|_| ())
                }),
                // Nothing of a mount needs devices.
                Kind::Special { .. } => continue,
            };
            let owned = made.and_then(|()| {
                std::os::unix::fs::lchown(&to, Some(entry.uid), Some(entry.gid))?;
                match entry.kind {
                    Kind::Symlink(_) => Ok(()),
                    _ => fs::set_permissions(&to, Permissions::from_mode(entry.mode)),
                }?;
                layer::set_time(&to, entry.mtime.0, entry.mtime.1)
            });
            owned.map_err(storing("the files of a mount", &to))?;
        }
        Ok(())
    }
}

/// A layer's blob on its way: tar, compressed, both digests.
pub(crate) struct LayerWriter {
    tar: LayerTar,
    bytes_left: u64,
    stop: Arc<AtomicBool>,
}

/// What entries are appended to.
pub(crate) type LayerTar = tar::Builder<Stoppable<Hashing<GzEncoder<BlobWriter>>>>;

impl LayerWriter {
    /// Begins a layer; `what` names it in errors. It fails soon after `stop` is set.
    pub(crate) fn new(store: &Store, what: &str, stop: &Arc<AtomicBool>) -> Result<Self, Error> {
        let writer = BlobWriter::new(&store.temp_dir(), what)?;
        let gzip = GzEncoder::new(writer, Compression::fast());
        Ok(Self {
            tar: tar::Builder::new(Stoppable::new(Hashing::new(gzip), stop)),
            bytes_left: max_bytes(),
            stop: Arc::clone(stop),
        })
    }

    /// Counts a file that is about to be appended.
    pub(crate) fn measure(&mut self, path: &Path, size_bytes: u64) -> Result<(), Error> {
        let left = self.bytes_left.checked_sub(size_bytes);
        self.bytes_left = left.ok_or_else(|| {
            let path = path.display();
            Error::Build(format!("with /{path}, the layer would be {}", too_large()))
        })?;
        Ok(())
    }

    /// Appends one entry.
    pub(crate) fn append(
        &mut self,
        entry: impl FnOnce(&mut LayerTar) -> Result<(), Failed>,
    ) -> Result<(), Error> {
        entry(&mut self.tar).map_err(|failed| match failed {
            Failed::Source(error) => error,
            Failed::Write(error) => self.failed(error),
        })
    }

    /// Stores the layer's blob.
    pub(crate) fn finish(mut self, store: &Store) -> Result<Layer, Error> {
        // The encoders are taken apart only where the blob is at hand to say what failed: on a full disk the last
        // bytes are refused here.
        if let Err(error) = self.tar.finish().and_then(|()| self.tar.get_mut().flush()) {
            return Err(self.failed(error));
        }
        let full = |error| storing("a layer of the build", &store.temp_dir().join("blob"))(error);
        let hashing = self.tar.into_inner().map_err(full)?.into_inner();
        let (gzip, diff_id, _) = hashing.finish();
        let writer = gzip.finish().map_err(full)?;
        let (digest, size_bytes) = store.commit(writer.finish()?)?;
        Ok(Layer {
            descriptor: Descriptor::new(&format!("{LAYER_TYPE}+gzip"), &digest, size_bytes),
            diff_id,
        })
    }

    fn failed(&self, error: io::Error) -> Error {
        if self.stop.load(Ordering::Relaxed) {
            return given_up();
        }
        let hashing = self.tar.get_ref().get_ref();
        hashing.get_ref().get_ref().failed(error)
    }
}

/// The most bytes of files of one layer: no more would be unpacked again.
fn max_bytes() -> u64 {
    Limits::default().bytes
}

fn too_large() -> String {
    let gib = max_bytes() >> 30;
    format!("of more than {gib} GiB, the holes of files counted")
}

/// Which side failed while an entry was written.
pub(crate) enum Failed {
    Source(Error),
    Write(io::Error),
}

fn append(tar: &mut LayerTar, path: &Path, entry: &Entry, epoch_s: u64) -> Result<(), Failed> {
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
        Kind::Link(first) => {
            header.set_entry_type(EntryType::Link);
            tar.append_link(&mut header, path, first)
                .map_err(Failed::Write)
        }
        Kind::Special { kind, device } => {
            header.set_entry_type(match kind {
                FileType::Fifo => EntryType::Fifo,
                FileType::BlockDevice => EntryType::Block,
                _ => EntryType::Char,
            });
            let set = header
                .set_device_major(device.0)
                .and_then(|()| header.set_device_minor(device.1));
            set.and_then(|()| tar.append_data(&mut header, path, io::empty()))
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
                let path = source.clone();
                return Err(Failed::Source(Error::Changed { path }));
            }
            Ok(())
        }
    }
}

/// The size and digest of the first `most_bytes` of a file. It fails soon after `stop` is set.
pub(crate) fn hash_file(
    path: &Path,
    most_bytes: u64,
    stop: &Arc<AtomicBool>,
) -> io::Result<(u64, String)> {
    let mut hashing = Hashing::new(io::sink());
    let file = open_source(path)?.take(most_bytes);
    io::copy(&mut Stoppable::new(file, stop), &mut hashing)?;
    let (_, digest, size_bytes) = hashing.finish();
    Ok((size_bytes, digest))
}

/// Opens a file of a context or a layer; not a link that took its place meanwhile.
pub(crate) fn open_source(path: &Path) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits();
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(nofollow).unwrap_or(0))
        .open(path)
}
