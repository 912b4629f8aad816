//! Copying files out of and into a running container.
//!
//! The helper is in the container's mount and user namespace, as its root, with only the rights that files need: every
//! path is resolved in there, whatever links the container makes meanwhile (CVE-2018-15664). It executes nothing and loads
//! nothing: its code was in memory before it entered (CVE-2019-14271).

use std::collections::HashSet;
use std::fs;
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use libcontainer::{capabilities, syscall::syscall::create_syscall};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::unistd::pipe2;
use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder};

use crate::attach::{self, Client, NO_SUCH_PATH, Place};
use crate::entry::{Entry, Said, say};
use crate::executor::{self, Refusal};
use crate::protocol::{Copy, Stat};
use crate::sys;
use crate::tree;

/// How much is moved at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The helper's life; returns its exit code.
pub(crate) fn help(
    place: &Place<'_>,
    copy: &Copy,
    client: &Client<'_>,
    report: &OwnedFd,
) -> Result<i32, Refusal> {
    enter(place).map_err(failed)?;
    match copy {
        Copy::Stat { path } => {
            let found = stat(path)?;
            sys::write_raw(report.as_raw_fd(), found.as_bytes());
        }
        Copy::Out { path, follow_link } => {
            let source = tree::Source::open(Path::new(path), *follow_link)
                .map_err(|error| not_there(path, &error))?;
            let (read, write) = pipe()?;
            attach::hand_over(client, &[read.as_raw_fd()]).map_err(failed)?;
            // What else is open is the shim's.
            sys::close_all_but(&[write.as_raw_fd(), report.as_raw_fd(), source.as_raw_fd()]);
            std::mem::forget(read);
            let mut out = BufWriter::with_capacity(PIECE_BYTES, fs::File::from(write));
            let packed = tree::pack(&source, &tree::last_name(path), &mut out);
            packed
                .and_then(|_lost| out.flush())
                .map_err(|error| failed(format!("{path} cannot be read: {error}")))?;
        }
        Copy::In {
            path,
            keep_owners,
            whiteouts,
        } => {
            let target =
                tree::Target::open(Path::new(path)).map_err(|error| match error.kind() {
                    ErrorKind::NotADirectory => failed(format!("{path} is no folder")),
                    _ => not_there(path, &error),
                })?;
            let (read, write) = pipe()?;
            attach::hand_over(client, &[write.as_raw_fd()]).map_err(failed)?;
            sys::close_all_but(&[read.as_raw_fd(), report.as_raw_fd(), target.as_raw_fd()]);
            std::mem::forget(write);
            let input = BufReader::with_capacity(PIECE_BYTES, fs::File::from(read));
            let options = tree::Unpack {
                keep_owners: *keep_owners,
                whiteouts: *whiteouts,
                rename: None,
            };
            tree::unpack(&target, input, &options)
                .map_err(|error| failed(format!("cannot copy into {path}: {error}")))?;
        }
    }
    Ok(0)
}

fn enter(place: &Place<'_>) -> Said<()> {
    let entry = Entry::find(place.init, place.bundle, place.name)?;
    entry.join(CloneFlags::CLONE_NEWNS)?;
    // Its root is that of the namespace; a mount over it would not be.
    std::env::set_current_dir("/").map_err(|e| say("enter the container's root")(&e))?;
    prctl::set_no_new_privs().map_err(|e| say("give up new privileges")(&e))?;
    let rights = HashSet::from([
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
    ]);
    let rights = LinuxCapabilitiesBuilder::default()
        .bounding(rights.clone())
        .effective(rights.clone())
        .permitted(rights)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
        .map_err(|e| say("name capabilities")(&e))?;
    let calls = create_syscall();
    capabilities::drop_privileges(&rights, calls.as_ref())
        .map_err(|e| say("drop capabilities")(&e))?;
    executor::load(&entry.filter).map_err(|refusal| refusal.sentence)
}

fn stat(path: &str) -> Result<String, Refusal> {
    let found = fs::canonicalize(path).and_then(|real| Ok((fs::metadata(&real)?.is_dir(), real)));
    let (is_dir, real) = found.map_err(|error| not_there(path, &error))?;
    let stat = Stat {
        path: real.to_string_lossy().into_owned(),
        is_dir,
    };
    serde_json::to_string(&stat).map_err(|error| failed(error.to_string()))
}

fn not_there(path: &str, error: &std::io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Refusal {
            code: NO_SUCH_PATH,
            sentence: format!("there is no {path} in the container"),
        },
        _ => failed(format!("{path} cannot be opened: {error}")),
    }
}

fn failed(sentence: String) -> Refusal {
    attach::failed(sentence)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Refusal> {
    pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(say("make a pipe")(&e)))
}
