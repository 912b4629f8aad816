//! Devices of the machine in a container: nodes of its own for them, and the rules of its cgroup's fence.
//!
//! A container cannot make nodes itself in a user namespace. So the shim makes them in a tmpfs where devices work, with
//! owner and mode as on the machine, and each is bound to its place below `/dev`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};

use crate::error::{Error, Result, Trying};
use crate::idmap::Stage;
use crate::options::{DeviceConfig, OptionsConfig};

/// The most nodes of one container: a folder of devices may be large.
const MAX_NODES: usize = 1024;

/// What every container has anew below `/dev`, and not from the machine.
const OWN: [&str; 13] = [
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty",
    "urandom", "zero",
];

/// The devices of one container.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    nodes: Vec<Node>,
    mapped: bool,
}

#[derive(Debug)]
struct Node {
    target: PathBuf,
    at: PathBuf,
    rule: String,
}

/// A device before its node is made.
struct Found {
    source: PathBuf,
    target: PathBuf,
    permissions: String,
}

impl Devices {
    /// Makes the nodes of a container's devices.
    pub(crate) fn make(stage: &Stage, name: &str, options: &OptionsConfig) -> Result<Self> {
        let mut found = Vec::new();
        for device in &options.devices {
            find(name, device, &mut found)?;
        }
        if options.privileged {
            all_of_machine(Path::new("/dev"), &mut found);
        }
        if found.is_empty() {
            return Ok(Self {
                nodes: Vec::new(),
                mapped: stage.users().is_some(),
            });
        }
        if found.len() > MAX_NODES {
            return Err(Error::Fatal(format!(
                "container {name} asks for more than {MAX_NODES} devices: name single ones"
            )));
        }
        let place = stage.place(&format!("devices-{name}"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("tmpfs"),
            &place,
            Some("tmpfs"),
            flags,
            Some("mode=755,size=1m"),
        )
        .trying(|| format!("mount tmpfs on {}", place.display()))?;
        let mut nodes: Vec<Node> = Vec::with_capacity(found.len());
        for Found {
            source,
            target,
            permissions,
        } in found
        {
            if nodes.iter().any(|node| node.target == target) || is_own(&target) {
                continue;
            }
            let at = place.join(nodes.len().to_string());
            let rule = make_node(stage, &source, &at, &permissions)?;
            nodes.push(Node { target, at, rule });
        }
        Ok(Self {
            nodes,
            mapped: stage.users().is_some(),
        })
    }

    /// Whether the container is in a user namespace.
    pub(crate) fn mapped(&self) -> bool {
        self.mapped
    }

    /// Their places in the container, and their nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.nodes
            .iter()
            .map(|node| (node.target.as_path(), node.at.as_path()))
    }

    /// Their rules for the cgroup's fence (cgroup-v1/devices.rst).
    pub(crate) fn rules(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.rule.as_str())
    }
}

/// Refuses devices that cannot be understood.
pub(crate) fn check(container: &str, devices: &[DeviceConfig]) -> Result<()> {
    for device in devices {
        let fatal = |what: &str| {
            Err(Error::Fatal(format!(
                "container {container}: the device {}:{}:{} {what}",
                device.source, device.target, device.permissions
            )))
        };
        let target = Path::new(&device.target);
        let plain = target.components().all(|part| {
            matches!(
                part,
                std::path::Component::RootDir | std::path::Component::Normal(_)
            )
        });
        if !plain || !target.starts_with("/dev") || target == Path::new("/dev") {
            return fatal("needs a target below /dev");
        }
        if !Path::new(&device.source).is_absolute() || device.source.contains('\0') {
            return fatal("needs an absolute path on the machine");
        }
        let known = device.permissions.bytes().all(|b| b"rwm".contains(&b));
        if !known || device.permissions.is_empty() {
            return fatal("needs permissions of r, w and m");
        }
    }
    Ok(())
}

/// One device, or all in a folder of them.
fn find(container: &str, device: &DeviceConfig, found: &mut Vec<Found>) -> Result<()> {
    let source = Path::new(&device.source);
    let missing = |what: &str| {
        Error::Fatal(format!(
            "container {container} asks for the device {}, which {what}",
            device.source
        ))
    };
    let meta = fs::metadata(source).map_err(|_| missing("this machine does not have"))?;
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(source)
            .trying(|| format!("read {}", source.display()))?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        for name in names {
            let inner = source.join(&name);
            if is_device(&inner) {
                found.push(Found {
                    source: inner,
                    target: Path::new(&device.target).join(&name),
                    permissions: device.permissions.clone(),
                });
            }
        }
        return Ok(());
    }
    if !is_device(source) {
        return Err(missing("is no device"));
    }
    found.push(Found {
        source: source.to_owned(),
        target: PathBuf::from(&device.target),
        permissions: device.permissions.clone(),
    });
    Ok(())
}

fn is_own(target: &Path) -> bool {
    let name = target.strip_prefix("/dev").ok();
    name.is_some_and(|name| OWN.iter().any(|own| name == Path::new(own)))
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|meta| meta.file_type().is_char_device() || meta.file_type().is_block_device())
}

/// What the machine has below `/dev`, without what every container has anew.
fn all_of_machine(dir: &Path, found: &mut Vec<Found>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if is_own(&path) || found.len() > MAX_NODES {
            continue;
        }
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            all_of_machine(&path, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(Found {
                source: path.clone(),
                target: path,
                permissions: "rwm".to_owned(),
            });
        }
    }
}

/// Makes a node like `source`; returns its rule.
fn make_node(stage: &Stage, source: &Path, at: &Path, permissions: &str) -> Result<String> {
    let what = || format!("make a node like {}", source.display());
    let meta = fs::metadata(source).trying(what)?;
    let (kind, letter) = if meta.file_type().is_block_device() {
        (SFlag::S_IFBLK, 'b')
    } else {
        (SFlag::S_IFCHR, 'c')
    };
    let number = meta.rdev();
    mknod(
        at,
        kind,
        Mode::empty(),
        makedev(major(number), minor(number)),
    )
    .trying(what)?;
    let first = stage.first();
    std::os::unix::fs::chown(at, Some(first + meta.uid()), Some(first + meta.gid()))
        .trying(what)?;
    fs::set_permissions(at, fs::Permissions::from_mode(meta.mode() & 0o777)).trying(what)?;
    Ok(format!(
        "{letter} {}:{} {permissions}",
        major(number),
        minor(number)
    ))
}
