//! From what a RUN step wrote, in overlayfs' form, to a layer: its tar, and the folder itself as the unpacked layer.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tar::{EntryType, Header};

use super::content::{Failed, Layer, LayerWriter, WHITEOUT, open_source};
use super::view::{View, is_opaque, is_whiteout, split};
use crate::error::io_error;
use crate::unpack::is_kept_xattr;
use crate::{Error, Store, layer};

/// The most files that one step may write.
const MAX_ENTRIES: usize = 2_000_000;
/// Overlayfs' marks of what a tar cannot say; a runner mounts without these features.
const FOREIGN: [&str; 2] = ["trusted.overlay.redirect", "trusted.overlay.metacopy"];

/// Makes the layer. `upper` goes where unpacked layers are. `None`: the step changed nothing.
pub(super) fn store(
    store: &Store,
    upper: tempfile::TempDir,
    below: &View,
    newest_s: Option<u64>,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Layer>, Error> {
    let root = upper.path();
    tidy(root, root, below)?;
    let mut walk = Walk {
        root,
        newest_s,
        entries: 0,
        links: BTreeMap::new(),
        tar: LayerWriter::new(store, "the layer of a RUN step", stop)?,
    };
    let changed = walk.root(below)? | walk.children(Path::new(""))?;
    if !changed {
        return Ok(None);
    }
    let layer = walk.tar.finish(store)?;
    layer::adopt(store, upper, &layer.descriptor.digest, &layer.diff_id)?;
    Ok(Some(layer))
}

/// Takes out folders that are just as the image has them: overlayfs copies them up when something below is touched,
/// and mount points come and go in them.
fn tidy(root: &Path, dir: &Path, below: &View) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
        if !metadata.is_dir() {
            continue;
        }
        tidy(root, &path, below)?;
        let parts = split(relative(root, &path).as_os_str().as_bytes());
        let there = below.lookup(&parts).map_err(io_error("look at", &path))?;
        let is_empty = fs::read_dir(&path)
            .map_err(io_error("list", &path))?
            .next()
            .is_none();
        let Some(node) = there.filter(|_| is_empty && !is_opaque(&path)) else {
            continue;
        };
        let of = |m: &Metadata| (m.mode(), m.uid(), m.gid());
        if of(&node.metadata) == of(&metadata) && kept(node.path())? == kept(&path)? {
            fs::remove_dir(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

struct Walk<'a> {
    root: &'a Path,
    /// Later times are set back to this (`SOURCE_DATE_EPOCH`).
    newest_s: Option<u64>,
    entries: usize,
    /// The first path of each file that has several, by inode.
    links: BTreeMap<u64, PathBuf>,
    tar: LayerWriter,
}

impl Walk<'_> {
    /// The root itself, where it is not what every root is. Says whether the step changed it.
    fn root(&mut self, below: &View) -> Result<bool, Error> {
        let metadata = fs::symlink_metadata(self.root).map_err(io_error("look at", self.root))?;
        let of = |m: &Metadata| (m.mode() & 0o7777, m.uid(), m.gid());
        let attributes = kept(self.root)?;
        if of(&metadata) != (0o755, 0, 0) || !attributes.is_empty() {
            self.entry(Path::new("."), self.root, &metadata)?;
        }
        let there = below.lookup(&[]).map_err(io_error("look at", self.root))?;
        let Some(node) = there else {
            return Ok(false);
        };
        // What it had below and has no more is no change: the folder that the step began with had no attributes.
        let is_new = !attributes.is_empty() && attributes != kept(node.path())?;
        Ok(is_new || of(&node.metadata) != of(&metadata))
    }

    /// All that is in a folder, in the order of bytes. Says whether there is anything.
    fn children(&mut self, dir: &Path) -> Result<bool, Error> {
        let real = self.root.join(dir);
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&real).map_err(io_error("list", &real))? {
            names.insert(entry.map_err(io_error("list", &real))?.file_name());
        }
        let any = !names.is_empty();
        for name in names {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::Build(format!(
                    "a RUN step wrote more than {MAX_ENTRIES} files"
                )));
            }
            if name.as_bytes().starts_with(WHITEOUT) {
                return Err(Error::Build(format!(
                    "a RUN step made the file {:?}; names with .wh. at the beginning mean deleted files in a layer",
                    dir.join(&name).display()
                )));
            }
            let path = dir.join(&name);
            let real = self.root.join(&path);
            let metadata = fs::symlink_metadata(&real).map_err(io_error("look at", &real))?;
            if is_whiteout(&metadata) {
                let mut mark = WHITEOUT.to_vec();
                mark.extend(name.as_bytes());
                self.mark(&dir.join(OsStr::from_bytes(&mark)))?;
                continue;
            }
            if metadata.file_type().is_socket() {
                continue;
            }
            self.entry(&path, &real, &metadata)?;
            if metadata.is_dir() {
                if is_opaque(&real) {
                    self.mark(&path.join(".wh..wh..opq"))?;
                }
                self.children(&path)?;
            }
        }
        Ok(any)
    }

    fn mark(&mut self, path: &Path) -> Result<(), Error> {
        let mut header = header(0, 0, 0, self.newest_s.unwrap_or(0));
        header.set_entry_type(EntryType::Regular);
        self.tar.append(|tar| {
            tar.append_data(&mut header, path, io::empty())
                .map_err(Failed::Write)
        })
    }

    fn entry(&mut self, path: &Path, real: &Path, metadata: &Metadata) -> Result<(), Error> {
        let mtime_s = self.clamp(real, metadata)?;
        let mut header = header(
            metadata.mode() & 0o7777,
            metadata.uid(),
            metadata.gid(),
            mtime_s,
        );
        let kind = metadata.file_type();
        if metadata.nlink() > 1 && !metadata.is_dir() {
            if let Some(first) = self.links.get(&metadata.ino()) {
                header.set_entry_type(EntryType::Link);
                return self.tar.append(|tar| {
                    tar.append_link(&mut header, path, first)
                        .map_err(Failed::Write)
                });
            }
            self.links.insert(metadata.ino(), path.to_owned());
        }
        let xattrs =
            xattrs(real).map_err(|error| io_error("read the attributes of", real)(error))?;
        if let Some((name, _)) = xattrs
            .iter()
            .find(|(name, _)| FOREIGN.contains(&name.as_str()))
        {
            return Err(Error::Build(format!(
                "{} has {name}: the runner must mount overlayfs without redirect_dir and metacopy",
                path.display()
            )));
        }
        let kept: Vec<(String, Vec<u8>)> = xattrs
            .into_iter()
            .filter(|(name, _)| is_kept_xattr(name, true))
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value))
            .collect();
        if kind.is_file() {
            self.tar.measure(path, metadata.len())?;
        }
        self.tar.append(|tar| {
            if !kept.is_empty() {
                let records = kept
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_slice()));
                tar.append_pax_extensions(records).map_err(Failed::Write)?;
            }
            let source = |error| Failed::Source(io_error("read", real)(error));
            if kind.is_symlink() {
                header.set_entry_type(EntryType::Symlink);
                let target = fs::read_link(real).map_err(source)?;
                return tar
                    .append_link(&mut header, path, target)
                    .map_err(Failed::Write);
            }
            if kind.is_dir() {
                header.set_entry_type(EntryType::Directory);
                return tar
                    .append_data(&mut header, path.join(""), io::empty())
                    .map_err(Failed::Write);
            }
            if kind.is_file() {
                header.set_entry_type(EntryType::Regular);
                header.set_size(metadata.len());
                let mut file = io::Read::take(open_source(real).map_err(source)?, metadata.len());
                return tar
                    .append_data(&mut header, path, &mut file)
                    .map_err(Failed::Write);
            }
            header.set_entry_type(match () {
                () if kind.is_fifo() => EntryType::Fifo,
                () if kind.is_block_device() => EntryType::Block,
                () => EntryType::Char,
            });
            let device = metadata.rdev();
            let set = header
                .set_device_major(rustix::fs::major(device))
                .and_then(|()| header.set_device_minor(rustix::fs::minor(device)));
            set.and_then(|()| tar.append_data(&mut header, path, io::empty()))
                .map_err(Failed::Write)
        })
    }

    /// The time for the tar; where one is given, later ones are set back, in the folder too.
    fn clamp(&self, real: &Path, metadata: &Metadata) -> Result<u64, Error> {
        let mtime_s = u64::try_from(metadata.mtime()).unwrap_or(0);
        match self.newest_s {
            Some(newest_s) if mtime_s > newest_s => {
                layer::set_time(real, i64::try_from(newest_s).unwrap_or(0), 0)
                    .map_err(io_error("set the time of", real))?;
                Ok(newest_s)
            }
            _ => Ok(mtime_s),
        }
    }
}

fn header(mode: u32, uid: u32, gid: u32, mtime_s: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(mtime_s);
    header.set_size(0);
    header
}

/// Those extended attributes of a file that a layer has, by name.
fn kept(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let xattrs = xattrs(path).map_err(io_error("read the attributes of", path))?;
    let kept = xattrs
        .into_iter()
        .filter(|(name, _)| is_kept_xattr(name, true));
    Ok(kept.collect())
}

/// The extended attributes of a file, no link followed; none where the file system has none.
fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(length);
        xattrs.push((name.to_owned(), value));
    }
    Ok(xattrs)
}

fn relative<'a>(root: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}
