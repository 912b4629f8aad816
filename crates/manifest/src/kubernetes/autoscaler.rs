//! HorizontalPodAutoscalers (`autoscaling/v2`, and `v1`, which says less of the same): how many replicas by CPU.

use std::collections::BTreeMap;

use layby_model::scale::{Amount, CPU_PERCENT, Pace, STEPS_MAX, Select, Step};
use layby_model::spec::REPLICAS_MAX;

use crate::draft::{Placed, label_of};
use crate::fields::Fields;
use crate::kubernetes::{Deployment, metadata};
use crate::report::Report;
use crate::scale::Scaling;
use crate::tree::cut;

/// What can be scaled by one.
const KINDS: [&str; 4] = [
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];

/// A HorizontalPodAutoscaler, before it is joined to what it scales.
#[derive(Debug)]
pub(crate) struct Autoscaler {
    /// The name of what it scales, and where that stands.
    pub(crate) target: Placed<String>,
    pub(crate) scaling: Scaling,
    /// How it is called in messages.
    what: String,
}

/// Reads one, and the namespace that it names.
pub(crate) fn read(
    mut object: Fields,
    report: &mut Report,
) -> (Option<Autoscaler>, Option<Placed<String>>) {
    object.what = "a HorizontalPodAutoscaler".to_owned();
    let whole = object.place.clone();
    let metadata = metadata::read(&mut object, report);
    if let Some(name) = &metadata.name {
        object.what = format!("HorizontalPodAutoscaler {:?}", cut(&name.value));
    }
    let what = object.what.clone();
    metadata::warn_unknown(&metadata.annotations, &what, report);
    object.accept(&["status"]);
    let spec = object.map("spec", report);
    object.finish(report);
    let Some(mut spec) = spec else {
        report.error(&whole, format!("{what} has no \"spec\""));
        return (None, metadata.namespace);
    };
    spec.what.clone_from(&what);
    let place = spec.place.clone();
    let target = target(&mut spec, &what, report);
    let min = spec.count("minReplicas", 0..=REPLICAS_MAX, report);
    let max = spec.count("maxReplicas", 1..=REPLICAS_MAX, report);
    let of_v1 = spec.count("targetCPUUtilizationPercentage", 1..=10_000, report);
    let (of_v2, says_metrics) = metrics(&mut spec, &what, report);
    // Only where no metric is said at all.
    let usual = (!says_metrics).then_some(CPU_PERCENT);
    let cpu = of_v1.or(of_v2).or(usual);
    let paces = behavior(&mut spec, report);
    spec.finish(report);
    if max.is_none() && !report.failed() {
        report.error(&place, format!("{what} has no \"maxReplicas\""));
    }
    let mut words = BTreeMap::from([
        ("min", u64::from(min.unwrap_or(1))),
        ("max", u64::from(max.unwrap_or(1))),
    ]);
    words.extend(cpu.map(|cpu| ("cpu", u64::from(cpu))));
    let autoscaler = target.map(|target| Autoscaler {
        target,
        scaling: Scaling {
            words,
            paces: Some(paces),
            stays_awake: false,
            is_cut: false,
            place,
        },
        what,
    });
    (autoscaler, metadata.namespace)
}

fn target(spec: &mut Fields, what: &str, report: &mut Report) -> Option<Placed<String>> {
    let place = spec.place.clone();
    let Some(mut fields) = spec.map("scaleTargetRef", report) else {
        report.error(&place, format!("{what} has no \"scaleTargetRef\""));
        return None;
    };
    fields.accept(&["apiVersion"]);
    let kind = fields.placed("kind", report);
    let name = fields.placed("name", report);
    let place = fields.place.clone();
    fields.finish(report);
    let (Some(kind), Some(name)) = (kind, name) else {
        let message = format!("{what} does not say what it scales: it needs \"kind\" and \"name\"");
        report.error(&place, message);
        return None;
    };
    if !KINDS.contains(&kind.value.as_str()) {
        let message = format!(
            "{what} scales a {}, which is not supported, and is ignored: Deployments and ReplicaSets are scaled",
            cut(&kind.value)
        );
        report.warn(&kind.place, message);
        return None;
    }
    Some(name)
}

/// The use of CPU that is aimed at, in per cent, and whether any metric is said. The other ones are told.
fn metrics(spec: &mut Fields, what: &str, report: &mut Report) -> (Option<u32>, bool) {
    let mut cpu = None;
    let nodes = spec.list("metrics", report).unwrap_or_default();
    let says_any = !nodes.is_empty();
    for node in nodes {
        let place = node.place.clone();
        let Some(mut metric) = Fields::open(node, format!("a metric of {what}"), report) else {
            continue;
        };
        let kind = metric.text("type", report).unwrap_or_default();
        let resource = metric.map("resource", report);
        let Some(mut resource) = resource.filter(|_| kind == "Resource") else {
            let message = format!(
                "a metric of {what} of the type {:?} is not supported and is ignored: the resource cpu is",
                cut(&kind)
            );
            report.warn(&place, message);
            continue;
        };
        metric.finish(report);
        let name = resource.text("name", report).unwrap_or_default();
        let target = resource.map("target", report);
        resource.finish(report);
        let percent = target.and_then(|mut target| {
            let kind = target.text("type", report);
            let percent = target.count("averageUtilization", 1..=10_000, report);
            target.accept(&["averageValue", "value"]);
            target.finish(report);
            percent.filter(|_| kind.as_deref() == Some("Utilization"))
        });
        match percent.filter(|_| name == "cpu") {
            Some(percent) => cpu = Some(percent),
            None => {
                let message = format!(
                    "the metric {:?} of {what} is not supported and is ignored: cpu by its Utilization is",
                    cut(&name)
                );
                report.warn(&place, message);
            }
        }
    }
    (cpu, says_any)
}

fn behavior(spec: &mut Fields, report: &mut Report) -> (Pace, Pace) {
    let (mut up, mut down) = (Pace::up(), Pace::down());
    if let Some(mut fields) = spec.map("behavior", report) {
        pace(&mut fields, "scaleUp", &mut up, report);
        pace(&mut fields, "scaleDown", &mut down, report);
        fields.finish(report);
    }
    (up, down)
}

/// Takes off the rules of one direction; what they do not say stays as it is.
fn pace(behavior: &mut Fields, key: &'static str, pace: &mut Pace, report: &mut Report) {
    let Some(mut fields) = behavior.map(key, report) else {
        return;
    };
    if let Some(seconds) = fields.number("stabilizationWindowSeconds", 0..=3_600, report) {
        pace.stabilization_ms = seconds * 1_000;
    }
    let select = fields.parsed("selectPolicy", report, |text| match text {
        "Max" => Ok(Select::Max),
        "Min" => Ok(Select::Min),
        "Disabled" => Ok(Select::Disabled),
        _ => Err("Max, Min or Disabled".to_owned()),
    });
    pace.select = select.unwrap_or(pace.select);
    fields.unsupported(&["tolerance"], report);
    let what = format!("a policy of {}", fields.what);
    if let Some(nodes) = fields.list("policies", report) {
        if let Some(node) = nodes.get(STEPS_MAX) {
            report.error(
                &node.place,
                format!("there are more than {STEPS_MAX} policies"),
            );
        }
        let steps = nodes.into_iter().take(STEPS_MAX);
        let steps =
            steps.filter_map(|node| step(Fields::open(node, what.clone(), report)?, report));
        pace.steps = steps.collect();
    }
    fields.finish(report);
}

fn step(mut fields: Fields, report: &mut Report) -> Option<Step> {
    let is_percent = fields.parsed("type", report, |text| match text {
        "Pods" => Ok(false),
        "Percent" => Ok(true),
        _ => Err("Pods or Percent".to_owned()),
    });
    let value = fields.count("value", 1..=1_000_000, report);
    let seconds = fields.number("periodSeconds", 1..=1_800, report);
    let place = fields.place.clone();
    let what = fields.what.clone();
    fields.finish(report);
    let (Some(is_percent), Some(value), Some(seconds)) = (is_percent, value, seconds) else {
        if !report.failed() {
            let message = format!("{what} needs \"type\", \"value\" and \"periodSeconds\"");
            report.error(&place, message);
        }
        return None;
    };
    Some(Step {
        amount: match is_percent {
            true => Amount::Percent(value),
            false => Amount::Replicas(value),
        },
        period_ms: seconds * 1_000,
    })
}

/// Hands what autoscalers say to what they scale; what its annotations say goes over that.
pub(crate) fn join(
    autoscalers: Vec<Autoscaler>,
    deployments: &mut [Deployment],
    report: &mut Report,
) {
    for autoscaler in autoscalers {
        let Autoscaler {
            target,
            scaling,
            what,
        } = autoscaler;
        let mut named = deployments.iter_mut();
        let named = named.find(|deployment| {
            label_of(&target.value).is_some_and(|label| deployment.name.as_str() == label)
        });
        let Some(deployment) = named else {
            let message = format!(
                "nothing in this manifest is called {:?}: its HorizontalPodAutoscaler is ignored",
                cut(&target.value)
            );
            report.warn(&target.place, message);
            continue;
        };
        if deployment.stateful.is_some() {
            fix(deployment, &scaling);
            let message = format!(
                "{what} gives the StatefulSet {:?} its fewest pods alone: their number stays {}, whatever they have to do",
                cut(&target.value),
                deployment.replicas
            );
            report.warn(&target.place, message);
            continue;
        }
        let settings = &mut deployment.settings;
        match &mut settings.scale {
            Some(said) if said.paces.is_some() => {
                let message = format!(
                    "two HorizontalPodAutoscalers scale {:?}: one is supported",
                    cut(&target.value)
                );
                report.error(&target.place, message);
            }
            Some(said) => {
                let mut words = scaling.words;
                words.append(&mut said.words);
                (said.words, said.paces) = (words, scaling.paces);
            }
            None if !scaling.words.contains_key("cpu") => {
                fix(deployment, &scaling);
                let message = format!(
                    "{what} is ignored, since none of its metrics is supported: the number of replicas of {:?} stays {}",
                    cut(&target.value),
                    deployment.replicas
                );
                report.warn(&target.place, message);
            }
            None => settings.scale = Some(scaling),
        }
    }
}

/// Gives a Deployment the fewest replicas that it was to be scaled to, or those that it has; one that is disabled stays so.
fn fix(deployment: &mut Deployment, scaling: &Scaling) {
    let min = scaling.words.get("min").copied().unwrap_or(1);
    let min = u32::try_from(min).unwrap_or(REPLICAS_MAX);
    if deployment.replicas > 0 {
        deployment.replicas = deployment.replicas.max(min);
    }
}
