//! A few megabytes that are kept for the day when the disk is full: a node that is started then gives them up, so that
//! it can write what a start has to write, and what ran before goes on to be served.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

/// What is kept, in bytes.
const RESERVE_BYTES: i64 = 4 << 20;

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("reserve")
}

/// Gives the reserve up if there is less than as much left beside it. Whether it did.
pub(crate) fn release_if_needed(data_dir: &Path) -> bool {
    let is_full = free_bytes(data_dir).is_ok_and(|free| free < RESERVE_BYTES.unsigned_abs());
    is_full && fs::remove_file(path(data_dir)).is_ok()
}

/// Sets the reserve aside, unless it is there or there is little left.
pub(crate) fn keep(data_dir: &Path) {
    let path = path(data_dir);
    let free = free_bytes(data_dir).unwrap_or(0);
    if path.exists() || free < 4 * RESERVE_BYTES.unsigned_abs() {
        return;
    }
    let kept = File::create(&path).and_then(|file| {
        fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).map_err(io::Error::from)
    });
    if kept.is_err() {
        // Some file systems cannot set space aside; then there is none.
        let _ = fs::remove_file(&path);
    }
}

fn free_bytes(dir: &Path) -> nix::Result<u64> {
    let found = statvfs(dir)?;
    Ok(found
        .blocks_available()
        .saturating_mul(found.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept_while_there_is_room() {
        let dir = tempfile::tempdir().expect("a folder");
        keep(dir.path());
        // A temporary folder on a full disk, or on one that cannot set space aside, has none.
        if path(dir.path()).exists() {
            assert!(!release_if_needed(dir.path()));
            assert_eq!(
                fs::metadata(path(dir.path())).expect("there").len(),
                RESERVE_BYTES.unsigned_abs()
            );
        }
    }
}
