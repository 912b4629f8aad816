//! The shim: one process for each sandbox, which holds its containers and outlives whoever started it.
//!
//! It has one thread and one `poll(2)` loop (`serve`), runs from sealed memory ([`ShimImage`]), and is
//! nobody's child: the node may end, crash or be replaced without any container noticing. `sandbox` is
//! what it holds, `prepare` how it begins.
//!
//! While a sandbox sleeps, its root file systems are mounted, its cgroups stand with their limits, its
//! network namespace is joined, and no process of it exists. Keeping each next container *created*, its init
//! waiting for the word, was measured: a start then takes about 1 ms and not 6, but each sleeping
//! container costs 400 kB more, a third of what its shim has.

mod again;
mod alone;
mod attended;
mod cell;
mod connection;
mod ending;
mod heed;
pub(crate) mod prepare;
mod sandbox;
mod serve;
mod starting;
mod steps;

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, setsid};

use crate::error::{Error, Result, Trying};
use crate::image::ShimImage;
use crate::oci::DEFAULT_PATH;
use crate::rootfs::make_private_dir;
use crate::spec::{Bundle, SandboxSpec};
use crate::values::Values;
use crate::{probe, step, sys};

/// A process with this as its name for itself is a shim.
const ROLE: &str = "layby-shim";

/// How long a shim may take to get ready; the disk may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// If this process was started as a shim, or as another of this crate's helpers, becomes it and never returns; else does
/// nothing.
///
/// Call it first in `main`, before any thread exists: a shim forks.
pub fn run_if_shim() {
    let mut arguments = std::env::args_os();
    let role = arguments.next().unwrap_or_default();
    let place = arguments.next().map(PathBuf::from).unwrap_or_default();
    if role == ROLE {
        run(&Bundle::new(&place));
    }
    if role == step::ROLE {
        step::work(&Bundle::new(&place));
    }
    if role == probe::ROLE {
        probe::work(&place);
    }
}

/// Starts the shim of a new sandbox and returns when it is prepared: its root file systems are
/// mounted, its cgroup is made, its socket listens. No container runs yet.
///
/// Writes `spec.json` to `bundle`, which is made when it does not exist. `values` go from memory to memory.
///
/// # Errors
/// Whatever went wrong before the sandbox was prepared, in one sentence; nothing runs then.
pub fn spawn(image: &ShimImage, bundle: &Path, spec: &SandboxSpec, values: &Values) -> Result<()> {
    make_private_dir(bundle)?;
    let bundle =
        Bundle::new(&fs::canonicalize(bundle).trying(|| format!("find {}", bundle.display()))?);
    let file = bundle.spec();
    // No shim begins before its settings are written: nobody has to be looked for in a new bundle.
    if file.exists()
        && let Some(pid) = processes(&bundle).first()
    {
        return Err(Error::Failed(format!(
            "the shim {pid} holds the sandbox in {} already: talk to it, or destroy it first",
            bundle.root().display()
        )));
    }
    let json = serde_json::to_vec(spec)
        .map_err(std::io::Error::from)
        .trying(|| format!("write {}", file.display()))?;
    fs::write(&file, json).trying(|| format!("write {}", file.display()))?;
    let file = bundle.filter();
    fs::write(&file, image.filter()).trying(|| format!("write {}", file.display()))?;
    let log = bundle.shim_log();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .trying(|| format!("open {}", log.display()))?;

    let input = match values.is_empty() {
        true => Stdio::null(),
        false => Stdio::from(values.seal()?),
    };
    let mut starter = Command::new(image.program())
        .arg0(ROLE)
        .arg(bundle.root())
        .env_clear()
        // libcontainer reads it.
        .env("PATH", DEFAULT_PATH)
        .current_dir("/")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .trying(|| "start the shim of a sandbox".into())?;
    let words = starter
        .stdout
        .take()
        .map(|pipe| listen(OwnedFd::from(pipe)));
    // What we started only forked the shim: this takes no time.
    starter
        .wait()
        .trying(|| "wait for the starter of a shim".into())?;
    match words {
        Some(Words { ready: true, .. }) => Ok(()),
        Some(Words {
            fatal: Some(sentence),
            ..
        }) => Err(Error::Fatal(sentence)),
        Some(Words {
            failed: Some(sentence),
            ..
        }) => Err(Error::Shim(sentence)),
        Some(Words {
            pid, silent: true, ..
        }) => {
            if let Some(pid) = pid {
                let _ = kill(pid, Signal::SIGKILL);
            }
            Err(Error::Shim(format!(
                "the shim was not ready within {} s",
                PATIENCE.as_secs()
            )))
        }
        _ => Err(Error::Shim(format!(
            "the shim ended before it was ready: see {}",
            bundle.shim_log().display()
        ))),
    }
}

/// What a starting shim says over its stdout: its number, then how it went, a line each.
#[derive(Debug, Default)]
struct Words {
    pid: Option<Pid>,
    ready: bool,
    fatal: Option<String>,
    failed: Option<String>,
    silent: bool,
}

fn listen(pipe: OwnedFd) -> Words {
    let deadline = Instant::now() + PATIENCE;
    let mut pipe = File::from(pipe);
    let mut text = Vec::new();
    let mut silent = false;
    while text.len() < 64 * 1024 {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                silent = true;
                break;
            }
            Err(nix::errno::Errno::EINTR) => continue,
            _ => {}
        }
        let mut buffer = [0; 1024];
        match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
    }
    let mut words = Words {
        silent,
        ..Words::default()
    };
    for line in String::from_utf8_lossy(&text).lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("pid", number) => words.pid = number.parse().ok().map(Pid::from_raw),
            ("ready", _) => words.ready = true,
            ("fatal", sentence) => words.fatal = Some(sentence.to_owned()),
            ("failed", sentence) => words.failed = Some(sentence.to_owned()),
            _ => {}
        }
    }
    words
}

/// The shim's life.
fn run(bundle: &Bundle) -> ! {
    let outcome = detach().and_then(|(ready, values)| live(bundle, values, ready));
    if let Err(error) = &outcome {
        eprintln!("{ROLE}: {}", error.sentence());
    }
    sys::exit_now(i32::from(outcome.is_err()))
}

/// Leaves the process that started us, its session and its descriptors. Returns the pipe for [`Words`], and the values
/// that came as standard input.
fn detach() -> Result<(File, Values)> {
    let what = || "detach the shim".to_owned();
    sys::close_inherited();
    if let ForkResult::Parent { .. } = sys::fork().trying(what)? {
        sys::exit_now(0);
    }
    begin(c"layby-shim").trying(what)?;
    let mut ready = File::from(
        std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .trying(what)?,
    );
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .trying(what)?;
    let values = Values::unseal(std::io::stdin())?;
    dup2_stdin(&null).trying(what)?;
    dup2_stdout(&null).trying(what)?;
    writeln!(ready, "pid {}", Pid::this()).trying(what)?;
    Ok((ready, values))
}

/// A process of its own: its session, its name, the orphans of its children. A shim ends by order or not at all: neither
/// with a terminal nor with a machine that says "terminate" to everyone before its containers are stopped. What it
/// forks gets its signals back.
pub(crate) fn begin(name: &CStr) -> nix::Result<()> {
    setsid()?;
    // Its program is a number in /proc otherwise; people look for a name.
    prctl::set_name(name)?;
    prctl::set_child_subreaper(true)?;
    umask(Mode::from_bits_truncate(0o022));
    let mut blocked = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        blocked.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)
}

fn live(bundle: &Bundle, values: Values, mut ready: File) -> Result<()> {
    let (sandbox, listener) = match prepare::prepare(bundle, values) {
        Ok(prepared) => prepared,
        Err(error) => {
            let word = if error.fatal() { "fatal" } else { "failed" };
            let sentence = error.sentence().replace('\n', " ");
            // The one who asks may be gone; the log has it too.
            let _ = writeln!(ready, "{word} {sentence}");
            // Left open: its end tells the one who waits that this process is gone.
            std::mem::forget(ready);
            return Err(error);
        }
    };
    let mut server = serve::Server::new(sandbox, listener)?;
    // Gone already? Then the next one finds us by the bundle.
    let _ = writeln!(ready, "ready");
    drop(ready);
    server.run()?;
    // So that its connections end with this process and not before: who waits for their end finds nobody any more.
    std::mem::forget(server);
    Ok(())
}

/// The shim of a bundle, if it lives, and what it has forked that executes no program of its own yet: their
/// command line says whose they are. A zombie has none.
pub(crate) fn processes(bundle: &Bundle) -> Vec<Pid> {
    pids()
        .filter(|pid| is_of(*pid, bundle))
        .map(Pid::from_raw)
        .collect()
}

fn is_of(pid: i32, bundle: &Bundle) -> bool {
    root_of(pid).is_some_and(|root| root == bundle.root())
}

/// The bundle of which a process is the shim, if it is one.
fn root_of(pid: i32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = line.split(|b| *b == 0);
    (arguments.next() == Some(ROLE.as_bytes())).then_some(())?;
    arguments
        .next()
        .map(|root| PathBuf::from(OsStr::from_bytes(root)))
}

/// How many bundles below a folder have a shim that lives, whoever drives them.
pub fn shims_below(folder: &Path) -> usize {
    let roots: BTreeSet<PathBuf> = pids().filter_map(root_of).collect();
    roots.iter().filter(|root| root.starts_with(folder)).count()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
