//! User namespaces: root of a container is nobody outside, and its files on disk bear the ids that it sees.
//!
//! The shim, which is root, prepares it. Image layers, what the container writes, volumes and binds belong on disk to the
//! ids inside: each is mounted with its ids shifted (mount_setattr(2), MOUNT_ATTR_IDMAP), and the overlay lies on
//! those. The bundle is closed to strangers, which the container's root is now: what it has to reach is mounted
//! in a small tmpfs, the *stage*, over a directory that only this mount namespace loses. And sysfs cannot be mounted
//! by one who does not own the network namespace: it is mounted here, to be bound.
//!
//! A sandbox without a user namespace has a stage too, with nothing shifted.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use libcontainer::{capabilities, syscall::syscall::create_syscall};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Uid, pipe2, setfsgid, setfsuid};

use crate::error::{Error, Result, Trying};
use crate::spec::Bundle;
use crate::{rootfs, sys};

/// Where the tmpfs may go: one of these that the sandbox does not need.
const PLACES: [&str; 5] = ["/mnt", "/media", "/srv", "/opt", "/home"];

/// A place in this mount namespace that the containers' root can reach, and how their ids are shifted.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
    map: Option<Map>,
}

/// A shift of ids.
#[derive(Debug)]
struct Map {
    users: OwnedFd,
    first: u32,
}

impl Stage {
    /// Sets the stage for ids from `map` (first outside, count), or for unshifted ones. `needed`: the sandbox's paths.
    /// The bundle's memory must be mounted. The sysfs shows the interfaces of this process's network namespace.
    pub(crate) fn new(
        bundle: &Bundle,
        map: Option<(u32, u32)>,
        needed: &[PathBuf],
    ) -> Result<Self> {
        let Some(map) = map else {
            let dir = bundle.memory().join("stage");
            rootfs::make_private_dir(&dir)?;
            return Ok(Self { dir, map: None });
        };
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
        let map = Some(Map {
            users,
            first: map.0,
        });
        let stage = Self { dir, map };
        let sysfs = stage.dir.join("sys");
        make_dir(&sysfs)?;
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount_plain("sysfs", &sysfs, flags, "")?;
        Ok(stage)
    }

    /// The id outside of id 0 inside.
    pub(crate) fn first(&self) -> u32 {
        self.map.as_ref().map_or(0, |map| map.first)
    }

    /// The user namespace by which mounts' ids are shifted.
    pub(crate) fn users(&self) -> Option<BorrowedFd<'_>> {
        self.map.as_ref().map(|map| map.users.as_fd())
    }

    /// A place of this name, made: for what belongs to one container.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        make_dir(&dir)?;
        Ok(dir)
    }

    /// A place of this name for what containers share, and whether it was made just now.
    pub(crate) fn shared_place(&self, name: &str) -> Result<(PathBuf, bool)> {
        let dir = self.dir.join(name);
        let is_new = !dir.exists();
        if is_new {
            make_dir(&dir)?;
        }
        Ok((dir, is_new))
    }

    /// Where the files for `/etc` are.
    pub(crate) fn etc(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// A mounted sysfs to bind, where the container may not mount its own.
    pub(crate) fn sysfs(&self) -> Option<PathBuf> {
        self.map.as_ref().map(|_| self.dir.join("sys"))
    }

    /// Gives a path to the containers' root.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        let first = self.first();
        std::os::unix::fs::chown(path, Some(first), Some(first))
            .trying(|| format!("give {} to id {first}", path.display()))
    }

    /// Shows the folder `from` as `name`, with its ids shifted if there is anything to shift.
    pub(crate) fn show(&self, from: &Path, name: &Path) -> Result<()> {
        let Some(map) = &self.map else {
            return symlink(from, name).trying(|| format!("make the link {}", name.display()));
        };
        make_dir(name)?;
        shifted(from, map.users.as_fd())
            .and_then(|tree| {
                let at = fs::File::open(name)?;
                sys::attach(tree.as_fd(), at.as_fd())
            })
            .trying(|| {
                format!(
                    "shift the ids of {} for a user namespace (its file system must support it)",
                    from.display()
                )
            })
    }

    /// Makes files as the containers' root does, with all that this process may: those made by ids that have no
    /// place in a shifted mount are refused by the kernel.
    pub(crate) fn as_root<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(map) = &self.map else { return act() };
        let calls = create_syscall();
        let raise = || {
            // Another id for files takes the rights over files from the effective set.
            capabilities::reset_effective(calls.as_ref())
                .map_err(|error| Error::Failed(format!("cannot keep the capabilities: {error}")))
        };
        setfsgid(Gid::from_raw(map.first));
        setfsuid(Uid::from_raw(map.first));
        let outcome = raise().and_then(|()| act());
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        raise()?;
        outcome
    }
}

fn shifted(from: &Path, users: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let tree = sys::open_tree(None, from, false)?;
    sys::set_mount(tree.as_fd(), 0, Some(users), false)?;
    Ok(tree)
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o755)
        .create(dir)
        .trying(|| format!("make {}", dir.display()))
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
            let made = unshare(CloneFlags::CLONE_NEWUSER);
            let word = made.err().map_or(0, |errno| errno as i32);
            let told = fs::File::from(made_end).write_all(&word.to_ne_bytes());
            // Until the parent has it, or is gone.
            let _ = told.and_then(|()| fs::File::from(done).read(&mut [0]));
            sys::exit_now(0)
        }
    };
    drop((made_end, done));
    let held = (|| {
        let mut word = [0; 4];
        fs::File::from(made).read_exact(&mut word)?;
        match i32::from_ne_bytes(word) {
            0 => {}
            errno => return Err(std::io::Error::from_raw_os_error(errno)),
        }
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
