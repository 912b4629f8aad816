//! The OCI runtime spec of one container: what libcontainer is told to make.

use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilities, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder, get_default_maskedpaths, get_default_readonly_paths,
};

use crate::binds::Binds;
use crate::cgroup::Group;
use crate::devices::Devices;
use crate::idmap::Stage;
use crate::spec::{ContainerConfig, SandboxSpec};
use crate::user::User;
use crate::values::Values;
use crate::{rights, sysctls};

/// The PATH of a container whose environment has none, as Docker's.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The size of `/dev/shm` for which none is given, as Docker's.
const SHM_BYTES: u64 = 64 << 20;

/// Where programs look for their cgroup.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The files of `/etc` that a container gets from its sandbox.
pub(crate) const ETC: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// The namespaces that containers share when they share their processes: who owns the one must have the other.
pub(crate) const SHARED: [&str; 2] = ["user", "pid"];

/// Says in a spec that its container has no system call filter.
const UNCONFINED: &str = "dev.layby.seccomp-unconfined";

/// What one container is made of, besides its config.
pub(crate) struct Parts<'a> {
    pub(crate) sandbox: &'a SandboxSpec,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) values: &'a Values,
    pub(crate) user: &'a User,
    pub(crate) group: &'a Group,
    /// Its mounted root file system.
    pub(crate) rootfs: &'a Path,
    pub(crate) stage: &'a Stage,
    pub(crate) binds: &'a Binds,
    pub(crate) devices: &'a Devices,
    /// A folder with the namespaces of [`SHARED`] to join instead of own ones.
    pub(crate) shared: Option<&'a Path>,
}

/// The spec. Limits are not in it, as [`Group::limit`] has written them, nor the system call filter, which
/// [`crate::executor`] loads.
pub(crate) fn spec(parts: &Parts<'_>, sets: LinuxCapabilities) -> Result<Spec, OciSpecError> {
    let options = &parts.config.options;
    let cwd = if parts.config.cwd.is_empty() {
        "/"
    } else {
        &parts.config.cwd
    };
    let process = ProcessBuilder::default()
        .terminal(options.tty)
        .args(parts.config.argv.clone())
        .env(environment(
            parts.config,
            parts.values,
            &parts.user.home,
            &parts.sandbox.hostname,
        ))
        .cwd(cwd)
        .user(
            UserBuilder::default()
                .uid(parts.user.uid)
                .gid(parts.user.gid)
                .additional_gids(parts.user.groups.clone())
                .build()?,
        )
        .capabilities(sets)
        .no_new_privileges(!options.new_privileges && !options.privileged)
        .rlimits(rights::rlimits(options)?)
        .build()?;
    let mut linux = LinuxBuilder::default()
        .cgroups_path(parts.group.oci_path())
        .namespaces(namespaces(parts)?)
        .sysctl(sysctls::of_init(parts.sandbox));
    if options.privileged {
        linux = linux.masked_paths(Vec::new()).readonly_paths(Vec::new());
    } else {
        linux = linux.masked_paths(masked()).readonly_paths(readonly());
    }
    if let Some((first, count)) = parts.sandbox.id_map {
        let map = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(first)
            .size(count)
            .build()?;
        linux = linux.uid_mappings([map]).gid_mappings([map]);
    }
    let mut linux = linux.build()?;
    // The builder's default has some, which libcontainer would write.
    linux.set_resources(None);
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .hostname(parts.sandbox.hostname.clone())
        .root(
            RootBuilder::default()
                .path(parts.rootfs)
                .readonly(options.read_only)
                .build()?,
        )
        .process(process)
        .mounts(mounts(parts)?)
        .linux(linux)
        .build()?;
    if options.seccomp_unconfined || options.privileged {
        let word = (UNCONFINED.to_owned(), "true".to_owned());
        spec.set_annotations(Some([word].into()));
    }
    Ok(spec)
}

/// Whether the container of a spec has no system call filter.
pub(crate) fn is_unconfined(spec: &Spec) -> bool {
    let found = spec.annotations().as_ref();
    found.is_some_and(|found| found.contains_key(UNCONFINED))
}

/// The container's own, and what every program expects: PATH, HOME, HOSTNAME.
fn environment(
    config: &ContainerConfig,
    values: &Values,
    home: &str,
    hostname: &str,
) -> Vec<String> {
    let mut env: Vec<String> = config
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    for (name, number) in &config.secret_env {
        // They were found to be texts when the sandbox was prepared.
        let value = values.get(*number).unwrap_or_default();
        env.push(format!("{name}={}", String::from_utf8_lossy(value)));
    }
    for (name, value) in [
        ("PATH", DEFAULT_PATH),
        ("HOME", home),
        ("HOSTNAME", hostname),
    ] {
        if !config.sets(name) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// The network namespace is not among them: the shim lives in it.
fn namespaces(parts: &Parts<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType as Type;
    let mut kinds = vec![Type::Uts, Type::Mount, Type::Cgroup];
    if !parts.sandbox.host_pid {
        kinds.push(Type::Pid);
    }
    if !parts.sandbox.host_ipc {
        kinds.push(Type::Ipc);
    }
    if parts.sandbox.id_map.is_some() {
        kinds.push(Type::User);
    }
    let joined = |kind: Type| match kind {
        Type::User => parts.shared.map(|dir| dir.join("user")),
        Type::Pid => parts.shared.map(|dir| dir.join("pid")),
        _ => None,
    };
    kinds
        .into_iter()
        .map(|kind| {
            let builder = LinuxNamespaceBuilder::default().typ(kind);
            match joined(kind) {
                Some(path) => builder.path(path).build(),
                None => builder.build(),
            }
        })
        .collect()
}

fn mounts(parts: &Parts<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let options = &parts.config.options;
    let shm = options.shm_size_bytes.unwrap_or(SHM_BYTES);
    let ro = if options.privileged { "" } else { ",ro" };
    let mut found = vec![
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev")?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            "nosuid,strictatime,mode=755,size=65536k",
        )?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        )?,
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &format!("nosuid,noexec,nodev,mode=1777,size={shm}"),
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev")?,
        match parts.stage.sysfs() {
            Some(mounted) => mount(
                "/sys",
                "bind",
                mounted,
                "bind,rprivate,nosuid,noexec,nodev,ro",
            )?,
            None => mount(
                "/sys",
                "sysfs",
                "sysfs",
                &format!("nosuid,noexec,nodev{ro}"),
            )?,
        },
    ];
    found.extend(cgroup_mounts(parts.group, ro)?);
    for name in ETC {
        let target = format!("/etc/{name}");
        if !parts.binds.has(&target) {
            found.push(mount(
                target,
                "bind",
                parts.stage.etc().join(name),
                "bind,rprivate,nosuid,nodev,noexec",
            )?);
        }
    }
    for (target, node) in parts.devices.nodes() {
        found.push(mount(target, "bind", node, "bind,rprivate,nosuid,noexec")?);
    }
    found.retain(|default| {
        !parts
            .binds
            .in_dev()
            .any(|own| own.target == default.destination())
    });
    for own in parts.binds.in_dev() {
        found.push(match own.staged {
            Some(at) => mount(own.target, "bind", at, &own.options)?,
            None => mount(own.target, "tmpfs", "tmpfs", &own.options)?,
        });
    }
    Ok(found)
}

/// The container's own cgroup, to read: language runtimes size their heaps and pools by it.
fn cgroup_mounts(group: &Group, ro: &str) -> Result<Vec<Mount>, OciSpecError> {
    let Some(views) = group.views() else {
        return Ok(vec![mount(
            CGROUPS,
            "cgroup",
            "cgroup",
            &format!("nosuid,noexec,nodev,relatime{ro}"),
        )?]);
    };
    // Made by hand: libcontainer would show all of the host's named trees, too.
    let mut found = vec![mount(
        CGROUPS,
        "tmpfs",
        "tmpfs",
        "nosuid,noexec,nodev,mode=755,size=64k",
    )?];
    for (name, dir) in views {
        let place = Path::new(CGROUPS).join(name);
        found.push(mount(
            place,
            "bind",
            dir,
            &format!("bind,rprivate,nosuid,noexec,nodev{ro}"),
        )?);
    }
    Ok(found)
}

fn mount(
    destination: impl AsRef<Path>,
    kind: &str,
    source: impl AsRef<Path>,
    options: &str,
) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    MountBuilder::default()
        .destination(destination.as_ref())
        .typ(kind)
        .source(source.as_ref())
        .options(options)
        .build()
}

/// What is there to read only: OCI's usual list, and the directory that the cgroup views stand in.
fn readonly() -> Vec<String> {
    let mut paths = get_default_readonly_paths();
    paths.push(CGROUPS.to_owned());
    paths
}

/// Docker's list is a little longer than OCI's usual one.
fn masked() -> Vec<String> {
    let mut paths = get_default_maskedpaths();
    for more in ["/proc/interrupts", "/sys/devices/virtual/powercap"] {
        paths.push(more.to_owned());
    }
    paths
}
