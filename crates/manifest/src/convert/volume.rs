//! What a container mounts: the volumes of its pod (`v1.Volume`), and where they go (`v1.VolumeMount`).

use layby_model::mounts::{Mount, MountSource};
use layby_model::secret::{ValueFile, ValueKind, ValueSource};
use layby_model::spec::{ContainerSpec, ServiceSpec};

use crate::convert::claim::User;
use crate::convert::files::key_of;
use crate::convert::hooks::quoted;
use crate::convert::names::Names;
use crate::convert::quantity::bytes;
use crate::convert::said::shown;
use crate::convert::tree::{Map, maps};
use crate::convert::{App, Bound, Gathered};
use crate::draft::Draft;
use crate::report::Report;
use crate::tree::{Node, Place, cut};

/// The mode of a file for which none is said, as Docker's.
const MODE: u32 = 0o444;
/// That of the root of a file system in memory.
const TMPFS_MODE: u32 = 0o1777;
/// Where the files of secrets are in containers.
const SECRETS: &str = "/run/secrets/";
/// Where programs look for shared memory.
const SHM: &str = "/dev/shm";

/// The volumes of a pod, each once.
#[derive(Default)]
pub(super) struct Volumes {
    names: Names,
    all: Vec<(String, Map)>,
}

impl Volumes {
    /// Gives one a name, and keeps it.
    fn take(&mut self, called: &str, identity: &str, source: (&str, Map)) -> String {
        let name = self.names.give(called, identity, 63);
        if self.all.iter().all(|(known, _)| *known != name) {
            let (key, source) = source;
            self.all
                .push((name.clone(), Map::new().always(key, source)));
        }
        name
    }

    /// All of them, as they are written.
    pub(super) fn written(self) -> Vec<Map> {
        let named = self.all.into_iter();
        named
            .map(|(name, source)| Map::new().text("name", name).join(source))
            .collect()
    }
}

/// The path of the machine that a mount may be a file of.
pub(super) fn bound(mount: &Mount) -> Option<&String> {
    match &mount.source {
        MountSource::Bind { path, .. } => Some(path),
        MountSource::Volume { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Scratch { .. }
        | MountSource::Files { .. } => None,
    }
}

/// Whether a service writes to what outlives its pods, once it is converted.
pub(super) fn writes(app: &App<'_>, spec: &ServiceSpec) -> bool {
    let of_app = |mount: &Mount| match bound(mount) {
        Some(path) => !is_file(app, path) && !is_spoken_with(path),
        None => is_claim(mount),
    };
    mounts_of(spec).any(|mount| !mount.read_only && of_app(mount))
}

/// Whether a service writes to claims.
pub(super) fn writes_to_claims(spec: &ServiceSpec) -> bool {
    mounts_of(spec).any(|mount| !mount.read_only && is_claim(mount))
}

fn mounts_of(spec: &ServiceSpec) -> impl Iterator<Item = &Mount> {
    spec.all_containers().flat_map(|one| &one.mounts)
}

fn is_claim(mount: &Mount) -> bool {
    matches!(mount.source, MountSource::Volume { .. })
}

fn is_file(app: &App<'_>, path: &str) -> bool {
    match look(app, path) {
        Some(Bound::File(_) | Bound::Private) => true,
        Some(Bound::Machine | Bound::Other) | None => false,
    }
}

fn look<'a>(app: &App<'a>, path: &str) -> Option<&'a Bound> {
    let found = app.how.bound.as_ref().and_then(|bound| bound.get(path));
    match found {
        Some(Bound::File(_)) if is_secret(app, path) => Some(&Bound::Private),
        Some(Bound::File(_) | Bound::Private | Bound::Machine | Bound::Other) | None => found,
    }
}

/// Whether a file is a secret by how it is used, whoever may read it: the manifest declares it as one, or something mounts it where
/// secrets are.
fn is_secret(app: &App<'_>, path: &str) -> bool {
    let mut mounts = app
        .services
        .iter()
        .flat_map(|draft| mounts_of(&draft.spec))
        .filter(|mount| bound(mount).is_some_and(|bound| bound == path));
    app.secret_paths.contains(path) || mounts.any(|mount| mount.target.starts_with(SECRETS))
}

/// Sockets and devices are spoken with.
fn is_spoken_with(path: &str) -> bool {
    path.ends_with(".sock") || path.starts_with("/dev/")
}

/// Writes where a container mounts what; the volumes go to `volumes`.
pub(super) fn mounts(
    app: &App<'_>,
    draft: &Draft,
    container: &ContainerSpec,
    volumes: &mut Volumes,
    all: &mut Gathered,
    report: &mut Report,
) -> Node {
    let mut written = Vec::new();
    for mount in &container.mounts {
        let place = app.said.mount(draft, &mount.target);
        let mut one = One {
            app,
            draft,
            mount,
            place: &place,
            volumes,
            all,
            report,
        };
        written.extend(one.write(container));
    }
    if let Some(size_bytes) = container.options.shm_size_bytes {
        let source = memory(Some(size_bytes));
        let name = volumes.take("shm", "shm", ("emptyDir", source));
        written.push(Map::new().text("name", name).text("mountPath", SHM));
    }
    maps(written)
}

/// One mount on its way.
struct One<'a, 'b> {
    app: &'a App<'b>,
    draft: &'a Draft,
    mount: &'a Mount,
    place: &'a Place,
    volumes: &'a mut Volumes,
    all: &'a mut Gathered,
    report: &'a mut Report,
}

impl One<'_, '_> {
    fn write(&mut self, container: &ContainerSpec) -> Option<Map> {
        let target = self.mount.target.clone();
        let (name, sub_path) = match &self.mount.source {
            MountSource::Volume { subpath, .. } => (self.claim(), subpath.clone()),
            MountSource::Bind {
                path,
                create,
                recursive,
            } => {
                if !recursive {
                    self.tell("has what is mounted below its folder, too");
                }
                self.bind(&path.clone(), *create)
            }
            MountSource::Tmpfs {
                size_bytes,
                mode,
                no_exec,
            } => {
                let source = memory(*size_bytes);
                if mode.is_some_and(|mode| mode != TMPFS_MODE) {
                    self.tell("loses its mode: what is in memory may be written to by all");
                }
                if *no_exec {
                    self.tell("loses \"noexec\": programs in an emptyDir can be executed");
                }
                let identity = format!("tmpfs {target}");
                let name = self.volumes.take(&target, &identity, ("emptyDir", source));
                (name, None)
            }
            MountSource::Scratch { copy, .. } => {
                if *copy && self.is_needless(container) {
                    self.tell("is left out: without it, what the image has there is there, and what is written goes with the pod all the same");
                    return None;
                }
                self.tell("begins empty: what the image has there is not copied into it");
                let identity = format!("scratch {target}");
                let source = ("emptyDir", Map::new());
                (self.volumes.take(&target, &identity, source), None)
            }
            MountSource::Files { files, .. } => self.file(files.first()?)?,
        };
        Some(
            Map::new()
                .text("name", name)
                .text("mountPath", target)
                .some_text("subPath", sub_path)
                .flag("readOnly", self.mount.read_only),
        )
    }

    fn tell(&mut self, what: &str) {
        let message = format!(
            "the mount {:?} of {} {what}",
            cut(&self.mount.target),
            shown(self.draft)
        );
        self.report.warn(self.place, message);
    }

    /// Whether the image's own folder does as well as an anonymous volume: nothing else is mounted above it, and it can be written to.
    fn is_needless(&self, container: &ContainerSpec) -> bool {
        let target = &self.mount.target;
        let is_above = |other: &Mount| {
            let rest = target.strip_prefix(&other.target);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        !container.options.read_only && !container.mounts.iter().any(is_above)
    }

    fn claim(&mut self) -> String {
        let user = User {
            service: self.draft.spec.name.to_string(),
            place: self.place.clone(),
            target: self.mount.target.clone(),
            shared: self.draft.spec.replicas > 1
                || self.draft.spec.autoscale.is_some()
                || self.draft.spec.strategy == layby_model::spec::Strategy::StartFirst,
        };
        let claim = self.all.claims.take(self.app, &self.mount.source, user);
        let source = Map::new().text("claimName", &claim);
        let identity = format!("claim {claim}");
        self.volumes
            .take(&claim, &identity, ("persistentVolumeClaim", source))
    }

    /// A file comes along as it is now; a folder is that of whichever machine the pod runs on.
    fn bind(&mut self, path: &str, create: bool) -> (String, Option<String>) {
        let last = path.rsplit('/').next().unwrap_or(path).to_owned();
        match look(self.app, path) {
            Some(Bound::File(content)) => {
                self.tell(&format!(
                    "becomes a ConfigMap with {:?} as it is now, and cannot be written to",
                    cut(path)
                ));
                let content = content.clone();
                let (bundle, key) = self.all.files.bound(path, content);
                let name = self.bundle(ValueKind::Config, &bundle, None);
                (name, Some(key))
            }
            Some(Bound::Private) => {
                let source = format!("--from-file={}={}", key_of(path), quoted(path));
                let (bundle, key) = self.all.files.private(path, &last, source, self.place);
                let name = self.bundle(ValueKind::Secret, &bundle, None);
                (name, Some(key))
            }
            found @ (Some(Bound::Machine | Bound::Other) | None) => {
                self.tell(&format!(
                    "is {:?} of whichever machine of the cluster the pod runs on: what is there now does not come along",
                    cut(path)
                ));
                let kind = match create {
                    _ if path.ends_with(".sock") => Some("Socket"),
                    _ if found == Some(&Bound::Machine) => Some("File"),
                    true => Some("DirectoryOrCreate"),
                    false => None,
                };
                let source = Map::new().text("path", path).some_text("type", kind);
                let identity = format!("bind {path}");
                (
                    self.volumes.take(&last, &identity, ("hostPath", source)),
                    None,
                )
            }
        }
    }

    /// A file that is a secret or config.
    fn file(&mut self, file: &ValueFile) -> Option<(String, Option<String>)> {
        let ValueSource::Secret(named) = &file.content else {
            // Compose has no other ones.
            return None;
        };
        if file.uid != 0 || file.gid != 0 {
            self.tell("belongs to root: files of a Secret or ConfigMap have no other owner");
        }
        let mode = Some(file.mode).filter(|mode| *mode != MODE);
        let (bundle, key) = match named.kind {
            ValueKind::Secret => self.all.files.secret(&named.name, self.place),
            ValueKind::Config => self.all.files.config(&named.name),
        };
        Some((self.bundle(named.kind, &bundle, mode), Some(key)))
    }

    fn bundle(&mut self, kind: ValueKind, bundle: &str, mode: Option<u32>) -> String {
        let (key, name) = match kind {
            ValueKind::Secret => ("secret", "secretName"),
            ValueKind::Config => ("configMap", "name"),
        };
        let mode = mode.map(|mode| format!("0{:03o}", mode & 0o777));
        let identity = format!("{key} {bundle} {mode:?}");
        let source = Map::new()
            .text(name, bundle)
            .some_plain("defaultMode", mode);
        self.volumes.take(bundle, &identity, (key, source))
    }
}

fn memory(size_bytes: Option<u64>) -> Map {
    Map::new()
        .text("medium", "Memory")
        .some_text("sizeLimit", size_bytes.map(bytes))
}
