//! Running a command in a running container, as its user and within its fences.
//!
//! libcontainer's own way in would block the shim, and leaves the system call filter and the user out. So the shim forks a
//! helper, which joins the container's cgroups and namespaces and forks the command; the shim only
//! reads pipes and waits for the helper. The helper runs from sealed memory and cannot be traced from inside.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use libcontainer::{capabilities, syscall::syscall::create_syscall};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setgroups, setresgid,
    setresuid, setsid,
};
use oci_spec::runtime::Spec;

use crate::container;
use crate::error::{Error, Result, Trying};
use crate::executor;
use crate::hierarchy::Hierarchies;
use crate::oci;
use crate::protocol::MAX_EXEC_OUTPUT_BYTES;
use crate::spec::Bundle;
use crate::sys;

/// A command on its way.
pub(crate) struct Exec {
    helper: Pid,
    output: File,
    report: File,
    gathered: Vec<u8>,
    at_end: bool,
}

/// Starts `argv` in the container `name` of the bundle, whose init is `init`.
pub(crate) fn start(init: Pid, bundle: &Bundle, name: &str, argv: &[String]) -> Result<Exec> {
    let what = || "start a command in the container".to_owned();
    let (output, output_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    for fd in [&output, &report] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).trying(what)?;
    }
    match sys::fork().trying(what)? {
        ForkResult::Parent { child } => Ok(Exec {
            helper: child,
            output: output.into(),
            report: report.into(),
            gathered: Vec::new(),
            at_end: false,
        }),
        ForkResult::Child => {
            let fd = report_end.as_raw_fd();
            match help(init, bundle, name, argv, output_end, report_end) {
                Ok(code) => sys::exit_now(code),
                Err(sentence) => executor::fail(fd, &sentence),
            }
        }
    }
}

impl Exec {
    /// The process to wait for.
    pub(crate) fn helper(&self) -> Pid {
        self.helper
    }

    /// What to poll.
    pub(crate) fn output(&self) -> &File {
        &self.output
    }

    /// Whether every writer has closed the output: polling it would return at once for ever.
    pub(crate) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Takes what was written. Beyond the limit it is read and dropped, so that the command goes on.
    pub(crate) fn turn(&mut self) {
        for _ in 0..16 {
            let mut buffer = [0; 4096];
            match self.output.read(&mut buffer) {
                Ok(0) => self.at_end = true,
                Ok(length) => {
                    let room = MAX_EXEC_OUTPUT_BYTES - self.gathered.len();
                    self.gathered.extend_from_slice(&buffer[..length.min(room)]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => self.at_end |= error.kind() != ErrorKind::WouldBlock,
            }
            return;
        }
    }

    /// After the helper has ended: what was written, or why the command never ran. (What it left running in
    /// the background may still hold the output; that is not waited for.)
    pub(crate) fn finish(mut self) -> Result<String> {
        self.turn();
        let mut sentence = String::new();
        // Nothing more comes: the end is there, or reading would block.
        let _ = (&mut self.report).take(4096).read_to_string(&mut sentence);
        if sentence.is_empty() {
            Ok(String::from_utf8_lossy(&self.gathered).into_owned())
        } else {
            Err(Error::Fatal(sentence))
        }
    }
}

/// The helper: joins, forks the command, waits for it, returns its exit code.
fn help(
    init: Pid,
    bundle: &Bundle,
    name: &str,
    argv: &[String],
    output: OwnedFd,
    report: OwnedFd,
) -> std::result::Result<i32, String> {
    sys::reset_signals();
    let say = |what: &'static str| {
        move |error: &dyn std::error::Error| format!("exec: cannot {what}: {error}")
    };
    prctl::set_dumpable(false).map_err(|e| say("hide from the container")(&e))?;
    setsid().map_err(|e| say("make a session")(&e))?;
    let spec = Spec::load(bundle.oci(name).join("config.json"))
        .map_err(|e| say("read the container's spec")(&e))?;
    let filter = match oci::is_unconfined(&spec) {
        true => Vec::new(),
        false => container::read_filter(bundle).map_err(|e| e.sentence())?,
    };
    let stdin = File::open("/dev/null").map_err(|e| say("open /dev/null")(&e))?;
    let process = sys::pidfd(init).map_err(|e| say("find the container's init")(&e))?;
    let dirs = Hierarchies::get()
        .and_then(|h| h.of_process(init))
        .map_err(|e| e.sentence())?;
    for dir in dirs {
        fs::write(dir.join("cgroup.procs"), "0")
            .map_err(|e| say("join the container's cgroup")(&e))?;
    }
    let mut kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    if spec
        .linux()
        .as_ref()
        .is_some_and(|linux| linux.uid_mappings().is_some())
    {
        kinds |= CloneFlags::CLONE_NEWUSER;
    }
    setns(&process, kinds).map_err(|e| say("join the container's namespaces")(&e))?;
    match sys::fork().map_err(|e| say("fork")(&e))? {
        ForkResult::Parent { child } => {
            drop((output, report));
            Ok(match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
                _ => 128 + Signal::SIGKILL as i32,
            })
        }
        ForkResult::Child => {
            let fd = report.as_raw_fd();
            let outcome = become_command(&spec, &filter, argv, &stdin, &output);
            let Err(sentence) = outcome;
            executor::fail(fd, &sentence)
        }
    }
}

/// The command's process, inside the namespaces: takes on what the container's init has, and executes.
/// The order is libcontainer's.
fn become_command(
    spec: &Spec,
    filter: &[u8],
    argv: &[String],
    stdin: &File,
    output: &OwnedFd,
) -> std::result::Result<std::convert::Infallible, String> {
    let say = |what: &'static str| {
        move |error: &dyn std::error::Error| format!("exec: cannot {what}: {error}")
    };
    dup2_stdin(stdin).map_err(|e| say("set stdin")(&e))?;
    dup2_stdout(output).map_err(|e| say("set stdout")(&e))?;
    dup2_stderr(output).map_err(|e| say("set stderr")(&e))?;
    let process = spec
        .process()
        .as_ref()
        .ok_or("exec: the container's spec has no process")?;
    let user = process.user();
    let calls = create_syscall();
    for limit in process.rlimits().iter().flatten() {
        calls
            .set_rlimit(limit)
            .map_err(|e| say("set the limits")(&e))?;
    }
    prctl::set_no_new_privs().map_err(|e| say("give up new privileges")(&e))?;
    std::env::set_current_dir(process.cwd()).map_err(|e| say("enter the working directory")(&e))?;
    let groups: Vec<Gid> = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    // Capabilities are dropped below, by name, and not by becoming somebody else.
    prctl::set_keepcaps(true)
        .and_then(|()| setgroups(&groups))
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|e| say("become the container's user")(&e))?;
    // When the helper is killed, so is the command; set after the user, which clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| say("tie it to the shim")(&e))?;
    capabilities::reset_effective(calls.as_ref()).map_err(|e| say("set the capabilities")(&e))?;
    if let Some(set) = process.capabilities() {
        capabilities::drop_privileges(set, calls.as_ref())
            .map_err(|e| say("drop capabilities")(&e))?;
    }
    sys::set_environment(
        process
            .env()
            .iter()
            .flatten()
            .filter_map(|pair| pair.split_once('=')),
    );
    executor::execute(argv, filter)
}
