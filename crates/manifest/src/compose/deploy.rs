//! `deploy`, and the older keys beside it that say the same: limits, replicas, the order of updates.

use layby_model::spec::{Resources, RestartPolicy, Strategy};

use crate::compose::{devices, restart};
use crate::draft;
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
}

/// Reads `deploy`, `scale`, `mem_limit`, `mem_reservation`, `cpus`, `pids_limit` and `restart`.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Deploy {
    let scale = service.parsed("scale", report, draft::replicas);
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
    let mut replicas = None;
    if let Some(mut deploy) = service.map("deploy", report) {
        replicas = deploy.parsed("replicas", report, draft::replicas);
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
        restart = restart::policy(&mut deploy, report).or(restart);
        deploy.parsed("mode", report, |text| match text {
            "replicated" => Ok(()),
            _ => Err("\"replicated\" (no other mode is supported)".to_owned()),
        });
        deploy.accept(&["labels"]);
        deploy.accept_extensions();
        deploy.unsupported(&["endpoint_mode", "placement", "rollback_config"], report);
        deploy.finish(report);
    }
    Deploy {
        replicas: replicas.or(scale).unwrap_or(1),
        resources,
        limited,
        devices,
        strategy,
        restart,
    }
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
