//! The files of a container whose contents are values: on one file system in memory, in the stage.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use crate::binds::tmpfs;
use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::mounts::FileConfig;
use crate::sys;
use crate::values::{MAX_VALUES_BYTES, Values};

/// Where one container's files are written.
pub(crate) struct Written<'a> {
    stage: &'a Stage,
    name: &'a str,
    values: &'a Values,
    /// The file system, once there is a file.
    place: Option<PathBuf>,
}

impl<'a> Written<'a> {
    /// Nothing is made yet.
    pub(crate) fn new(stage: &'a Stage, name: &'a str, values: &'a Values) -> Self {
        Self {
            stage,
            name,
            values,
            place: None,
        }
    }

    /// Writes the files of the mount with this number, and says what is to be mounted: a folder, or the one file.
    pub(crate) fn write(&mut self, number: usize, files: &[FileConfig]) -> Result<PathBuf> {
        let dir = self.place()?.join(number.to_string());
        self.make_dir(&dir)?;
        for file in files {
            if file.path.as_os_str().is_empty() {
                let at = dir.join("file");
                self.write_one(&at, file)?;
                return Ok(at);
            }
            let at = dir.join(&file.path);
            self.make_parents(&dir, &file.path)?;
            self.write_one(&at, file)?;
        }
        Ok(dir)
    }

    fn place(&mut self) -> Result<PathBuf> {
        if let Some(place) = &self.place {
            return Ok(place.clone());
        }
        let place = self.stage.place(&format!("values-{}", self.name))?;
        let what = || format!("mount a file system in memory at {}", place.display());
        // Each file takes whole pages, and a page for itself.
        let size_bytes = 4 * MAX_VALUES_BYTES as u64;
        let tree = tmpfs(size_bytes, 0o755, self.stage.first(), true).trying(what)?;
        let point = File::open(&place).trying(what)?;
        sys::attach(tree.as_fd(), point.as_fd()).trying(what)?;
        self.place = Some(place.clone());
        Ok(place)
    }

    fn make_parents(&self, dir: &Path, path: &Path) -> Result<()> {
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents {
            let at = dir.join(parent);
            if !at.is_dir() {
                self.make_dir(&at)?;
            }
        }
        Ok(())
    }

    /// A folder of the container's root, which everybody in it may look into.
    fn make_dir(&self, at: &Path) -> Result<()> {
        let first = self.stage.first();
        let made = || -> io::Result<()> {
            DirBuilder::new().mode(0o755).create(at)?;
            fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
            chown(at, Some(first), Some(first))
        };
        made().trying(|| format!("make {}", at.display()))
    }

    fn write_one(&self, at: &Path, file: &FileConfig) -> Result<()> {
        let value = self.values.get(file.value).ok_or_else(|| {
            let name = self.name;
            Error::Fatal(format!(
                "container {name} is to have a file without a content: {}",
                file.path.display()
            ))
        })?;
        let first = self.stage.first();
        let (uid, gid) = (
            first.saturating_add(file.uid),
            first.saturating_add(file.gid),
        );
        let written = || -> io::Result<()> {
            let mut out = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(at)?;
            out.write_all(value)?;
            fchown(&out, Some(uid), Some(gid))?;
            // After the owner, which takes set-id bits away, and whatever the umask is.
            out.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))
        };
        written().trying(|| format!("write {}", at.display()))
    }
}
