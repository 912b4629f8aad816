//! The worker of a step: the process that mounts, runs the command, waits, and takes all down.

use std::fs::{self, File};
use std::io::{BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdout};

use super::StepSpec;
use super::skeleton::{self, Point};
use crate::binds::Binds;
use crate::cgroup::Group;
use crate::container::{self, Parts, Plan, Sink};
use crate::devices::Devices;
use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::options::OptionsConfig;
use crate::rootfs::{self, Overlay};
use crate::shim::{self, prepare};
use crate::spec::{Bundle, ContainerConfig};
use crate::values::Values;
use crate::{oci, sys};

/// The longest order.
const MAX_ORDER_BYTES: u64 = 16 * 1024 * 1024;

/// The worker's life.
pub(crate) fn work(bundle: &Bundle) -> ! {
    let line = match act(bundle) {
        Ok(lines) => lines,
        Err(error) => {
            let word = if error.fatal() { "fatal" } else { "failed" };
            format!("{word} {}\n", error.sentence().replace('\n', " "))
        }
    };
    sys::write_raw(2, line.as_bytes());
    sys::exit_now(0)
}

/// Does all; gives the report.
fn act(bundle: &Bundle) -> Result<String> {
    let what = || "begin a build step".to_owned();
    sys::close_inherited();
    shim::begin(c"layby-step").trying(what)?;
    // Whoever else holds a copy of the output's pipe would keep it from its end.
    let output = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .trying(what)?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .trying(what)?;
    dup2_stdout(&null).trying(what)?;
    let spec = read_order()?;
    spec.sandbox.check()?;
    let [config] = &spec.sandbox.containers[..] else {
        return Err(Error::Fatal("a build step has one container".to_owned()));
    };
    let group = Group::new(&spec.sandbox.cgroup)?;
    let outcome = run(bundle, &spec, config, &group, output);
    let removed = super::take_down(&group);
    let report = outcome?;
    removed?;
    Ok(report)
}

/// One line, and no more is taken from the pipe: its end is waited for later.
fn read_order() -> Result<StepSpec> {
    let mut line = Vec::new();
    let input = std::io::stdin();
    input
        .lock()
        .take(MAX_ORDER_BYTES)
        .read_until(b'\n', &mut line)
        .and_then(|_| Ok(serde_json::from_slice(&line)?))
        .trying(|| "read what a build step is".into())
}

fn run(
    bundle: &Bundle,
    spec: &StepSpec,
    config: &ContainerConfig,
    group: &Group,
    output: OwnedFd,
) -> Result<String> {
    if !spec.host_network {
        prepare::network(&spec.sandbox)?;
    }
    let (parts, stage) = make_parts(bundle, spec, config, group)?;
    let plan = Plan {
        bundle,
        sandbox: &spec.sandbox,
        config,
        values: &Values::default(),
        parts: &parts,
        stage: &stage,
        shares: None,
    };
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .trying(|| "make a signalfd".into())?;
    let created = container::create(&plan, Sink::Pipe(output))?;
    let started = created.execute(&config.name)?;
    let code = wait(started.pid, &signals, &parts.group)?;
    let mut report = String::new();
    if parts.group.oom_kills() > 0 {
        report.push_str(&format!("oom {}\n", spec.memory_bytes.unwrap_or(0)));
    }
    report.push_str(&format!("exit {code}\n"));
    Ok(report)
}

fn make_parts(
    bundle: &Bundle,
    spec: &StepSpec,
    config: &ContainerConfig,
    group: &Group,
) -> Result<(Parts, Stage)> {
    let mut needed = vec![bundle.root().to_owned()];
    for path in config.lower.iter().chain([&spec.upper, &spec.work]) {
        needed.push(fs::canonicalize(path).trying(|| format!("find {}", path.display()))?);
    }
    rootfs::enter()?;
    let mut binds = Binds::open(&config.name, &config.mounts)?;
    rootfs::drop_mounts(&needed)?;
    rootfs::mount_memory(&bundle.memory())?;
    rootfs::make_private_dir(&bundle.state())?;
    rootfs::make_private_dir(&bundle.oci(&config.name))?;
    let stage = Stage::new(bundle, spec.sandbox.id_map, &needed)?;
    rootfs::write_etc(&spec.sandbox, &stage)?;
    let mut lower = config.lower.clone();
    let view = view(&lower, &stage)?;
    let layer = bundle.root().join("skeleton");
    if let Some(layer) = skeleton::make(&layer, &view, &points(&binds), &stage)? {
        lower.insert(0, layer);
    }
    let rootfs = match stage.users() {
        Some(_) => stage.place("root")?,
        None => {
            let dir = bundle.root().join("rootfs");
            rootfs::make_private_dir(&dir)?;
            dir
        }
    };
    let overlay = Overlay {
        name: &config.name,
        lower: &lower,
        upper: &fs::canonicalize(&spec.upper).trying(|| "find the upper folder".into())?,
        work: &fs::canonicalize(&spec.work).trying(|| "find the work folder".into())?,
        fleeting: true,
    };
    rootfs::mount_overlay(&overlay, &stage, &rootfs)?;
    binds.stage(&stage, &config.name, &Values::default())?;
    let devices = Devices::make(&stage, &config.name, &config.options)?;
    group.create()?;
    // It stands beside the services', where its weight counts. While our own is in it, nobody takes it away.
    if let Some(above) = group.above() {
        above.limit(
            &ContainerConfig {
                memory_bytes: spec.memory_bytes,
                options: OptionsConfig {
                    cpu_shares: spec.cpu_shares,
                    // The fence is lower down.
                    privileged: true,
                    ..OptionsConfig::default()
                },
                ..ContainerConfig::default()
            },
            &Devices::default(),
        )?;
    }
    let group = group.child(&config.name);
    group.create()?;
    group.limit(config, &devices)?;
    let parts = Parts {
        rootfs,
        group,
        binds,
        devices,
    };
    Ok((parts, stage))
}

/// The image's files before anything is mounted or written, to look at.
fn view(lower: &[PathBuf], stage: &Stage) -> Result<PathBuf> {
    let place = stage.place("view")?;
    let mut names = Vec::with_capacity(lower.len());
    for (number, layer) in lower.iter().enumerate() {
        let name = number.to_string();
        stage.show(layer, &place.join(&name))?;
        names.push(name);
    }
    if let [only] = &names[..] {
        return Ok(place.join(only));
    }
    let root = place.join("root");
    fs::create_dir(&root).trying(|| format!("make {}", root.display()))?;
    let before = std::env::current_dir().trying(|| "find the current directory".into())?;
    std::env::set_current_dir(&place).trying(|| format!("enter {}", place.display()))?;
    let options = format!("lowerdir={}", names.join(":"));
    let mounted = mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
        Some(options.as_str()),
    );
    std::env::set_current_dir(&before).trying(|| format!("enter {}", before.display()))?;
    mounted.trying(|| "look at the image of a build step".into())?;
    Ok(root)
}

/// All that is mounted on.
fn points(binds: &Binds) -> Vec<Point> {
    let mut points: Vec<Point> = ["/proc", "/sys", "/dev"]
        .iter()
        .map(|dir| (PathBuf::from(dir), true))
        .collect();
    points.extend(
        oci::ETC
            .iter()
            .map(|name| (Path::new("/etc").join(name), false)),
    );
    points.extend(
        binds
            .points()
            .map(|(target, is_dir)| (target.to_owned(), is_dir)),
    );
    points
}

/// Waits for the command; ends it when nobody wants it any more.
fn wait(init: Pid, signals: &SignalFd, group: &Group) -> Result<i32> {
    let order = std::io::stdin();
    let mut wanted = true;
    loop {
        while let Ok(Some(_)) = signals.read_signal() {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == init => return Ok(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == init => {
                    return Ok(128 + signal as i32);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let order = order.lock();
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if wanted {
            fds.push(PollFd::new(order.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).trying(|| "wait for a build step".into()),
        }
        // Nothing is ever written after the order: whatever comes is the pipe's end.
        if wanted && fds.get(1).is_some_and(|fd| fd.any().unwrap_or(true)) {
            wanted = false;
            group.signal_all();
        }
    }
}
