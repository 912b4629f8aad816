//! `x-layby`: Layby's own settings of a service.

use layby_model::job::{Concurrency, JobSpec, Schedule};
use layby_model::spec::{MAX_RETRIES, SleepPolicy};

use crate::draft::Placed;
use crate::fields::{Fields, port};
use crate::job;
use crate::report::Report;
use crate::scale::{self, Scaling};
use crate::units::{duration_ms, sleep_after_ms};

/// What is said there.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The port that HTTP by host name goes to.
    pub(crate) port: Option<u16>,
    /// Ports that speak HTTP.
    pub(crate) http: Vec<u16>,
    pub(crate) sleep: SleepPolicy,
    /// Something is said of that.
    pub(crate) sleep_said: bool,
    pub(crate) scale: Option<Scaling>,
    pub(crate) deploy_on_push: bool,
    /// So many more attempts a failed rollout gets.
    pub(crate) retries: Option<u32>,
    /// How long a rollout may take.
    pub(crate) progress_deadline_ms: Option<u64>,
    /// The name of a power.
    pub(crate) power: Option<Placed<String>>,
    /// With a schedule it is a job.
    pub(crate) job: Option<JobSpec>,
}

/// Takes `x-layby` off a service.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Settings {
    let mut settings = Settings::default();
    let Some(mut fields) = service.map("x-layby", report) else {
        return settings;
    };
    settings.port = fields.port("port", report);
    settings.http = fields.parsed_list("http", report, port);
    settings.power = fields.placed("power", report);
    settings.deploy_on_push = fields.flag("deploy_on_push", report).unwrap_or(false);
    settings.retries = fields.count("retries", 0..=MAX_RETRIES, report);
    settings.progress_deadline_ms = fields.parsed("progress_deadline", report, duration_ms);
    if let Some(mut sleep) = fields.map("sleep", report) {
        if let Some(after) = sleep.parsed("doze_after", report, sleep_after_ms) {
            settings.sleep.doze_after_ms = after;
        }
        if let Some(after) = sleep.parsed("sleep_after", report, sleep_after_ms) {
            settings.sleep.sleep_after_ms = after;
        }
        sleep.finish(report);
        settings.sleep_said = true;
    }
    settings.scale = scale::read(&mut fields, report);
    settings.job = job(&mut fields, report);
    if let Some(job) = &mut settings.job {
        job.retries = settings.retries.take().unwrap_or_default();
    }
    fields.finish(report);
    settings
}

/// What makes a service a job. Compose itself has no word for it.
fn job(fields: &mut Fields, report: &mut Report) -> Option<JobSpec> {
    let has_schedule = fields.has("schedule");
    let cron = fields.parsed("schedule", report, job::cron);
    if !has_schedule {
        for key in [
            "concurrency",
            "starting_deadline",
            "time_limit",
            "time_zone",
        ] {
            if let Some(entry) = fields.entry(key) {
                let message = format!("{} counts with \"schedule\" only", fields.name(key));
                report.error(&entry.place, message);
            }
        }
    }
    let time_zone = fields.text("time_zone", report);
    let schedule = Schedule {
        cron: cron?,
        time_zone,
    };
    let concurrency = fields.parsed("concurrency", report, job::concurrency);
    let length = |fields: &mut Fields, key, report: &mut Report| {
        let length = fields.parsed(key, report, duration_ms);
        length.filter(|ms| *ms > 0)
    };
    Some(JobSpec {
        schedule: Some(schedule),
        concurrency: concurrency.unwrap_or(Concurrency::Allow),
        starting_deadline_ms: length(fields, "starting_deadline", report),
        time_limit_ms: length(fields, "time_limit", report),
        ..JobSpec::default()
    })
}
