//! The few calls by which files below an untrusted directory are looked at.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Overlayfs' mark for a directory that hides all below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
pub(crate) const USER_OPAQUE: &str = "user.overlay.opaque";

/// Capabilities, ACLs and users' own. Not overlayfs' (a `redirect` would reach other layers), not SELinux labels.
pub(crate) fn is_kept_xattr(name: &str, is_root: bool) -> bool {
    let plain = (name.starts_with("user.") && !name.starts_with("user.overlay."))
        || matches!(name, "system.posix_acl_access" | "system.posix_acl_default");
    plain || (is_root && name == "security.capability")
}

/// Opens a directory below another, following no link at all.
pub(crate) fn open_beneath(dir: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            // The kernel could not rule out a rename on the way (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

pub(super) fn stat(dir: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
