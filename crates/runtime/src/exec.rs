//! Running a command in a running container, as its user and within its fences.
//!
//! libcontainer's own way in would block the shim, and leaves the system call filter and the user out. So the shim forks a
//! helper, which enters the container ([`crate::entry`]) and forks the command; the shim only reads pipes and waits for
//! the helper.

use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libcontainer::{capabilities, syscall::syscall::create_syscall};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setgroups, setresgid,
    setresuid, setsid,
};
use oci_spec::runtime::{LinuxCapabilities, Spec};

use crate::entry::{Entry, Said, say};
use crate::error::{Error, Result, Trying};
use crate::executor::{self, Refusal};
use crate::protocol::MAX_EXEC_OUTPUT_BYTES;
use crate::spec::Bundle;
use crate::sys;
use crate::user::User;

/// A command on its way.
pub(crate) struct Exec {
    helper: Pid,
    output: File,
    report: File,
    gathered: Vec<u8>,
    at_end: bool,
}

/// What a command is to be, where it is not what the container is.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) argv: Vec<String>,
    /// Added to the container's environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: Option<String>,
    pub(crate) user: Option<User>,
    /// Its standard input is a terminal, to be that of its session.
    pub(crate) terminal: bool,
    /// With all capabilities, and no filter of system calls.
    pub(crate) privileged: bool,
    /// Somebody is at its other end: who is told by its report which signal has ended it.
    pub(crate) attended: bool,
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
            match help(init, bundle, name, argv, output_end, &report_end) {
                Err(sentence) => executor::fail(fd, &Refusal::unusable(sentence)),
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

/// Every namespace that a container may have of its own, but the user namespace.
pub(crate) fn namespaces() -> CloneFlags {
    CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP
}

/// The helper: joins, forks the command, waits for it, ends with its exit code.
fn help(
    init: Pid,
    bundle: &Bundle,
    name: &str,
    argv: &[String],
    output: OwnedFd,
    report: &OwnedFd,
) -> Said<Infallible> {
    let entry = Entry::find(init, bundle, name)?;
    let stdin = File::open("/dev/null").map_err(|e| say("open /dev/null")(&e))?;
    entry.join(namespaces())?;
    let wanted = Wanted {
        argv: argv.to_vec(),
        ..Wanted::default()
    };
    let errors = output
        .try_clone()
        .map_err(|e| say("copy a descriptor")(&e))?;
    run(&entry, &wanted, [stdin.into(), output, errors], report)
}

/// Forks the command with these for its standard input, output and errors; waits for it and ends with its exit code.
pub(crate) fn run(
    entry: &Entry,
    wanted: &Wanted,
    stdio: [OwnedFd; 3],
    report: &OwnedFd,
) -> Said<Infallible> {
    match sys::fork().map_err(|e| say("fork")(&e))? {
        ForkResult::Parent { child } => {
            // What is held here would not be at its end when the command closes it.
            sys::close_all_but(&[report.as_raw_fd()]);
            sys::exit_now(match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    if let Some(sentence) = ended_by(signal).filter(|_| wanted.attended) {
                        sys::write_raw(report.as_raw_fd(), sentence.as_bytes());
                    }
                    128 + signal as i32
                }
                _ => 128 + Signal::SIGKILL as i32,
            })
        }
        ForkResult::Child => {
            let fd = report.as_raw_fd();
            let Err(refusal) = become_command(&entry.spec, &entry.filter, wanted, &stdio);
            executor::fail(fd, &refusal)
        }
    }
}

/// What is said of a command that a signal has ended; nothing of Ctrl-C and of a pipe that nobody reads any more, as by a shell.
pub(crate) fn ended_by(signal: Signal) -> Option<String> {
    let number = signal as i32;
    match signal {
        Signal::SIGINT | Signal::SIGPIPE => None,
        Signal::SIGKILL => Some(format!(
            "exec: the command was ended by signal {number} ({signal}): so are all in a container that is stopped, or is out of memory"
        )),
        _ => Some(format!(
            "exec: the command was ended by signal {number} ({signal})"
        )),
    }
}

/// The command's process, inside the namespaces: takes on what the container's init has, and executes.
/// The order is libcontainer's.
fn become_command(
    spec: &Spec,
    filter: &[u8],
    wanted: &Wanted,
    [stdin, stdout, stderr]: &[OwnedFd; 3],
) -> std::result::Result<Infallible, Refusal> {
    let say = |what: &'static str| {
        move |error: &dyn std::error::Error| Refusal::unusable(say(what)(error))
    };
    if wanted.terminal {
        setsid().map_err(|e| say("make a session")(&e))?;
        sys::take_terminal(stdin.as_fd()).map_err(|e| say("take the terminal")(&e))?;
    }
    dup2_stdin(stdin).map_err(|e| say("set stdin")(&e))?;
    dup2_stdout(stdout).map_err(|e| say("set stdout")(&e))?;
    dup2_stderr(stderr).map_err(|e| say("set stderr")(&e))?;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Refusal::unusable("exec: the container's spec has no process".to_owned()))?;
    let calls = create_syscall();
    for limit in process.rlimits().iter().flatten() {
        calls
            .set_rlimit(limit)
            .map_err(|e| say("set the limits")(&e))?;
    }
    let no_new_privileges = process.no_new_privileges().unwrap_or(true);
    if no_new_privileges {
        prctl::set_no_new_privs().map_err(|e| say("give up new privileges")(&e))?;
    }
    let cwd = wanted
        .cwd
        .as_deref()
        .map_or(process.cwd().as_path(), |cwd| cwd.as_ref());
    std::env::set_current_dir(cwd)
        .map_err(|e| Refusal::unusable(format!("exec: cannot enter {}: {e}", cwd.display())))?;
    // A way through /proc may lead out of the root (CVE-2024-21626): then it has no name in here.
    if !sys::is_inside_root() {
        let text = format!("exec: {} lies outside of the container", cwd.display());
        return Err(Refusal::unusable(text));
    }
    let (uid, gid, groups, held) = match &wanted.user {
        Some(user) => {
            let held = process
                .capabilities()
                .as_ref()
                .map(|c| held_by(c, user.uid));
            (user.uid, user.gid, user.groups.clone(), held)
        }
        None => {
            let user = process.user();
            let groups = user.additional_gids().clone().unwrap_or_default();
            let held = process.capabilities().clone();
            (user.uid(), user.gid(), groups, held)
        }
    };
    let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // Capabilities are dropped below, by name, and not by becoming somebody else.
    prctl::set_keepcaps(true)
        .and_then(|()| setgroups(&groups))
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|e| say("become the container's user")(&e))?;
    // When the helper is killed, so is the command; set after the user, which clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| say("tie it to the shim")(&e))?;
    capabilities::reset_effective(calls.as_ref()).map_err(|e| say("set the capabilities")(&e))?;
    let (mut filter, held) = match wanted.privileged {
        true => (&[][..], None),
        false => (filter, held),
    };
    if !no_new_privileges {
        // It takes a right that is dropped now.
        executor::load(filter)?;
        filter = &[];
    }
    if let Some(set) = &held {
        capabilities::drop_privileges(set, calls.as_ref())
            .map_err(|e| say("drop capabilities")(&e))?;
    }
    let own = process.env().iter().flatten();
    let own = own.filter_map(|pair| pair.split_once('='));
    let more = wanted.env.iter().map(|(name, value)| (&**name, &**value));
    sys::set_environment(own.chain(more));
    executor::execute(&wanted.argv, filter)
}

/// The capabilities of a container's other user: root has all that the container may ever have, others none.
fn held_by(container: &LinuxCapabilities, uid: u32) -> LinuxCapabilities {
    let mut held = container.clone();
    let all = container.bounding().clone().filter(|_| uid == 0);
    held.set_effective(Some(all.clone().unwrap_or_default()));
    held.set_permitted(Some(all.unwrap_or_default()));
    held.set_inheritable(Some(Default::default()));
    held.set_ambient(Some(Default::default()));
    held
}
