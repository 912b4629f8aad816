//! User namespaces: root of a container is nobody outside.
//!
//! Three things stand in the way, and are prepared here by the shim, which is root. Image layers belong to
//! the ids of the image: each is mounted with its ids shifted (mount_setattr(2), MOUNT_ATTR_IDMAP), and the
//! overlay lies on those. The bundle is closed to strangers, which the container's root is now: what it has
//! to reach is mounted in a small tmpfs, over a directory that only this mount namespace loses. And sysfs
//! cannot be mounted by one who does not own the network namespace: it is mounted here, to be bound.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, pipe2};

use crate::error::{Error, Result, Trying};
use crate::sys;

/// Where the tmpfs may go: one of these that the sandbox does not need.
const PLACES: [&str; 5] = ["/mnt", "/media", "/srv", "/opt", "/home"];

/// A place in this mount namespace that the mapped root can reach, and the mapping.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
    users: OwnedFd,
    first: u32,
}

impl Stage {
    /// Sets the stage for ids from `map` (first outside, count). `needed`: the sandbox's paths. The sysfs
    /// shows the interfaces of this process's network namespace.
    pub(crate) fn new(map: (u32, u32), needed: &[PathBuf]) -> Result<Self> {
        let users = user_namespace(map)?;
        let free = |place: &&str| {
            Path::new(place).is_dir() && !needed.iter().any(|path| path.starts_with(place))
        };
        let dir = PathBuf::from(PLACES.into_iter().find(free).ok_or_else(|| {
            Error::Failed(format!(
                "no place for a user namespace's mounts: make one of {}",
                PLACES.join(", ")
            ))
        })?);
        mount_plain(
            "tmpfs",
            &dir,
            MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
            "mode=755,size=1m",
        )?;
        let stage = Self {
            dir,
            users,
            first: map.0,
        };
        let sysfs = stage.sysfs();
        fs::create_dir(&sysfs).trying(|| format!("make {}", sysfs.display()))?;
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount_plain("sysfs", &sysfs, flags, "")?;
        Ok(stage)
    }

    /// Where a container's root goes; made.
    pub(crate) fn rootfs(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(format!("root-{name}"));
        fs::create_dir(&dir).trying(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    /// Where the files for `/etc` go.
    pub(crate) fn etc(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// The mounted sysfs.
    pub(crate) fn sysfs(&self) -> PathBuf {
        self.dir.join("sys")
    }

    /// Gives a path to the container's root.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.first), Some(self.first))
            .trying(|| format!("give {} to id {}", path.display(), self.first))
    }

    /// Mounts an image layer with its ids shifted.
    pub(crate) fn mount_layer(&self, layer: &Path, target: &Path) -> Result<()> {
        fs::create_dir_all(target).trying(|| format!("make {}", target.display()))?;
        sys::mount_mapped(layer, self.users.as_fd(), target).trying(|| {
            format!(
                "shift the ids of the layer {} (its file system must support it)",
                layer.display()
            )
        })
    }
}

fn mount_plain(kind: &str, target: &Path, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), flags, Some(options))
        .trying(|| format!("mount {kind} on {}", target.display()))
}

/// A user namespace with this mapping, held by its descriptor. A child makes it, as this process must stay
/// in its own.
fn user_namespace((first, count): (u32, u32)) -> Result<OwnedFd> {
    let what = || "make a user namespace".to_owned();
    let (made, made_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    let (done, done_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    let child = match sys::fork().trying(what)? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((made, done_end));
            let made = unshare(CloneFlags::CLONE_NEWUSER)
                .map_err(std::io::Error::from)
                .and_then(|()| fs::File::from(made_end).write_all(b"."));
            // Until the parent has it, or is gone.
            let _ = made.and_then(|()| fs::File::from(done).read(&mut [0]));
            sys::exit_now(0)
        }
    };
    drop((made_end, done));
    let held = (|| {
        fs::File::from(made).read_exact(&mut [0])?;
        for kind in ["uid", "gid"] {
            fs::write(
                format!("/proc/{child}/{kind}_map"),
                format!("0 {first} {count}\n"),
            )?;
        }
        fs::File::open(format!("/proc/{child}/ns/user"))
    })();
    drop(done_end);
    let _ = waitpid(child, None);
    Ok(held.trying(what)?.into())
}
