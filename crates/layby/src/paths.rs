//! Where a node keeps what is its own: everything follows from its data directory.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Where a node keeps its data unless it is said.
pub(crate) const DATA_DIR: &str = "/var/lib/layby";

/// The paths of one node.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The data directory, absolute and without links.
    pub(crate) data_dir: PathBuf,
    /// 8 hexadecimal digits that name the node in bridges, nft tables and cgroups.
    pub(crate) node: String,
    /// `/run/layby/<node>`: sockets and network namespaces (a socket's path must stay under 108 bytes).
    pub(crate) run_dir: PathBuf,
}

impl Paths {
    /// The paths for the data directory `dir`, which need not be there yet.
    ///
    /// # Errors
    /// Where the current directory cannot be told.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        let data_dir = canonical(dir)?;
        let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
        let node = digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let run_dir = Path::new("/run/layby").join(&node);
        Ok(Self {
            data_dir,
            node,
            run_dir,
        })
    }

    /// The socket of the API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }

    /// What a background node writes.
    pub(crate) fn log(&self) -> PathBuf {
        self.data_dir.join("node.log")
    }

    /// Held by the node that runs.
    pub(crate) fn lock(&self) -> PathBuf {
        self.data_dir.join("lock")
    }

    /// Removes the run directory of a node whose containers are gone; what is not empty stays.
    pub(crate) fn remove_run_dir(&self) {
        for below in ["shims", "netns", ""] {
            let _ = fs::remove_dir(self.run_dir.join(below)); // an empty folder that stays harms nobody
        }
    }

    /// Makes the directories: the data directory 0700; of the run directory only the socket is
    /// for others, so the way to it may be walked by the `layby` group.
    ///
    /// # Errors
    /// Where a directory cannot be made or its mode set.
    pub(crate) fn create(&self) -> Result<()> {
        self.create_data()?;
        make_dir(Path::new("/run/layby"), 0o711)?;
        make_dir(&self.run_dir, 0o710)?;
        give_to_group(&self.run_dir)
    }

    /// Makes the data directory, for root alone.
    ///
    /// # Errors
    /// It cannot be made, or its mode not set.
    pub(crate) fn create_data(&self) -> Result<()> {
        make_dir(&self.data_dir, 0o700)
    }
}

/// Gives `path` to the `layby` group, if the machine has one.
///
/// # Errors
/// Where the owner cannot be changed.
pub(crate) fn give_to_group(path: &Path) -> Result<()> {
    let gid = fs::read_to_string("/etc/group")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some("layby")).then(|| fields.nth(1)?.parse::<u32>().ok())?
        });
    let Some(gid) = gid else { return Ok(()) };
    chown(path, None, Some(gid))
        .with_context(|| format!("cannot give {} to the group layby", path.display()))
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

/// `dir` made absolute, with the links of the part that exists resolved.
fn canonical(dir: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(dir)
        .with_context(|| format!("cannot tell where {} is", dir.display()))?;
    let mut rest = Vec::new();
    for existing in absolute.ancestors() {
        if let Ok(real) = existing.canonicalize() {
            return Ok(rest
                .iter()
                .rev()
                .fold(real, |path: PathBuf, part| path.join(part)));
        }
        rest.extend(existing.file_name());
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_has_the_paths_it_will_have() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("a/b");
        let before = Paths::of(&data).expect("paths");
        fs::create_dir_all(&data).expect("directories");
        let after = Paths::of(&data).expect("paths");
        assert_eq!((before.node, before.data_dir), (after.node, after.data_dir));
    }

    #[test]
    fn a_socket_path_fits_however_long_the_data_directory_is() {
        let long = Path::new("/tmp").join("x".repeat(200));
        assert!(Paths::of(&long).expect("paths").socket().as_os_str().len() < 108);
    }
}
