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

/// All that a service asks for that needs the operator's word, in the manifest's terms, each once. Links are not
/// followed here: whoever mounts has to ask [`is_machines`] once more. `own`: the node's folders.
pub fn asked(spec: &ServiceSpec, own: &[PathBuf]) -> Vec<String> {
    let containers = || spec.all_containers();
    let of_options = containers().flat_map(|container| of_container(&container.options));
    let mut hooks = containers().flat_map(|c| c.post_start.iter().chain(&c.pre_stop));
    let of_hooks = hooks
        .any(Hook::is_privileged)
        .then_some("a privileged hook");
    let named = of_hooks.into_iter().chain(of_sandbox(&spec.sandbox));
    let mounts = containers().flat_map(|container| &container.mounts);
    let of_mounts = mounts.filter_map(|mount| of_mount(mount, own));
    let all = of_options.chain(named.map(str::to_owned)).chain(of_mounts);
    let mut asked: Vec<String> = Vec::new();
    for what in all {
        if !asked.contains(&what) {
            asked.push(what);
        }
    }
    asked
}

/// The same where root in a container is root on the machine, since that has no user namespaces: then capabilities and
/// system calls beyond the usual ones need the operator's word too.
pub fn asked_of_root(spec: &ServiceSpec) -> Vec<String> {
    let usual = |name: &str| {
        let name = name.to_ascii_uppercase();
        USUAL.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
    };
    let mut asked = Vec::new();
    for container in spec.all_containers() {
        let options = &container.options;
        let added = options.cap_add.iter().filter(|name| !usual(name));
        asked.extend(added.map(|name| format!("the capability {name} without a user namespace")));
        if options.seccomp.as_deref() == Some("unconfined") {
            asked.push("seccomp=unconfined without a user namespace".to_owned());
        }
    }
    asked
}

fn of_container(options: &ContainerOptions) -> Vec<String> {
    let privileged = options.privileged.then(|| "privileged".to_owned());
    // Those by the Container Device Interface are what the operator has described as fit for containers.
    let devices = options.devices.iter();
    let devices = devices.map(|device| format!("the device {}", device.source));
    let score = options.oom_score_adj.filter(|score| *score < 0);
    let score = score.map(|score| format!("oom_score_adj {score}"));
    privileged.into_iter().chain(devices).chain(score).collect()
}

fn of_sandbox(options: &SandboxOptions) -> impl Iterator<Item = &'static str> {
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
    .filter_map(|(asked, what)| asked.then_some(what))
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

    fn mounts(path: &str, read_only: bool) -> Vec<String> {
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
        assert!(added("CAP_CHOWN").is_empty() && added("net_raw").is_empty());
        for name in ["SYS_ADMIN", "CAP_SYS_PTRACE", "ALL"] {
            assert!(added(name)[0].contains(name), "{name}");
        }
        let unconfined = service(|c| c.options.seccomp = Some("unconfined".into()));
        assert!(!asked_of_root(&unconfined).is_empty());
        assert!(
            asked(&unconfined, &own()).is_empty(),
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
            assert!(mounts(path, false).is_empty(), "{path}");
        }
        for path in ["/etc/localtime", "/usr/share/zoneinfo", "/lib/modules"] {
            assert!(mounts(path, true).is_empty(), "{path}");
            assert!(!mounts(path, false).is_empty(), "{path}");
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
                let what = mounts(path, read_only);
                assert!(what[0].contains(path), "{what:?}");
            }
        }
        assert!(!mounts("/usr", false).is_empty());
    }

    #[test]
    fn devices_by_path_and_a_place_before_others_need_the_operator() {
        let device = Device {
            source: "/dev/sda".to_owned(),
            target: "/dev/x".to_owned(),
            permissions: "rwm".to_owned(),
        };
        let by_path = service(|c| c.options.devices.push(device));
        assert_eq!(asked(&by_path, &[]), ["the device /dev/sda"]);
        let by_cdi = service(|c| c.options.cdi_devices.push("vendor.com/gpu=0".to_owned()));
        assert!(asked(&by_cdi, &[]).is_empty());
        for (score, free) in [(-1, false), (0, true), (500, true)] {
            let scored = service(|c| c.options.oom_score_adj = Some(score));
            assert_eq!(asked(&scored, &[]).is_empty(), free, "{score}");
        }
    }

    #[test]
    fn the_machines_namespaces_need_the_operator() {
        for n in 0..3 {
            let mut spec = service(|_| ());
            assert!(asked(&spec, &own()).is_empty());
            match n {
                0 => spec.sandbox.host_pid = true,
                1 => spec.sandbox.host_ipc = true,
                _ => spec.sandbox.host_users = true,
            }
            assert!(!asked(&spec, &own()).is_empty(), "{n}");
        }
    }

    #[test]
    fn all_that_is_asked_for_is_named_each_once() {
        let mount = |path: &str| Mount {
            source: MountSource::Bind {
                path: path.to_owned(),
                create: false,
                recursive: true,
            },
            target: "/x".to_owned(),
            read_only: true,
        };
        let spec = service(|c| {
            c.options.privileged = true;
            c.options.oom_score_adj = Some(-5);
            for path in ["/etc", "/srv", "/run", "/etc"] {
                c.mounts.push(mount(path));
            }
        });
        assert_eq!(
            asked(&spec, &own()),
            [
                "privileged",
                "oom_score_adj -5",
                "the mount of /etc",
                "the mount of /run"
            ]
        );
    }
}
