//! How a service is scaled: by CPU with a HorizontalPodAutoscaler (`autoscaling/v2`); what else Layby goes by stays as annotations,
//! for Layby alone.

use layby_model::scale::Autoscale;
use layby_model::spec::ServiceSpec;

use crate::convert::quantity::duration;
use crate::convert::tree::{Map, maps};
use crate::convert::{App, Object, object};
use crate::draft::Draft;
use crate::report::Report;

/// What comes of it.
pub(super) struct Scaled {
    pub(super) object: Option<Object>,
    /// Those of the Deployment.
    pub(super) annotations: Map,
}

/// Writes how a service is scaled.
pub(super) fn write(app: &App<'_>, draft: &Draft, annotations: Map, report: &mut Report) -> Scaled {
    let spec = &draft.spec;
    let Some(policy) = &spec.autoscale else {
        return Scaled {
            object: None,
            annotations,
        };
    };
    tell(app, draft, policy, report);
    let annotations = words(policy)
        .into_iter()
        .fold(annotations, |all, (word, value)| {
            all.text(&format!("layby.dev/scale-{word}"), value)
        });
    Scaled {
        object: policy
            .cpu_percent
            .map(|percent| by_cpu(app, spec, policy, percent)),
        annotations,
    }
}

/// How many replicas a service begins with: 0 disables it.
pub(super) fn replicas(spec: &ServiceSpec) -> u32 {
    match &spec.autoscale {
        Some(policy) if spec.replicas > 0 => policy.clamp(spec.replicas),
        Some(_) | None => spec.replicas,
    }
}

/// Whether the annotations say how many replicas there are at least.
pub(super) fn says_min(policy: &Autoscale) -> bool {
    policy.min > 0 && policy.cpu_percent.is_none()
}

/// What is not as where nothing is said, by the annotations that say it.
fn words(policy: &Autoscale) -> Vec<(&'static str, String)> {
    let usual = Autoscale::default();
    let by_cpu = policy.cpu_percent.is_some();
    // An autoscaler says both; 0 is 1 while awake.
    let min = !by_cpu && policy.min > 0;
    let count = |value: u32| value.to_string();
    let tenth_ms = (policy.stable_window_ms / 10).max(layby_model::scale::WINDOW_MIN_MS);
    let all = [
        ("min", min.then(|| count(policy.min))),
        ("max", (!by_cpu).then(|| count(policy.max))),
        ("concurrency", policy.concurrency.map(count)),
        ("target", policy.target.map(count)),
        (
            "stable-window",
            (policy.stable_window_ms != usual.stable_window_ms)
                .then(|| duration(policy.stable_window_ms)),
        ),
        (
            "panic-window",
            (policy.panic_window_ms != tenth_ms).then(|| duration(policy.panic_window_ms)),
        ),
        (
            "panic-threshold",
            (policy.panic_percent != usual.panic_percent)
                .then(|| format!("{}%", policy.panic_percent)),
        ),
        (
            "up-rate",
            (policy.up_times != usual.up_times).then(|| count(policy.up_times)),
        ),
        (
            "down-rate",
            (policy.down_times != usual.down_times).then(|| count(policy.down_times)),
        ),
        (
            "down-delay",
            (policy.down_delay_ms != usual.down_delay_ms).then(|| duration(policy.down_delay_ms)),
        ),
        ("hold", policy.hold_ms.map(duration)),
    ];
    let said = all.into_iter();
    said.filter_map(|(word, value)| Some((word, value?)))
        .collect()
}

fn by_cpu(app: &App<'_>, spec: &ServiceSpec, policy: &Autoscale, percent: u32) -> Object {
    let name = spec.name.as_str();
    let target = Map::new()
        .text("apiVersion", "apps/v1")
        .text("kind", "Deployment")
        .text("name", name);
    let aim = Map::new()
        .text("type", "Utilization")
        .plain("averageUtilization", percent);
    let resource = Map::new().text("name", "cpu").put("target", aim);
    let metric = Map::new()
        .text("type", "Resource")
        .put("resource", resource);
    let min = Some(policy.floor()).filter(|min| *min > 1);
    let body = Map::new()
        .put("scaleTargetRef", target)
        .some_plain("minReplicas", min)
        .plain("maxReplicas", policy.max)
        .put("metrics", maps([metric]));
    let head = app.object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        name,
        Some(name),
    );
    let map = head.with(Map::new(), |map| map.put("spec", body));
    object("HorizontalPodAutoscaler", name, map)
}

fn tell(app: &App<'_>, draft: &Draft, policy: &Autoscale, report: &mut Report) {
    let count = replicas(&draft.spec);
    if policy.cpu_percent.is_some() {
        tell_of_cpu(app, draft, report);
        if draft.spec.replicas > policy.floor() {
            let why = "is lost: it begins with as many as its autoscaler says";
            app.said
                .lost(draft, &["deploy.replicas", "scale"], why, report);
        }
    }
    let why = match policy.cpu_percent {
        None => format!(
            "goes by requests, which a cluster by itself does not: the number stays {count}; the words are kept as annotations, for Layby"
        ),
        Some(_) if policy.aim().is_some() => {
            "goes by CPU alone; what goes by requests is kept as annotations, for Layby".to_owned()
        }
        Some(_) => return,
    };
    app.said.lost(draft, &["x-layby.scale"], &why, report);
}

/// A cluster knows no share of what is not asked for. (Layby takes it of one core.)
fn tell_of_cpu(app: &App<'_>, draft: &Draft, report: &mut Report) {
    let mut containers = draft.spec.containers.iter().map(|one| one.resources);
    let is_said = containers.any(|one| one.cpu_request_milli.or(one.cpu_limit_milli).is_some());
    if !is_said && draft.spec.power.is_none() {
        let why =
            "needs the CPU that a replica asks for: say \"deploy.resources.reservations.cpus\"";
        app.said.lost(draft, &["x-layby.scale.cpu"], why, report);
    }
}
