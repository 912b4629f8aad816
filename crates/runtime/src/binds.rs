//! A container's mounts besides its root: opened, shown in the stage, and put into the root before each start.
//!
//! ```text
//! open      while this process still sees all mounts of the machine: a detached copy of each source
//! stage     its ids are shifted; it is mounted where only this mount namespace has it
//! attach    before each start: a copy of that goes to its target in the root, the outer ones first
//! detach    after each stop: what was in memory is given back
//! ```
//!
//! A target is looked up inside the root (openat2(2), RESOLVE_IN_ROOT), by this process, and mounted on through its
//! descriptor: no link that an image or an earlier run has left leads out, nor onto what the kernel shows of itself.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};

use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::mounts::{FileConfig, MountConfig, MountFrom, is_kernels};
use crate::user::Root;
use crate::values::Values;
use crate::written::Written;
use crate::{copy_up, rootfs, sys};

/// The size of a tmpfs for which none is given.
const TMPFS_BYTES: u64 = 64 << 20;

/// The mounts of one container.
#[derive(Default)]
pub(crate) struct Binds {
    /// Outer ones first.
    items: Vec<Item>,
}

struct Item {
    target: PathBuf,
    source: Source,
    is_dir: bool,
    read_only: bool,
    copy_up: bool,
}

enum Source {
    /// A detached mount; what it is of, for messages; whether what is mounted below came along.
    Tree(OwnedFd, PathBuf, bool),
    /// Mounted in the stage.
    Staged(PathBuf),
    Tmpfs {
        size_bytes: u64,
        mode: u32,
        no_exec: bool,
    },
    /// In memory too, but one for all containers that name it.
    Memory { name: String, size_bytes: u64 },
    /// In memory too, with these files in it.
    Files(Vec<FileConfig>),
}

/// A mount below `/dev`, which is made anew for each start: it has to go in after that.
pub(crate) struct InDev<'a> {
    pub(crate) target: &'a Path,
    /// Its place in the stage; `None`: a tmpfs with these options.
    pub(crate) staged: Option<&'a Path>,
    pub(crate) options: String,
}

impl Item {
    /// What is set on its mount once that is made (mount_setattr(2)).
    fn attributes(&self) -> u64 {
        let read = if self.read_only {
            libc::MOUNT_ATTR_RDONLY
        } else {
            0
        };
        match self.source {
            Source::Tmpfs { no_exec: true, .. } => read | libc::MOUNT_ATTR_NOEXEC,
            Source::Tmpfs { no_exec: false, .. }
            | Source::Tree(..)
            | Source::Staged(_)
            | Source::Memory { .. }
            | Source::Files(_) => read,
        }
    }
}

impl Binds {
    /// Opens all sources.
    pub(crate) fn open(container: &str, mounts: &[MountConfig]) -> Result<Self> {
        let mut items = Vec::with_capacity(mounts.len());
        for mount in mounts {
            items.push(open(container, mount)?);
        }
        items.sort_by_key(|item| item.target.components().count());
        Ok(Self { items })
    }

    /// Mounts all sources in the stage, with their ids shifted.
    pub(crate) fn stage(&mut self, stage: &Stage, name: &str, values: &Values) -> Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        let place = stage.place(&format!("mounts-{name}"))?;
        let mut written = Written::new(stage, name, values);
        for (number, item) in self.items.iter_mut().enumerate() {
            let (tree, from, recursive) = match &item.source {
                Source::Tree(tree, from, recursive) => (tree, from, recursive),
                Source::Memory { name, size_bytes } => {
                    item.source = Source::Staged(memory(stage, name, *size_bytes)?);
                    continue;
                }
                Source::Files(files) => {
                    let at = written.write(number, files)?;
                    item.source = Source::Staged(at);
                    continue;
                }
                Source::Staged(_) | Source::Tmpfs { .. } => continue,
            };
            shift(stage, tree, from, *recursive)?;
            let at = place.join(number.to_string());
            let made = if item.is_dir {
                fs::create_dir(&at)
            } else {
                File::create(&at).map(drop)
            };
            made.trying(|| format!("make {}", at.display()))?;
            let what = || format!("mount {}", from.display());
            let point = File::open(&at).trying(what)?;
            sys::attach(tree.as_fd(), point.as_fd()).trying(what)?;
            item.source = Source::Staged(at);
        }
        Ok(())
    }

    /// Copies what the image has at the targets into sources that are still empty. The root must be as the image is.
    pub(crate) fn copy_up(&self, stage: &Stage, root: &Root) -> Result<()> {
        for item in self.items.iter().filter(|item| item.copy_up) {
            let Source::Staged(at) = &item.source else {
                continue;
            };
            match root.find(&item.target) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(error) => {
                    return Err(error)
                        .trying(|| format!("look at {} in the image", item.target.display()));
                }
                Ok(from) => stage.as_root(|| copy_up::copy(&from, at, &item.target))?,
            }
        }
        Ok(())
    }

    /// Puts all into the root, in place of those of an earlier start.
    pub(crate) fn attach(&self, stage: &Stage, root: &Root, rootfs: &Path) -> Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        rootfs::unmount_below(rootfs)?;
        for item in self.items.iter().filter(|item| !in_dev(&item.target)) {
            let what = || format!("mount at {} in the container", item.target.display());
            let tree = match &item.source {
                Source::Staged(at) => sys::open_tree(None, at, true).trying(what)?,
                Source::Tmpfs {
                    size_bytes, mode, ..
                } => tmpfs(*size_bytes, *mode, stage.first(), false).trying(what)?,
                // Staged before any start.
                Source::Tree(..) | Source::Memory { .. } | Source::Files(_) => continue,
            };
            let attributes = item.attributes();
            if attributes != 0 {
                sys::set_mount(tree.as_fd(), attributes, None, true).trying(what)?;
            }
            let point = stage.as_root(|| root.mount_point(&item.target, item.is_dir))?;
            refuse_kernels(&point, rootfs, &item.target)?;
            sys::attach(tree.as_fd(), point.as_fd()).trying(what)?;
        }
        Ok(())
    }

    /// Takes all out of the root.
    pub(crate) fn detach(&self, rootfs: &Path) {
        if !self.items.is_empty() {
            // What is left is replaced by the next start.
            let _ = rootfs::unmount_below(rootfs);
        }
    }

    /// The targets outside of `/dev`, and whether each is a folder.
    pub(crate) fn points(&self) -> impl Iterator<Item = (&Path, bool)> {
        let outside = self.items.iter().filter(|item| !in_dev(&item.target));
        outside.map(|item| (item.target.as_path(), item.is_dir))
    }

    /// Whether one of them has this target.
    pub(crate) fn has(&self, target: &str) -> bool {
        self.items
            .iter()
            .any(|item| item.target == Path::new(target))
    }

    /// Those below `/dev`.
    pub(crate) fn in_dev(&self) -> impl Iterator<Item = InDev<'_>> {
        let inside = self.items.iter().filter(|item| in_dev(&item.target));
        inside.map(|item| {
            let read = if item.read_only { ",ro" } else { "" };
            let (staged, options) = match &item.source {
                Source::Staged(at) => (Some(at.as_path()), format!("rbind,rprivate{read}")),
                Source::Tmpfs {
                    size_bytes,
                    mode,
                    no_exec,
                } => {
                    let exec = if *no_exec { ",noexec" } else { "" };
                    let options =
                        format!("nosuid,nodev{exec},mode={mode:o},size={size_bytes}{read}");
                    (None, options)
                }
                // Staged before any start.
                Source::Tree(_, from, _) => (Some(from.as_path()), format!("rbind,rprivate{read}")),
                Source::Memory { .. } | Source::Files(_) => (None, String::new()),
            };
            InDev {
                target: &item.target,
                staged,
                options,
            }
        })
    }
}

fn in_dev(target: &Path) -> bool {
    target.starts_with("/dev")
}

fn open(container: &str, mount: &MountConfig) -> Result<Item> {
    let (source, is_dir) = match &mount.source {
        MountFrom::Tmpfs {
            size_bytes,
            mode,
            no_exec,
        } => {
            let source = Source::Tmpfs {
                size_bytes: size_bytes.unwrap_or(TMPFS_BYTES),
                mode: mode.unwrap_or(0o1777) & 0o7777,
                no_exec: *no_exec,
            };
            (source, true)
        }
        MountFrom::Memory { name, size_bytes } => {
            let (name, size_bytes) = (name.clone(), *size_bytes);
            (Source::Memory { name, size_bytes }, true)
        }
        MountFrom::Files { files } => {
            let is_dir = !matches!(&files[..], [file] if file.path.as_os_str().is_empty());
            (Source::Files(files.clone()), is_dir)
        }
        MountFrom::Bind {
            path,
            recursive,
            subpath,
        } => {
            let found = match subpath {
                None => without_links(path),
                Some(inner) => inside(path, inner),
            };
            let tree =
                found.and_then(|fd| sys::open_tree(Some(fd.as_fd()), Path::new(""), *recursive));
            let from = subpath
                .as_ref()
                .map_or(path.clone(), |inner| path.join(inner));
            let tree = tree.map_err(|error| {
                Error::Fatal(format!(
                    "{} cannot be mounted at {} in container {container}: {error}",
                    from.display(),
                    mount.target
                ))
            })?;
            let kind = fstat(&tree)
                .trying(|| format!("look at {}", from.display()))?
                .st_mode;
            let is_dir = SFlag::from_bits_truncate(kind & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
            (Source::Tree(tree, from, *recursive), is_dir)
        }
    };
    Ok(Item {
        target: PathBuf::from(&mount.target),
        source,
        is_dir,
        read_only: mount.read_only,
        copy_up: mount.copy_up,
    })
}

/// What is at a path in which no part is a link: whoever writes above it may have put one there since it was looked at.
fn without_links(path: &Path) -> std::io::Result<OwnedFd> {
    let root = File::open("/")?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(root.as_fd(), path, how)?)
}

/// What is at `inner` in a folder that others write to: a link in it may not lead out.
fn inside(dir: &Path, inner: &Path) -> std::io::Result<OwnedFd> {
    let dir = File::open(dir)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(dir.as_fd(), inner, how)?)
}

/// Shifts the ids of a source. What is mounted below it, and cannot be shifted, comes along as it is: its files belong
/// to nobody then.
fn shift(stage: &Stage, tree: &OwnedFd, from: &Path, recursive: bool) -> Result<()> {
    let Some(users) = stage.users() else {
        return Ok(());
    };
    if recursive && sys::set_mount(tree.as_fd(), 0, Some(users), true).is_ok() {
        return Ok(());
    }
    sys::set_mount(tree.as_fd(), 0, Some(users), false).map_err(|error| {
        Error::Fatal(format!(
            "{} cannot be mounted into a user namespace, as its file system does not shift ids ({error}): move it to \
             another file system such as ext4, or run the service without a user namespace (userns_mode: host)",
            from.display()
        ))
    })?;
    if recursive {
        eprintln!(
            "layby-shim: some of what is mounted below {} cannot shift ids: its files belong to nobody in the container",
            from.display()
        );
    }
    Ok(())
}

/// The file system in memory of this name, in the stage: the first who needs it makes it.
fn memory(stage: &Stage, name: &str, size_bytes: u64) -> Result<PathBuf> {
    let (at, is_new) = stage.shared_place(&format!("memory-{name}"))?;
    if is_new {
        let what = || format!("mount a file system in memory at {}", at.display());
        // Whoever a container runs as may write to what its containers share.
        let tree = tmpfs(size_bytes, 0o777, stage.first(), false).trying(what)?;
        let point = File::open(&at).trying(what)?;
        sys::attach(tree.as_fd(), point.as_fd()).trying(what)?;
    }
    Ok(at)
}

/// A file system in memory. `stays`: it is never swapped out, where the kernel knows that (6.4).
pub(crate) fn tmpfs(
    size_bytes: u64,
    mode: u32,
    owner: u32,
    stays: bool,
) -> std::io::Result<OwnedFd> {
    let text = |value: String| CString::new(value).map_err(std::io::Error::other);
    let mut options = vec![
        (c"source", text("tmpfs".to_owned())?),
        (c"size", text(size_bytes.to_string())?),
        (c"mode", text(format!("{mode:o}"))?),
        (c"uid", text(owner.to_string())?),
        (c"gid", text(owner.to_string())?),
    ];
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if stays {
        options.push((c"noswap", CString::default()));
        let made = sys::new_mount(c"tmpfs", &options, attributes);
        if made.is_ok() {
            return made;
        }
        options.pop();
    }
    sys::new_mount(c"tmpfs", &options, attributes)
}

/// A link in the image may lead a target to where the kernel's own file systems will be.
fn refuse_kernels(point: &OwnedFd, rootfs: &Path, target: &Path) -> Result<()> {
    let place = fs::read_link(format!("/proc/self/fd/{}", point.as_raw_fd()))
        .trying(|| format!("find {} in the container", target.display()))?;
    let inner = place
        .strip_prefix(rootfs)
        .map(|rest| Path::new("/").join(rest));
    match inner {
        Ok(inner)
            if inner.parent().is_some() && !is_kernels(&inner) && !inner.starts_with("/dev") =>
        {
            Ok(())
        }
        _ => Err(Error::Fatal(format!(
            "nothing can be mounted at {} in the container: a link leads it to where nothing else may be",
            target.display()
        ))),
    }
}
