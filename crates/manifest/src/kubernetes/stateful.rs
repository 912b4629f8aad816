//! StatefulSets (`apps/v1`): pods that each have a name and volumes of their own.
//!
//! Each pod is a service of its own here: `web-0`, `web-1`, ... So each has an address that its name leads to, sleeps and wakes by
//! itself, and mounts its own volumes. Those that are to follow another wait for it when they are rolled out.

use std::collections::BTreeMap;

use layby_model::mounts::{Mount, MountSource};
use layby_model::names::ServiceName;
use layby_model::spec::{Condition, Dependency, ServiceSpec};

use crate::draft::{Placed, not_a_label};
use crate::fields::{Fields, list};
use crate::host::hostname;
use crate::kubernetes::claim::{Claim, claim_spec};
use crate::kubernetes::volume::TEMPLATE;
use crate::kubernetes::{expand, metadata};
use crate::mount;
use crate::report::Report;
use crate::tree::{Node, Place, cut};

/// The most pods of one: each is a service.
pub(crate) const MAX_PODS: u32 = 100;
/// The most templates of volumes of one.
const MAX_TEMPLATES: usize = 32;

/// What a StatefulSet has that a Deployment has not.
#[derive(Debug, Default)]
pub(crate) struct Stateful {
    /// The headless Service below whose name its pods are looked up.
    pub(crate) governing: Option<String>,
    /// The volumes that each pod gets one of.
    templates: Vec<Template>,
    /// All of its pods may start at once.
    parallel: bool,
    /// The number of its first pod.
    start: u32,
}

/// A volume that each pod gets one of.
#[derive(Debug)]
struct Template {
    name: Placed<String>,
    labels: BTreeMap<String, String>,
    class: Option<String>,
}

/// One of its pods.
#[derive(Debug)]
pub(crate) struct Ordinal {
    pub(crate) name: ServiceName,
    /// The name of them all.
    set: ServiceName,
    /// The one that has to be live before it.
    before: Option<ServiceName>,
}

impl Stateful {
    /// The names of its volumes' templates.
    pub(crate) fn template_names(&self) -> Vec<Placed<String>> {
        self.templates.iter().map(|t| t.name.clone()).collect()
    }

    /// Its pods: `replicas` of them, and at least one.
    pub(crate) fn ordinals(
        &self,
        set: &ServiceName,
        replicas: u32,
        place: &Place,
        report: &mut Report,
    ) -> Vec<Ordinal> {
        if replicas > MAX_PODS {
            let message = format!(
                "StatefulSet {:?} has more than {MAX_PODS} replicas, each of which is a service here",
                set.as_str()
            );
            report.error(place, message);
        }
        let mut ordinals: Vec<Ordinal> = Vec::new();
        for n in 0..replicas.clamp(1, MAX_PODS) {
            let name = format!("{set}-{}", self.start.saturating_add(n));
            let Ok(name) = ServiceName::new(&name) else {
                report.error(place, not_a_label("service", &name));
                return ordinals;
            };
            let before = ordinals.last().map(|last| last.name.clone());
            ordinals.push(Ordinal {
                name,
                set: set.clone(),
                before: before.filter(|_| !self.parallel),
            });
        }
        ordinals
    }

    /// The claims of a pod.
    pub(crate) fn claims(&self, ordinal: &Ordinal) -> impl Iterator<Item = Claim> {
        let pod = ordinal.name.to_string();
        self.templates.iter().map(move |template| {
            let name = Placed {
                value: format!("{}-{pod}", template.name.value),
                place: template.name.place.clone(),
            };
            Claim {
                class: template.class.clone(),
                ..Claim::new(name, template.labels.clone())
            }
        })
    }

    /// Makes of what all pods have in common the service that one of them is.
    pub(crate) fn settle(&self, ordinal: &Ordinal, service: &mut ServiceSpec) {
        let name = &ordinal.name;
        service.name = name.clone();
        service.replicas = service.replicas.min(1);
        service.pod_of = Some(ordinal.set.clone());
        service
            .depends_on
            .extend(ordinal.before.clone().map(|before| Dependency {
                service: before,
                condition: Condition::Healthy,
                required: true,
                restart: false,
            }));
        service.sandbox.hostname = Some(name.to_string());
        if let Some(governing) = &self.governing {
            service.names.push(format!("{name}.{governing}"));
        }
        for container in service.all_containers_mut() {
            expand::tell(container, expand::POD, name.as_str());
            for mount in &mut container.mounts {
                own_volume(mount, name.as_str());
            }
        }
    }
}

/// The volume of a template is the pod's own: `<template>-<pod>`, as Kubernetes calls its claim.
fn own_volume(mount: &mut Mount, pod: &str) {
    if let MountSource::Volume { name, .. } = &mut mount.source
        && let Some(template) = name.strip_prefix(TEMPLATE)
    {
        *name = format!("{template}-{pod}");
    }
}

/// Takes what only a StatefulSet has off its `spec`.
pub(crate) fn read(spec: &mut Fields, report: &mut Report) -> Stateful {
    let governing = spec
        .parsed("serviceName", report, |text| match text {
            "" => Ok(None),
            text => hostname(text).map(Some),
        })
        .flatten();
    let parallel = spec.parsed("podManagementPolicy", report, |text| match text {
        "OrderedReady" => Ok(false),
        "Parallel" => Ok(true),
        _ => Err("OrderedReady or Parallel".to_owned()),
    });
    let mut start = 0;
    if let Some(mut ordinals) = spec.map("ordinals", report) {
        start = ordinals.count("start", 0..=1_000_000, report).unwrap_or(0);
        ordinals.finish(report);
    }
    update_strategy(spec, report);
    retention(spec, report);
    Stateful {
        governing,
        templates: templates(spec, report),
        parallel: parallel.unwrap_or(false),
        start,
    }
}

/// `volumeClaimTemplates`.
fn templates(spec: &mut Fields, report: &mut Report) -> Vec<Template> {
    let what = format!("a volume template of {}", spec.what);
    let Some(node) = spec.take("volumeClaimTemplates") else {
        return Vec::new();
    };
    let nodes = list(node, &spec.name("volumeClaimTemplates"), report).unwrap_or_default();
    let mut templates: Vec<Template> = Vec::new();
    for node in nodes {
        if templates.len() >= MAX_TEMPLATES {
            let message = format!(
                "{} has more than {MAX_TEMPLATES} volume templates",
                spec.what
            );
            report.error(&node.place, message);
            break;
        }
        let Some(template) = template(node, &what, report) else {
            continue;
        };
        let name = &template.name;
        if templates.iter().any(|known| known.name.value == name.value) {
            let message = format!("{what} is there twice: {:?}", cut(&name.value));
            report.error(&name.place, message);
            continue;
        }
        templates.push(template);
    }
    templates
}

fn template(node: Node, what: &str, report: &mut Report) -> Option<Template> {
    let mut fields = Fields::open(node, what, report)?;
    let place = fields.place.clone();
    fields.accept(&["apiVersion", "kind", "status"]);
    let metadata = metadata::read(&mut fields, report);
    let Some(name) = metadata.name else {
        let message = format!("{what} has no \"name\" in its \"metadata\"");
        report.error(&place, message);
        return None;
    };
    let what = format!("{what}, {:?}", cut(&name.value));
    let mut class = None;
    if let Some(mut spec) = fields.map("spec", report) {
        spec.what.clone_from(&what);
        class = spec.text("storageClassName", report);
        claim_spec(spec, report);
    }
    fields.finish(report);
    let labels = mount::labels(metadata.labels, &what, &name.place, report);
    Some(Template {
        name,
        labels,
        class,
    })
}

/// `updateStrategy` of a StatefulSet or DaemonSet.
pub(crate) fn update_strategy(spec: &mut Fields, report: &mut Report) {
    let Some(mut strategy) = spec.map("updateStrategy", report) else {
        return;
    };
    let place = strategy.place_of("type");
    let name = strategy.name("type");
    let by_hand = strategy.parsed("type", report, |text| match text {
        "RollingUpdate" => Ok(false),
        "OnDelete" => Ok(true),
        _ => Err("RollingUpdate or OnDelete".to_owned()),
    });
    if let (Some(place), Some(true)) = (place, by_hand) {
        let message = format!("{name} is ignored: a change is rolled out at once");
        report.warn(&place, message);
    }
    if let Some(mut rolling) = strategy.map("rollingUpdate", report) {
        if let Some(entry) = rolling.entry("partition")
            && entry.value.scalar() != Some("0")
        {
            let name = rolling.name("partition");
            report.warn(
                &entry.place,
                format!("{name} is ignored: all are rolled out"),
            );
        }
        // How many at once: a pod's next revision has nothing to do with the other pods'.
        rolling.accept(&["maxSurge", "maxUnavailable"]);
        rolling.finish(report);
    }
    strategy.finish(report);
}

/// `persistentVolumeClaimRetentionPolicy`.
fn retention(spec: &mut Fields, report: &mut Report) {
    let Some(mut policy) = spec.map("persistentVolumeClaimRetentionPolicy", report) else {
        return;
    };
    for key in ["whenDeleted", "whenScaled"] {
        let place = policy.place_of(key);
        let name = policy.name(key);
        let delete = policy.parsed(key, report, |text| match text {
            "Retain" => Ok(false),
            "Delete" => Ok(true),
            _ => Err("Retain or Delete".to_owned()),
        });
        if let (Some(place), Some(true)) = (place, delete) {
            let message = format!(
                "{name} is ignored: volumes stay until `layby volume rm` or `layby down --volumes`"
            );
            report.warn(&place, message);
        }
    }
    policy.finish(report);
}
