//! The kinds of objects that there are, and what becomes of each.

use crate::fields::similar;
use crate::report::Report;
use crate::tree::{Place, cut};

/// What is done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It holds others.
    List,
    Deployment,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
    DaemonSet,
    Pod,
    Job,
    CronJob,
    Service,
    Ingress,
    Secret,
    ConfigMap,
    PersistentVolume,
    PersistentVolumeClaim,
    HorizontalPodAutoscaler,
    Namespace,
    NetworkPolicy,
}

/// Those that are read, each with the version in which it is.
const READ: [(&str, &str, Kind); 18] = [
    ("Deployment", "apps/v1", Kind::Deployment),
    ("ReplicaSet", "apps/v1", Kind::ReplicaSet),
    ("ReplicationController", "v1", Kind::ReplicationController),
    ("StatefulSet", "apps/v1", Kind::StatefulSet),
    ("DaemonSet", "apps/v1", Kind::DaemonSet),
    ("Pod", "v1", Kind::Pod),
    ("Job", "batch/v1", Kind::Job),
    ("CronJob", "batch/v1", Kind::CronJob),
    ("Service", "v1", Kind::Service),
    ("Ingress", "networking.k8s.io/v1", Kind::Ingress),
    ("Secret", "v1", Kind::Secret),
    ("ConfigMap", "v1", Kind::ConfigMap),
    ("PersistentVolume", "v1", Kind::PersistentVolume),
    ("PersistentVolumeClaim", "v1", Kind::PersistentVolumeClaim),
    (AUTOSCALER, "autoscaling/v2", Kind::HorizontalPodAutoscaler),
    (AUTOSCALER, "autoscaling/v1", Kind::HorizontalPodAutoscaler),
    ("Namespace", "v1", Kind::Namespace),
    ("NetworkPolicy", "networking.k8s.io/v1", Kind::NetworkPolicy),
];

const AUTOSCALER: &str = "HorizontalPodAutoscaler";

/// Whether objects of a kind are something that runs.
pub(crate) fn is_workload(kind: &str) -> bool {
    let words = [
        "CronJob",
        "DaemonSet",
        "Deployment",
        "Job",
        "Pod",
        "ReplicaSet",
        "ReplicationController",
        "StatefulSet",
    ];
    words.contains(&kind)
}

/// Kinds that bound or widen the reach of the network: ignoring one would make something else of the app than what was
/// asked for.
const REFUSED: [(&str, &str); 1] = [("ServiceEntry", "the services would miss what it leads to")];

/// Kinds that mean nothing here, each with the reason.
const IGNORED: [(&str, &str); 16] = [
    ("ClusterRole", NO_API),
    ("ClusterRoleBinding", NO_API),
    ("CustomResourceDefinition", NO_API),
    ("IngressClass", "there is one gateway"),
    ("LimitRange", "limits are those that the containers say"),
    (
        "MutatingWebhookConfiguration",
        "nobody is asked before an object is taken",
    ),
    (
        "PodDisruptionBudget",
        "there is one machine, which is not drained",
    ),
    (
        "PriorityClass",
        "there is one machine, and nothing is evicted from it",
    ),
    (
        "ResourceQuota",
        "what services keep to themselves is held to what the machine has",
    ),
    ("Role", NO_API),
    ("RoleBinding", NO_API),
    ("RuntimeClass", "there is one runtime"),
    ("ServiceAccount", NO_API),
    ("StorageClass", "volumes are folders of the node"),
    (
        "ValidatingWebhookConfiguration",
        "nobody is asked before an object is taken",
    ),
    ("VolumeSnapshotClass", "volumes are folders of the node"),
];
const NO_API: &str = "there is no Kubernetes API here for anybody to speak to";

/// Kinds that a cluster itself writes: they come along when all of it is handed out.
const WRITTEN: [&str; 7] = [
    "ComponentStatus",
    "ControllerRevision",
    "EndpointSlice",
    "Endpoints",
    "Event",
    "Lease",
    "Node",
];

/// What is done with an object of this kind and version; `None`: nothing, as the report says where that is worth a word.
pub(crate) fn kind(kind: &str, version: &str, place: &Place, report: &mut Report) -> Option<Kind> {
    if kind == "List" {
        return Some(Kind::List);
    }
    let mut read = READ.iter().filter(|(known, ..)| *known == kind).peekable();
    if let Some((_, newest, _)) = read.peek().copied() {
        if let Some((.., found)) = read.find(|(_, known, _)| *known == version) {
            return Some(*found);
        }
        // Kinds of others may be called the same, as Knative's Service.
        if is_kubernetes(version) {
            let message = format!(
                "{} {kind} of apiVersion {:?} is not supported: {newest:?} is",
                article(kind),
                cut(version)
            );
            report.error(place, message);
            return None;
        }
    }
    if let Some((_, consequence)) = REFUSED.iter().find(|(refused, _)| *refused == kind) {
        let message = format!("the kind {kind} is not supported yet: {consequence}");
        report.error(place, message);
        return None;
    }
    if WRITTEN.contains(&kind) {
        return None;
    }
    match IGNORED.iter().find(|(ignored, _)| *ignored == kind) {
        Some((_, why)) => report.warn(place, format!("the kind {kind} is ignored: {why}")),
        None => unknown(kind, version, place, report),
    }
    None
}

fn article(kind: &str) -> &'static str {
    match kind.starts_with(['A', 'E', 'I', 'O', 'U']) {
        true => "an",
        false => "a",
    }
}

/// Whether a version is of a group of Kubernetes itself.
fn is_kubernetes(version: &str) -> bool {
    match version.split_once('/') {
        None => true,
        Some((group, _)) => !group.contains('.') || group.ends_with(".k8s.io"),
    }
}

/// A kind that is not read: a misspelt one is an error, any other is somebody else's.
fn unknown(kind: &str, version: &str, place: &Place, report: &mut Report) {
    let known: Vec<&str> = READ
        .iter()
        .map(|(kind, ..)| *kind)
        .chain(REFUSED.iter().chain(&IGNORED).map(|(kind, _)| *kind))
        .chain(WRITTEN)
        .chain(["List"])
        .collect();
    // Kinds of others have groups with points in them, as `example.com/v1`.
    let is_core = !version.contains('.');
    let meant = similar(kind, &known).filter(|meant| *meant != kind && is_core);
    if let Some(meant) = meant {
        let message = format!("there is no kind {:?}; did you mean {meant:?}?", cut(kind));
        report.error(place, message);
        return;
    }
    // One that is called as a kind of Kubernetes is told by its group, too.
    let of = match READ.iter().any(|(known, ..)| *known == kind) {
        true => format!(" of {}", cut(version)),
        false => String::new(),
    };
    let message = format!(
        "the kind {:?}{of} is not supported yet and is ignored",
        cut(kind)
    );
    report.warn(place, message);
}
