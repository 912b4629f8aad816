//! Kubernetes YAML: Deployments, Jobs and CronJobs, the Services that lead to them, and the claims that they mount.

use layby_model::secret::ValueKind;

use crate::discover::File;
use crate::draft::{AppDraft, Placed};
use crate::fields::{Fields, similar};
use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};
use crate::{ReadOptions, app};

mod autoscaler;
mod bundle;
mod claim;
mod container;
mod deployment;
mod env;
mod expand;
mod files;
mod job;
mod join;
mod metadata;
mod pod;
mod probe;
mod resources;
mod sandbox;
mod security;
mod service;
mod volume;

use autoscaler::Autoscaler;
use bundle::Bundles;
use claim::Claim;
pub(crate) use deployment::Deployment;
pub(crate) use service::Service;

/// Kinds that hold data or secrets, or bound the reach of the network: ignoring one would make
/// something else of the app than what was asked for.
const REFUSED: [(&str, &str); 4] = [
    ("NetworkPolicy", "what it forbids would be allowed"),
    (
        "PersistentVolume",
        "claims get their volumes from the node; mount a folder of the machine as hostPath",
    ),
    ("ServiceEntry", "the services would miss what it leads to"),
    ("StatefulSet", "data of its replicas would be lost"),
];

/// Kinds that say nothing that Layby has to do.
const ACCEPTED: [&str; 1] = ["Namespace"];

/// Kinds that are read, and others that are known: what a misspelt one may have meant.
const KNOWN: [&str; 22] = [
    "ConfigMap",
    "CronJob",
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Ingress",
    "Job",
    "List",
    "Namespace",
    "NetworkPolicy",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "ReplicaSet",
    "ReplicationController",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
];

/// The most items that are read, Lists opened.
const MAX_OBJECTS: usize = 2_000;

/// All that is read of the objects.
#[derive(Debug, Default)]
struct Objects {
    deployments: Vec<Deployment>,
    jobs: Vec<job::Job>,
    services: Vec<Service>,
    claims: Vec<Claim>,
    autoscalers: Vec<Autoscaler>,
    bundles: Bundles,
    /// The namespaces that they name, but for `default`.
    namespaces: Vec<Placed<String>>,
}

/// Reads the documents of all files as one app.
pub(crate) fn read(files: Vec<File>, options: &ReadOptions, report: &mut Report) -> AppDraft {
    let whole = Place::whole(files.first().map_or("", |file| file.name.as_str()));
    let mut objects = Objects::default();
    let mut waiting: Vec<Node> = Vec::new();
    for file in files {
        waiting.extend(file.documents);
    }
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
        object(node, &mut objects, &mut waiting, report);
    }
    if objects.deployments.is_empty() && objects.jobs.is_empty() && !report.failed() {
        report.error(
            &whole,
            "there is no Deployment, Job or CronJob: there is nothing to run",
        );
    }
    let name = app::name(
        options.app.as_ref(),
        &options.folder,
        &objects.namespaces,
        report,
    );
    autoscaler::join(objects.autoscalers, &mut objects.deployments, report);
    let services = join::join(
        objects.deployments,
        objects.jobs,
        objects.services,
        objects.claims,
        name.as_ref(),
        report,
    );
    AppDraft {
        name,
        services,
        values: objects.bundles.values(),
        named_files: Vec::new(),
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
    match (kind.as_str(), version.as_str()) {
        ("List", _) => {
            let items = fields.list("items", report).unwrap_or_default();
            waiting.extend(items.into_iter().rev());
        }
        ("Deployment", "apps/v1") => {
            let (deployment, namespace) = deployment::read(fields, &objects.bundles, report);
            objects.namespaces.extend(namespace);
            objects.deployments.extend(deployment);
        }
        ("Job", "batch/v1") => {
            let (job, namespace) = job::read(fields, &objects.bundles, report);
            objects.namespaces.extend(namespace);
            objects.jobs.extend(job);
        }
        ("CronJob", "batch/v1") => {
            let (job, namespace) = job::read_cron(fields, &objects.bundles, report);
            objects.namespaces.extend(namespace);
            objects.jobs.extend(job);
        }
        ("Service", "v1") => {
            let (service, namespace) = service::read(fields, report);
            objects.namespaces.extend(namespace);
            objects.services.extend(service);
        }
        ("HorizontalPodAutoscaler", "autoscaling/v2" | "autoscaling/v1") => {
            let (autoscaler, namespace) = autoscaler::read(fields, report);
            objects.namespaces.extend(namespace);
            objects.autoscalers.extend(autoscaler);
        }
        ("Secret" | "ConfigMap", "v1") => {
            let kind = match kind.as_str() {
                "Secret" => ValueKind::Secret,
                _ => ValueKind::Config,
            };
            let namespace = objects.bundles.read(fields, kind, report);
            objects.namespaces.extend(namespace);
        }
        ("PersistentVolumeClaim", "v1") => {
            let (claim, namespace) = claim::read(fields, report);
            objects.namespaces.extend(namespace);
            objects.claims.extend(claim);
        }
        (
            "ConfigMap"
            | "CronJob"
            | "Deployment"
            | "HorizontalPodAutoscaler"
            | "Job"
            | "PersistentVolumeClaim"
            | "Secret"
            | "Service",
            _,
        ) => {
            let read = match kind.as_str() {
                "Deployment" => "apps/v1",
                "CronJob" | "Job" => "batch/v1",
                "HorizontalPodAutoscaler" => "autoscaling/v2",
                _ => "v1",
            };
            report.error(
                &place,
                format!(
                    "a {kind} of apiVersion {:?} is not supported: {read:?} is",
                    cut(&version)
                ),
            );
        }
        (kind, _) if ACCEPTED.contains(&kind) => {}
        (kind, _) => match REFUSED.iter().find(|(refused, _)| *refused == kind) {
            Some((_, consequence)) => report.error(
                &place,
                format!("the kind {kind} is not supported yet: {consequence}"),
            ),
            None => unknown(kind, &version, &place, report),
        },
    }
}

/// A kind that is not read: a misspelt one is an error, any other is somebody else's.
fn unknown(kind: &str, version: &str, place: &Place, report: &mut Report) {
    // Kinds of others have groups with points in them, as `example.com/v1`.
    let is_core = !version.contains('.');
    let meant = similar(kind, &KNOWN).filter(|meant| *meant != kind && is_core);
    if let Some(meant) = meant {
        let message = format!("there is no kind {:?}; did you mean {meant:?}?", cut(kind));
        report.error(place, message);
        return;
    }
    let hint = match kind {
        "Pod" | "ReplicaSet" | "DaemonSet" | "ReplicationController" => {
            "; make it a Deployment to have it run"
        }
        _ => "",
    };
    let message = format!(
        "the kind {:?} is not supported yet and is ignored{hint}",
        cut(kind)
    );
    report.warn(place, message);
}
