//! Jobs and CronJobs (`batch/v1`).

use std::collections::BTreeMap;

use layby_model::job::{
    JobSpec, MAX_COMPLETIONS, MAX_KEPT, MAX_PARALLELISM, MAX_RETRIES, Schedule,
};
use layby_model::names::ServiceName;
use layby_model::spec::{BuildSpec, ServiceSpec};

use crate::draft::{Draft, Placed, workload_name};
use crate::fields::Fields;
use crate::job;
use crate::kubernetes::bundle::Bundles;
use crate::kubernetes::deployment::{self, Template};
use crate::kubernetes::metadata::{self, Metadata};
use crate::kubernetes::pod::{Pod, Restarts};
use crate::report::Report;
use crate::tree::{Place, cut};

/// How many attempts may fail where nothing is said (`JobSpec.backoffLimit`).
const RETRIES: u32 = 6;
/// How many ended runs of a CronJob are kept where nothing is said.
const KEPT_SUCCEEDED: u32 = 3;
const KEPT_FAILED: u32 = 1;
/// The longest time that is read, in seconds: ten years.
const MAX_SECONDS: u64 = 10 * 365 * 24 * 3_600;

/// A job, before its claims are resolved.
#[derive(Debug)]
pub(crate) struct Job {
    name: ServiceName,
    place: Place,
    pub(crate) pod: Pod,
    /// The labels of its pods.
    pub(crate) labels: BTreeMap<String, String>,
    spec: JobSpec,
}

impl Job {
    /// The job as the manifest's other services are.
    pub(crate) fn draft(self) -> Draft {
        let mut draft = Draft {
            spec: ServiceSpec {
                containers: self.pod.containers,
                init: self.pod.init,
                sandbox: self.pod.sandbox,
                job: Some(self.spec),
                ..ServiceSpec::new(self.name)
            },
            place: self.place,
            published_at: Vec::new(),
            aliases_at: Vec::new(),
            named_files: Vec::new(),
        };
        draft.publish(self.pod.published);
        draft
    }
}

/// Reads a Job, and the namespace that it names.
pub(crate) fn read(
    object: Fields,
    bundles: &Bundles,
    report: &mut Report,
) -> (Option<Job>, Option<Placed<String>>) {
    whole(object, "Job", report, |spec, what, report| {
        let mut settings = JobSpec {
            retries: RETRIES,
            ..JobSpec::default()
        };
        let template = job_spec(spec, &mut settings, what, bundles, report);
        (settings, template)
    })
}

/// Reads a CronJob, and the namespace that it names.
pub(crate) fn read_cron(
    object: Fields,
    bundles: &Bundles,
    report: &mut Report,
) -> (Option<Job>, Option<Placed<String>>) {
    whole(object, "CronJob", report, |mut spec, what, report| {
        let place = spec.place.clone();
        let has_schedule = spec.has("schedule");
        let cron = spec.parsed("schedule", report, job::cron);
        if !has_schedule {
            report.error(&place, format!("{what} has no \"schedule\""));
        }
        let time_zone = spec.text("timeZone", report);
        let seconds = spec.number("startingDeadlineSeconds", 0..=MAX_SECONDS, report);
        let mut settings = JobSpec {
            schedule: cron.map(|cron| Schedule { cron, time_zone }),
            starting_deadline_ms: seconds.map(|seconds| seconds * 1_000),
            suspended: spec.flag("suspend", report).unwrap_or(false),
            retries: RETRIES,
            keep_succeeded: spec
                .count("successfulJobsHistoryLimit", 0..=MAX_KEPT, report)
                .unwrap_or(KEPT_SUCCEEDED),
            keep_failed: spec
                .count("failedJobsHistoryLimit", 0..=MAX_KEPT, report)
                .unwrap_or(KEPT_FAILED),
            ..JobSpec::default()
        };
        if let Some(policy) = spec.parsed("concurrencyPolicy", report, job::concurrency) {
            settings.concurrency = policy;
        }
        let mut template = None;
        match spec.map("jobTemplate", report) {
            Some(mut of_job) => {
                of_job.what = format!("the job template of {what}");
                let _ = metadata::read(&mut of_job, report);
                match of_job.map("spec", report) {
                    Some(mut inner) => {
                        inner.what = of_job.what.clone();
                        let suspended = settings.suspended;
                        template = job_spec(inner, &mut settings, what, bundles, report);
                        settings.suspended |= suspended;
                    }
                    None => report.error(&of_job.place, format!("{} has no \"spec\"", of_job.what)),
                }
                of_job.finish(report);
            }
            None => report.error(&place, format!("{what} has no \"jobTemplate\"")),
        }
        spec.finish(report);
        (settings, template)
    })
}

/// Reads what both have around their specs.
fn whole(
    mut object: Fields,
    kind: &str,
    report: &mut Report,
    read: impl FnOnce(Fields, &str, &mut Report) -> (JobSpec, Option<Template>),
) -> (Option<Job>, Option<Placed<String>>) {
    object.what = format!("a {kind}");
    let place = object.place.clone();
    let Metadata {
        name,
        namespace,
        annotations,
        ..
    } = metadata::read(&mut object, report);
    let what = match &name {
        Some(name) => format!("{kind} {:?}", cut(&name.value)),
        None => {
            let message = format!("a {kind} has no \"name\" in its \"metadata\"");
            report.error(&place, message);
            format!("a {kind}")
        }
    };
    object.what.clone_from(&what);
    object.accept(&["status"]);
    let Some(mut spec) = object.map("spec", report) else {
        report.error(&place, format!("{what} has no \"spec\""));
        return (None, namespace);
    };
    object.finish(report);
    spec.what.clone_from(&what);
    let (settings, template) = read(spec, &what, report);
    let Some(mut template) = template else {
        return (None, namespace);
    };
    let mut known = template.annotations;
    known.extend(annotations);
    if let Some(folder) = known.remove("build")
        && let Some(first) = template.pod.containers.first_mut()
    {
        first.build = Some(BuildSpec {
            always: false,
            ..BuildSpec::new(&folder.value)
        });
    }
    metadata::warn_unknown(&known, &what, report);
    let at = name.as_ref().map_or(place, |name| name.place.clone());
    let name = name.and_then(|name| workload_name(&name, report));
    let job = name.map(|name| Job {
        name,
        place: at,
        pod: template.pod,
        labels: template.labels,
        spec: settings,
    });
    (job, namespace)
}

/// Reads a JobSpec into `settings`, and its template.
fn job_spec(
    mut spec: Fields,
    settings: &mut JobSpec,
    what: &str,
    bundles: &Bundles,
    report: &mut Report,
) -> Option<Template> {
    let seconds = |ms: u64| ms * 1_000;
    if let Some(retries) = spec.count("backoffLimit", 0..=MAX_RETRIES, report) {
        settings.retries = retries;
    }
    settings.time_limit_ms = spec
        .number("activeDeadlineSeconds", 1..=MAX_SECONDS, report)
        .map(seconds);
    settings.ttl_ms = spec
        .number("ttlSecondsAfterFinished", 0..=MAX_SECONDS, report)
        .map(seconds);
    let completions = spec.count("completions", 1..=MAX_COMPLETIONS, report);
    let parallelism = spec.count("parallelism", 1..=MAX_PARALLELISM, report);
    settings.parallelism = parallelism.unwrap_or(1);
    // Without a number of good ends, Kubernetes waits until all have ended once one has ended well.
    settings.completions = completions.unwrap_or(settings.parallelism);
    settings.suspended = spec.flag("suspend", report).unwrap_or(false);
    let indexed = spec.parsed("completionMode", report, |text| match text {
        "NonIndexed" => Ok(false),
        "Indexed" => Ok(true),
        _ => Err("NonIndexed or Indexed".to_owned()),
    });
    settings.indexed = indexed.unwrap_or(false);
    // Which pods are whose is known without labels.
    spec.accept(&["manualSelector", "selector"]);
    spec.unsupported(
        &[
            "backoffLimitPerIndex",
            "managedBy",
            "maxFailedIndexes",
            "podFailurePolicy",
            "podReplacementPolicy",
            "scheduling",
            "successPolicy",
        ],
        report,
    );
    let template = deployment::template(&mut spec, what, bundles, Restarts::AtItsEnd, None, report);
    if template.is_none() {
        report.error(&spec.place, format!("{what} has no \"template\""));
    }
    spec.finish(report);
    template
}
