//! What only the node's operator may allow (`layby serve --allow-privileged`): what makes a container as good as root
//! on the machine, or lets it do harm to what else runs there.

use std::path::{Component, Path, PathBuf};

use crate::hook::Hook;
use crate::mounts::{Mount, MountSource};
use crate::options::{ContainerOptions, NetworkMode, SandboxOptions};
use crate::spec::ServiceSpec;

/// Whoever reads or writes there knows or does what only root may.
const ROOTS: [&str; 14] = [
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/root/.ssh",
    "/run",
    "/sys",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/run",
    "/var/spool/cron",
    "/var/spool/at",
];

/// All may read what is there; root runs it.
const PROGRAMS: [&str; 16] = [
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/share",
];

/// The capabilities that a container has anyway (Docker's).
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Many containers are shown the machine's time zone, which is no secret.
const TIME_ZONE: [&str; 2] = ["/etc/localtime", "/etc/timezone"];

/// What a service asks for that needs the operator's word, in the manifest's terms; `None`: nothing. Links are not
/// followed here: whoever mounts has to ask [`is_machines`] once more. `own`: the node's folders.
pub fn asked(spec: &ServiceSpec, own: &[PathBuf]) -> Option<String> {
    let containers = || spec.all_containers();
    let of_options = containers().find_map(|container| of_container(&container.options));
    let of_hooks = || {
        let mut hooks = containers().flat_map(|c| c.post_start.iter().chain(&c.pre_stop));
        let privileged = hooks.any(Hook::is_privileged);
        privileged.then(|| "a privileged hook".to_owned())
    };
    let of_mounts = || {
        let mut mounts = containers().flat_map(|container| &container.mounts);
        mounts.find_map(|mount| of_mount(mount, own))
    };
    of_options
        .or_else(of_hooks)
        .or_else(|| of_sandbox(&spec.sandbox).map(str::to_owned))
        .or_else(of_mounts)
}

/// The same where root in a container is root on the machine, since that has no user namespaces: then capabilities and
/// system calls beyond the usual ones need the operator's word too.
pub fn asked_of_root(spec: &ServiceSpec) -> Option<String> {
    spec.all_containers().find_map(|container| {
        let options = &container.options;
        let usual = |name: &str| {
            let name = name.to_ascii_uppercase();
            USUAL.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
        };
        let added = options.cap_add.iter().find(|name| !usual(name));
        let unconfined = options.seccomp.as_deref() == Some("unconfined");
        added
            .map(|name| format!("the capability {name} without a user namespace"))
            .or_else(|| {
                unconfined.then(|| "seccomp=unconfined without a user namespace".to_owned())
            })
    })
}

fn of_container(options: &ContainerOptions) -> Option<String> {
    if options.privileged {
        return Some("privileged".to_owned());
    }
    // Those by the Container Device Interface are what the operator has described as fit for containers.
    if let Some(device) = options.devices.first() {
        return Some(format!("the device {}", device.source));
    }
    let score = options.oom_score_adj.filter(|score| *score < 0)?;
    Some(format!("oom_score_adj {score}"))
}

fn of_sandbox(options: &SandboxOptions) -> Option<&'static str> {
    [
        (options.host_pid, "the machine's process namespace"),
        (options.host_ipc, "the machine's IPC namespace"),
        (options.host_users, "no user namespace"),
        (
            options.network == NetworkMode::Host,
            "the machine's network",
        ),
    ]
    .into_iter()
    .find_map(|(asked, what)| asked.then_some(what))
}

fn of_mount(mount: &Mount, own: &[PathBuf]) -> Option<String> {
    match &mount.source {
        MountSource::Bind { path, .. } => {
            // Only a look at it tells a socket; the usual name tells it sooner.
            let is_machines =
                path.ends_with(".sock") || is_machines(Path::new(path), mount.read_only, own);
            is_machines.then(|| format!("the mount of {path}"))
        }
        MountSource::Volume { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Scratch { .. }
        | MountSource::Files { .. } => None,
    }
}

/// Whether a path of the machine is, contains or lies in a place that is the machine's own, or the node's (`own`).
pub fn is_machines(path: &Path, read_only: bool, own: &[PathBuf]) -> bool {
    let path = straight(path);
    let meets = |place: &Path| path.starts_with(place) || place.starts_with(&path);
    if read_only && TIME_ZONE.iter().any(|file| path == Path::new(file)) {
        return false;
    }
    ROOTS.iter().any(|place| meets(Path::new(place)))
        || !read_only && PROGRAMS.iter().any(|place| meets(Path::new(place)))
        || own.iter().any(|place| meets(place))
}

/// The path without `.` and `..`.
fn straight(path: &Path) -> PathBuf {
    let mut straight = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => straight.push(name),
            Component::ParentDir => drop(straight.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    straight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServiceName;
    use crate::options::Device;
    use crate::spec::ContainerSpec;

    fn own() -> Vec<PathBuf> {
        vec![PathBuf::from("/var/lib/layby")]
    }

    fn service(change: impl FnOnce(&mut ContainerSpec)) -> ServiceSpec {
        let mut service = ServiceSpec::new(ServiceName::new("web").expect("a label"));
        let mut container = ContainerSpec::new("web", "web");
        change(&mut container);
        service.containers.push(container);
        service
    }

    fn mounts(path: &str, read_only: bool) -> Option<String> {
        let source = MountSource::Bind {
            path: path.to_owned(),
            create: false,
            recursive: true,
        };
        let mount = Mount {
            source,
            target: "/x".to_owned(),
            read_only,
        };
        asked(&service(|c| c.mounts.push(mount)), &own())
    }

    #[test]
    fn rights_of_root_need_a_word_where_root_is_not_shut_in() {
        let added = |name: &str| asked_of_root(&service(|c| c.options.cap_add.push(name.into())));
        assert_eq!(added("CAP_CHOWN"), None);
        assert_eq!(added("net_raw"), None);
        for name in ["SYS_ADMIN", "CAP_SYS_PTRACE", "ALL"] {
            assert!(
                added(name).is_some_and(|what| what.contains(name)),
                "{name}"
            );
        }
        let unconfined = service(|c| c.options.seccomp = Some("unconfined".into()));
        assert!(asked_of_root(&unconfined).is_some());
        assert_eq!(
            asked(&unconfined, &own()),
            None,
            "a user namespace shuts it in"
        );
    }

    #[test]
    fn folders_of_projects_are_free() {
        for path in [
            "/srv/shop/data",
            "/srv",
            "/home/ann/shop",
            "/root/shop/data",
            "/opt/shop",
            "/mnt/disk",
            "/media",
            "/tmp/x",
            "/var/www/html",
            "/var/lib/shop",
            "/var/log/shop",
            "/usr/src/app",
            "/usr/local/shop",
            "/etcetera",
            "/devices",
        ] {
            assert_eq!(mounts(path, false), None, "{path}");
        }
        for path in ["/etc/localtime", "/usr/share/zoneinfo", "/lib/modules"] {
            assert_eq!(mounts(path, true), None, "{path}");
            assert!(mounts(path, false).is_some(), "{path}");
        }
    }

    #[test]
    fn places_of_the_machine_and_what_holds_them_need_the_operator() {
        for path in [
            "/",
            "//",
            "/etc",
            "/etc/",
            "/etc/shadow",
            "/srv/../etc",
            "/srv/../../etc/./shadow",
            "/dev/sda",
            "/proc",
            "/sys/fs/cgroup",
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/srv/engine.sock",
            "/var",
            "/var/lib",
            "/var/lib/layby",
            "/var/lib/layby/images",
            "/root",
            "/boot",
        ] {
            for read_only in [true, false] {
                let what = mounts(path, read_only).expect(path);
                assert!(what.contains(path), "{what}");
            }
        }
        assert!(mounts("/usr", false).is_some());
    }

    #[test]
    fn devices_by_path_and_a_place_before_others_need_the_operator() {
        let device = Device {
            source: "/dev/sda".to_owned(),
            target: "/dev/x".to_owned(),
            permissions: "rwm".to_owned(),
        };
        let by_path = service(|c| c.options.devices.push(device));
        assert_eq!(asked(&by_path, &[]).as_deref(), Some("the device /dev/sda"));
        let by_cdi = service(|c| c.options.cdi_devices.push("vendor.com/gpu=0".to_owned()));
        assert_eq!(asked(&by_cdi, &[]), None);
        for (score, free) in [(-1, false), (0, true), (500, true)] {
            let scored = service(|c| c.options.oom_score_adj = Some(score));
            assert_eq!(asked(&scored, &[]).is_none(), free, "{score}");
        }
    }

    #[test]
    fn the_machines_namespaces_need_the_operator() {
        for n in 0..3 {
            let mut spec = service(|_| ());
            assert_eq!(asked(&spec, &own()), None);
            match n {
                0 => spec.sandbox.host_pid = true,
                1 => spec.sandbox.host_ipc = true,
                _ => spec.sandbox.host_users = true,
            }
            assert!(asked(&spec, &own()).is_some(), "{n}");
        }
        assert!(asked(&service(|c| c.options.privileged = true), &own()).is_some());
    }
}
