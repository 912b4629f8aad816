//! Kubernetes YAML: the workloads, the Services and Ingresses that lead to them, and the claims that they mount.

use std::collections::BTreeSet;

use layby_model::secret::ValueKind;

use crate::discover::File;
use crate::draft::{AppDraft, Placed};
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};
use crate::{ReadOptions, app};

mod autoscaler;
mod bundle;
mod claim;
mod container;
mod deployment;
mod env;
pub(crate) mod expand;
mod external;
mod files;
mod ingress;
mod job;
mod join;
mod kinds;
mod lifecycle;
mod metadata;
mod owned;
mod persistent;
mod pod;
mod policy;
mod probe;
mod resources;
mod sandbox;
mod security;
mod service;
mod stateful;
mod volume;

use autoscaler::Autoscaler;
use bundle::Bundles;
pub(crate) use deployment::Deployment;
use join::Parts;
use kinds::Kind;
pub(crate) use kinds::is_workload;
use owned::Present;
pub(crate) use service::Service;

/// So many kinds of what is passed over are told, where there is nothing to run.
const MAX_TOLD: usize = 10;
/// The most items that are read, Lists opened.
const MAX_OBJECTS: usize = 2_000;

/// All that is read of the objects.
#[derive(Debug, Default)]
struct Objects {
    parts: Parts,
    autoscalers: Vec<Autoscaler>,
    bundles: Bundles,
    /// The namespaces that they name, but for `default`.
    namespaces: Vec<Placed<String>>,
    /// The Namespaces that there are.
    declared: Vec<Placed<String>>,
    /// The kinds of what is passed over.
    others: BTreeSet<String>,
}

/// Reads the documents of all files as one app.
pub(crate) fn read(files: Vec<File>, options: &ReadOptions, report: &mut Report) -> AppDraft {
    let whole = Place::whole(files.first().map_or("", |file| file.name.as_str()));
    let mut objects = Objects::default();
    let mut waiting: Vec<Node> = Vec::new();
    for file in files {
        waiting.extend(file.documents);
    }
    let present = Present::of(&waiting);
    // What others refer to is read first, wherever it stands.
    waiting = opened(waiting);
    waiting.sort_by_key(|node| bundle::kind_of(node).is_none());
    waiting.reverse();
    let mut count = 0;
    while let Some(node) = waiting.pop() {
        count += 1;
        if count > MAX_OBJECTS {
            report.error(
                &node.place,
                format!("there are more than {MAX_OBJECTS} objects"),
            );
            break;
        }
        if let Some(tagged) = node.unusual() {
            report.error(
                &tagged.place,
                "the tags !reset and !override are for Compose files alone",
            );
            continue;
        }
        if present.is_made(&node) {
            continue;
        }
        object(node, &mut objects, &mut waiting, report);
    }
    let Objects {
        mut parts,
        autoscalers,
        bundles,
        mut namespaces,
        declared,
        others,
    } = objects;
    if parts.deployments.is_empty() && parts.jobs.is_empty() && !report.failed() {
        let others: Vec<String> = others.into_iter().take(MAX_TOLD).collect();
        let only = match others.is_empty() {
            true => String::new(),
            false => format!(", only {}", others.join(", ")),
        };
        let message = format!(
            "there is no Deployment, ReplicaSet, StatefulSet, DaemonSet, Pod, Job or CronJob{only}: there is nothing to run"
        );
        report.error(&whole, message);
    }
    // `kubectl apply` would be told it with -n.
    if let ([], [_]) = (&namespaces[..], &declared[..]) {
        namespaces = declared;
    }
    let name = app::name(options.app.as_ref(), &options.folder, &namespaces, report);
    autoscaler::join(autoscalers, &mut parts.deployments, report);
    let services = join::join(parts, name.as_ref(), report);
    AppDraft {
        name,
        services,
        values: bundles.values(),
        ..AppDraft::default()
    }
}

/// The documents, with the items of Lists that have Secrets or ConfigMaps in them in their place.
fn opened(documents: Vec<Node>) -> Vec<Node> {
    let mut opened = Vec::new();
    for mut node in documents {
        let is_list = node.get("kind").and_then(Node::scalar) == Some("List");
        let items = match &mut node.value {
            Value::Map(entries) if is_list => entries
                .iter_mut()
                .find(|entry| entry.key == "items")
                .map(|entry| &mut entry.value.value),
            _ => None,
        };
        if let Some(Value::List(items)) = items {
            let (first, rest) = std::mem::take(items)
                .into_iter()
                .partition(|item| bundle::kind_of(item).is_some());
            *items = rest;
            let first: Vec<Node> = first;
            opened.extend(first);
        }
        opened.push(node);
    }
    opened
}

/// Reads one object; the items of a List are put with those that wait.
fn object(node: Node, objects: &mut Objects, waiting: &mut Vec<Node>, report: &mut Report) {
    let Some(mut fields) = Fields::open(node, "a Kubernetes object", report) else {
        return;
    };
    let place = fields.place.clone();
    let version = fields.text("apiVersion", report);
    let kind = fields.text("kind", report);
    let (Some(version), Some(kind)) = (version, kind) else {
        report.error(
            &place,
            "this document has not both \"apiVersion\" and \"kind\"",
        );
        return;
    };
    let word = cut(&kind);
    let Some(kind) = kinds::kind(&kind, &version, &place, report) else {
        objects.others.insert(word);
        return;
    };
    let Objects { parts, bundles, .. } = objects;
    let mut workload = |fields, kind, report: &mut Report| {
        let (deployment, namespace) = deployment::read(fields, kind, bundles, report);
        parts.deployments.extend(deployment);
        namespace
    };
    let namespace = match kind {
        Kind::Deployment => workload(fields, deployment::Kind::Deployment, report),
        Kind::ReplicaSet => workload(fields, deployment::Kind::ReplicaSet, report),
        Kind::ReplicationController => {
            workload(fields, deployment::Kind::ReplicationController, report)
        }
        Kind::StatefulSet => workload(fields, deployment::Kind::StatefulSet, report),
        Kind::DaemonSet => workload(fields, deployment::Kind::DaemonSet, report),
        Kind::Pod => workload(fields, deployment::Kind::Pod, report),
        Kind::List => {
            let items = fields.list("items", report).unwrap_or_default();
            waiting.extend(items.into_iter().rev());
            None
        }
        Kind::Job => {
            let (job, namespace) = job::read(fields, bundles, report);
            parts.jobs.extend(job);
            namespace
        }
        Kind::CronJob => {
            let (job, namespace) = job::read_cron(fields, bundles, report);
            parts.jobs.extend(job);
            namespace
        }
        Kind::Service => {
            let (service, namespace) = service::read(fields, report);
            parts.services.extend(service);
            namespace
        }
        Kind::Ingress => {
            let (ingress, namespace) = ingress::read(fields, report);
            parts.ingresses.extend(ingress);
            namespace
        }
        Kind::HorizontalPodAutoscaler => {
            let (autoscaler, namespace) = autoscaler::read(fields, report);
            objects.autoscalers.extend(autoscaler);
            namespace
        }
        Kind::Secret => bundles.read(fields, ValueKind::Secret, report),
        Kind::ConfigMap => bundles.read(fields, ValueKind::Config, report),
        Kind::PersistentVolume => {
            parts.folders.extend(persistent::read(fields, report));
            None
        }
        Kind::PersistentVolumeClaim => {
            let (claim, namespace) = claim::read(fields, report);
            parts.claims.extend(claim);
            namespace
        }
        Kind::NetworkPolicy => {
            let (policy, namespace) = policy::read(fields, report);
            parts.policies.extend(policy);
            namespace
        }
        Kind::Namespace => {
            let metadata = metadata::read(&mut fields, report);
            let named = metadata.name.filter(|name| name.value != "default");
            objects.declared.extend(named);
            None
        }
    };
    objects.namespaces.extend(namespace);
}
