//! `deploy`, and the older keys beside it that say the same: limits, replicas, the order of updates.

use layby_model::job::JobSpec;
use layby_model::spec::{Resources, RestartPolicy, Strategy};

use crate::compose::mode::Mode;
use crate::compose::{devices, restart};
use crate::draft::{self, Placed};
use crate::fields::{Expected, Fields};
use crate::power::{self, Limited};
use crate::report::Report;
use crate::units::{compose_cpu_milli, compose_memory, duration_ms};

/// What was said of how a service is run.
#[derive(Debug)]
pub(crate) struct Deploy {
    pub(crate) replicas: u32,
    pub(crate) resources: Resources,
    /// Where its limits of CPU or memory stand first.
    pub(crate) limited: Option<Limited>,
    /// Devices by CDI.
    pub(crate) devices: Vec<String>,
    /// As it was said.
    pub(crate) strategy: Option<Strategy>,
    /// `None`: nothing is said.
    pub(crate) restart: Option<RestartPolicy>,
    /// It runs to its end.
    pub(crate) job: Option<JobSpec>,
}

/// Reads `deploy`, `scale`, `mem_limit`, `mem_reservation`, `cpus`, `pids_limit` and `restart`.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Deploy {
    let mut replicas = counted(service, "scale", report);
    let mut restart = restart::read(service, report);
    let mut limited = power::limited(service, &["mem_limit", "cpus", "cpu_quota"]);
    let mut resources = Resources {
        memory_limit_bytes: service
            .parsed("mem_limit", report, compose_memory)
            .flatten(),
        cpu_limit_milli: service.parsed("cpus", report, compose_cpu_milli).flatten(),
        pids_limit: service.parsed("pids_limit", report, pids).flatten(),
        memory_request_bytes: service
            .parsed("mem_reservation", report, compose_memory)
            .flatten(),
        cpu_request_milli: None,
    };
    if let Some(milli) = quota(service, report) {
        resources.cpu_limit_milli = resources.cpu_limit_milli.or(Some(milli));
    }
    let mut devices = Vec::new();
    let mut strategy = None;
    let mut mode = Mode::Replicated;
    if let Some(mut deploy) = service.map("deploy", report) {
        let said = counted(&mut deploy, "replicas", report);
        replicas = once(replicas, said, &service.what, report);
        if let Some(fields) = deploy.map("resources", report) {
            devices = read_resources(fields, &mut resources, &mut limited, report);
        }
        if let Some(mut update) = deploy.map("update_config", report) {
            strategy = update.parsed("order", report, order);
            update.unsupported(
                &[
                    "delay",
                    "failure_action",
                    "max_failure_ratio",
                    "monitor",
                    "parallelism",
                ],
                report,
            );
            update.accept_extensions();
            update.finish(report);
        }
        mode = Mode::read(&mut deploy, &mut replicas, report);
        restart = restart::policy(&mut deploy, mode.is_job(), report).or(restart);
        deploy.accept(&["labels"]);
        deploy.accept_extensions();
        deploy.ignored(&[("placement", "there is one machine")], report);
        deploy.unsupported(&["endpoint_mode", "rollback_config"], report);
        deploy.finish(report);
    }
    let replicas = replicas.map_or(1, |said| said.value);
    let job = mode.job(replicas, restart);
    Deploy {
        // How many of a job's are to end well, it says itself.
        replicas: if job.is_some() { 1 } else { replicas },
        resources,
        limited,
        devices,
        strategy,
        restart,
        job,
    }
}

fn counted(fields: &mut Fields, key: &'static str, report: &mut Report) -> Option<Placed<u32>> {
    let place = fields.place_of(key)?;
    let value = fields.parsed(key, report, draft::replicas)?;
    Some(Placed { value, place })
}

/// `scale` and `deploy.replicas` mean the same; two numbers are an error.
fn once(
    scale: Option<Placed<u32>>,
    replicas: Option<Placed<u32>>,
    what: &str,
    report: &mut Report,
) -> Option<Placed<u32>> {
    if let (Some(scale), Some(replicas)) = (&scale, &replicas)
        && scale.value != replicas.value
    {
        let message = format!(
            "\"replicas\" in deploy of {what} is {}, and its \"scale\" is {}: they mean the same, leave one of them out",
            replicas.value, scale.value
        );
        report.error(&replicas.place, message);
    }
    replicas.or(scale)
}

/// What `deploy.resources` says goes over what the older keys say; hands out the devices that it asks for.
fn read_resources(
    mut fields: Fields,
    resources: &mut Resources,
    limited: &mut Option<Limited>,
    report: &mut Report,
) -> Vec<String> {
    let mut devices = Vec::new();
    if let Some(mut limits) = fields.map("limits", report) {
        *limited = limited
            .take()
            .or(power::limited(&limits, &["memory", "cpus"]));
        if let Some(memory) = limits.parsed("memory", report, compose_memory) {
            resources.memory_limit_bytes = memory;
        }
        if let Some(cpus) = limits.parsed("cpus", report, compose_cpu_milli) {
            resources.cpu_limit_milli = cpus;
        }
        if let Some(limit) = limits.parsed("pids", report, pids) {
            resources.pids_limit = limit;
        }
        limits.accept_extensions();
        limits.finish(report);
    }
    if let Some(mut reservations) = fields.map("reservations", report) {
        if let Some(memory) = reservations.parsed("memory", report, compose_memory) {
            resources.memory_request_bytes = memory;
        }
        resources.cpu_request_milli = reservations
            .parsed("cpus", report, compose_cpu_milli)
            .flatten();
        let name = reservations.name("devices");
        if let Some(node) = reservations.take("devices") {
            devices = devices::requests(node, &name, report);
        }
        reservations.unsupported(&["generic_resources"], report);
        reservations.accept_extensions();
        reservations.finish(report);
    }
    fields.accept_extensions();
    fields.finish(report);
    devices
}

/// `cpu_quota` in each `cpu_period`, microseconds both where no unit is said, in thousandths of a core.
fn quota(service: &mut Fields, report: &mut Report) -> Option<u64> {
    const PERIOD_US: u64 = 100_000;
    let microseconds = |text: &str| match text.parse::<u64>() {
        Ok(microseconds) => Ok(microseconds),
        Err(_) if text == "-1" => Ok(0),
        Err(_) => duration_ms(text).map(|ms| ms.saturating_mul(1000)),
    };
    let quota_us = service.parsed("cpu_quota", report, microseconds);
    let period_us = service.parsed("cpu_period", report, microseconds);
    let period_us = period_us.filter(|us| *us > 0).unwrap_or(PERIOD_US);
    let quota_us = quota_us.filter(|us| *us > 0)?;
    Some(quota_us.saturating_mul(1000).div_ceil(period_us))
}

fn order(text: &str) -> Result<Strategy, Expected> {
    match text {
        "start-first" => Ok(Strategy::StartFirst),
        "stop-first" => Ok(Strategy::StopFirst),
        _ => Err("start-first or stop-first".to_owned()),
    }
}

/// A limit of processes; 0 and -1 are no limit.
fn pids(text: &str) -> Result<Option<u32>, Expected> {
    match text {
        "-1" | "0" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| "a whole number of processes".to_owned()),
    }
}
