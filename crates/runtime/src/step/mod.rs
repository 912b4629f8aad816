//! One command in a sandbox that is there for it alone: what the RUN of a build runs in.
//!
//! The node starts a process of its own for it, from sealed memory, and keeps a pipe to it open. That process mounts,
//! runs the command and waits; the end of the pipe tells it that nobody wants the command any more, also when the
//! node was killed: then it ends the command, and leaves nothing but its folder, which [`sweep`] finds.
//!
//! What the command writes is a layer: it bears the ids inside, and none of the mount points that were made for it
//! ([`skeleton`]).

mod skeleton;
mod work;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::cgroup::Group;
use crate::error::{Error, Result, Trying};
use crate::image::ShimImage;
use crate::oci::DEFAULT_PATH;
use crate::rootfs::make_private_dir;
use crate::spec::{Bundle, SandboxSpec};

pub(crate) use work::work;

/// A process with this as its name for itself runs a step.
pub(crate) const ROLE: &str = "layby-step";

/// How often it is asked whether the step is still wanted, in milliseconds.
const LOOK_MS: u16 = 100;

/// The longest report.
const MAX_REPORT_BYTES: usize = 64 * 1024;

/// What a step is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSpec {
    /// The sandbox, with exactly one container, whose command is run once. The socket is not used; its cgroup must be its
    /// own.
    pub sandbox: SandboxSpec,
    /// It is in the machine's network, and not in the sandbox's.
    pub host_network: bool,
    /// An empty folder; afterwards it holds what the command wrote, in overlayfs' form.
    pub upper: PathBuf,
    /// An empty folder on the same file system.
    pub work: PathBuf,
    /// What the steps of the node may use together: memory, in bytes, and their share of the CPU where it is short. It is
    /// kept by the cgroup above the sandbox's, which holds nothing else.
    pub memory_bytes: Option<u64>,
    /// See `memory_bytes`; 1024 is what a service has.
    pub cpu_shares: Option<u64>,
}

/// Runs a step and blocks until it has ended; gives its exit code (128 and the signal's number where one ended it).
///
/// `dir` is a folder for the step alone, which is made and removed. `stop` says when nobody wants the outcome any
/// more. `output` gets what the command writes to both of its outputs.
///
/// # Errors
/// Why the command could not be run at all, or that it was given up.
pub fn run(
    image: &ShimImage,
    dir: &Path,
    spec: &StepSpec,
    stop: &dyn Fn() -> bool,
    output: &mut dyn FnMut(&[u8]),
) -> Result<i32> {
    make_private_dir(dir)?;
    let dir = fs::canonicalize(dir).trying(|| format!("find {}", dir.display()))?;
    let outcome =
        begin(image, &dir, spec).and_then(|(child, order)| follow(child, order, stop, output));
    // The worker does this itself, unless it was killed.
    let cleaned = Group::new(&spec.sandbox.cgroup).and_then(|group| take_down(&group));
    let removed = fs::remove_dir_all(&dir).trying(|| format!("remove {}", dir.display()));
    let code = outcome?;
    cleaned?;
    removed?;
    Ok(code)
}

/// Removes what steps left that ended with their node, and nothing else: their folders are in `dir`, and their cgroups'
/// names begin with `cgroup`.
///
/// # Errors
/// What could not be removed.
pub fn sweep(dir: &Path, cgroup: &str) -> Result<(), Vec<Error>> {
    let mut errors = Vec::new();
    match Group::beginning(cgroup) {
        Ok(groups) => errors.extend(groups.iter().filter_map(|group| take_down(group).err())),
        Err(error) => errors.push(error),
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let failed: Result<()> = Err(error).trying(|| format!("remove {}", dir.display()));
            errors.extend(failed.err());
        }
        _ => {}
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn take_down(group: &Group) -> Result<()> {
    group.kill_all()?;
    group.remove().map_err(|errors| {
        let all: Vec<String> = errors.iter().map(Error::sentence).collect();
        Error::Failed(all.join("; "))
    })
}

/// Starts the worker and tells it what to do. While the pipe that is returned stays open, the step is wanted.
fn begin(image: &ShimImage, dir: &Path, spec: &StepSpec) -> Result<(Child, ChildStdin)> {
    let what = || "start a build step".to_owned();
    let file = Bundle::new(dir).filter();
    fs::write(&file, image.filter()).trying(|| format!("write {}", file.display()))?;
    let mut child = Command::new(image.program())
        .arg0(ROLE)
        .arg(dir)
        .env_clear()
        // libcontainer reads it.
        .env("PATH", DEFAULT_PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .trying(what)?;
    let mut line = serde_json::to_vec(spec)
        .map_err(std::io::Error::from)
        .trying(what)?;
    line.push(b'\n');
    match child.stdin.take() {
        Some(mut order) => {
            // One that has ended already says why in its report.
            let _ = order.write_all(&line);
            Ok((child, order))
        }
        None => Err(Error::Failed("a build step has no pipe to it".to_owned())),
    }
}

/// Passes output on until the worker has ended.
fn follow(
    mut child: Child,
    order: ChildStdin,
    stop: &dyn Fn() -> bool,
    output: &mut dyn FnMut(&[u8]),
) -> Result<i32> {
    let mut order = Some(order);
    let mut out = child
        .stdout
        .take()
        .map(|pipe| File::from(OwnedFd::from(pipe)));
    let mut told = child
        .stderr
        .take()
        .map(|pipe| File::from(OwnedFd::from(pipe)));
    let mut report = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while out.is_some() || told.is_some() {
        if stop() {
            order = None;
        }
        let open: Vec<&File> = out.iter().chain(&told).collect();
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, PollTimeout::from(LOOK_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).trying(|| "wait for a build step".into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let mut ready = ready.into_iter();
        take(&mut out, &mut ready, &mut buffer, output);
        take(&mut told, &mut ready, &mut buffer, &mut |bytes| {
            let room = MAX_REPORT_BYTES.saturating_sub(report.len());
            report.extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
    }
    let given_up = order.is_none();
    drop(order);
    child.wait().trying(|| "wait for a build step".into())?;
    read_report(&String::from_utf8_lossy(&report), given_up, output)
}

/// Takes what one pipe has, if it is open and the next one that is ready; closes it at its end.
fn take(
    pipe: &mut Option<File>,
    ready: &mut impl Iterator<Item = bool>,
    buffer: &mut [u8],
    to: &mut dyn FnMut(&[u8]),
) {
    let Some(file) = pipe else { return };
    if ready.next() != Some(true) {
        return;
    }
    match file.read(buffer) {
        Ok(length) if length > 0 => to(&buffer[..length]),
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        _ => *pipe = None,
    }
}

/// What the worker said at its end, a line each.
fn read_report(report: &str, given_up: bool, output: &mut dyn FnMut(&[u8])) -> Result<i32> {
    let mut code = None;
    for line in report.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("exit", number) => code = number.parse().ok(),
            ("oom", limit) => output(
                format!(
                    "\nThe step ran out of memory: all steps together may use {limit} bytes.\n"
                )
                .as_bytes(),
            ),
            ("fatal", sentence) => return Err(Error::Fatal(sentence.to_owned())),
            ("failed", sentence) => return Err(Error::Failed(sentence.to_owned())),
            _ => {}
        }
    }
    if given_up {
        return Err(Error::Failed("the step was given up".to_owned()));
    }
    code.ok_or_else(|| Error::Failed("the process that runs the step was killed".to_owned()))
}
