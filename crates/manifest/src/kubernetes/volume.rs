//! Volumes of a pod (`v1.Volume`), and where its containers mount them (`v1.VolumeMount`).

use std::collections::{BTreeMap, BTreeSet};

use layby_model::mounts::{Mount, MountSource};
use layby_model::secret::ValueKind;

use crate::draft::Placed;
use crate::fields::Fields;
use crate::kubernetes::env::KnownToVolumes;
use crate::kubernetes::expand::{self, Variables};
use crate::kubernetes::files::{self, Files};
use crate::mount::{distinct, on_machine, relative, scratch_name, target};
use crate::report::Report;
use crate::tree::{Node, Place, cut};
use crate::units::kubernetes_memory;

/// The most volumes of a pod, and the most mounts of a container.
const MAX_VOLUMES: usize = 200;
/// How much memory a volume in memory may take where neither it nor its containers have a limit: 1 GiB.
const MEMORY_BYTES: u64 = 1 << 30;

/// What the name of a volume begins with that stands for one for each pod, until it is known which pod: no volume's own
/// name does.
pub(crate) const TEMPLATE: char = '*';
/// What Kubernetes itself puts into each pod, so that it can speak to the API.
const API_ACCESS: &str = "kube-api-access-";

/// Kinds of volumes that there are, each with what would come of ignoring it.
const REFUSED: [(&str, &str); 22] = [
    ("awsElasticBlockStore", "it is not on this machine"),
    ("azureDisk", "it is not on this machine"),
    ("azureFile", "it is not on this machine"),
    ("cephfs", "it is not on this machine"),
    ("cinder", "it is not on this machine"),
    ("csi", "there are no drivers of others"),
    (
        "ephemeral",
        "use emptyDir for what goes with the pod, or a PersistentVolumeClaim",
    ),
    ("fc", "it is not on this machine"),
    ("flexVolume", "there are no drivers of others"),
    ("gcePersistentDisk", "it is not on this machine"),
    ("gitRepo", "the containers would miss its files"),
    ("glusterfs", "it is not on this machine"),
    ("image", "the containers would miss its files"),
    ("iscsi", "it is not on this machine"),
    (
        "nfs",
        "mount it on the machine, and name its folder as hostPath",
    ),
    ("photonPersistentDisk", "it is not on this machine"),
    ("portworxVolume", "it is not on this machine"),
    ("quobyte", "it is not on this machine"),
    ("rbd", "it is not on this machine"),
    ("scaleIO", "it is not on this machine"),
    ("storageos", "it is not on this machine"),
    ("vsphereVolume", "it is not on this machine"),
];

/// A volume of a pod.
#[derive(Debug)]
pub(crate) enum Volume {
    /// A folder that goes with the replica; in memory, with so many bytes, or as many as fits.
    EmptyDir {
        memory: Option<Option<u64>>,
    },
    HostPath {
        path: String,
        create: bool,
    },
    Claim {
        claim: Placed<String>,
        read_only: bool,
    },
    /// One for each pod of a StatefulSet, by the name of its template.
    Template(String),
    /// Files in memory.
    Files(Files),
    /// It is not right, as the report says.
    Wrong,
}

/// A place in a container where a volume is mounted.
#[derive(Debug)]
pub(crate) struct VolumeMount {
    volume: String,
    target: String,
    /// Empty: the whole.
    sub_path: String,
    read_only: bool,
    place: Place,
}

/// Takes `volumes` off a pod.
pub(crate) fn volumes(
    pod: &mut Fields,
    known: KnownToVolumes<'_>,
    report: &mut Report,
) -> BTreeMap<String, Volume> {
    let what = format!("a volume of {}", pod.what);
    let mut volumes = BTreeMap::new();
    for node in pod.list("volumes", report).unwrap_or_default() {
        let shown = node.get("name").and_then(Node::scalar).map(cut);
        let what = match shown {
            Some(name) => format!("the volume {name:?} of {}", pod.what),
            None => what.clone(),
        };
        let Some(mut fields) = Fields::open(node, what, report) else {
            continue;
        };
        let (place, what) = (fields.place.clone(), fields.what.clone());
        let name = fields.text("name", report).filter(|name| !name.is_empty());
        if name
            .as_ref()
            .is_some_and(|name| name.starts_with(API_ACCESS))
        {
            continue;
        }
        let volume = volume(fields, known, report);
        let Some(name) = name else {
            report.error(&place, format!("{what} has no \"name\""));
            continue;
        };
        if volumes.len() >= MAX_VOLUMES {
            report.error(
                &place,
                format!("{} has more than {MAX_VOLUMES} volumes", pod.what),
            );
            break;
        }
        if volumes.insert(name, volume).is_some() {
            report.error(&place, format!("{what} is there twice"));
        }
    }
    volumes
}

fn volume(mut fields: Fields, known: KnownToVolumes<'_>, report: &mut Report) -> Volume {
    let mut found = Vec::new();
    let empty_name = fields.name("emptyDir");
    if let Some(mut empty) = fields.map("emptyDir", report) {
        let limit_at = empty.place_of("sizeLimit");
        let limit = empty
            .parsed("sizeLimit", report, kubernetes_memory)
            .flatten();
        let in_memory = empty.parsed("medium", report, |text| match text {
            "" => Ok(false),
            "Memory" => Ok(true),
            _ => Err("Memory, or left out".to_owned()),
        });
        let in_memory = in_memory.unwrap_or(false);
        if let (Some(place), Some(_), false) = (limit_at, limit, in_memory) {
            let message = format!(
                "\"sizeLimit\" of {empty_name} is not enforced: it may grow while the disk has room"
            );
            report.warn(&place, message);
        }
        empty.finish(report);
        found.push(Volume::EmptyDir {
            memory: in_memory.then_some(limit),
        });
    }
    if let Some(path) = fields.map("hostPath", report) {
        let path = host_path(path, report);
        found.push(match path {
            Some((path, create)) => Volume::HostPath { path, create },
            None => Volume::Wrong,
        });
    }
    if let Some(claim) = fields.map("persistentVolumeClaim", report) {
        found.push(claimed(claim, report).unwrap_or(Volume::Wrong));
    }
    for (key, kind) in [
        ("configMap", ValueKind::Config),
        ("secret", ValueKind::Secret),
    ] {
        if let Some(bundle) = fields.map(key, report) {
            found.push(Volume::Files(files::bundle(bundle, kind, known, report)));
        }
    }
    if let Some(sources) = fields.map("projected", report) {
        found.push(Volume::Files(files::projected(sources, known, report)));
    }
    if let Some(items) = fields.map("downwardAPI", report) {
        found.push(Volume::Files(files::downward(items, known, report)));
    }
    for (kind, consequence) in REFUSED {
        if let Some(entry) = fields.entry(kind) {
            let name = fields.name(kind);
            let message = format!("{name} is not supported yet: {consequence}");
            report.error(&entry.place, message);
            found.push(Volume::Wrong);
        }
    }
    let (place, what) = (fields.place.clone(), fields.what.clone());
    fields.finish(report);
    if found.len() > 1 {
        report.error(&place, format!("{what} is of several kinds: one is enough"));
    }
    // Kubernetes takes a volume of no kind as an emptyDir.
    found.pop().unwrap_or(Volume::EmptyDir { memory: None })
}

/// A folder or file of the machine, and whether it is made where it is missing.
pub(crate) fn host_path(mut fields: Fields, report: &mut Report) -> Option<(String, bool)> {
    if !fields.has("path") {
        report.error(&fields.place, format!("{} has no \"path\"", fields.what));
    }
    let path = fields.parsed("path", report, |text| {
        if text.starts_with('/') {
            on_machine("", text)
        } else {
            Err("an absolute path of the machine".to_owned())
        }
    });
    let kind = fields.placed("type", report);
    let create = kind.as_ref().is_some_and(|kind| match kind.value.as_str() {
        "" | "Directory" | "File" | "Socket" | "CharDevice" | "BlockDevice" => false,
        "DirectoryOrCreate" => true,
        "FileOrCreate" => {
            let message = format!(
                "{} is FileOrCreate, but files are not created: it has to be there",
                fields.name("type")
            );
            report.warn(&kind.place, message);
            false
        }
        other => {
            let message = format!(
                "{} must be Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice or BlockDevice, not {:?}",
                fields.name("type"),
                cut(other)
            );
            report.error(&kind.place, message);
            false
        }
    });
    fields.finish(report);
    Some((path?, create))
}

fn claimed(mut fields: Fields, report: &mut Report) -> Option<Volume> {
    let place = fields
        .place_of("claimName")
        .unwrap_or_else(|| fields.place.clone());
    let name = fields.text("claimName", report);
    let read_only = fields.flag("readOnly", report).unwrap_or(false);
    let what = fields.what.clone();
    fields.finish(report);
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        report.error(&place, format!("{what} has no \"claimName\""));
        return None;
    };
    Some(Volume::Claim {
        claim: Placed { value: name, place },
        read_only,
    })
}

/// Takes `volumeMounts` off a container. `variables`: its own, which `subPathExpr` may name.
pub(crate) fn mounts(
    container: &mut Fields,
    variables: &Variables,
    report: &mut Report,
) -> Vec<VolumeMount> {
    let what = format!("a mount of {}", container.what);
    let mut mounts = Vec::new();
    for node in container.list("volumeMounts", report).unwrap_or_default() {
        if mounts.len() >= MAX_VOLUMES {
            let message = format!("{} has more than {MAX_VOLUMES} mounts", container.what);
            report.error(&node.place, message);
            break;
        }
        let named = node.get("name").and_then(Node::scalar);
        if named.is_some_and(|name| name.starts_with(API_ACCESS)) {
            continue;
        }
        let Some(mut fields) = Fields::open(node, what.as_str(), report) else {
            continue;
        };
        let place = fields.place.clone();
        for key in ["name", "mountPath"] {
            if !fields.has(key) {
                report.error(&place, format!("{what} has no {key:?}"));
            }
        }
        let volume = fields.text("name", report);
        let path = fields.parsed("mountPath", report, target);
        let has_both = fields.has("subPath") && fields.has("subPathExpr");
        let sub_path = fields.parsed("subPath", report, relative);
        let expression = fields.parsed("subPathExpr", report, |text| {
            relative(&expand::path(text, variables)?)
        });
        if has_both {
            report.error(
                &place,
                format!("{what} has both \"subPath\" and \"subPathExpr\""),
            );
        }
        let sub_path = sub_path.or(expression);
        let read_only = fields.flag("readOnly", report).unwrap_or(false);
        for (key, usual) in [
            ("mountPropagation", "None"),
            ("recursiveReadOnly", "Disabled"),
        ] {
            if let Some(entry) = fields.entry(key)
                && entry.value.scalar() != Some(usual)
            {
                fields.put_back(entry);
                fields.unsupported(&[key], report);
            }
        }
        fields.unsupported(&["bindMountOptions"], report);
        fields.finish(report);
        if let (Some(volume), Some(target)) = (volume, path) {
            mounts.push(VolumeMount {
                volume,
                target,
                sub_path: sub_path.unwrap_or_default(),
                read_only,
                place,
            });
        }
    }
    mounts
}

/// What a container's mounts are, by the volumes of its pod. Volumes bear the names of their claims still.
/// `memory_bytes`: the pod's memory limit, if all of its containers have one.
pub(crate) fn resolve(
    mounts: Vec<VolumeMount>,
    volumes: &BTreeMap<String, Volume>,
    memory_bytes: Option<u64>,
    what: &str,
    report: &mut Report,
) -> Vec<Mount> {
    let mut resolved = Vec::new();
    for mount in mounts {
        let Some(volume) = volumes.get(&mount.volume) else {
            let message = format!(
                "{what} mounts {:?}, which is no volume of its pod",
                cut(&mount.volume)
            );
            report.error(&mount.place, message);
            continue;
        };
        let mut read_only = mount.read_only;
        let source = match volume {
            Volume::Wrong => continue,
            Volume::EmptyDir { memory } => MountSource::Scratch {
                name: match mount.sub_path.as_str() {
                    "" => mount.volume,
                    path => format!("{}_{}", mount.volume, scratch_name(path)),
                },
                memory_bytes: memory.map(|limit| limit.or(memory_bytes).unwrap_or(MEMORY_BYTES)),
                copy: false,
            },
            Volume::Files(files) => {
                read_only = true;
                let below = files.below(&mount.sub_path);
                if below.files.is_empty() && below.groups.is_empty() && !mount.sub_path.is_empty() {
                    let message = format!(
                        "{what} mounts {:?} of the volume {:?}, which has no such file",
                        cut(&mount.sub_path),
                        cut(&mount.volume)
                    );
                    report.error(&mount.place, message);
                    continue;
                }
                MountSource::Files {
                    files: below.files,
                    groups: below.groups,
                }
            }
            Volume::HostPath { path, create } => {
                let path = match on_machine(path, &mount.sub_path) {
                    Ok(path) => path,
                    Err(expected) => {
                        report.error(&mount.place, format!("{what} must name {expected}"));
                        continue;
                    }
                };
                MountSource::Bind {
                    path,
                    create: *create,
                    recursive: true,
                }
            }
            Volume::Template(name) => MountSource::Volume {
                name: format!("{TEMPLATE}{name}"),
                subpath: Some(mount.sub_path).filter(|path| !path.is_empty()),
                copy: false,
                external: false,
                labels: BTreeMap::new(),
            },
            Volume::Claim {
                claim,
                read_only: all,
            } => {
                read_only |= all;
                MountSource::Volume {
                    name: claim.value.clone(),
                    subpath: Some(mount.sub_path).filter(|path| !path.is_empty()),
                    copy: false,
                    external: false,
                    labels: BTreeMap::new(),
                }
            }
        };
        resolved.push(Placed {
            value: Mount {
                source,
                target: mount.target,
                read_only,
            },
            place: mount.place,
        });
    }
    distinct(resolved, what, report)
        .into_iter()
        .map(|mount| mount.value)
        .collect()
}

/// An emptyDir is a folder for each path that is mounted of it: one inside of another would not be seen there.
pub(crate) fn check_parts<'a>(
    mounts: impl Iterator<Item = &'a VolumeMount>,
    volumes: &BTreeMap<String, Volume>,
    report: &mut Report,
) {
    let mut parts: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let is_empty_dir = |name: &str| matches!(volumes.get(name), Some(Volume::EmptyDir { .. }));
    for mount in mounts.filter(|mount| is_empty_dir(&mount.volume)) {
        // With a slash after each, what is inside of another begins with it.
        let path = match mount.sub_path.as_str() {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let known = parts.entry(&mount.volume).or_default();
        if known
            .iter()
            .any(|other| *other != path && (path.starts_with(other) || other.starts_with(&path)))
        {
            let message = format!(
                "the emptyDir {:?} is mounted once by a subPath and once as what that is in, which is not supported: mount it in one way",
                cut(&mount.volume)
            );
            report.error(&mount.place, message);
        }
        known.insert(path);
    }
}

/// The claims that the volumes of a pod name.
pub(crate) fn claims(volumes: BTreeMap<String, Volume>) -> Vec<Placed<String>> {
    volumes
        .into_values()
        .filter_map(|volume| match volume {
            Volume::Claim { claim, .. } => Some(claim),
            Volume::Template(_)
            | Volume::EmptyDir { .. }
            | Volume::HostPath { .. }
            | Volume::Files(_)
            | Volume::Wrong => None,
        })
        .collect()
}
