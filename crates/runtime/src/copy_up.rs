//! First use of a volume: what the image has where it is mounted is copied into it, as Docker does.
//!
//! A copy that was cut short is known by a file in it, and done over: what the image has is copied once more, and what
//! else is there is left alone.
//!
//! Neither side is trusted to keep still or to be without links: everything is opened below a folder that is open
//! already, and no link is followed.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, fsync, symlinkat, syncfs, unlinkat};

use crate::error::{Error, Result, Trying};

/// How deep folders may lie in each other.
const MAX_DEPTH: usize = 128;

/// In the folder that is copied into, until all is there.
const UNDER_WAY: &CStr = c".layby-copying";

/// Copies the folder `from` into the folder at `to`, if that is one and empty; owners, modes and times are kept. What
/// is no file, folder or link is left out.
pub(crate) fn copy(from: &OwnedFd, to: &Path, target: &Path) -> Result<()> {
    let what = || {
        format!(
            "copy what the image has at {} into its volume",
            target.display()
        )
    };
    let found = fstat(from).trying(what)?;
    if kind(&found) != SFlag::S_IFDIR {
        return Ok(());
    }
    let into = File::open(to).trying(what)?;
    if !into.metadata().trying(what)?.is_dir() {
        return Ok(());
    }
    // Replicas that start together share the volume: one of them copies, the others wait for it.
    let into = Flock::lock(into, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .trying(what)?;
    if !is_unfilled(into.as_fd()).trying(what)? {
        return Ok(());
    }
    let from = reopen(from.as_fd()).trying(what)?;
    fill(from.as_fd(), into.as_fd(), &found)
        .map_err(|error| Error::Failed(format!("cannot {}: {error}", what())))
}

fn fill(from: BorrowedFd<'_>, into: BorrowedFd<'_>, found: &FileStat) -> io::Result<()> {
    if !names(from)?.is_empty() {
        let make = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(into, UNDER_WAY, make, Mode::from_bits_truncate(0o600))?;
        copy_folder(from, into, 0)?;
        // A power cut must not leave a copy that passes for whole and is not.
        syncfs(into)?;
        unlinkat(into, UNDER_WAY, UnlinkatFlags::NoRemoveDir)?;
        // Nor may the mark come back after the service has begun to write: the copy would be done over.
        fsync(into)?;
    }
    adopt(into, found)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// A descriptor to read a folder by, of one that only names it.
fn reopen(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    openat(
        fd,
        c".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Whether nothing was ever copied or written there, or a copy was cut short.
fn is_unfilled(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    let names = names(fd)?;
    let cut_short = names.iter().any(|name| **name == *UNDER_WAY);
    Ok(cut_short || names.iter().all(|name| name.as_bytes() == b"lost+found"))
}

/// Takes away what an earlier copy has left of a file.
fn clear(to: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    match unlinkat(to, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn names(fd: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let mut dir = Dir::from_fd(reopen(fd)?)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn copy_folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("its folders lie too deep in each other"));
    }
    for name in names(from)? {
        if *name == *UNDER_WAY {
            continue;
        }
        let stat = fstatat(from, &*name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match kind(&stat) {
            SFlag::S_IFDIR => {
                let flags =
                    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let inner = openat(from, &*name, flags, Mode::empty())?;
                match mkdirat(to, &*name, Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let made = openat(to, &*name, flags, Mode::empty())?;
                copy_folder(inner.as_fd(), made.as_fd(), depth + 1)?;
                adopt(made.as_fd(), &stat)?;
            }
            SFlag::S_IFREG => copy_file(from, to, &name, &stat)?,
            SFlag::S_IFLNK => {
                let link = readlinkat(from, &*name)?;
                clear(to, &name)?;
                symlinkat(&*link, to, &*name)?;
                let (uid, gid) = owner(&stat);
                fchownat(
                    to,
                    &*name,
                    Some(uid),
                    Some(gid),
                    AtFlags::AT_SYMLINK_NOFOLLOW,
                )?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &FileStat,
) -> io::Result<()> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut source = File::from(openat(from, name, read, Mode::empty())?);
    let make =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    clear(to, name)?;
    let mut copy = File::from(openat(to, name, make, Mode::from_bits_truncate(0o600))?);
    io::copy(&mut source, &mut copy)?;
    adopt(copy.as_fd(), stat)
}

fn owner(stat: &FileStat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

/// Owner first: changing it takes the set-user-id bits away. Time last.
fn adopt(fd: BorrowedFd<'_>, stat: &FileStat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(fd, Some(uid), Some(gid))?;
    fchmod(fd, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    futimens(fd, &time, &time)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn copied(from: &Path, to: &Path) {
        let from = OwnedFd::from(File::open(from).expect("opened"));
        copy(&from, to, Path::new("/data")).expect("copied");
    }

    fn listed(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("read").flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_copy_that_was_cut_short_is_done_over_and_a_whole_one_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("deep")).expect("a folder");
        fs::create_dir(&to).expect("a folder");
        fs::write(from.join("deep/file"), "whole").expect("written");
        std::os::unix::fs::symlink("deep", from.join("link")).expect("a link");
        copied(&from, &to);
        assert_eq!(listed(&to), ["deep", "link"]);

        // Cut short in the midst of a file, with something of the user's beside.
        fs::write(to.join("deep/file"), "wh").expect("written");
        fs::write(to.join("mine"), "mine").expect("written");
        copied(&from, &to);
        assert_eq!(
            fs::read(to.join("deep/file")).expect("read"),
            b"wh",
            "it is filled"
        );
        fs::write(to.join(".layby-copying"), "").expect("written");
        copied(&from, &to);
        assert_eq!(fs::read(to.join("deep/file")).expect("read"), b"whole");
        assert_eq!(listed(&to), ["deep", "link", "mine"]);
    }
}
