//! Build secrets as files: only ever in memory (tmpfs), and only while a step runs.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// Where there usually is memory that looks like a folder, best first.
const PLACES: [&str; 3] = ["/dev/shm", "/run", "/tmp"];
/// tmpfs (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;
const PREFIX: &str = ".layby-secret-";

/// Held while a folder is made and locked, and while it is looked for what was left.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder in memory that only we may enter; gone when dropped.
pub(super) struct Folder {
    dir: TempDir,
    /// Locked, so that nobody takes it for something left behind.
    _held: File,
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Makes a folder. The error is text for the user.
pub(super) fn folder() -> Result<Folder, String> {
    let in_memory = |place: &&&str| {
        rustix::fs::statfs(**place).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
    };
    let place = PLACES.iter().find(in_memory).ok_or_else(|| {
        format!(
            "cannot keep a secret: none of {} is a tmpfs, and it is not to reach a disk",
            PLACES.join(", ")
        )
    })?;
    made_in(Path::new(place)).map_err(|error| format!("cannot keep a secret in {place}: {error}"))
}

fn made_in(place: &Path) -> io::Result<Folder> {
    // Nothing panics while it is held.
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(place)?;
    let held = File::open(dir.path())?;
    held.lock()?;
    Ok(Folder { dir, _held: held })
}

/// Removes what builds left whose process was killed: a node does this when it starts, for no build may follow.
pub(crate) fn sweep() {
    for place in PLACES {
        sweep_in(Path::new(place));
    }
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

fn sweep_in(place: &Path) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(entries) = fs::read_dir(place) else {
        return;
    };
    let own = std::process::id().to_string();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        // Of this number there may have been another process before.
        let is_over = pid.is_some_and(|pid| {
            pid == own
                || pid.bytes().all(|byte| byte.is_ascii_digit())
                    && !Path::new("/proc").join(pid).exists()
        });
        let nobodys = || File::open(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok());
        if is_over && nobodys() {
            // The next start tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_is_in_use_stays() {
        let place = TempDir::new().expect("a folder");
        let own = std::process::id();
        let left = [format!("{PREFIX}{own}-x"), format!("{PREFIX}4194999-x")];
        let stays = [format!("{PREFIX}1-x"), "other".to_owned()];
        for name in left.iter().chain(&stays) {
            fs::create_dir(place.path().join(name)).expect("a folder");
            fs::write(place.path().join(name).join("secret"), "s").expect("a file");
        }
        let used = made_in(place.path()).expect("a folder");
        sweep_in(place.path());
        let is_there = |name: &String| place.path().join(name).exists();
        assert!(!left.iter().any(is_there) && stays.iter().all(is_there));
        assert!(used.path().is_dir());
    }
}
