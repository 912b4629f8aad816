//! What runs a service: a Deployment, a Job or a CronJob.

use layby_model::job::{Concurrency, JobSpec, Schedule};
use layby_model::spec::{RestartPolicy, ServiceSpec, SleepPolicy, Strategy};

use crate::convert::quantity::{duration, seconds};
use crate::convert::said::shown;
use crate::convert::tree::Map;
use crate::convert::{
    App, Gathered, Object, autoscaler, image, labels, names, object, pod, service, volume,
};
use crate::draft::Draft;
use crate::report::Report;

/// How many attempts of a Job may fail where nothing is said (`JobSpec.backoffLimit`).
const BACKOFF_LIMIT: u32 = 6;
/// The longest name of a CronJob: those of its Jobs are longer by eleven characters.
const CRON_JOB_NAME: usize = 52;

/// The kinds of objects that run services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Deployment,
    /// One pod on each machine.
    DaemonSet,
    Job,
    CronJob,
}

impl Kind {
    /// Whether it goes on, so that others are led to it.
    pub(super) fn goes_on(self) -> bool {
        match self {
            Self::Deployment | Self::DaemonSet => true,
            Self::Job | Self::CronJob => false,
        }
    }
}

/// What a service is run by: what is to end is a Job, unless others speak to it.
pub(super) fn kind(app: &App<'_>, draft: &Draft) -> Kind {
    let spec = &draft.spec;
    if let Some(job) = &spec.job {
        return match job.schedule {
            Some(_) => Kind::CronJob,
            None => Kind::Job,
        };
    }
    if app.said.text(draft, "deploy.mode") == Some("global") {
        return Kind::DaemonSet;
    }
    let serves = || {
        let mut containers = spec.containers.iter();
        let is_asked = containers.any(|one| !one.ports.is_empty() || one.readiness.is_some());
        is_asked || !spec.published.is_empty() || service::is_named(app, draft)
    };
    match spec.restart {
        RestartPolicy::Always => Kind::Deployment,
        RestartPolicy::Never | RestartPolicy::OnFailure { .. } => {
            match app.completes(spec) || !serves() {
                true => Kind::Job,
                false => Kind::Deployment,
            }
        }
    }
}

/// Writes what runs a service, and what scales that.
pub(super) fn write(app: &App<'_>, draft: &Draft, all: &mut Gathered, report: &mut Report) {
    let spec = &draft.spec;
    let kind = kind(app, draft);
    let of_containers = labels::as_annotations(app, draft, &["annotations", "labels"], report);
    let metadata = Map::new()
        .put("labels", labels::of_pod(app, spec))
        .put("annotations", of_containers);
    let template = Map::new()
        .put("metadata", metadata)
        .put("spec", pod::spec(app, draft, kind, all, report));
    let annotations = labels::as_annotations(app, draft, &["deploy.labels"], report);
    let annotations = image::annotation(app, draft, annotations);
    let workload = match kind {
        Kind::Deployment => {
            let annotations = settings(spec, annotations);
            deployment(app, draft, annotations, template, all, report)
        }
        Kind::DaemonSet => {
            let name = spec.name.as_str();
            let head = app.object("apps/v1", "DaemonSet", name, Some(name));
            let annotations = settings(spec, annotations);
            let body = Map::new()
                .put(
                    "selector",
                    Map::new().put("matchLabels", labels::selector(spec)),
                )
                .put("template", template);
            object(
                "DaemonSet",
                name,
                head.with(annotations, |map| map.put("spec", body)),
            )
        }
        Kind::Job => {
            let job = spec.job.clone().unwrap_or_else(|| once(spec));
            let name = spec.name.as_str();
            let head = app.object("batch/v1", "Job", name, Some(name));
            let body = job_spec(&job, template);
            object(
                "Job",
                name,
                head.with(annotations, |map| map.put("spec", body)),
            )
        }
        Kind::CronJob => cron_job(app, draft, annotations, template, report),
    };
    all.others.push(workload);
}

fn deployment(
    app: &App<'_>,
    draft: &Draft,
    annotations: Map,
    template: Map,
    all: &mut Gathered,
    report: &mut Report,
) -> Object {
    let spec = &draft.spec;
    let name = spec.name.as_str();
    let scaled = autoscaler::write(app, draft, annotations, report);
    // What scales it says how many there are: each `kubectl apply` would set the number back. 0 switches that off, too.
    let is_scaled = scaled.object.is_some();
    let replicas = match autoscaler::replicas(spec) {
        1 => None,
        count if count > 1 && is_scaled => None,
        count => Some(count),
    };
    let body = Map::new()
        .some_plain("replicas", replicas)
        .some_plain(
            "progressDeadlineSeconds",
            spec.progress_deadline_ms.map(seconds),
        )
        .put(
            "selector",
            Map::new().put("matchLabels", labels::selector(spec)),
        )
        .put("strategy", strategy(app, draft))
        .put("template", template);
    all.others.extend(scaled.object);
    let head = app.object("apps/v1", "Deployment", name, Some(name));
    object(
        "Deployment",
        name,
        head.with(scaled.annotations, |map| map.put("spec", body)),
    )
}

/// How the next one takes over, where that is not what holds anyway.
fn strategy(app: &App<'_>, draft: &Draft) -> Map {
    let is_said = app.said.of(draft, "deploy.update_config.order").is_some();
    let writes = volume::writes(app, &draft.spec);
    match draft.spec.strategy {
        Strategy::StopFirst if is_said || writes => Map::new().text("type", "Recreate"),
        // Without a word Layby would take what writes for what must not be there twice.
        Strategy::StartFirst if writes => Map::new().text("type", "RollingUpdate"),
        Strategy::StopFirst | Strategy::StartFirst => Map::new(),
    }
}

/// Layby's own settings, which a cluster does not look at.
fn settings(spec: &ServiceSpec, mut annotations: Map) -> Map {
    let asleep = sleep_unsaid(spec);
    let after = |ms: Option<u64>| ms.map_or_else(|| "never".to_owned(), duration);
    if spec.sleep.doze_after_ms != asleep.doze_after_ms {
        let text = after(spec.sleep.doze_after_ms);
        annotations = annotations.text("layby.dev/doze-after", text);
    }
    if spec.sleep.sleep_after_ms != asleep.sleep_after_ms {
        let text = after(spec.sleep.sleep_after_ms);
        annotations = annotations.text("layby.dev/sleep-after", text);
    }
    let retries = spec.retries.map(|retries| retries.to_string());
    let push = spec.deploy_on_push.then_some("true");
    annotations
        .some_text("layby.dev/retries", retries)
        .some_text("layby.dev/deploy-on-push", push)
}

/// When a service sleeps of which nothing is said: never, where `layby.dev/scale-min` asks for a replica at least.
fn sleep_unsaid(spec: &ServiceSpec) -> SleepPolicy {
    let stays = spec.autoscale.as_ref().is_some_and(autoscaler::says_min);
    match stays {
        true => SleepPolicy {
            doze_after_ms: None,
            sleep_after_ms: None,
        },
        false => SleepPolicy::default(),
    }
}

/// What a service that is not started again is as a job.
fn once(spec: &ServiceSpec) -> JobSpec {
    JobSpec {
        retries: match spec.restart {
            RestartPolicy::Always | RestartPolicy::Never => 0,
            RestartPolicy::OnFailure { max_retries } => max_retries.unwrap_or(BACKOFF_LIMIT),
        },
        completions: spec.replicas.max(1),
        parallelism: spec.replicas.max(1),
        suspended: spec.replicas == 0,
        ..JobSpec::default()
    }
}

fn job_spec(job: &JobSpec, template: Map) -> Map {
    let unless = |value: u32, usual: u32| Some(value).filter(|value| *value != usual);
    Map::new()
        .flag("suspend", job.suspended && job.schedule.is_none())
        .some_plain("backoffLimit", unless(job.retries, BACKOFF_LIMIT))
        .some_plain("activeDeadlineSeconds", job.time_limit_ms.map(seconds))
        .some_plain("ttlSecondsAfterFinished", job.ttl_ms.map(seconds))
        .some_plain("completions", unless(job.completions, 1))
        .some_plain("parallelism", unless(job.parallelism, 1))
        .put("template", template)
}

fn cron_job(
    app: &App<'_>,
    draft: &Draft,
    annotations: Map,
    template: Map,
    report: &mut Report,
) -> Object {
    let job = draft.spec.job.clone().unwrap_or_default();
    let (cron, time_zone) = match &job.schedule {
        Some(Schedule { cron, time_zone }) => (cron.clone(), time_zone.clone()),
        None => (String::new(), None),
    };
    told_of_schedule(app, draft, &cron, time_zone.as_ref(), report);
    let own = draft.spec.name.as_str();
    let name = names::cut(own, CRON_JOB_NAME);
    if name != own {
        let message = format!(
            "the CronJob of {} is called {name:?}: one has {CRON_JOB_NAME} characters at most",
            shown(draft)
        );
        report.warn(&draft.place, message);
    }
    let concurrency = match job.concurrency {
        Concurrency::Allow => None,
        Concurrency::Forbid => Some("Forbid"),
        Concurrency::Replace => Some("Replace"),
    };
    let body = Map::new()
        .text("schedule", cron)
        .some_text("timeZone", time_zone)
        .some_text("concurrencyPolicy", concurrency)
        .some_plain(
            "startingDeadlineSeconds",
            job.starting_deadline_ms.map(seconds),
        )
        .flag("suspend", job.suspended)
        .put(
            "jobTemplate",
            Map::new().put("spec", job_spec(&job, template)),
        );
    let head = app.object("batch/v1", "CronJob", &name, Some(own));
    object(
        "CronJob",
        &name,
        head.with(annotations, |map| map.put("spec", body)),
    )
}

fn told_of_schedule(
    app: &App<'_>,
    draft: &Draft,
    cron: &str,
    time_zone: Option<&String>,
    report: &mut Report,
) {
    let at = ["x-layby.schedule"];
    if time_zone.is_none() {
        let why = "is meant in the time zone of the cluster, mostly UTC: say \"time_zone\"";
        app.said.lost(draft, &at, why, report);
    }
    if has_foreign_signs(cron) {
        let why = "has signs (L, W or #) that Kubernetes does not know";
        app.said.lost(draft, &at, why, report);
    }
}

/// Whether a cron expression has the signs for last days (`L`, `5L`), days of work (`15W`) or weeks (`5#2`) that Kubernetes does not know.
fn has_foreign_signs(cron: &str) -> bool {
    let parts = cron.split([' ', '\t', ',']);
    let is_foreign = |part: &str| {
        let number = part.strip_suffix(['L', 'W']);
        let is_numbered = number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()));
        is_numbered || part.contains('#') || part == "LW"
    };
    parts.into_iter().any(is_foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_days_and_months_are_no_foreign_signs() {
        for known in ["30 2 * JUL WED", "@weekly", "*/5 0-3 1,15 * MON-FRI"] {
            assert!(!has_foreign_signs(known), "{known}");
        }
        for foreign in [
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 * * 5#2",
            "0 0 * * 5L",
            "0 0 LW * *",
        ] {
            assert!(has_foreign_signs(foreign), "{foreign}");
        }
    }
}
