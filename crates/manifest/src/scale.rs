//! How a service is scaled, in both formats: the same words under `scale` of `x-layby`, and in annotations that begin with
//! `layby.dev/scale-`.

use std::collections::BTreeMap;

use layby_model::scale::{Autoscale, Pace};
use layby_model::spec::{ServiceSpec, SleepPolicy};

use crate::draft::Placed;
use crate::fields::{Expected, Fields, number};
use crate::report::Report;
use crate::tree::{Place, cut};
use crate::units::duration_ms;

/// What a word takes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Count,
    Percent,
    Duration,
}

/// The words as keys of `scale`, as annotations, and what they take.
const WORDS: [(&str, &str, Kind); 12] = [
    ("min", "scale-min", Kind::Count),
    ("max", "scale-max", Kind::Count),
    ("concurrency", "scale-concurrency", Kind::Count),
    ("target", "scale-target", Kind::Count),
    ("cpu", "scale-cpu", Kind::Percent),
    ("stable_window", "scale-stable-window", Kind::Duration),
    ("panic_window", "scale-panic-window", Kind::Duration),
    ("panic_threshold", "scale-panic-threshold", Kind::Percent),
    ("up_rate", "scale-up-rate", Kind::Count),
    ("down_rate", "scale-down-rate", Kind::Count),
    ("down_delay", "scale-down-delay", Kind::Duration),
    ("hold", "scale-hold", Kind::Duration),
];

/// What is said of how a service is scaled.
#[derive(Debug, Clone)]
pub(crate) struct Scaling {
    /// By the key of `scale`, as milliseconds, per cent or a plain number.
    pub(crate) words: BTreeMap<&'static str, u64>,
    /// How fast CPU changes the number, up and down.
    pub(crate) paces: Option<(Pace, Pace)>,
    /// Fewer than one replica is not enough: it is to be awake. (A HorizontalPodAutoscaler says nothing of that.)
    pub(crate) stays_awake: bool,
    /// Something else is said that cannot be read, and was told.
    pub(crate) is_cut: bool,
    /// Where it is said.
    pub(crate) place: Place,
}

/// Takes `scale` off `x-layby`.
pub(crate) fn read(settings: &mut Fields, report: &mut Report) -> Option<Scaling> {
    let mut fields = settings.map("scale", report)?;
    let mut words = BTreeMap::new();
    let mut is_cut = false;
    for (key, _, kind) in WORDS {
        let is_there = fields.has(key);
        let said = fields.parsed(key, report, |text| word(kind, text));
        is_cut |= is_there && said.is_none();
        words.extend(said.map(|said| (key, said)));
    }
    let place = fields.place.clone();
    fields.finish(report);
    Some(Scaling {
        stays_awake: words.get("min") > Some(&0),
        words,
        paces: None,
        is_cut,
        place,
    })
}

/// Takes the annotations that say it off those of `what`.
pub(crate) fn annotated(
    annotations: &mut BTreeMap<String, Placed<String>>,
    what: &str,
    report: &mut Report,
) -> Option<Scaling> {
    let mut scaling: Option<Scaling> = None;
    for (key, annotation, kind) in WORDS {
        let Some(said) = annotations.remove(annotation) else {
            continue;
        };
        let scaling = scaling.get_or_insert_with(|| Scaling {
            words: BTreeMap::new(),
            paces: None,
            stays_awake: false,
            is_cut: false,
            place: said.place.clone(),
        });
        match word(kind, &said.value) {
            Ok(value) => {
                scaling.words.insert(key, value);
                scaling.stays_awake = scaling.words.get("min") > Some(&0);
            }
            Err(expected) => {
                scaling.is_cut = true;
                let message = format!(
                    "the annotation \"layby.dev/{annotation}\" of {what} must be {expected}, not {:?}",
                    cut(&said.value)
                );
                report.error(&said.place, message);
            }
        }
    }
    scaling
}

/// Scales a service as was said. One that is to have a replica at least stays awake, unless something is said of its sleep.
pub(crate) fn settle(
    scaling: Option<Scaling>,
    sleep_said: bool,
    spec: &mut ServiceSpec,
    report: &mut Report,
) {
    let Some(scaling) = scaling.filter(|scaling| !scaling.is_cut) else {
        return;
    };
    let name = cut(spec.name.as_str());
    let says = |key: &str| scaling.words.contains_key(key);
    if !says("max") && !says("concurrency") {
        let message = format!(
            "service {name:?} is to be scaled, and its most replicas are not said: say \"max\""
        );
        report.error(&scaling.place, message);
        return;
    }
    let policy = policy(&scaling);
    if let Some(wrong) = policy.refuse() {
        let message = format!("service {name:?} cannot be scaled so: {wrong}");
        report.error(&scaling.place, message);
        return;
    }
    // 1 is what holds where nothing is said, and 0 disables.
    if spec.replicas > 1 && policy.clamp(spec.replicas) != spec.replicas {
        let message = format!(
            "service {name:?} is said to have {} replicas, and to be scaled from {} to {}: it begins with {}",
            spec.replicas,
            policy.floor(),
            policy.max,
            policy.clamp(spec.replicas)
        );
        report.warn(&scaling.place, message);
    }
    if scaling.stays_awake && !sleep_said {
        spec.sleep = SleepPolicy {
            doze_after_ms: None,
            sleep_after_ms: None,
        };
    }
    spec.autoscale = Some(policy);
}

fn policy(scaling: &Scaling) -> Autoscale {
    let said = |key: &str| scaling.words.get(key).copied();
    let count = |key: &str| said(key).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let usual = Autoscale::default();
    let (cpu_up, cpu_down) = (scaling.paces.clone()).unwrap_or((usual.cpu_up, usual.cpu_down));
    let stable_window_ms = said("stable_window").unwrap_or(usual.stable_window_ms);
    Autoscale {
        min: count("min").unwrap_or(usual.min),
        max: count("max").unwrap_or(usual.max),
        concurrency: count("concurrency"),
        target: count("target"),
        cpu_percent: count("cpu"),
        stable_window_ms,
        // A tenth, unless something is said, as with Knative.
        panic_window_ms: said("panic_window").unwrap_or_else(|| {
            let tenth = stable_window_ms / 10;
            tenth.max(layby_model::scale::WINDOW_MIN_MS)
        }),
        panic_percent: count("panic_threshold").unwrap_or(usual.panic_percent),
        up_times: count("up_rate").unwrap_or(usual.up_times),
        down_times: count("down_rate").unwrap_or(usual.down_times),
        down_delay_ms: said("down_delay").unwrap_or(usual.down_delay_ms),
        hold_ms: said("hold"),
        cpu_up,
        cpu_down,
    }
}

fn word(kind: Kind, text: &str) -> Result<u64, Expected> {
    match kind {
        Kind::Count => number(text, &(0..=1_000_000)),
        Kind::Percent => {
            let bare = text.strip_suffix('%').unwrap_or(text).trim_end();
            number(bare, &(1..=100_000)).map_err(|_| "a number of per cent such as 80%".to_owned())
        }
        Kind::Duration => duration_ms(text),
    }
}
