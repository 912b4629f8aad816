//! Network namespaces that outlive who made them: files onto which a namespace is bound.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::Error;
use crate::claims::file;

/// Moves the calling thread into a new network namespace and binds it to `path`. The thread must end after
/// this: nothing else may run on it.
pub(crate) fn enter_new(path: &Path) -> Result<(), Error> {
    File::create(path).map_err(file("make", path))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(system("make a network namespace"))?;
    let own = Path::new("/proc/thread-self/ns/net");
    mount(
        Some(own),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(system(&format!(
        "bind a network namespace to {}",
        path.display()
    )))
}

/// Moves the calling thread into the network namespace that is bound to `path`. The thread must end after this.
pub(crate) fn enter(path: &Path) -> io::Result<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// Whether a namespace is bound to `path`.
pub(crate) fn is_bound(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Takes the binding away, also where it is half made or gone already. Unlinking the file drops the
/// copies of the mount that other mount namespaces (each shim's) hold.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    if is_bound(path) {
        umount2(path, MntFlags::MNT_DETACH)
            .map_err(system(&format!("unmount {}", path.display())))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Says what a system call was to do.
pub(crate) fn system(what: &str) -> impl FnOnce(nix::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::System { what, source }
}
