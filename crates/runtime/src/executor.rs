//! The last step of a container's init: executing its program, or saying exactly why not.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::capabilities;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::execv;
use oci_spec::runtime::{LinuxCapabilities, Spec};

use crate::{init, sys};

/// The exit codes of a process whose program could not be executed, or is not there, as shells have them.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Why a program was not executed.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The exit code that says so.
    pub(crate) code: i32,
    /// The reason, in one sentence.
    pub(crate) sentence: String,
}

impl Refusal {
    /// The program or something that it needs cannot be used.
    pub(crate) fn unusable(sentence: String) -> Self {
        Self {
            code: NOT_EXECUTABLE,
            sentence,
        }
    }

    fn missing(sentence: String) -> Self {
        Self {
            code: NOT_FOUND,
            sentence,
        }
    }
}

/// Loads the system call filter and executes the program of the spec. What goes wrong is written to a
/// pipe, which closes on success.
#[derive(Clone)]
pub(crate) struct Last {
    report: RawFd,
    manner: Rc<Manner>,
}

/// How a program is executed.
#[derive(Default)]
pub(crate) struct Manner {
    /// The system call filter; empty: none.
    pub(crate) filter: Vec<u8>,
    /// Capabilities to take on once the filter is loaded.
    pub(crate) then: Option<LinuxCapabilities>,
    /// This process stays as a small init, and the program is its child.
    pub(crate) under_init: bool,
    /// This process stays as a small init, and no program is executed.
    pub(crate) hold: bool,
    /// It ends with the process that made it.
    pub(crate) with_parent: bool,
}

impl Last {
    /// Reports to `pipe`, which must stay open until the container is built. (libcontainer clones the
    /// executor and forks, so the descriptor's number is what goes along.)
    pub(crate) fn new(pipe: &OwnedFd, manner: Manner) -> Self {
        Self {
            report: pipe.as_raw_fd(),
            manner: Rc::new(manner),
        }
    }

    /// Returns why the program could not be executed.
    fn become_program(&self, spec: &Spec) -> Result<Infallible, Refusal> {
        let argv = spec
            .process()
            .as_ref()
            .and_then(|p| p.args().clone())
            .unwrap_or_default();
        sys::reset_signals();
        if self.manner.with_parent {
            // After the user was set, which clears it.
            prctl::set_pdeathsig(Signal::SIGKILL)
                .map_err(|error| format!("exec: cannot tie it to its parent: {error}"))
                .map_err(Refusal::unusable)?;
        }
        // By a descriptor of the shim, or a link to one, it may have been led out (CVE-2024-21626).
        if !sys::is_inside_root() {
            return Err(Refusal::unusable(
                "exec: the working directory lies outside of the container".to_owned(),
            ));
        }
        let mut filter = self.manner.filter.as_slice();
        if let Some(sets) = &self.manner.then {
            load(filter)?;
            filter = &[];
            capabilities::drop_privileges(sets, create_syscall().as_ref())
                .map_err(|error| format!("exec: cannot drop capabilities: {error}"))
                .map_err(Refusal::unusable)?;
        }
        if self.manner.hold {
            load(filter)?;
            return init::hold()
                .map_err(|error| format!("exec: cannot hold the container open: {error}"))
                .map_err(Refusal::unusable);
        }
        if self.manner.under_init {
            init::stay()
                .map_err(|error| format!("exec: cannot fork: {error}"))
                .map_err(Refusal::unusable)?;
        }
        execute(&argv, filter)
    }
}

impl Executor for Last {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let Err(refusal) = self.become_program(spec);
        fail(self.report, &refusal)
    }

    /// Nothing to check before: the kernel says it best.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }
}

/// Writes why the program was not executed to the pipe `fd`, and ends the process.
pub(crate) fn fail(fd: RawFd, refusal: &Refusal) -> ! {
    sys::write_raw(fd, refusal.sentence.as_bytes());
    sys::exit_now(refusal.code)
}

/// Loads the system call filter (empty: none) and replaces this process by the program, looked up in PATH when its name
/// has no `/`. Returns why it could not.
pub(crate) fn execute(argv: &[String], filter: &[u8]) -> Result<Infallible, Refusal> {
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
        let sentence = "exec: no command is given: set one in the image or the manifest";
        return Err(Refusal::unusable(sentence.to_owned()));
    };
    let arguments = argv
        .iter()
        .map(|argument| CString::new(argument.as_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| format!("exec: an argument of {program} has a zero byte in it"))
        .map_err(Refusal::unusable)?;
    load(filter)?;
    let mut refused = None;
    for path in candidates(program) {
        let Ok(name) = CString::new(path.as_os_str().as_encoded_bytes()) else {
            continue;
        };
        let Err(errno) = execv(&name, &arguments);
        if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) && !path.exists() {
            continue;
        }
        // As execvp(3): what may not be executed does not end the search.
        let sentence = explain(&path, errno);
        if errno != Errno::EACCES {
            return Err(Refusal::unusable(sentence));
        }
        refused.get_or_insert(sentence);
    }
    Err(refused.map(Refusal::unusable).unwrap_or_else(|| {
        let place = if program.contains('/') {
            ""
        } else {
            " in the container's PATH"
        };
        Refusal::missing(format!("exec: no such file{place}: {program}"))
    }))
}

pub(crate) fn load(filter: &[u8]) -> Result<(), Refusal> {
    if filter.is_empty() {
        return Ok(());
    }
    sys::load_filter(filter)
        .map_err(|error| format!("exec: cannot load the system call filter: {error}"))
        .map_err(Refusal::unusable)
}

fn candidates(program: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(program))
        .collect()
}

fn explain(path: &Path, errno: Errno) -> String {
    let path = path.display();
    match errno {
        Errno::ENOENT => {
            format!("exec: {path} is there, but the interpreter or loader that it needs is not")
        }
        Errno::EACCES if std::fs::metadata(path.to_string()).is_ok_and(|m| m.is_dir()) => {
            format!("exec: {path} is a directory")
        }
        Errno::EACCES => format!("exec: {path} may not be executed: set its mode to executable"),
        Errno::ENOEXEC => format!(
            "exec: {path} is no program for this machine: check its architecture or #! line"
        ),
        other => format!("exec: {path}: {}", other.desc()),
    }
}
