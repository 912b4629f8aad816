//! Which node of the machine has which subnet: a folder that all nodes share, under one lock.
//!
//! The claim is what keeps two nodes apart that start at the same moment; routes alone would show a
//! subnet only once its bridge is up.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::subnet::Subnet;

/// What a node remembers of its network, in its data directory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// Its range, as `10.1.0.0/16`.
    pub(crate) subnet: String,
    /// The port of its name server: the kernel remembers it for containers that ask from one port of theirs.
    #[serde(default)]
    pub(crate) dns_port: u16,
}

impl Remembered {
    /// Reads it; a file that is missing or damaged is as good as none: the subnet is chosen anew then.
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .map_err(file("write", path))?;
        let aside = path.with_extension("json.new");
        fs::write(&aside, text).map_err(file("write", &aside))?;
        fs::rename(&aside, path).map_err(file("write", path))
    }
}

/// The claims of all nodes, held alone until dropped.
#[derive(Debug)]
pub(crate) struct Claims {
    folder: PathBuf,
    /// The lock's file; it must go while the lock is held.
    path: PathBuf,
    // Its lock goes when it is closed.
    _lock: File,
}

impl Claims {
    /// Waits until no other node is choosing. `shared`: the folder that all nodes of the machine share.
    pub(crate) fn lock(shared: &Path) -> Result<Self, Error> {
        fs::create_dir_all(shared).map_err(file("make the folder", shared))?;
        let path = shared.join("subnets.lock");
        let lock = loop {
            // For root alone: whoever can open it can keep it locked.
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(file("open", &path))?;
            lock.set_permissions(Permissions::from_mode(0o600))
                .map_err(file("open", &path))?;
            lock.lock().map_err(file("lock", &path))?;
            if is_still(&lock, &path).map_err(file("look at", &path))? {
                break lock;
            }
            // Who held it was the last node and removed it: that lock keeps nobody out any more.
        };
        let folder = shared.join("subnets");
        fs::create_dir_all(&folder).map_err(file("make the folder", &folder))?;
        Ok(Self {
            folder,
            path,
            _lock: lock,
        })
    }

    /// The subnets of all nodes but `node`.
    pub(crate) fn of_others(&self, node: &str) -> Result<Vec<Subnet>, Error> {
        let read = || -> io::Result<Vec<Subnet>> {
            let mut all = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                if entry.file_name() != node {
                    let text = fs::read_to_string(entry.path())?;
                    all.extend(text.parse::<Subnet>().ok());
                }
            }
            Ok(all)
        };
        read().map_err(file("read", &self.folder))
    }

    /// Claims `subnet` for `node`.
    pub(crate) fn claim(&self, node: &str, subnet: Subnet) -> Result<(), Error> {
        let path = self.folder.join(node);
        fs::write(&path, format!("{subnet}\n")).map_err(file("write", &path))
    }

    /// Gives the claim of `node` up, and the lock. With the last claim the folder and the lock's file go.
    pub(crate) fn give_up(self, node: &str) -> Result<(), Error> {
        let path = self.folder.join(node);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file("remove", &path)(error));
            }
            _ => {}
        }
        match fs::remove_dir(&self.folder) {
            Ok(()) => fs::remove_file(&self.path).map_err(file("remove", &self.path)),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(file("remove", &self.folder)(error)),
        }
    }
}

/// Whether `path` still names the file that was opened.
fn is_still(opened: &File, path: &Path) -> io::Result<bool> {
    let opened = opened.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says what was done to which file.
pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_claim_is_seen_by_others_until_it_is_given_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let lock = || Claims::lock(dir.path()).expect("locked");
        let subnet: Subnet = "10.16.0.0/16".parse().expect("a subnet");
        let other: Subnet = "10.32.0.0/16".parse().expect("a subnet");
        let claims = lock();
        claims.claim("a", subnet).expect("claimed");
        claims.claim("b", other).expect("claimed");
        assert_eq!(claims.of_others("b").expect("read"), vec![subnet]);
        assert_eq!(claims.of_others("a").expect("read"), vec![other]);
        claims.give_up("a").expect("given up");
        assert_eq!(lock().of_others("b").expect("read"), vec![]);
        lock().give_up("a").expect("given up twice");
        assert_eq!(lock().of_others("a").expect("read"), vec![other]);
        lock().give_up("b").expect("given up");
        let left = fs::read_dir(dir.path()).expect("read").count();
        assert_eq!(left, 0, "the last one leaves nothing");
    }

    #[test]
    fn nobody_holds_the_lock_together_with_another_though_its_file_goes_and_comes() {
        let dir = tempfile::tempdir().expect("a folder");
        let holders = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let (dir, holders) = (dir.path(), &holders);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let claims = Claims::lock(dir).expect("locked");
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        holders.fetch_sub(1, Ordering::SeqCst);
                        claims.give_up(name).expect("given up");
                    }
                });
            }
        });
    }

    #[test]
    fn a_damaged_memory_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("network.json");
        fs::write(&path, "{").expect("written");
        assert_eq!(Remembered::read(&path).subnet, "");
        let remembered = Remembered {
            subnet: "10.0.0.0/16".to_owned(),
            dns_port: 5353,
        };
        remembered.write(&path).expect("written");
        assert_eq!(Remembered::read(&path).dns_port, 5353);
    }
}
