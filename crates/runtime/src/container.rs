//! One container through libcontainer: created, then told to execute its program.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, fchown, pipe2};
use oci_spec::OciSpecError;
use oci_spec::runtime::Spec;

use crate::binds::Binds;
use crate::cgroup::Group;
use crate::devices::Devices;
use crate::error::{Error, Result, Trying, whole};
use crate::executor::{Last, Manner};
use crate::idmap::Stage;
use crate::mounts::is_kernels;
use crate::spec::{Bundle, ContainerConfig, SandboxSpec};
use crate::user::Root;
use crate::values::Values;
use crate::{oci, rights, terminal};

/// How long an init may take from its start to executing its program: the disk may be slow.
const EXEC_PATIENCE: Duration = Duration::from_secs(60);

/// What a container is started from.
pub(crate) struct Plan<'a> {
    pub(crate) bundle: &'a Bundle,
    pub(crate) sandbox: &'a SandboxSpec,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) values: &'a Values,
    pub(crate) parts: &'a Parts,
    pub(crate) stage: &'a Stage,
    /// The first process of the container whose process namespace it shares.
    pub(crate) shares: Option<Pid>,
}

/// What was made for a container, for all its starts.
pub(crate) struct Parts {
    /// Its mounted root file system.
    pub(crate) rootfs: PathBuf,
    pub(crate) group: Group,
    pub(crate) binds: Binds,
    pub(crate) devices: Devices,
}

/// A container whose init has executed its program.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// What its program writes to; they do not block.
    pub(crate) outputs: Outputs,
}

/// The ends at which a container's output is read.
pub(crate) enum Outputs {
    /// Pipes.
    Pipes { stdout: OwnedFd, stderr: OwnedFd },
    /// Its terminal.
    Terminal(OwnedFd),
    /// Somebody else reads it.
    Elsewhere,
}

/// Where a container's output goes.
pub(crate) enum Sink {
    /// To the one who starts it: by a terminal, if the container is to have one, else by pipes.
    Caller,
    /// Both outputs to this pipe, and it ends with this process.
    Pipe(OwnedFd),
}

/// A container that stands ready: its init waits for the word to execute the program.
pub(crate) struct Created {
    container: Container,
    pid: Pid,
    outputs: Outputs,
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
                outputs: self.outputs,
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
pub(crate) fn create(plan: &Plan<'_>, sink: Sink) -> Result<Created> {
    let Plan {
        bundle,
        sandbox,
        config,
        values,
        parts,
        stage,
        shares,
    } = *plan;
    let name = &config.name;
    let options = &config.options;
    let root = Root::open(&parts.rootfs)?;
    let mut user = root.user(&config.user)?;
    user.groups.extend(root.groups(&options.group_add)?);
    parts.binds.attach(stage, &root, &parts.rootfs)?;
    for name in oci::ETC {
        // An image may have a link here that leads to nothing yet. Where none can be made, libcontainer says why.
        let _ = stage.as_root(|| root.mount_point(&Path::new("/etc").join(name), false));
    }
    let cwd = Path::new(&config.cwd);
    // What is in the kernel's own file systems is there once they are.
    if !is_kernels(cwd) && !cwd.starts_with("/dev") {
        stage.as_root(|| root.make_dirs(cwd))?;
    }
    // What is open now is inherited by the init until it executes its program.
    drop(root);
    forget(bundle, name)?;

    let held = rights::capabilities(options, sandbox.id_map.is_some())?;
    let unmade = |error: OciSpecError| {
        Error::Failed(format!(
            "the OCI spec of container {name} cannot be made: {error}"
        ))
    };
    let sets = rights::sets(&held, user.uid).map_err(unmade)?;
    let filter = if options.seccomp_unconfined || options.privileged {
        Vec::new()
    } else {
        read_filter(bundle)?
    };
    // Without giving up new privileges, loading a filter takes a capability that the program is not to have.
    let loads_first = options.new_privileges && !filter.is_empty();
    let shared = shares.map(|pid| share(stage, pid)).transpose()?;
    let spec = oci::spec(
        &oci::Parts {
            sandbox,
            config,
            values,
            user: &user,
            group: &parts.group,
            rootfs: &parts.rootfs,
            stage,
            binds: &parts.binds,
            devices: &parts.devices,
            shared: shared.as_deref(),
        },
        sets.clone(),
    )
    .map_err(unmade)?;
    let dir = bundle.oci(name);
    if loads_first {
        let mut loading = spec.clone();
        let process = loading.process_mut().as_mut();
        if let Some(process) = process {
            process.set_capabilities(Some(rights::loading_sets(&held).map_err(unmade)?));
        }
        write_spec(&dir, &loading)?;
    } else {
        write_spec(&dir, &spec)?;
    }

    let first = stage.first();
    let owner = (
        Uid::from_raw(first + user.uid),
        Gid::from_raw(first + user.gid),
    );
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC).trying(|| "make a pipe".into())?;
    let manner = Manner {
        filter,
        then: loads_first.then_some(sets),
        under_init: options.init,
        hold: options.hold,
        with_parent: matches!(sink, Sink::Pipe(_)),
    };
    // The builder owns the writing ends of the outputs, and closes them when it is done.
    let builder = ContainerBuilder::new(name.clone(), SyscallType::default())
        .with_executor(Last::new(&report_end, manner))
        .with_root_path(bundle.state())
        .map_err(|error| refused(name, &error))?;
    let (builder, wiring) = wire(builder, plan, sink, owner)?;
    let container = builder
        .as_init(&dir)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| refused(name, &error))?;
    let pid = container
        .pid()
        .map(|pid| Pid::from_raw(pid.as_raw()))
        .ok_or_else(|| Error::Failed(format!("libcontainer gave container {name} no process")))?;
    let mut created = Created {
        container,
        pid,
        outputs: Outputs::Elsewhere,
        report,
    };
    let finished = (|| {
        if let Some(adjust) = options.oom_score_adj {
            let file = format!("/proc/{pid}/oom_score_adj");
            fs::write(&file, adjust.to_string()).trying(|| format!("write {adjust} to {file}"))?;
        }
        if loads_first {
            // What later runs in it goes by what its program has.
            write_spec(&dir, &spec)?;
        }
        match wiring {
            Wiring::Done(outputs) => Ok(outputs),
            Wiring::Console(listener) => Ok(Outputs::Terminal(terminal::receive(&listener)?)),
        }
    })();
    match finished {
        Ok(outputs) => {
            created.outputs = outputs;
            Ok(created)
        }
        Err(error) => {
            created.discard();
            Err(error)
        }
    }
}

/// Keeps the namespaces of a process at hand for another container, and says in which folder: its own root may not look
/// them up in `/proc`.
fn share(stage: &Stage, pid: Pid) -> Result<PathBuf> {
    let (place, _) = stage.shared_place("namespaces")?;
    for kind in oci::SHARED {
        let from = format!("/proc/{pid}/ns/{kind}");
        let at = place.join(kind);
        let what = || format!("share {from}");
        if !at.exists() {
            File::create(&at).trying(what)?;
        }
        // Of an earlier run.
        let _ = umount2(&at, MntFlags::MNT_DETACH);
        let none = None::<&str>;
        mount(Some(from.as_str()), &at, none, MsFlags::MS_BIND, none).trying(what)?;
    }
    Ok(place)
}

/// What is left to do about the outputs once the container stands.
enum Wiring {
    Done(Outputs),
    /// Its terminal comes over this.
    Console(UnixListener),
}

/// Gives the container its input and outputs.
fn wire(
    builder: ContainerBuilder,
    plan: &Plan<'_>,
    sink: Sink,
    owner: (Uid, Gid),
) -> Result<(ContainerBuilder, Wiring)> {
    let null = || File::open("/dev/null").trying(|| "open /dev/null".into());
    match sink {
        Sink::Caller if plan.config.options.tty => {
            let socket = plan
                .bundle
                .memory()
                .join(format!("tty-{}", plan.config.name));
            let listener = terminal::listen(&socket)?;
            let builder = builder.with_console_socket(Some(socket));
            Ok((builder, Wiring::Console(listener)))
        }
        Sink::Caller => {
            let (stdout, stdout_end) = output(owner)?;
            let (stderr, stderr_end) = output(owner)?;
            let builder = builder
                .with_stdin(null()?)
                .with_stdout(stdout_end)
                .with_stderr(stderr_end);
            Ok((builder, Wiring::Done(Outputs::Pipes { stdout, stderr })))
        }
        Sink::Pipe(pipe) => {
            let what = || "give a pipe to a container".to_owned();
            fchown(&pipe, Some(owner.0), Some(owner.1)).trying(what)?;
            let second = pipe.try_clone().trying(what)?;
            let builder = builder
                .with_stdin(null()?)
                .with_stdout(pipe)
                .with_stderr(second);
            Ok((builder, Wiring::Done(Outputs::Elsewhere)))
        }
    }
}

fn write_spec(dir: &Path, spec: &Spec) -> Result<()> {
    let file = dir.join("config.json");
    let mut out =
        BufWriter::new(File::create(&file).trying(|| format!("create {}", file.display()))?);
    serde_json::to_writer(&mut out, spec)
        .map_err(std::io::Error::from)
        .and_then(|()| out.flush())
        .trying(|| format!("write {}", file.display()))
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
