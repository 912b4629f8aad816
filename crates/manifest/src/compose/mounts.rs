//! `volumes` of a service: the short and the long syntax.

use std::collections::BTreeMap;

use layby_model::mounts::{Mount, MountSource};

use crate::compose::project::Project;
use crate::compose::volumes::Volume;
use crate::compose::{files, pairs, tmpfs};
use crate::draft::Placed;
use crate::fields::{Fields, parsed};
use crate::mount::{self, distinct, relative, scratch_name, target};
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

/// Takes `volumes`, `tmpfs`, `secrets` and `configs` off a service.
pub(crate) fn read(service: &mut Fields, project: &Project<'_>, report: &mut Report) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for item in service.list("volumes", report).unwrap_or_default() {
        let place = item.place.clone();
        let mount = match item.value {
            Value::Map(_) => long(item, service, project, report),
            _ => short(&item, service, project, report),
        };
        mounts.extend(mount.map(|value| Placed { value, place }));
    }
    mounts
        .iter()
        .for_each(|mount| warn_of_docker(mount, &service.what, report));
    mounts.extend(tmpfs::read(service, report));
    mounts.extend(files::mounts(service, project, report));
    distinct(mounts, &service.what, report)
        .into_iter()
        .map(|mount| mount.value)
        .collect()
}

/// Whoever asks Docker what runs is told nothing of this node.
fn warn_of_docker(mount: &Placed<Mount>, what: &str, report: &mut Report) {
    let MountSource::Bind { path, .. } = &mount.value.source else {
        return;
    };
    if matches!(path.as_str(), "/var/run/docker.sock" | "/run/docker.sock") {
        let message = format!(
            "{what} mounts {path}: Docker, if it runs on the machine, knows nothing of what runs here, and a node allows such a mount \
             with --allow-privileged only"
        );
        report.warn(&mount.place, message);
    }
}

/// What the options of a mount say, in both forms.
#[derive(Debug)]
struct Wanted {
    read_only: bool,
    copy: bool,
    subpath: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            read_only: false,
            copy: true,
            subpath: None,
            labels: BTreeMap::new(),
        }
    }
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short(
    item: &Node,
    service: &Fields,
    project: &Project<'_>,
    report: &mut Report,
) -> Option<Mount> {
    let name = format!("an item of {}", service.name("volumes"));
    // Docker's Compose takes one, whoever runs the service.
    let alone = item.scalar().filter(|text| is_word(text));
    if let Some(word) = alone.filter(|word| project.volumes.contains_key(*word)) {
        let message = format!(
            "{name} is the volume {word:?} without the place where it is mounted: write {word}:/PATH"
        );
        report.error(&item.place, message);
        return None;
    }
    let below_root = alone.map(|word| format!("/{word}"));
    if let Some(path) = &below_root {
        let message =
            format!("{name} is no absolute path: it is taken as {path}, a volume without a name");
        report.warn(&item.place, message);
    }
    let (source, target, options) = parsed(item, &name, report, |text| {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, path, options) = match parts[..] {
            [path] => (None, below_root.as_deref().unwrap_or(path), ""),
            [source, path] => (Some(source), path, ""),
            [source, path, options] => (Some(source), path, options),
            _ => return Err("[SOURCE:]TARGET[:OPTIONS]".to_owned()),
        };
        if source == Some("") {
            return Err("[SOURCE:]TARGET[:OPTIONS] (is a variable not set?)".to_owned());
        }
        Ok((source.map(str::to_owned), target(path)?, options.to_owned()))
    })?;
    let mut wanted = Wanted::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => wanted.read_only = true,
            "nocopy" => wanted.copy = false,
            // What it is anyway, and hints for file systems between machines.
            "rw" | "rprivate" | "private" | "cached" | "delegated" | "consistent" => {}
            "z" | "Z" => report.warn(
                &item.place,
                format!("{name} asks for a label ({option}) of SELinux, which is not set"),
            ),
            "shared" | "rshared" | "slave" | "rslave" => {
                propagation(option, &name, &item.place, report)
            }
            _ => {
                let message = format!(
                    "{name} has an unknown option, {:?}, which is ignored: ro, rw and nocopy are known, and without ro the service can write there",
                    cut(option)
                );
                report.warn(&item.place, message);
            }
        }
    }
    let place = &item.place;
    match source {
        None => Some(anonymous(target, &wanted, &service.what, place, report)),
        Some(path) if path.starts_with(['/', '.', '~']) => {
            let path = parsed(item, &name, report, |_| project.path(&path))?;
            Some(bind(path, true, true, target, &wanted))
        }
        Some(key) => named(&key, target, wanted, project, place, report),
    }
}

/// Whether it is one word, as the name of a folder or volume.
fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    !text.is_empty() && text.chars().all(inner)
}

/// The long syntax.
fn long(item: Node, service: &Fields, project: &Project<'_>, report: &mut Report) -> Option<Mount> {
    let text = |key: &str| item.get(key).and_then(Node::scalar);
    if text("type") == Some("image") {
        let message = format!(
            "a volume of {} mounts an image, which is not done here: have the Dockerfile take what is needed of it, with `COPY --from={}`",
            service.what,
            cut(text("source").unwrap_or("IMAGE"))
        );
        report.error(&item.place, message);
        return None;
    }
    let mut fields = Fields::open(item, format!("a volume of {}", service.what), report)?;
    let place = fields.place.clone();
    let what = fields.what.clone();
    for key in ["type", "target"] {
        if !fields.has(key) {
            report.error(&place, format!("{what} has no {key:?}"));
        }
    }
    let kind = fields.parsed("type", report, |text| match text {
        "bind" | "volume" | "tmpfs" => Ok(text.to_owned()),
        "npipe" => Err("bind, volume or tmpfs (npipe is a pipe of Windows)".to_owned()),
        "cluster" => Err(
            "bind, volume or tmpfs (cluster is a volume of a cluster, and this is one machine)"
                .to_owned(),
        ),
        _ => Err("bind, volume or tmpfs".to_owned()),
    });
    let path = fields.parsed("target", report, target);
    let source_name = fields.name("source");
    let source = fields.take("source");
    let mut wanted = Wanted {
        read_only: fields.flag("read_only", report).unwrap_or(false),
        ..Wanted::default()
    };
    fields.accept(&["consistency"]);
    fields.accept_extensions();
    let (mut create, mut recursive) = (true, true);
    if let Some(mut bind) = fields.map("bind", report) {
        create = bind.flag("create_host_path", report).unwrap_or(true);
        if let Some(node) = bind.take("propagation")
            && !matches!(node.scalar(), Some("private" | "rprivate" | ""))
        {
            propagation(
                node.scalar().unwrap_or_default(),
                &what,
                &node.place,
                report,
            );
        }
        recursive = bind
            .parsed("recursive", report, |text| match text {
                "enabled" => Ok(true),
                "disabled" => Ok(false),
                _ => Err("enabled or disabled (no other is supported)".to_owned()),
            })
            .unwrap_or(true);
        bind.unsupported(&["selinux"], report);
        bind.accept_extensions();
        bind.finish(report);
    }
    if let Some(mut volume) = fields.map("volume", report) {
        wanted.copy = !volume.flag("nocopy", report).unwrap_or(false);
        wanted.subpath = volume
            .parsed("subpath", report, relative)
            .filter(|path| !path.is_empty());
        let labels_name = volume.name("labels");
        if let Some(node) = volume.take("labels") {
            let labels = pairs::labels(node, &labels_name, report);
            wanted.labels = mount::labels(labels, &what, &place, report);
        }
        volume.accept_extensions();
        volume.finish(report);
    }
    let mut memory = tmpfs::Tmpfs::default();
    if let Some(mut fields) = fields.map("tmpfs", report) {
        memory.size_bytes = fields.parsed("size", report, tmpfs::size);
        memory.mode = fields.parsed("mode", report, tmpfs::mode);
        fields.accept_extensions();
        fields.finish(report);
    }
    fields.refuse(&[("image", "nothing would be mounted")], report);
    fields.finish(report);
    let (kind, target) = (kind?, path?);
    match (kind.as_str(), source) {
        ("tmpfs", _) => Some(Mount {
            source: memory.source(),
            target,
            read_only: wanted.read_only,
        }),
        ("bind", Some(node)) => {
            let path = parsed(&node, &source_name, report, |text| project.path(text))?;
            Some(bind(path, create, recursive, target, &wanted))
        }
        ("bind", None) => {
            report.error(&place, format!("{what} has no \"source\""));
            None
        }
        (_, Some(node)) => {
            let key = parsed(&node, &source_name, report, |text| Ok(text.to_owned()))?;
            named(&key, target, wanted, project, &node.place, report)
        }
        (_, None) => Some(anonymous(target, &wanted, &service.what, &place, report)),
    }
}

fn bind(path: String, create: bool, recursive: bool, target: String, wanted: &Wanted) -> Mount {
    Mount {
        source: MountSource::Bind {
            path,
            create,
            recursive,
        },
        target,
        read_only: wanted.read_only,
    }
}

/// A volume without a name: a folder that goes with its replica.
fn anonymous(
    target: String,
    wanted: &Wanted,
    what: &str,
    place: &Place,
    report: &mut Report,
) -> Mount {
    if !wanted.read_only {
        let message = format!(
            "the volume at {} of {what} has no name: what is written there goes with the replica; name it at the top to keep it",
            cut(&target)
        );
        report.warn(place, message);
    }
    Mount {
        source: MountSource::Scratch {
            name: scratch_name(&target),
            memory_bytes: None,
            copy: wanted.copy,
        },
        target,
        read_only: wanted.read_only,
    }
}

/// A volume that the top of the file declares.
fn named(
    key: &str,
    target: String,
    wanted: Wanted,
    project: &Project<'_>,
    place: &Place,
    report: &mut Report,
) -> Option<Mount> {
    let Some(declared) = project.volumes.get(key) else {
        let message = format!(
            "the volume {:?} is not declared: name it under \"volumes\" at the top of the Compose file, or write ./{} if a folder is meant",
            cut(key),
            cut(key)
        );
        report.error(place, message);
        return None;
    };
    let subpath = wanted.subpath;
    let without_subpath = |what: &str, report: &mut Report| match &subpath {
        Some(_) => {
            let message = format!(
                "\"subpath\" needs a volume of the node; {:?} is {what}",
                cut(key)
            );
            report.error(place, message);
            None
        }
        None => Some(()),
    };
    match declared.clone()? {
        Volume::Named {
            name,
            external,
            labels: declared,
        } => {
            let mut labels = wanted.labels;
            labels.extend(declared);
            Some(Mount {
                source: MountSource::Volume {
                    name,
                    subpath,
                    copy: wanted.copy,
                    external,
                    labels,
                },
                target,
                read_only: wanted.read_only,
            })
        }
        Volume::Bind {
            path,
            recursive,
            read_only,
        } => {
            without_subpath("a folder of the machine", report)?;
            Some(Mount {
                source: MountSource::Bind {
                    path,
                    create: false,
                    recursive,
                },
                target,
                read_only: read_only || wanted.read_only,
            })
        }
        Volume::Tmpfs(tmpfs) => {
            without_subpath("memory", report)?;
            Some(Mount {
                source: tmpfs.source(),
                target,
                read_only: tmpfs.read_only || wanted.read_only,
            })
        }
    }
}

fn propagation(option: &str, name: &str, place: &Place, report: &mut Report) {
    let message = format!(
        "{name} asks for the propagation {:?}, which is ignored: mounts made on either side later are not seen on the other",
        cut(option)
    );
    report.warn(place, message);
}
