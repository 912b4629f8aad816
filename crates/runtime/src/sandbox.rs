//! Taking down a sandbox from outside.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::cgroup::Group;
use crate::error::{Error, Result, Trying};
use crate::freezer;
use crate::shim;
use crate::spec::{Bundle, SandboxSpec};

/// How long a killed shim may take to be gone. It dies when it comes out of the kernel: moving a process into a cgroup and
/// unmounting wait there, for as long as the machine and its disk are busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes all that there is of a sandbox whose shim died or does not answer: the shim, every process in
/// its cgroup (frozen or not), the cgroup, the socket, the bundle. Safe to repeat; no bundle: nothing to do.
///
/// # Errors
/// All that went wrong; what could be removed is removed all the same, and the bundle stays if anything
/// that it names could not, so that another try finds it.
pub fn destroy(bundle: &Path) -> Result<(), Vec<Error>> {
    remove(bundle, Left::Perhaps)
}

/// As [`destroy`], of a sandbox whose shim has quit: it said that it has ended and removed what it held, and its connection is at
/// its end, as it is when the process is. Nobody is looked for among the machine's processes: that takes the longer, the more
/// there are.
///
/// # Errors
/// As [`destroy`].
pub fn clear(bundle: &Path) -> Result<(), Vec<Error>> {
    remove(bundle, Left::Nobody)
}

/// As [`destroy`], but the bundle stays, with what its containers wrote and their logs. It is never to run again.
///
/// # Errors
/// All that went wrong; what could be removed is removed all the same.
pub fn bury(bundle: &Path) -> Result<(), Vec<Error>> {
    match find(bundle)? {
        Some(root) => end(&root, Left::Perhaps),
        None => Ok(()),
    }
}

/// Whether the shim, or what it forked, may still be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Perhaps,
    Nobody,
}

fn remove(bundle: &Path, left: Left) -> Result<(), Vec<Error>> {
    let Some(root) = find(bundle)? else {
        return Ok(());
    };
    end(&root, left)?;
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)
            .trying(|| format!("remove {}", root.display()))
            .map_err(|error| vec![error]),
        _ => Ok(()),
    }
}

fn find(bundle: &Path) -> Result<Option<PathBuf>, Vec<Error>> {
    match fs::canonicalize(bundle) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error)
            .trying(|| format!("find {}", bundle.display()))
            .map_err(|error| vec![error]),
    }
}

/// Ends and removes all but the bundle.
fn end(root: &Path, left: Left) -> Result<(), Vec<Error>> {
    let bundle = Bundle::new(root);
    let mut errors = Vec::new();
    let spec = read_spec(&bundle);
    let group = spec.as_ref().ok().and_then(|spec| spec.as_ref());
    let group = group.and_then(|spec| Group::new(&spec.cgroup).ok());
    // First, so that it starts nothing behind our back. The mounts end with it.
    if left == Left::Perhaps {
        errors.extend(end_shim(&bundle, group.as_ref()).err());
    }
    match spec {
        Ok(Some(spec)) => remove_outside(&spec, &mut errors),
        // It died before its spec was written: then it made nothing.
        Ok(None) => {}
        Err(error) => errors.push(error),
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn remove_outside(spec: &SandboxSpec, errors: &mut Vec<Error>) {
    match Group::new(&spec.cgroup) {
        Ok(group) => {
            errors.extend(group.kill_all().err());
            if let Err(more) = group.remove() {
                errors.extend(more);
            }
        }
        Err(error) => errors.push(error),
    }
    match fs::remove_file(&spec.socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            errors.extend(
                Err::<(), _>(error)
                    .trying(|| format!("remove {}", spec.socket.display()))
                    .err(),
            );
        }
        _ => {}
    }
}

fn read_spec(bundle: &Bundle) -> Result<Option<SandboxSpec>> {
    let file = bundle.spec();
    match fs::read(&file) {
        // Cut off by a full disk or a crash: as good as none.
        Ok(json) => Ok(serde_json::from_slice(&json).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).trying(|| format!("read {}", file.display())),
    }
}

fn end_shim(bundle: &Bundle, group: Option<&Group>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Killed in the middle of making a container, it leaves a fork that would go on with it.
        let processes = shim::processes(bundle);
        let Some(first) = processes.first() else {
            return Ok(());
        };
        // The inits that it created in advance are in the cgroup, and frozen they would not even die.
        if let Some(group) = group {
            let _ = freezer::thaw_group(group);
        }
        for pid in &processes {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            return Err(Error::Failed(format!(
                "the shim {first} of {} does not end",
                bundle.root().display()
            )));
        }
        sleep(Duration::from_millis(1));
    }
}
