//! A Compose app written as Kubernetes YAML: what the model says of it, by the objects that a cluster has for that, and
//! what it has none for.
//!
//! What is written is read by Layby itself as the same app, but for what is told as lost and what differs between the two by nature (see
//! `docs/manifests.md`, "From Compose to Kubernetes").

use std::collections::{BTreeMap, BTreeSet};

use layby_model::secret::ValueKind;
use layby_model::spec::{Condition, ServiceSpec};

use crate::draft::{AppDraft, Draft};
use crate::report::Report;
use crate::tree::Node;
use crate::value::DeclaredValue;
use crate::write;
use claim::Claims;
use files::Files;
pub(crate) use policy::{ALONE, NETWORK};
use said::Said;
use tree::Map;
pub(crate) use values::tell as tell_values;

mod autoscaler;
mod claim;
mod container;
mod env;
mod files;
mod hooks;
mod image;
mod ingress;
mod labels;
mod names;
mod pod;
mod policy;
mod probe;
mod quantity;
mod resources;
mod said;
mod security;
mod service;
mod told;
mod tree;
mod values;
mod volume;
mod workload;

/// How an app is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConvertOptions {
    /// The namespace; otherwise it is called as the app.
    pub namespace: Option<String>,
    /// The domain that services are names of: with one, an Ingress leads `SERVICE.APP.DOMAIN` to those that are reached from outside.
    pub domain: Option<String>,
    /// The way from where it is written to the manifest's folder, with `/` at its end; empty: it is written there.
    pub back: String,
    /// What there is at the paths of [`Converted::bound`]; those that are left out are not there. `None`: it is not known yet.
    pub bound: Option<BTreeMap<String, Bound>>,
}

/// What a path of the machine leads to that a service mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// A file that all may read, and that is no longer than a ConfigMap may be.
    File(Vec<u8>),
    /// A file that not all may read, or that looks like a key.
    Private,
    /// A file that does not come along: it is the machine's own, or too long.
    Machine,
    /// A folder, a socket, a device.
    Other,
}

/// An app as Kubernetes YAML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    /// The objects, in the order in which a cluster is to be given them.
    pub objects: Vec<Object>,
    /// What it says that is lost or becomes something else, by file and line, with what Layby itself does not honour.
    pub warnings: Vec<crate::Diagnostic>,
    /// The files that were read, in order.
    pub files: Vec<String>,
    /// Further files that have to be read first: all else is empty then.
    pub more: Vec<String>,
    /// Paths of the machine that have to be looked at first: all else is empty then.
    pub bound: Vec<String>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its kind, such as `Deployment`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// It as a YAML document, with comments before it.
    pub text: String,
}

impl Object {
    /// What a file of it alone is called: in the order of these names a cluster is to be given them (`kubectl apply -f FOLDER` does so).
    pub fn file_name(&self) -> String {
        let rank = ORDER.iter().position(|kind| *kind == self.kind);
        let kind = self.kind.to_ascii_lowercase();
        format!(
            "{:02}-{kind}-{}.yaml",
            rank.unwrap_or(ORDER.len()),
            self.name
        )
    }
}

/// The kinds of objects, each after those that it needs.
const ORDER: [&str; 11] = [
    "Namespace",
    "ConfigMap",
    "PersistentVolumeClaim",
    "NetworkPolicy",
    "Deployment",
    "DaemonSet",
    "Job",
    "CronJob",
    "Service",
    "Ingress",
    "HorizontalPodAutoscaler",
];

/// The most bytes of a file that becomes a ConfigMap: what one may hold, with room for its names.
pub const BOUND_MAX_BYTES: u64 = 1_000_000;

/// What is converted, for all of its parts.
struct App<'a> {
    name: &'a str,
    namespace: String,
    how: &'a ConvertOptions,
    said: Said<'a>,
    services: &'a [Draft],
    values: &'a [DeclaredValue],
    /// Where files of secrets are on the machine.
    secret_paths: &'a BTreeSet<String>,
}

impl App<'_> {
    /// Whether another service waits until this one has done its work.
    fn completes(&self, spec: &ServiceSpec) -> bool {
        let mut needs = self
            .services
            .iter()
            .flat_map(|draft| &draft.spec.depends_on);
        needs.any(|need| need.service == spec.name && need.condition == Condition::Completed)
    }

    /// The head of an object. `service`: the one that it is of.
    fn object(&self, version: &str, kind: &str, name: &str, service: Option<&str>) -> Head {
        Head {
            version: version.to_owned(),
            kind: kind.to_owned(),
            metadata: Map::new()
                .text("name", name)
                .text("namespace", &self.namespace)
                .put("labels", labels::of_object(service, self.name)),
        }
    }
}

/// What an object begins with.
struct Head {
    version: String,
    kind: String,
    metadata: Map,
}

impl Head {
    /// The object with what follows.
    fn with(self, annotations: Map, rest: impl FnOnce(Map) -> Map) -> Map {
        let head = Map::new()
            .text("apiVersion", self.version)
            .text("kind", self.kind)
            .put("metadata", self.metadata.put("annotations", annotations));
        rest(head)
    }
}

/// The objects as they come up, to be put in order at the end.
#[derive(Default)]
struct Gathered {
    claims: Claims,
    files: Files,
    others: Vec<Object>,
}

/// The paths of the machine that services mount and that are to be looked at.
pub(crate) fn bound(draft: &AppDraft) -> Vec<String> {
    let specs = draft.services.iter().map(|draft| &draft.spec);
    let mounts = specs.flat_map(ServiceSpec::all_containers);
    let paths: BTreeSet<&String> = mounts
        .flat_map(|container| &container.mounts)
        .filter_map(volume::bound)
        .collect();
    paths.into_iter().cloned().collect()
}

/// Writes an app. `merged`: its Compose file, for the lines.
pub(crate) fn convert(
    draft: &AppDraft,
    merged: Option<&Node>,
    how: &ConvertOptions,
    report: &mut Report,
) -> Vec<Object> {
    let Some(name) = &draft.name else {
        return Vec::new();
    };
    let app = App {
        name: name.as_str(),
        namespace: how.namespace.clone().unwrap_or_else(|| name.to_string()),
        how,
        said: Said(merged),
        services: &draft.services,
        values: &draft.values,
        secret_paths: &draft.secret_paths,
    };
    let mut all = Gathered::default();
    for draft in &draft.services {
        told::tell(&app, draft, report);
        workload::write(&app, draft, &mut all, report);
        service::write(&app, draft, &mut all, report);
    }
    policy::write(&app, &mut all);
    ingress::write(&app, &mut all);
    in_order(&app, all, report)
}

fn in_order(app: &App<'_>, all: Gathered, report: &mut Report) -> Vec<Object> {
    let mut objects = Vec::new();
    if app.namespace != "default" {
        let head = Map::new()
            .text("apiVersion", "v1")
            .text("kind", "Namespace");
        let namespace = head.put("metadata", Map::new().text("name", &app.namespace));
        objects.push(object("Namespace", &app.namespace, namespace));
    }
    let notes = all.files.notes(app, report);
    objects.extend(all.files.objects(app));
    objects.extend(all.claims.objects(app, report));
    objects.extend(all.others);
    // Those of a kind as they come in the file.
    objects.sort_by_key(|object| ORDER.iter().position(|kind| *kind == object.kind));
    if let Some(first) = objects.first_mut() {
        let comments: String = notes.iter().map(|note| format!("# {note}\n")).collect();
        first.text.insert_str(0, &comments);
    }
    objects
}

/// An object, written out.
fn object(kind: &'static str, name: &str, map: Map) -> Object {
    Object {
        kind,
        name: name.to_owned(),
        text: write::yaml(&map.into()),
    }
}

/// What the manifest declares under a name.
fn declared<'a>(app: &App<'a>, kind: ValueKind, name: &str) -> Option<&'a DeclaredValue> {
    let mut values = app.values.iter();
    values.find(|value| value.kind == kind && value.name == name)
}
