//! Which node of the machine has which subnet: a folder that all nodes share, under one lock.
//!
//! The claim is what keeps two nodes apart that start at the same moment; routes alone would show a
//! subnet only once its bridge is up.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::subnet::Subnet;

/// What a node remembers of its network, in its data directory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// Its subnet, as `10.1.16.0/20`.
    pub(crate) subnet: String,
    /// It found the machine's `net.ipv4.ip_forward` off and switched it on.
    pub(crate) switched_ip_forward_on: bool,
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
    // Its lock goes when it is closed.
    _lock: File,
}

impl Claims {
    /// Waits until no other node is choosing. `shared`: the folder that all nodes of the machine share.
    pub(crate) fn lock(shared: &Path) -> Result<Self, Error> {
        let folder = shared.join("subnets");
        fs::create_dir_all(&folder).map_err(file("make the folder", &folder))?;
        let path = shared.join("subnets.lock");
        let lock = File::create(&path).map_err(file("open", &path))?;
        lock.lock().map_err(file("lock", &path))?;
        Ok(Self {
            folder,
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

    /// Gives the claim of `node` up.
    pub(crate) fn release(&self, node: &str) -> Result<(), Error> {
        let path = self.folder.join(node);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Says what was done to which file.
pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_seen_by_others_until_released() {
        let dir = tempfile::tempdir().expect("a folder");
        let subnet: Subnet = "10.0.16.0/20".parse().expect("a subnet");
        let claims = Claims::lock(dir.path()).expect("locked");
        claims.claim("a", subnet).expect("claimed");
        assert_eq!(claims.of_others("b").expect("read"), vec![subnet]);
        assert_eq!(claims.of_others("a").expect("read"), vec![]);
        claims.release("a").expect("released");
        claims.release("a").expect("released twice");
        assert_eq!(claims.of_others("b").expect("read"), vec![]);
    }

    #[test]
    fn a_damaged_memory_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("network.json");
        fs::write(&path, "{").expect("written");
        assert_eq!(Remembered::read(&path).subnet, "");
        let remembered = Remembered {
            subnet: "10.0.0.0/20".to_owned(),
            switched_ip_forward_on: true,
        };
        remembered.write(&path).expect("written");
        assert!(Remembered::read(&path).switched_ip_forward_on);
    }
}
