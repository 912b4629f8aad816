//! Mount points that leave no trace: a layer of its own with just what the image lacks to mount on.
//!
//! A folder of that layer hides the owner and mode of the same one in the image, so it takes on both.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::user::Root;

/// What is to be mounted on: a path, and whether it is to be a folder.
pub(super) type Point = (PathBuf, bool);

/// Makes the layer in `dir`, for the image whose files are at `view`. `None`: it has all.
pub(super) fn make(
    dir: &Path,
    view: &Path,
    points: &[Point],
    stage: &Stage,
) -> Result<Option<PathBuf>> {
    let root = Root::open(view)?;
    let skeleton = Skeleton { dir, view, stage };
    let mut any = false;
    for (target, is_dir) in points {
        if root.find(target).is_ok() {
            continue;
        }
        let real = root.lead(target).map_err(|error| {
            Error::Fatal(format!(
                "nothing can be mounted at {}: {}",
                target.display(),
                error.desc()
            ))
        })?;
        if !any {
            skeleton.make_root()?;
            any = true;
        }
        skeleton.add(&real, *is_dir)?;
    }
    if any {
        skeleton.set_times(Path::new(""))?;
    }
    Ok(any.then(|| dir.to_owned()))
}

struct Skeleton<'a> {
    dir: &'a Path,
    view: &'a Path,
    stage: &'a Stage,
}

impl Skeleton<'_> {
    fn make_root(&self) -> Result<()> {
        make_dir(self.dir)?;
        self.adopt(Path::new(""))
    }

    /// Adds a path without links in it, with all above.
    fn add(&self, path: &Path, is_dir: bool) -> Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let mut done = PathBuf::new();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            done.push(part);
            let at = self.dir.join(&done);
            if parts.peek().is_none() && !is_dir {
                if !at.exists() {
                    fs::write(&at, "").trying(|| format!("make {}", at.display()))?;
                    self.own(&at)?;
                }
            } else if !at.exists() {
                make_dir(&at)?;
                self.adopt(&done)?;
            }
        }
        Ok(())
    }

    /// Gives a folder of the layer what the image's has: on disk by the ids inside, as any layer.
    fn adopt(&self, path: &Path) -> Result<()> {
        let at = self.dir.join(path);
        let what = || format!("make {} like the image's", at.display());
        let Ok(meta) = fs::symlink_metadata(self.view.join(path)) else {
            return self.own(&at);
        };
        let inside = |id: u32| id.saturating_sub(self.stage.first());
        chown(&at, Some(inside(meta.uid())), Some(inside(meta.gid()))).trying(what)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(meta.mode() & 0o7777)).trying(what)
    }

    /// Gives the image's folders their times, once all is in them.
    fn set_times(&self, path: &Path) -> Result<()> {
        let at = self.dir.join(path);
        let what = || format!("make {} like the image's", at.display());
        for entry in fs::read_dir(&at).trying(what)? {
            let entry = entry.trying(what)?;
            if entry.file_type().trying(what)?.is_dir() {
                self.set_times(&path.join(entry.file_name()))?;
            }
        }
        let Ok(meta) = fs::symlink_metadata(self.view.join(path)) else {
            return Ok(());
        };
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let file = fs::File::open(&at).trying(what)?;
        file.set_modified(modified).trying(what)
    }

    fn own(&self, at: &Path) -> Result<()> {
        chown(at, Some(0), Some(0)).trying(|| format!("make {}", at.display()))
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o755)
        .create(dir)
        .trying(|| format!("make {}", dir.display()))
}
