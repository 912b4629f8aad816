//! The OCI runtime spec of one container: what libcontainer is told to make.

use std::collections::HashSet;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, PosixRlimitBuilder,
    PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    get_default_maskedpaths, get_default_readonly_paths,
};

use crate::cgroup::Group;
use crate::hierarchy::Hierarchies;
use crate::spec::{ContainerConfig, SandboxSpec};
use crate::user::User;

/// The PATH of a container whose environment has none, as Docker's.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The open files that a container may have, where the node itself may have as many.
const NOFILE: u64 = 1_048_576;

/// Where programs look for their cgroup.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What one container is made of, besides its config.
pub(crate) struct Parts<'a> {
    pub(crate) sandbox: &'a SandboxSpec,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) user: &'a User,
    pub(crate) group: &'a Group,
    /// Its mounted root file system.
    pub(crate) rootfs: &'a Path,
    /// The directory of the files for `/etc`.
    pub(crate) etc: &'a Path,
    /// A mounted sysfs to bind, where the container may not mount its own.
    pub(crate) sysfs: Option<&'a Path>,
}

/// The spec. Limits are not in it, as [`Group::limit`] has written them, nor the system call filter, which
/// [`crate::executor`] loads.
pub(crate) fn spec(parts: &Parts<'_>) -> Result<Spec, OciSpecError> {
    let cwd = if parts.config.cwd.is_empty() {
        "/"
    } else {
        &parts.config.cwd
    };
    let process = ProcessBuilder::default()
        .terminal(false)
        .args(parts.config.argv.clone())
        .env(environment(
            parts.config,
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
        .capabilities(capabilities(parts.user)?)
        .no_new_privileges(true)
        .rlimits(vec![nofile()?])
        .build()?;
    let mut linux = LinuxBuilder::default()
        .cgroups_path(parts.group.oci_path())
        .namespaces(namespaces(parts)?)
        .masked_paths(masked())
        .readonly_paths(readonly());
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
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(parts.sandbox.hostname.clone())
        .root(
            RootBuilder::default()
                .path(parts.rootfs)
                .readonly(false)
                .build()?,
        )
        .process(process)
        .mounts(mounts(parts)?)
        .linux(linux)
        .build()
}

/// The container's own, and what every program expects: PATH, HOME, HOSTNAME.
fn environment(config: &ContainerConfig, home: &str, hostname: &str) -> Vec<String> {
    let mut env: Vec<String> = config
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    for (name, value) in [
        ("PATH", DEFAULT_PATH),
        ("HOME", home),
        ("HOSTNAME", hostname),
    ] {
        if !config.env.iter().any(|(known, _)| known == name) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// Docker's default set. Only root holds them; another user may get them no more, but by no_new_privs.
fn capabilities(user: &User) -> Result<oci_spec::runtime::LinuxCapabilities, OciSpecError> {
    use Capability::{
        AuditWrite, Chown, DacOverride, Fowner, Fsetid, Kill, Mknod, NetBindService, NetRaw,
        Setfcap, Setgid, Setpcap, Setuid, SysChroot,
    };
    let mut set = HashSet::from([
        AuditWrite,
        Chown,
        DacOverride,
        Fowner,
        Fsetid,
        Kill,
        Mknod,
        NetBindService,
        NetRaw,
        Setfcap,
        Setgid,
        Setpcap,
        Setuid,
        SysChroot,
    ]);
    // Where no cgroup fences devices, making a node would open the host's disks.
    if !Hierarchies::get().is_ok_and(Hierarchies::fences_devices) {
        set.remove(&Mknod);
    }
    let held = if user.uid == 0 {
        set.clone()
    } else {
        HashSet::new()
    };
    LinuxCapabilitiesBuilder::default()
        .bounding(set)
        .effective(held.clone())
        .permitted(held)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
}

/// More than the caller's own hard limit is refused by the kernel.
fn nofile() -> Result<oci_spec::runtime::PosixRlimit, OciSpecError> {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard);
    let limit = NOFILE.min(hard);
    PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(limit)
        .hard(limit)
        .build()
}

/// The network namespace is not among them: the shim lives in it.
fn namespaces(parts: &Parts<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType as Type;
    let mut kinds = vec![Type::Pid, Type::Ipc, Type::Uts, Type::Mount, Type::Cgroup];
    if parts.sandbox.id_map.is_some() {
        kinds.push(Type::User);
    }
    kinds
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect()
}

fn mounts(parts: &Parts<'_>) -> Result<Vec<Mount>, OciSpecError> {
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
            "nosuid,noexec,nodev,mode=1777,size=65536k",
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev")?,
        match parts.sysfs {
            Some(mounted) => mount(
                "/sys",
                "bind",
                mounted,
                "bind,rprivate,nosuid,noexec,nodev,ro",
            )?,
            None => mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro")?,
        },
    ];
    found.extend(cgroup_mounts(parts.group)?);
    for name in ["hosts", "hostname", "resolv.conf"] {
        found.push(mount(
            Path::new("/etc").join(name),
            "bind",
            parts.etc.join(name),
            "bind,rprivate,nosuid,nodev,noexec",
        )?);
    }
    Ok(found)
}

/// The container's own cgroup, to read: language runtimes size their heaps and pools by it.
fn cgroup_mounts(group: &Group) -> Result<Vec<Mount>, OciSpecError> {
    let Some(views) = group.views() else {
        return Ok(vec![mount(
            CGROUPS,
            "cgroup",
            "cgroup",
            "nosuid,noexec,nodev,relatime,ro",
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
            "bind,rprivate,nosuid,noexec,nodev,ro",
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
