//! Terminals: the size of one, and making one in a container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{FsType, fstatfs};

use crate::sys;

/// The magic number of devpts (`linux/magic.h`).
const DEVPTS: FsType = FsType(0x1cd1);

/// The size of a terminal: columns, rows.
///
/// # Errors
/// When it is none.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    sys::terminal_size(terminal.as_fd())
}

/// Sets the size of a terminal; who runs in it is told.
///
/// # Errors
/// When it is none.
pub fn set_size(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    sys::set_terminal_size(terminal.as_fd(), columns, rows)
}

/// Makes a pseudo terminal in the mount namespace of this process, and opens both of its sides: who holds it, and who
/// runs in it. What lies at the path may be anything, for the container owns it: only a devpts is taken.
pub(crate) fn make(columns: u16, rows: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let holder = openat2(AT_FDCWD, "/dev/pts/ptmx", how)?;
    if fstatfs(&holder)?.filesystem_type() != DEVPTS {
        return Err(Errno::ENOTTY.into());
    }
    let runner = sys::open_peer(holder.as_fd())?;
    sys::set_terminal_size(holder.as_fd(), columns, rows)?;
    Ok((holder, runner))
}
