//! Deployments (`apps/v1`), and the other workloads that go on: ReplicaSets, StatefulSets, DaemonSets, and Pods and
//! ReplicationControllers (`v1`).

use std::collections::BTreeMap;

use layby_model::names::ServiceName;
use layby_model::spec::{BuildSpec, MAX_RETRIES, SleepPolicy, Strategy};

use crate::draft::{self, Placed, workload_name};
use crate::fields::{Fields, number, port};
use crate::kubernetes::bundle::Bundles;
use crate::kubernetes::env::Known;
use crate::kubernetes::metadata::{self, Metadata};
use crate::kubernetes::pod::{self, Pod, Restarts};
use crate::kubernetes::stateful::{self, Stateful};
use crate::power::{self, Limited};
use crate::report::Report;
use crate::scale::{self, Scaling};
use crate::tree::{Place, cut};
use crate::units::sleep_after_ms;

/// A Deployment or another workload that goes on, before the Services that lead to it are joined to it.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) kind: Kind,
    pub(crate) name: ServiceName,
    /// Where its name stands.
    pub(crate) place: Place,
    /// The labels of its pods, by which Services find them.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) pod: Pod,
    pub(crate) replicas: u32,
    /// As it was said.
    pub(crate) strategy: Option<Strategy>,
    pub(crate) progress_deadline_ms: Option<u64>,
    pub(crate) settings: Settings,
    /// What a StatefulSet has beside.
    pub(crate) stateful: Option<Stateful>,
}

/// The kinds of workloads that go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    ReplicaSet,
    /// What there was before ReplicaSets.
    ReplicationController,
    StatefulSet,
    /// One pod on each machine: there is one machine.
    DaemonSet,
    /// A pod that no other object makes.
    Pod,
}

impl Kind {
    /// As manifests write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Pod => "Pod",
        }
    }
}

/// What the annotations say.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) sleep: SleepPolicy,
    /// Something is said of that.
    pub(crate) sleep_said: bool,
    pub(crate) scale: Option<Scaling>,
    /// The port in the replica that HTTP by host name goes to.
    pub(crate) port: Option<u16>,
    /// A pushed tag makes a new revision.
    pub(crate) deploy_on_push: bool,
    /// So many more attempts a failed rollout gets.
    pub(crate) retries: Option<u32>,
    /// The name of its power.
    pub(crate) power: Option<String>,
    build: Option<BuildSpec>,
}

/// Reads a workload, and the namespace that it names.
pub(crate) fn read(
    mut object: Fields,
    kind: Kind,
    bundles: &Bundles,
    report: &mut Report,
) -> (Option<Deployment>, Option<Placed<String>>) {
    object.what = format!("a {}", kind.word());
    let whole = object.place.clone();
    let Metadata {
        name,
        namespace,
        annotations,
        labels,
        notes,
    } = metadata::read(&mut object, report);
    let place = name
        .as_ref()
        .map_or(whole.clone(), |name| name.place.clone());
    let what = match &name {
        Some(name) => format!("{} {:?}", kind.word(), cut(&name.value)),
        None => {
            let message = format!("{} has no \"name\" in its \"metadata\"", object.what);
            report.error(&whole, message);
            object.what.clone()
        }
    };
    object.what.clone_from(&what);
    object.accept(&["status"]);
    let Some(mut spec) = object.map("spec", report) else {
        report.error(&whole, format!("{what} has no \"spec\""));
        return (None, namespace);
    };
    object.finish(report);
    spec.what.clone_from(&what);
    let read = match kind {
        Kind::Pod => Some(Spec::of_pod(spec, labels, &notes, &what, bundles, report)),
        Kind::Deployment
        | Kind::ReplicaSet
        | Kind::ReplicationController
        | Kind::StatefulSet
        | Kind::DaemonSet => Spec::read(spec, kind, &what, bundles, report),
    };
    let Some(mut read) = read else {
        return (None, namespace);
    };
    let limited = read.template.pod.limited.take();
    let of_template = std::mem::take(&mut read.template.annotations);
    let settings = settings(annotations, of_template, &what, limited, report);
    if let Some(first) = read.template.pod.containers.first_mut() {
        first.build.clone_from(&settings.build);
    }
    let name = name.and_then(|name| workload_name(&name, report));
    let deployment = name.map(|name| Deployment {
        kind,
        name,
        place,
        labels: read.template.labels,
        pod: read.template.pod,
        replicas: read.replicas,
        strategy: read.strategy,
        progress_deadline_ms: read.deadline_seconds.map(|seconds| seconds * 1000),
        settings,
        stateful: read.stateful,
    });
    (deployment, namespace)
}

/// What the `spec` of a workload says.
struct Spec {
    template: Template,
    replicas: u32,
    strategy: Option<Strategy>,
    deadline_seconds: Option<u64>,
    stateful: Option<Stateful>,
}

impl Spec {
    /// A pod's own.
    fn of_pod(
        spec: Fields,
        labels: BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        what: &str,
        bundles: &Bundles,
        report: &mut Report,
    ) -> Self {
        let known = Known {
            bundles,
            labels: &labels,
            annotations,
            of_set: false,
        };
        let pod = pod::read(spec, what, known, Restarts::AsSaid, &[], report);
        let template = Template {
            labels,
            annotations: BTreeMap::new(),
            pod,
        };
        Self {
            template,
            replicas: 1,
            strategy: None,
            deadline_seconds: None,
            stateful: None,
        }
    }

    /// That of a workload which has a template.
    fn read(
        mut spec: Fields,
        kind: Kind,
        what: &str,
        bundles: &Bundles,
        report: &mut Report,
    ) -> Option<Self> {
        let (mut replicas, mut strategy, mut deadline_seconds, mut stateful) =
            (1, None, None, None);
        if kind != Kind::DaemonSet {
            let said = spec.parsed("replicas", report, draft::replicas);
            replicas = said.unwrap_or(1);
        }
        match kind {
            Kind::Deployment => {
                strategy = self::strategy(&mut spec, report);
                deadline_seconds = spec.number("progressDeadlineSeconds", 1..=86_400, report);
                paused(&mut spec, report);
            }
            Kind::DaemonSet => stateful::update_strategy(&mut spec, report),
            Kind::StatefulSet => stateful = Some(stateful::read(&mut spec, report)),
            Kind::ReplicaSet | Kind::ReplicationController | Kind::Pod => {}
        }
        let is_older = kind == Kind::ReplicationController;
        let selector = match is_older {
            true => metadata::text_map(&mut spec, "selector", report),
            false => selector(&mut spec, report),
        };
        let templates = stateful.as_ref().map(Stateful::template_names);
        let restarts = Restarts::Always;
        let templates = templates.as_deref();
        let template = template(&mut spec, what, bundles, restarts, templates, report);
        spec.accept(&["revisionHistoryLimit"]);
        if let Some(entry) = spec.entry("minReadySeconds")
            && entry.value.scalar() != Some("0")
        {
            spec.put_back(entry);
        }
        spec.unsupported(&["minReadySeconds"], report);
        let spec_place = spec.place.clone();
        spec.finish(report);
        let Some(template) = template else {
            report.error(&spec_place, format!("{what} has no \"template\""));
            return None;
        };
        // Where it says none it selects what is in its template.
        if !is_older || !selector.is_empty() {
            check_selector(&selector, &template, what, &spec_place, report);
        }
        Some(Self {
            template,
            replicas,
            strategy,
            deadline_seconds,
            stateful,
        })
    }
}

fn check_selector(
    selector: &BTreeMap<String, Placed<String>>,
    template: &Template,
    what: &str,
    spec_place: &Place,
    report: &mut Report,
) {
    for (key, value) in selector {
        if template.labels.get(key) != Some(&value.value) {
            let message = format!(
                "the selector of {what} asks for {}={}, which the labels of its template do not say",
                cut(key),
                cut(&value.value)
            );
            report.error(&value.place, message);
        }
    }
    if selector.is_empty() {
        report.error(
            spec_place,
            format!("{what} has no \"matchLabels\" in its \"selector\""),
        );
    }
}

fn paused(spec: &mut Fields, report: &mut Report) {
    if let Some(entry) = spec.entry("paused")
        && entry.value.scalar() != Some("false")
    {
        report.warn(
            &entry.place,
            format!("{} is ignored: it is rolled out", spec.name("paused")),
        );
    }
}

fn strategy(spec: &mut Fields, report: &mut Report) -> Option<Strategy> {
    let mut fields = spec.map("strategy", report)?;
    let strategy = fields.parsed("type", report, |text| match text {
        "Recreate" => Ok(Strategy::StopFirst),
        "RollingUpdate" => Ok(Strategy::StartFirst),
        _ => Err("Recreate or RollingUpdate".to_owned()),
    });
    // How many at once: the new ones are all ready before the old ones go.
    fields.accept(&["rollingUpdate"]);
    fields.finish(report);
    strategy
}

fn selector(spec: &mut Fields, report: &mut Report) -> BTreeMap<String, Placed<String>> {
    let Some(mut fields) = spec.map("selector", report) else {
        return BTreeMap::new();
    };
    let labels = metadata::text_map(&mut fields, "matchLabels", report);
    fields.unsupported(&["matchExpressions"], report);
    fields.finish(report);
    labels
}

/// A pod's template.
pub(crate) struct Template {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, Placed<String>>,
    pub(crate) pod: Pod,
}

/// Reads the template of a workload. `templates`: of a StatefulSet, the volumes that each of its pods gets one of.
pub(crate) fn template(
    spec: &mut Fields,
    owner: &str,
    bundles: &Bundles,
    restarts: Restarts,
    templates: Option<&[Placed<String>]>,
    report: &mut Report,
) -> Option<Template> {
    let mut fields = spec.map("template", report)?;
    fields.what = format!("the template of {owner}");
    let metadata = metadata::read(&mut fields, report);
    let place = fields.place.clone();
    let pod = match fields.map("spec", report) {
        Some(pod) => {
            let known = Known {
                bundles,
                labels: &metadata.labels,
                annotations: &metadata.notes,
                of_set: templates.is_some(),
            };
            let templates = templates.unwrap_or_default();
            pod::read(pod, owner, known, restarts, templates, report)
        }
        None => {
            report.error(&place, format!("{} has no \"spec\"", fields.what));
            Pod::default()
        }
    };
    fields.finish(report);
    Some(Template {
        labels: metadata.labels,
        annotations: metadata.annotations,
        pod,
    })
}

/// Reads Layby's annotations; those of the Deployment go over those of its template.
fn settings(
    own: BTreeMap<String, Placed<String>>,
    template: BTreeMap<String, Placed<String>>,
    what: &str,
    limited: Option<Limited>,
    report: &mut Report,
) -> Settings {
    let mut annotations = template;
    annotations.extend(own);
    let name = "the annotation \"layby.dev/power\"";
    let mut settings = Settings {
        power: power::read(annotations.remove("power"), name, what, limited, report),
        sleep_said: annotations.contains_key("doze-after")
            || annotations.contains_key("sleep-after"),
        scale: scale::annotated(&mut annotations, what, report),
        ..Settings::default()
    };
    let mut read =
        |key: &str, report: &mut Report, read: &mut dyn FnMut(&str) -> Result<(), String>| {
            let Some(annotation) = annotations.remove(key) else {
                return;
            };
            if let Err(expected) = read(&annotation.value) {
                let message = format!(
                    "the annotation \"layby.dev/{key}\" of {what} must be {expected}, not {:?}",
                    cut(&annotation.value)
                );
                report.error(&annotation.place, message);
            }
        };
    read("doze-after", report, &mut |text| {
        settings.sleep.doze_after_ms = sleep_after_ms(text)?;
        Ok(())
    });
    read("sleep-after", report, &mut |text| {
        settings.sleep.sleep_after_ms = sleep_after_ms(text)?;
        Ok(())
    });
    read("port", report, &mut |text| {
        settings.port = Some(port(text)?);
        Ok(())
    });
    read("deploy-on-push", report, &mut |text| {
        settings.deploy_on_push = match text {
            "true" => true,
            "false" => false,
            _ => return Err("\"true\" or \"false\"".to_owned()),
        };
        Ok(())
    });
    read("retries", report, &mut |text| {
        let retries = number(text, &(0..=u64::from(MAX_RETRIES)))?;
        settings.retries = u32::try_from(retries).ok();
        Ok(())
    });
    read("build", report, &mut |text| {
        if text.is_empty() || text.contains("://") {
            return Err("the folder to build the image in".to_owned());
        }
        settings.build = Some(BuildSpec {
            always: false,
            ..BuildSpec::new(text)
        });
        Ok(())
    });
    metadata::warn_unknown(&annotations, what, report);
    settings
}
