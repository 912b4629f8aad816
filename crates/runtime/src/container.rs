//! One container through libcontainer: created, then told to execute its program.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, fchown, pipe2};

use crate::cgroup::Group;
use crate::error::{Error, Result, Trying, whole};
use crate::executor::Last;
use crate::oci;
use crate::spec::{Bundle, ContainerConfig, SandboxSpec};
use crate::user::Root;

/// How long an init may take from its start to executing its program: the disk may be slow.
const EXEC_PATIENCE: Duration = Duration::from_secs(60);

/// What a container is started from.
pub(crate) struct Plan<'a> {
    pub(crate) bundle: &'a Bundle,
    pub(crate) sandbox: &'a SandboxSpec,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) group: &'a Group,
    pub(crate) rootfs: &'a Path,
    pub(crate) shared: &'a Shared,
}

/// What the containers of a sandbox have in common.
pub(crate) struct Shared {
    /// The directory of the files for `/etc`.
    pub(crate) etc: PathBuf,
    /// A mounted sysfs to bind, where the container may not mount its own.
    pub(crate) sysfs: Option<PathBuf>,
}

/// A container whose init has executed its program.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// The reading ends of its outputs; they do not block.
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// A container that stands ready: its init waits for the word to execute the program.
pub(crate) struct Created {
    container: Container,
    pid: Pid,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// Where the init says why it could not execute the program; closed by executing it.
    report: OwnedFd,
}

impl Created {
    /// Its init.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets the init go on; returns when it has executed the program.
    pub(crate) fn execute(mut self, name: &str) -> Result<Started> {
        let started = self
            .container
            .start()
            .map_err(|error| refused(name, &error));
        match started.and_then(|()| executed(name, &self.report)) {
            Ok(()) => Ok(Started {
                pid: self.pid,
                stdout: self.stdout,
                stderr: self.stderr,
            }),
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }

    /// Ends the init, which has ended or must: nobody else waits for it.
    pub(crate) fn discard(self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Creates the container; its init waits.
pub(crate) fn create(plan: &Plan<'_>) -> Result<Created> {
    let name = &plan.config.name;
    let root = Root::open(plan.rootfs)?;
    let user = root.user(&plan.config.user)?;
    let first_id = plan.sandbox.id_map.map_or(0, |(first, _)| first);
    root.make_dirs(&plan.config.cwd, first_id)?;
    forget(plan.bundle, name)?;

    let dir = plan.bundle.oci(name);
    let spec = oci::spec(&oci::Parts {
        sandbox: plan.sandbox,
        config: plan.config,
        user: &user,
        group: plan.group,
        rootfs: plan.rootfs,
        etc: &plan.shared.etc,
        sysfs: plan.shared.sysfs.as_deref(),
    })
    .map_err(|error| {
        Error::Failed(format!(
            "the OCI spec of container {name} cannot be made: {error}"
        ))
    })?;
    let file = dir.join("config.json");
    let mut out =
        BufWriter::new(File::create(&file).trying(|| format!("create {}", file.display()))?);
    serde_json::to_writer(&mut out, &spec)
        .map_err(std::io::Error::from)
        .and_then(|()| out.flush())
        .trying(|| format!("write {}", file.display()))?;
    drop(out);
    drop(spec);

    let owner = (
        Uid::from_raw(first_id + user.uid),
        Gid::from_raw(first_id + user.gid),
    );
    let (stdout, stdout_end) = output(owner)?;
    let (stderr, stderr_end) = output(owner)?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).trying(|| "make a pipe".into())?;
    let filter = read_filter(plan.bundle)?;
    let stdin = File::open("/dev/null").trying(|| "open /dev/null".into())?;

    // The builder owns the writing ends of the outputs, and closes them when it is done.
    let container = ContainerBuilder::new(name.clone(), SyscallType::default())
        .with_executor(Last::new(&report_end, filter))
        .with_root_path(plan.bundle.state())
        .map_err(|error| refused(name, &error))?
        .with_stdin(stdin)
        .with_stdout(stdout_end)
        .with_stderr(stderr_end)
        .as_init(&dir)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| refused(name, &error))?;
    let pid = container
        .pid()
        .map(|pid| Pid::from_raw(pid.as_raw()))
        .ok_or_else(|| Error::Failed(format!("libcontainer gave container {name} no process")))?;
    Ok(Created {
        container,
        pid,
        stdout,
        stderr,
        report,
    })
}

/// The system call filter that the node has put into the bundle.
pub(crate) fn read_filter(bundle: &Bundle) -> Result<Vec<u8>> {
    let file = bundle.filter();
    fs::read(&file).trying(|| format!("read {}", file.display()))
}

/// Removes libcontainer's record of an earlier run.
pub(crate) fn forget(bundle: &Bundle, name: &str) -> Result<()> {
    let dir = bundle.state().join(name);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).trying(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// A pipe for one output: our end does not block. The other belongs to the container's user, who may open
/// it again through /dev/stdout.
fn output(owner: (Uid, Gid)) -> Result<(OwnedFd, OwnedFd)> {
    let what = || "make a pipe for a container's output".to_owned();
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).trying(what)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).trying(what)?;
    fchown(&theirs, Some(owner.0), Some(owner.1)).trying(what)?;
    Ok((ours, theirs))
}

/// Waits until the report's writing ends are closed: by executing, or after saying why not.
fn executed(name: &str, report: &OwnedFd) -> Result<()> {
    let timeout = PollTimeout::try_from(EXEC_PATIENCE).unwrap_or(PollTimeout::MAX);
    let ready = poll(
        &mut [PollFd::new(report.as_fd(), PollFlags::POLLIN)],
        timeout,
    )
    .unwrap_or(0);
    if ready == 0 {
        return Err(Error::Failed(format!(
            "container {name} did not execute its command within {} s",
            EXEC_PATIENCE.as_secs()
        )));
    }
    let mut sentence = String::new();
    File::from(report.try_clone().trying(|| "hear from an init".into())?)
        .take(4096)
        .read_to_string(&mut sentence)
        .trying(|| format!("hear from the init of container {name}"))?;
    if sentence.is_empty() {
        Ok(())
    } else {
        Err(Error::Fatal(format!("container {name}: {sentence}")))
    }
}

/// libcontainer's errors, with all that lies beneath.
fn refused(name: &str, error: &dyn std::error::Error) -> Error {
    Error::Failed(format!("container {name} cannot be made: {}", whole(error)))
}
