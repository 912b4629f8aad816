//! A tar into a folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::remove::remove;
use super::{Lost, MAX_DEPTH, SET_ID, Target};

/// How to unpack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpack {
    /// Owners are as the tar has them, by number; else all belongs to who unpacks, and nothing runs as its owner
    /// (set-user-ID) any more.
    pub keep_owners: bool,
    /// The tar says how it is to be: an entry called `.wh.NAME` takes away what is called NAME there, with all that is in it,
    /// and a folder gives way to a file, and a file to a folder. What is mounted there stays.
    pub whiteouts: bool,
    /// What the first name of every path is replaced by.
    pub rename: Option<PathBuf>,
}

/// Unpacks `tar` into `target`. What is there is replaced, but, without `whiteouts`, never a folder by a file or a file by
/// a folder; device nodes are left out. Tells what is lost.
///
/// # Errors
/// When the tar is not whole, names something outside of the folder, or does not fit what is there. What was unpacked
/// before that stays.
pub fn unpack(target: &Target, tar: impl Read, options: &Unpack) -> io::Result<Lost> {
    let mut archive = Archive::new(tar);
    let mut unpacker = Unpacker {
        root: target.dir.as_fd(),
        options,
        last: None,
        dirs: Vec::new(),
        lost: Lost::default(),
    };
    for entry in archive.entries()? {
        unpacker.entry(entry?)?;
    }
    unpacker.finish_dirs()?;
    Ok(unpacker.lost)
}

/// What the name of an entry begins with that takes something away.
const WHITEOUT: &[u8] = b".wh.";

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    options: &'a Unpack,
    /// The folder of the last entry: the next one is most often in it too.
    last: Option<(PathBuf, OwnedFd)>,
    /// Folders made: their modes and times come last, since they may forbid to fill them.
    dirs: Vec<(OwnedPlace, Wanted)>,
    lost: Lost,
}

type OwnedPlace = (PathBuf, OsString);

/// What an entry says of its file.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    mode: u32,
    owner: Option<(u32, u32)>,
    mtime: i64,
}

impl Unpacker<'_> {
    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> io::Result<()> {
        let shown = entry.path()?.into_owned();
        let Some((dir, name)) = self.place(&shown)? else {
            return Ok(()); // the folder itself
        };
        if self.options.whiteouts
            && let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT)
        {
            return self.take_away(&dir, OsStr::from_bytes(gone), &shown);
        }
        let wanted = self.wanted(&entry, &shown)?;
        let kind = entry.header().entry_type();
        let is_file = matches!(
            kind,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        );
        if is_file && !self.options.keep_owners && entry.header().mode()? & SET_ID != 0 {
            self.lost.set_id.add(&shown);
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            // Nothing of a container is to open the machine's devices.
            self.lost.left_out.add(&shown);
            return Ok(());
        }
        let is_other = matches!(kind, EntryType::Symlink | EntryType::Link | EntryType::Fifo);
        let is_dir = kind == EntryType::Directory;
        if self.options.whiteouts && (is_dir || is_file || is_other) {
            self.clear(&dir, &name, is_dir, &shown)?;
        }
        let parent = self.parent(&dir).map_err(at(&shown))?;
        match kind {
            EntryType::Directory => {
                make_dir(parent, &name, &shown)?;
                self.dirs.push(((dir, name), wanted));
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                write_file(parent, &name, &mut entry, &shown)
                    .and_then(|file| set_file(&file, wanted).map_err(at(&shown)))
            }
            EntryType::Symlink => {
                let to = link_target(&entry, &shown)?;
                make_way(parent, &name, &shown)?;
                rustix::fs::symlinkat(&*to, parent, &*name).map_err(at(&shown))?;
                set_link(parent, &name, wanted).map_err(at(&shown))
            }
            EntryType::Link => {
                let to = link_target(&entry, &shown)?;
                self.hard_link(&to, &dir, &name, &shown)
            }
            EntryType::Fifo => {
                make_way(parent, &name, &shown)?;
                let mode = Mode::from_raw_mode(wanted.mode);
                rustix::fs::mknodat(parent, &*name, FileType::Fifo, mode, 0).map_err(at(&shown))
            }
            // Headers of others' making say nothing here.
            _ => Ok(()),
        }
    }

    /// Takes away what is there, if anything is.
    fn take_away(&mut self, dir: &Path, name: &OsStr, shown: &Path) -> io::Result<()> {
        if name.is_empty() || name == "." || name == ".." {
            let text = format!("{} takes nothing away that has a name", shown.display());
            return Err(io::Error::other(text));
        }
        let parent = match dir.as_os_str().is_empty() {
            true => open_beneath(self.root, Path::new(".")),
            false => open_beneath(self.root, dir),
        };
        match parent {
            // Then it is gone already. A link or a file on the way has nothing of it, either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            parent => {
                self.last = None;
                let parent = parent.map_err(at(shown))?;
                // What is mounted there stays, and that is no error: it would be one for each later tar, too.
                remove(parent.as_fd(), name, 0).map(drop).map_err(at(shown))
            }
        }
    }

    /// Takes away a folder in the place of something else, and something else in the place of a folder.
    fn clear(&mut self, dir: &Path, name: &OsStr, is_dir: bool, shown: &Path) -> io::Result<()> {
        let parent = self.parent(dir).map_err(at(shown))?;
        let stands = kind(parent, name).map(|kind| kind == FileType::Directory);
        if stands.is_none_or(|stands| stands == is_dir) {
            return Ok(());
        }
        let is_gone = remove(parent, name, 0).map_err(at(shown))?;
        self.last = None; // it may have been in there
        match is_gone {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{} cannot take the place of what is there: something is mounted on it or in it",
                shown.display()
            ))),
        }
    }

    /// Where an entry goes: the folder, and the name in it. `None`: it is the folder to unpack into.
    fn place(&self, shown: &Path) -> io::Result<Option<OwnedPlace>> {
        let mut parts = Vec::new();
        for part in shown.components() {
            match part {
                Component::Normal(name) => parts.push(name.to_owned()),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    let text = format!("the tar has {} in it, which leads out", shown.display());
                    return Err(io::Error::other(text));
                }
            }
        }
        if parts.len() > MAX_DEPTH {
            let text = format!(
                "{} lies more than {MAX_DEPTH} folders deep",
                shown.display()
            );
            return Err(io::Error::other(text));
        }
        if let (Some(first), Some(name)) = (parts.first_mut(), &self.options.rename) {
            *first = name.as_os_str().to_owned();
        }
        let last = parts.pop();
        Ok(last.map(|last| (parts.iter().collect(), last)))
    }

    fn wanted(&self, entry: &Entry<'_, impl Read>, shown: &Path) -> io::Result<Wanted> {
        let header = entry.header();
        let number = |value: io::Result<u64>| {
            let value = value?;
            u32::try_from(value).map_err(|_| {
                io::Error::other(format!(
                    "the owner {value} of {} is too high",
                    shown.display()
                ))
            })
        };
        let mode = header.mode()? & 0o7777;
        let (mode, owner) = match self.options.keep_owners {
            true => (mode, Some((number(header.uid())?, number(header.gid())?))),
            false => (mode & 0o1777, None),
        };
        Ok(Wanted {
            mode,
            owner,
            mtime: i64::try_from(header.mtime()?).unwrap_or(0),
        })
    }

    /// The folder `dir` below the root, made where it is not there. No link on the way is followed.
    fn parent(&mut self, dir: &Path) -> Result<BorrowedFd<'_>, Errno> {
        if dir.as_os_str().is_empty() {
            return Ok(self.root);
        }
        if self.last.as_ref().is_none_or(|(known, _)| known != dir) {
            let opened = match open_beneath(self.root, dir) {
                Err(Errno::NOENT) => make_dirs(self.root, dir)?,
                other => other?,
            };
            self.last = Some((dir.to_owned(), opened));
        }
        let (_, opened) = self.last.as_ref().ok_or(Errno::NOENT)?;
        Ok(opened.as_fd())
    }

    fn hard_link(&mut self, to: &OsStr, dir: &Path, name: &OsStr, shown: &Path) -> io::Result<()> {
        let Some((to_dir, to_name)) = self.place(Path::new(to))? else {
            return Err(io::Error::other(format!(
                "{} is to be the same file as a folder",
                shown.display()
            )));
        };
        let first = match to_dir.as_os_str().is_empty() {
            true => open_beneath(self.root, Path::new(".")),
            false => open_beneath(self.root, &to_dir),
        };
        let first = first.map_err(at(shown))?;
        let parent = self.parent(dir).map_err(at(shown))?;
        let same = |a: BorrowedFd<'_>, name: &OsStr| {
            let stat = rustix::fs::statat(a, name, AtFlags::SYMLINK_NOFOLLOW);
            stat.map(|stat| (stat.st_dev, stat.st_ino))
        };
        let target = same(first.as_fd(), &to_name).map_err(at(shown))?;
        if same(parent, name) == Ok(target) {
            return Ok(());
        }
        make_way(parent, name, shown)?;
        rustix::fs::linkat(&first, &*to_name, parent, name, AtFlags::empty()).map_err(at(shown))
    }

    /// The innermost first: the mode of one may close the way to those in it.
    fn finish_dirs(&mut self) -> io::Result<()> {
        for ((dir, name), wanted) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let path = dir.join(&name);
            let opened = open_beneath(self.root, &path).map_err(at(&path))?;
            set_file(&opened, wanted).map_err(at(&path))?;
        }
        Ok(())
    }
}

fn link_target(entry: &Entry<'_, impl Read>, shown: &Path) -> io::Result<OsString> {
    let target = entry.link_name()?;
    target.map(|path| path.into_owned().into()).ok_or_else(|| {
        io::Error::other(format!(
            "the link {} of the tar leads nowhere",
            shown.display()
        ))
    })
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_with(root, path, ResolveFlags::empty())
}

/// Opens a folder below another, through no link, and only as `more` allows.
pub(super) fn open_with(
    root: BorrowedFd<'_>,
    path: &Path,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let resolve = resolve | more;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel could not rule out a rename on the way (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn make_dirs(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let mut done = open_beneath(root, Path::new("."))?;
    for part in path.components() {
        let name = Path::new(part.as_os_str());
        match rustix::fs::mkdirat(&done, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        done = open_beneath(done.as_fd(), name)?;
    }
    Ok(done)
}

fn make_dir(parent: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> io::Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) if kind(parent, name) == Some(FileType::Directory) => Ok(()),
        Err(Errno::EXIST) => Err(io::Error::other(format!(
            "{} is a folder, and what is there is not",
            shown.display()
        ))),
        other => other.map_err(at(shown)),
    }
}

fn kind(parent: BorrowedFd<'_>, name: &OsStr) -> Option<FileType> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// Takes away what stands in the place of something else than a folder.
fn make_way(parent: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> io::Result<()> {
    match kind(parent, name) {
        None => Ok(()),
        Some(FileType::Directory) => Err(io::Error::other(format!(
            "{} is no folder, and what is there is one",
            shown.display()
        ))),
        Some(_) => rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(at(shown)),
    }
}

fn write_file(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    content: &mut impl Read,
    shown: &Path,
) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let create = flags | OFlags::CREATE | OFlags::EXCL;
    let made = match make_way(parent, name, shown) {
        Ok(()) => rustix::fs::openat(parent, name, create, Mode::from_raw_mode(0o600)),
        // Something is mounted on it, as on /etc/hosts: then it is filled anew.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            rustix::fs::openat(parent, name, flags | OFlags::TRUNC, Mode::empty())
        }
        Err(error) => return Err(error),
    };
    let mut file = File::from(made.map_err(at(shown))?);
    io::copy(content, &mut file)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", shown.display())))?;
    Ok(file.into())
}

fn set_file(file: &OwnedFd, wanted: Wanted) -> Result<(), Errno> {
    if let Some((uid, gid)) = wanted.owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    // After the owner, which clears set-user-ID.
    rustix::fs::fchmod(file, Mode::from_raw_mode(wanted.mode))?;
    rustix::fs::futimens(file, &times(wanted))
}

fn set_link(parent: BorrowedFd<'_>, name: &OsStr, wanted: Wanted) -> Result<(), Errno> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    if let Some((uid, gid)) = wanted.owner {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow)?;
    }
    rustix::fs::utimensat(parent, name, &times(wanted), nofollow)
}

fn times(wanted: Wanted) -> Timestamps {
    let time = Timespec {
        tv_sec: wanted.mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Says which file it was.
fn at(shown: &Path) -> impl Fn(Errno) -> io::Error {
    move |errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{}: {error}", shown.display()))
    }
}
