//! Unpacking a tar of unknown origin into a directory, confined to it.
//!
//! The rules that keep an archive inside: every parent is opened with openat2(2) beneath the root and without
//! following any symbolic link; the last component is only ever made anew (O_EXCL, mkdirat, symlinkat, linkat,
//! mknodat) after what bore its name was removed; hard links may only lead to what the archive itself brought.
//!
//! Layers are turned into what overlayfs understands (image-spec, layer.md; kernel, overlayfs.rst): `.wh.NAME`
//! becomes a character device 0/0, `.wh..wh..opq` the attribute `trusted.overlay.opaque`.

pub(crate) mod beneath;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use tar::EntryType;

pub(crate) use self::beneath::{OPAQUE, USER_OPAQUE, is_kept_xattr};
use self::beneath::{open_beneath, stat};
use crate::tarball::{self, Entry, components};

/// Where decompression bombs end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of file content.
    pub bytes: u64,
    /// Most entries.
    pub entries: u64,
    /// Most memory for the directories, whose modes and times are set last, in bytes.
    pub directory_bytes: u64,
}

impl Default for Limits {
    /// 64 GiB (large model weights fit), two million entries, and 64 MiB for directories (a few hundred thousand).
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 2_000_000,
            directory_bytes: 64 << 20,
        }
    }
}

/// What `.wh.` names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// Deletions, to be written in overlayfs' form: the tar is an image layer.
    Overlay,
    /// Nothing: the tar is of ordinary files.
    Ordinary,
}

/// Why a tar was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive itself is broken, hostile or over a limit.
    #[error("{0}")]
    Refused(String),
    /// The archive could not be read.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The entry's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks a plain tar into `root`, which must exist and should be empty. What was unpacked stays on errors.
///
/// Owners, device nodes and security attributes need root; without it files belong to the caller.
pub fn unpack(
    reader: impl Read,
    root: &Path,
    whiteouts: Whiteouts,
    limits: &Limits,
) -> Result<(), UnpackError> {
    let opened = File::open(root).map_err(|source| UnpackError::Write {
        path: root.to_owned(),
        source,
    })?;
    let mut unpacker = Unpacker {
        root: opened.into(),
        whiteouts,
        is_root: rustix::process::geteuid().is_root(),
        bytes_left: limits.bytes,
        parent: None,
        directories: BTreeMap::new(),
        directory_bytes_left: limits.directory_bytes,
        buffer: vec![0; 128 << 10],
    };
    let mut tar = tarball::Reader::new(reader);
    let mut entries = 0;
    while let Some(entry) = tar.next_entry().map_err(read_error)? {
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::Refused(format!(
                "it has more than {} entries",
                limits.entries
            )));
        }
        unpacker.entry(&entry, &mut tar)?;
    }
    unpacker.finish_directories()?;
    tar.drain().map_err(read_error)?;
    Ok(())
}

struct Unpacker {
    root: OwnedFd,
    whiteouts: Whiteouts,
    is_root: bool,
    bytes_left: u64,
    /// The directory opened last, since entries mostly follow their siblings.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Modes and times by path, set at the end: filling a directory changes its time, and may need its mode.
    directories: BTreeMap<Vec<u8>, Directory>,
    directory_bytes_left: u64,
    buffer: Vec<u8>,
}

struct Directory {
    mode: Mode,
    times: Timestamps,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, data: &mut impl Read) -> Result<(), UnpackError> {
        let refused = |reason: &str| {
            UnpackError::Refused(format!("the entry {} {reason}", shown(&entry.path)))
        };
        let parts = components(&entry.path).ok_or_else(|| {
            refused("leads out of the archive, is too long or lies deeper than 512 directories")
        })?;
        let Some((name, parents)) = parts.split_last() else {
            // `./`: the root itself.
            if entry.kind == EntryType::Directory {
                let root = self.root.try_clone().map_err(write_error(b"/"))?;
                return self.directory(entry, root, Vec::new());
            }
            return Err(refused("is the root, but not a directory"));
        };
        let whiteout = match self.whiteouts {
            Whiteouts::Overlay => name.strip_prefix(b".wh."),
            Whiteouts::Ordinary => None,
        };
        self.open_parent(parents)?;
        let Some((_, parent)) = self.parent.take() else {
            return Err(refused("has no directory"));
        };
        let result = match whiteout {
            Some(hidden) => self.whiteout(entry, &parent, hidden),
            None => self.make(entry, &parent, name, &parts, data),
        };
        // Kept for the next sibling, unless this one may have replaced a directory on the way to it.
        if result? == Kept::Yes {
            self.parent = Some((parents.join(&b'/'), parent));
        }
        Ok(())
    }

    /// Makes `self.parent` the directory at `parts`, made as far as it is missing.
    fn open_parent(&mut self, parts: &[&[u8]]) -> Result<(), UnpackError> {
        let path = parts.join(&b'/');
        if self.parent.as_ref().is_some_and(|(open, _)| *open == path) {
            return Ok(());
        }
        let mut fd = self.root.try_clone().map_err(write_error(&path))?;
        if !parts.is_empty() {
            match open_beneath(&self.root, &path) {
                Ok(opened) => fd = opened,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    for (depth, part) in parts.iter().enumerate() {
                        fd = self.step_into(&fd, part, &parts[..=depth])?;
                    }
                }
                Err(error) => return Err(write_error(&path)(error.into())),
            }
        }
        self.parent = Some((path, fd));
        Ok(())
    }

    /// Opens one directory below another; makes it (0755) when it is not there or only whited out.
    fn step_into(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[&[u8]],
    ) -> Result<OwnedFd, UnpackError> {
        let path = path.join(&b'/');
        let failed = |error: Errno| write_error(&path)(error.into());
        let there = stat(parent, name).map_err(failed)?;
        let hidden = there.as_ref().is_some_and(|there| self.is_whiteout(there));
        if hidden {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed)?;
        }
        match there {
            Some(there) if !hidden => match FileType::from_raw_mode(there.st_mode) {
                FileType::Directory => {}
                FileType::Symlink => {
                    return Err(UnpackError::Refused(format!(
                        "an entry lies behind the symbolic link {}",
                        shown(&path)
                    )));
                }
                _ => {
                    return Err(UnpackError::Refused(format!(
                        "an entry lies below {}, which is no directory",
                        shown(&path)
                    )));
                }
            },
            _ => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(failed)?,
        }
        let opened = open_beneath(parent, name).map_err(failed)?;
        if hidden {
            self.set_opaque(&opened).map_err(failed)?;
        }
        Ok(opened)
    }

    fn make(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        parts: &[&[u8]],
        data: &mut impl Read,
    ) -> Result<Kept, UnpackError> {
        let failed = |error: Errno| write_error(&entry.path)(error.into());
        let refused = |reason: &str| {
            UnpackError::Refused(format!("the entry {} {reason}", shown(&entry.path)))
        };
        let there = stat(parent, name).map_err(failed)?;
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let hidden = there.as_ref().is_some_and(|there| self.is_whiteout(there));
        let keeps = there.as_ref().is_some_and(is_dir) && entry.kind == EntryType::Directory;
        let mut kept = Kept::Yes;
        // The source of a hard link is looked up before anything is removed: it may be the same name.
        let source = match entry.kind {
            EntryType::Link => Some(self.link_source(entry)?),
            _ => None,
        };
        if let Some((dir, source_name)) = &source
            && stat(dir, source_name)
                .map_err(failed)?
                .zip(there)
                .is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
        {
            return Ok(Kept::Yes);
        }
        if let Some(there) = &there
            && !keeps
        {
            if is_dir(there) {
                // std removes a tree without following links, from the directory that is open here.
                let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()))
                    .join(OsStr::from_bytes(name));
                std::fs::remove_dir_all(path).map_err(write_error(&entry.path))?;
                kept = Kept::No;
            } else {
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed)?;
            }
        }
        match entry.kind {
            EntryType::Directory => {
                if !keeps {
                    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
                        .map_err(failed)?;
                }
                let opened = open_beneath(parent, name).map_err(failed)?;
                if hidden {
                    self.set_opaque(&opened).map_err(failed)?;
                }
                self.directory(entry, opened, parts.join(&b'/'))?;
            }
            EntryType::Regular | EntryType::Continuous => self.file(entry, parent, name, data)?,
            EntryType::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(refused("is a symbolic link to nothing"));
                }
                rustix::fs::symlinkat(entry.link.as_slice(), parent, name).map_err(failed)?;
                self.attributes_at(entry, parent, name).map_err(failed)?;
            }
            EntryType::Link => {
                if let Some((dir, source_name)) = source {
                    rustix::fs::linkat(
                        &dir,
                        source_name.as_slice(),
                        parent,
                        name,
                        AtFlags::empty(),
                    )
                    .map_err(|_| {
                        refused(&format!(
                            "is a hard link to {}, which is no file of the archive",
                            shown(&entry.link)
                        ))
                    })?;
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (kind, device) = match entry.kind {
                    EntryType::Fifo => (FileType::Fifo, 0),
                    EntryType::Char => (
                        FileType::CharacterDevice,
                        rustix::fs::makedev(entry.device.0, entry.device.1),
                    ),
                    _ => (
                        FileType::BlockDevice,
                        rustix::fs::makedev(entry.device.0, entry.device.1),
                    ),
                };
                if kind != FileType::Fifo && !self.is_root {
                    return Err(refused("is a device node, which only root can make"));
                }
                let mode = Mode::from_raw_mode(entry.mode);
                rustix::fs::mknodat(parent, name, kind, mode, device).map_err(failed)?;
                self.attributes_at(entry, parent, name).map_err(failed)?;
                // Not a link, so this follows nothing; mknodat's mode went through the umask.
                rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(failed)?;
            }
            _ => return Err(refused("is of a kind that is not known")),
        }
        Ok(kept)
    }

    /// The directory and the name that a hard link leads to.
    fn link_source(&self, entry: &Entry) -> Result<(OwnedFd, Vec<u8>), UnpackError> {
        let refused = |reason: &str| {
            UnpackError::Refused(format!(
                "the entry {} is a hard link to {}, {reason}",
                shown(&entry.path),
                shown(&entry.link)
            ))
        };
        let parts =
            components(&entry.link).ok_or_else(|| refused("which leads out of the archive"))?;
        let Some((name, parents)) = parts.split_last() else {
            return Err(refused("which is no file"));
        };
        let dir = if parents.is_empty() {
            self.root.try_clone().map_err(write_error(&entry.path))?
        } else {
            open_beneath(&self.root, &parents.join(&b'/'))
                .map_err(|_| refused("which is not in the archive"))?
        };
        match stat(&dir, name) {
            Ok(Some(_)) => Ok((dir, name.to_vec())),
            _ => Err(refused("which is not in the archive")),
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        data: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(opened.map_err(|error| write_error(&entry.path)(error.into()))?);
        match &entry.sparse {
            None => self.copy(entry, data, &mut file)?,
            Some(sparse) => {
                for (offset, length) in &sparse.map {
                    let sought = file.seek(SeekFrom::Start(*offset));
                    sought.map_err(write_error(&entry.path))?;
                    self.copy(entry, &mut data.take(*length), &mut file)?;
                }
                file.set_len(sparse.size)
                    .map_err(write_error(&entry.path))?;
            }
        }
        self.attributes(entry, &file, Mode::from_raw_mode(entry.mode))
            .and_then(|()| rustix::fs::futimens(&file, &times(entry)))
            .map_err(|error| write_error(&entry.path)(error.into()))
    }

    fn copy(
        &mut self,
        entry: &Entry,
        data: &mut impl Read,
        file: &mut File,
    ) -> Result<(), UnpackError> {
        loop {
            let n = data.read(&mut self.buffer).map_err(read_error)?;
            if n == 0 {
                return Ok(());
            }
            self.bytes_left = self.bytes_left.checked_sub(n as u64).ok_or_else(|| {
                UnpackError::Refused("it is larger than the limit once unpacked".to_owned())
            })?;
            file.write_all(&self.buffer[..n])
                .map_err(write_error(&entry.path))?;
        }
    }

    /// Owner and attributes now, mode and time at the end.
    fn directory(
        &mut self,
        entry: &Entry,
        opened: OwnedFd,
        path: Vec<u8>,
    ) -> Result<(), UnpackError> {
        // Until then it must be open to us, also where we are not root.
        let mode = Mode::from_raw_mode(entry.mode);
        self.attributes(entry, &opened, mode | Mode::RWXU)
            .map_err(|error| write_error(&entry.path)(error.into()))?;
        let directory = Directory {
            mode,
            times: times(entry),
        };
        // Of several entries for one directory, the last counts.
        if let Some(there) = self.directories.get_mut(&path) {
            *there = directory;
            return Ok(());
        }
        let bytes = path.len() + size_of::<(Vec<u8>, Directory)>();
        self.directory_bytes_left = (self.directory_bytes_left)
            .checked_sub(bytes as u64)
            .ok_or_else(|| {
                UnpackError::Refused("it has more directories than can be remembered".to_owned())
            })?;
        self.directories.insert(path, directory);
        Ok(())
    }

    fn finish_directories(&mut self) -> Result<(), UnpackError> {
        // What a directory holds sorts after it: backwards, no parent is closed before its child.
        for (path, directory) in std::mem::take(&mut self.directories).into_iter().rev() {
            let opened = if path.is_empty() {
                self.root.try_clone().map_err(write_error(b"/"))?
            } else {
                match open_beneath(&self.root, &path) {
                    Ok(opened) => opened,
                    // A later entry replaced it.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(error) => return Err(write_error(&path)(error.into())),
                }
            };
            rustix::fs::fchmod(&opened, directory.mode)
                .and_then(|()| rustix::fs::futimens(&opened, &directory.times))
                .map_err(|error| write_error(&path)(error.into()))?;
        }
        Ok(())
    }

    /// Owner, mode and extended attributes of an open file. In this order: each clears some of the next.
    fn attributes(&self, entry: &Entry, file: impl AsFd, mode: Mode) -> Result<(), Errno> {
        if self.is_root {
            rustix::fs::fchown(
                &file,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )?;
        }
        rustix::fs::fchmod(&file, mode)?;
        for (name, value) in &entry.xattrs {
            if !is_kept_xattr(name, self.is_root) {
                continue;
            }
            match rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
                // A file system without user attributes or ACLs; a lost capability would be felt, so that one counts.
                Err(Errno::OPNOTSUPP) if !name.starts_with("security.") => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Owner and time of what cannot be opened (links, devices).
    fn attributes_at(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        if self.is_root {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn whiteout(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        hidden: &[u8],
    ) -> Result<Kept, UnpackError> {
        let failed = |error: Errno| write_error(&entry.path)(error.into());
        match hidden {
            b".wh..opq" => self.set_opaque(parent).map_err(failed)?,
            // AUFS' own bookkeeping (.wh..wh.plnk and the like) means nothing elsewhere.
            _ if hidden.starts_with(b".wh.") => {}
            b"" | b"." | b".." => {
                return Err(UnpackError::Refused(format!(
                    "the whiteout {} names no file",
                    shown(&entry.path)
                )));
            }
            _ => match stat(parent, hidden).map_err(failed)? {
                // It hides what the layers below have; what this layer brings stays.
                Some(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {
                    let opened = open_beneath(parent, hidden).map_err(failed)?;
                    self.set_opaque(&opened).map_err(failed)?;
                }
                Some(_) => {}
                None => {
                    rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                        .map_err(failed)?
                }
            },
        }
        Ok(Kept::Yes)
    }

    fn is_whiteout(&self, stat: &Stat) -> bool {
        self.whiteouts == Whiteouts::Overlay
            && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == 0
    }

    /// Without root there is only the form that overlayfs' `userxattr` mounts read.
    fn set_opaque(&self, dir: &OwnedFd) -> Result<(), Errno> {
        let name = if self.is_root { OPAQUE } else { USER_OPAQUE };
        rustix::fs::fsetxattr(dir, name, b"y", XattrFlags::empty())
    }
}

/// Whether the parent directory may be kept open for the next entry.
#[derive(PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime_s,
        tv_nsec: entry.mtime_ns.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn shown(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(200).collect();
    format!("{text:?}")
}

/// What the tar reader finds wrong with the archive is the archive's fault.
pub(crate) fn read_error(error: io::Error) -> UnpackError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            UnpackError::Refused(error.to_string())
        }
        io::ErrorKind::UnexpectedEof => UnpackError::Refused("it ends too early".to_owned()),
        _ => UnpackError::Read(error),
    }
}

fn write_error(path: &[u8]) -> impl FnOnce(io::Error) -> UnpackError {
    let path = PathBuf::from(OsStr::from_bytes(path));
    move |source| UnpackError::Write { path, source }
}
