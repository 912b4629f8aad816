//! A tree taken away, following no link and crossing into no mount.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, ResolveFlags};
use rustix::io::Errno;

use super::MAX_DEPTH;
use super::unpack::open_with;

/// Removes what is called `name` in `parent`, with all that is in it. What is mounted there stays as it is, with the folders
/// that it lies in: a volume is another's. Gives whether all of it is gone, as what was never there is.
///
/// # Errors
/// When it may not be removed, or lies too deep.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        // A file on which another is mounted.
        Err(Errno::BUSY) => return Ok(false),
        // Linux says the one, POSIX the other.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    if depth >= MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let dir = match open_with(parent, Path::new(name), ResolveFlags::NO_XDEV) {
        Err(Errno::XDEV) => return Ok(false),
        opened => opened?,
    };
    let mut all = true;
    for entry in names(&dir)? {
        all &= remove(dir.as_fd(), &entry, depth + 1)?;
    }
    if !all {
        return Ok(false);
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

fn names(dir: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}
