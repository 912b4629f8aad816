//! Kubernetes YAML: Deployments and the Services that lead to them.

use crate::discover::File;
use crate::draft::{AppDraft, Placed};
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Node, Place, cut};
use crate::{ReadOptions, app};

mod container;
mod deployment;
mod expand;
mod join;
mod metadata;
mod pod;
mod probe;
mod service;

pub(crate) use deployment::Deployment;
pub(crate) use service::Service;

/// Kinds that hold data or secrets, or bound the reach of the network: ignoring one would make
/// something else of the app than what was asked for.
const REFUSED: [(&str, &str); 7] = [
    (
        "ConfigMap",
        "the services would miss what it holds; write it into the containers' \"env\"",
    ),
    ("NetworkPolicy", "what it forbids would be allowed"),
    ("PersistentVolume", "data written to it would be lost"),
    ("PersistentVolumeClaim", "data written to it would be lost"),
    ("Secret", "the services would miss what it holds"),
    ("ServiceEntry", "the services would miss what it leads to"),
    ("StatefulSet", "data of its replicas would be lost"),
];

/// Kinds that say nothing that Layby has to do.
const ACCEPTED: [&str; 1] = ["Namespace"];

/// The most items that are read, Lists opened.
const MAX_OBJECTS: usize = 2_000;

/// All that is read of the objects.
#[derive(Debug, Default)]
struct Objects {
    deployments: Vec<Deployment>,
    services: Vec<Service>,
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
        object(node, &mut objects, &mut waiting, report);
    }
    if objects.deployments.is_empty() && !report.failed() {
        report.error(&whole, "there is no Deployment: there is nothing to run");
    }
    AppDraft {
        name: app::name(options, &objects.namespaces, report),
        services: join::join(objects.deployments, objects.services, report),
    }
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
            let (deployment, namespace) = deployment::read(fields, report);
            objects.namespaces.extend(namespace);
            objects.deployments.extend(deployment);
        }
        ("Service", "v1") => {
            let (service, namespace) = service::read(fields, report);
            objects.namespaces.extend(namespace);
            objects.services.extend(service);
        }
        ("Deployment" | "Service", _) => {
            let read = if kind == "Service" { "v1" } else { "apps/v1" };
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
            None => {
                let hint = match kind {
                    "Pod" | "ReplicaSet" | "DaemonSet" | "ReplicationController" => {
                        "; make it a Deployment to have it run"
                    }
                    _ => "",
                };
                report.warn(
                    &place,
                    format!(
                        "the kind {:?} is not supported yet and is ignored{hint}",
                        cut(kind)
                    ),
                );
            }
        },
    }
}
