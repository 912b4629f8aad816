//! How a shim begins: all that a start need not wait for is done here.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};

use super::cell::Cell;
use super::sandbox::Sandbox;
use crate::binds::Binds;
use crate::cgroup::Group;
use crate::container::Parts;
use crate::devices::Devices;
use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::spec::{Bundle, ContainerConfig, SandboxSpec};
use crate::user::Root;
use crate::values::Values;
use crate::{cdi, rootfs, sys, sysctls};

/// Prepares the sandbox of a bundle. On failure nothing of it is left but the bundle.
pub(super) fn prepare(bundle: &Bundle, values: Values) -> Result<(Sandbox, UnixListener)> {
    let file = bundle.spec();
    let json = fs::read(&file).trying(|| format!("read {}", file.display()))?;
    let spec: SandboxSpec = serde_json::from_slice(&json)
        .map_err(std::io::Error::from)
        .trying(|| format!("read {}", file.display()))?;
    spec.check()?;
    for config in spec.all_containers() {
        config.check_values(&values)?;
    }
    let group = Group::new(&spec.cgroup)?;
    let prepared = build(bundle, spec, values, &group);
    if prepared.is_err() {
        // The first error is the one to tell.
        let _ = group.remove();
    }
    prepared
}

fn build(
    bundle: &Bundle,
    mut spec: SandboxSpec,
    mut values: Values,
    group: &Group,
) -> Result<(Sandbox, UnixListener)> {
    rootfs::make_private_dir(&bundle.logs())?;
    let listener = listen(&spec.socket)?;
    network(&spec)?;
    let needed = needed(bundle, &spec)?;
    rootfs::enter()?;
    let mut binds = Vec::with_capacity(spec.containers.len() + spec.init.len());
    for config in spec.containers.iter_mut().chain(&mut spec.init) {
        cdi::apply(config)?;
        binds.push(Binds::open(&config.name, &config.mounts)?);
    }
    rootfs::drop_mounts(&needed)?;
    rootfs::mount_memory(&bundle.memory())?;
    rootfs::make_private_dir(&bundle.state())?;
    let stage = Stage::new(bundle, spec.id_map, &needed)?;
    rootfs::write_etc(&spec, &stage)?;
    group.create()?;
    let mut cells = Vec::with_capacity(binds.len());
    for (config, binds) in spec.all_containers().zip(binds) {
        let parts = make_parts(bundle, config, &values, group, &stage, binds)?;
        cells.push(Cell::new(config, parts, bundle.log(&config.name)));
    }
    let init = cells.split_off(spec.containers.len());
    for (cell, config) in cells.iter().zip(&spec.containers) {
        cell.ready_group(config)?;
    }
    let file = bundle.pid();
    fs::write(&file, format!("{}\n", nix::unistd::Pid::this()))
        .trying(|| format!("write {}", file.display()))?;
    // Those of files are in their files by now.
    let lasting = spec
        .all_containers()
        .flat_map(ContainerConfig::lasting_values);
    let lasting: Vec<usize> = lasting.collect();
    values.keep(&lasting);
    let sandbox = Sandbox::new(
        bundle.clone(),
        spec,
        values,
        group.clone(),
        stage,
        cells,
        init,
    );
    Ok((sandbox, listener))
}

fn make_parts(
    bundle: &Bundle,
    config: &ContainerConfig,
    values: &Values,
    group: &Group,
    stage: &Stage,
    mut binds: Binds,
) -> Result<Parts> {
    let rootfs = rootfs::mount_root(&bundle.container(&config.name), config, stage)?;
    binds.stage(stage, &config.name, values)?;
    binds.copy_up(stage, &Root::open(&rootfs)?)?;
    let devices = Devices::make(stage, &config.name, &config.options)?;
    rootfs::make_private_dir(&bundle.oci(&config.name))?;
    Ok(Parts {
        rootfs,
        group: group.child(&config.name),
        binds,
        devices,
    })
}

/// The paths whose mounts must stay: with links followed, as mounts are named by where they are.
fn needed(bundle: &Bundle, spec: &SandboxSpec) -> Result<Vec<PathBuf>> {
    let mut paths = vec![bundle.root().to_owned()];
    paths.extend(spec.socket.parent().map(Path::to_owned));
    paths.extend(spec.all_containers().flat_map(|c| c.lower.iter().cloned()));
    paths
        .iter()
        .map(|path| match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(path.clone()),
            other => other.trying(|| format!("find {}", path.display())),
        })
        .collect()
}

/// Joins the network namespace, or makes one with `lo` up, and lets it do what Docker lets it.
///
/// The shim stays in it, and its containers are born in it: with a user namespace they could not join one
/// that they do not own. The shim itself speaks over paths only.
pub(crate) fn network(spec: &SandboxSpec) -> Result<()> {
    if spec.host_network {
        // It is born in it, and the machine's settings are nobody's but the machine's.
        return Ok(());
    }
    let path = &spec.netns;
    if path.as_os_str().is_empty() {
        unshare(CloneFlags::CLONE_NEWNET).trying(|| "make a network namespace".into())?;
        sys::loopback_up().trying(|| "bring lo up".into())?;
    } else {
        let what = || format!("enter the network namespace {}", path.display());
        let wanted = File::open(path).trying(what)?;
        setns(&wanted, CloneFlags::CLONE_NEWNET).trying(what)?;
    }
    // Any user of a container may take any port of its own namespace, and ping. Kernels that do not know a
    // setting do without.
    for (setting, value) in [
        ("ip_unprivileged_port_start", "0"),
        ("ping_group_range", "0 2147483647"),
    ] {
        let _ = fs::write(Path::new("/proc/sys/net/ipv4").join(setting), value);
    }
    sysctls::set_network(spec)
}

/// Listens where only root may connect.
fn listen(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen on {}", path.display());
    if let Some(dir) = path.parent() {
        rootfs::make_private_dir(dir)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).trying(what),
        _ => {}
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => {
            Error::Fatal(format!("the socket path {} is too long", path.display()))
        }
        _ => Error::Io {
            what: what(),
            source: error,
        },
    });
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true).trying(what)?;
    Ok(listener)
}
