//! Build secrets as files: only ever in memory (tmpfs), and only while a step runs.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;

/// Where there usually is memory that looks like a folder, best first.
const PLACES: [&str; 3] = ["/dev/shm", "/run", "/tmp"];
/// tmpfs (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;
const PREFIX: &str = ".layby-secret-";

/// A folder in memory that only we may enter; gone when dropped. The error is text for the user.
pub(super) fn folder() -> Result<TempDir, String> {
    let in_memory = |place: &&&str| {
        rustix::fs::statfs(**place).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
    };
    let place = PLACES.iter().find(in_memory).ok_or_else(|| {
        format!(
            "cannot keep a secret: none of {} is a tmpfs, and it is not to reach a disk",
            PLACES.join(", ")
        )
    })?;
    sweep(Path::new(place));
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(place);
    made.map_err(|error| format!("cannot keep a secret in {place}: {error}"))
}

/// Writes a secret's file.
pub(super) fn write(path: &Path, value: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(value)?;
    if owner != (0, 0) {
        std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Removes what builds left that were killed.
fn sweep(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let is_left = pid.is_some_and(|pid| {
            pid.bytes().all(|byte| byte.is_ascii_digit()) && !Path::new("/proc").join(pid).exists()
        });
        if is_left {
            // The next build tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
