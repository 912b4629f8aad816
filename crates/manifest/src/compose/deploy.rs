//! `deploy`, and the older keys beside it that say the same: limits, replicas, the order of updates.

use layby_model::spec::{Resources, Strategy};

use crate::draft::MAX_REPLICAS;
use crate::fields::{Expected, Fields};
use crate::report::Report;
use crate::units::{compose_cpu_milli, compose_memory};

/// What was said of how a service is run.
#[derive(Debug)]
pub(crate) struct Deploy {
    pub(crate) replicas: u32,
    pub(crate) resources: Resources,
    pub(crate) strategy: Strategy,
}

/// Reads `deploy`, `scale`, `mem_limit`, `mem_reservation`, `cpus` and `pids_limit`.
pub(crate) fn read(service: &mut Fields, report: &mut Report) -> Deploy {
    let scale = service.count("scale", 1..=MAX_REPLICAS, report);
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
    let mut strategy = Strategy::StartFirst;
    let mut replicas = None;
    if let Some(mut deploy) = service.map("deploy", report) {
        replicas = deploy.count("replicas", 1..=MAX_REPLICAS, report);
        if let Some(fields) = deploy.map("resources", report) {
            read_resources(fields, &mut resources, report);
        }
        if let Some(mut update) = deploy.map("update_config", report) {
            strategy = update
                .parsed("order", report, order)
                .unwrap_or(Strategy::StartFirst);
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
            update.finish(report);
        }
        restart_policy(&mut deploy, report);
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
        strategy,
    }
}

/// What `deploy.resources` says goes over what the older keys say.
fn read_resources(mut fields: Fields, resources: &mut Resources, report: &mut Report) {
    if let Some(mut limits) = fields.map("limits", report) {
        if let Some(memory) = limits.parsed("memory", report, compose_memory) {
            resources.memory_limit_bytes = memory;
        }
        if let Some(cpus) = limits.parsed("cpus", report, compose_cpu_milli) {
            resources.cpu_limit_milli = cpus;
        }
        if let Some(limit) = limits.parsed("pids", report, pids) {
            resources.pids_limit = limit;
        }
        limits.finish(report);
    }
    if let Some(mut reservations) = fields.map("reservations", report) {
        if let Some(memory) = reservations.parsed("memory", report, compose_memory) {
            resources.memory_request_bytes = memory;
        }
        resources.cpu_request_milli = reservations
            .parsed("cpus", report, compose_cpu_milli)
            .flatten();
        reservations.unsupported(&["devices", "generic_resources"], report);
        reservations.finish(report);
    }
    fields.finish(report);
}

fn restart_policy(deploy: &mut Fields, report: &mut Report) {
    let Some(mut policy) = deploy.map("restart_policy", report) else {
        return;
    };
    let place = policy.place.clone();
    let condition = policy.parsed("condition", report, |text| match text {
        "none" | "on-failure" | "any" => Ok(text.to_owned()),
        _ => Err("none, on-failure or any".to_owned()),
    });
    if condition.as_deref() == Some("none") {
        report.warn(
            &place,
            format!(
                "{} is \"none\", but a service that ends is started again",
                policy.name("condition")
            ),
        );
    }
    // How often and how fast: Layby backs off by itself.
    policy.accept(&["delay", "max_attempts", "window"]);
    policy.finish(report);
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
