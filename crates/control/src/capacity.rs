//! What fits into the machine: asked by all that makes a service take more, before anything starts.

use axum::http::StatusCode;
use layby_model::ServiceId;
use layby_model::capacity::{self, Claim, idle_limits, short_of_addresses, shortage};
use layby_model::spec::{ServiceSpec, Strategy};

use crate::api::types::Problem;
use crate::config::ControlConfig;
use crate::deploy::current;
use crate::jobs::Shelves;
use crate::plane::Plane;
use crate::store::{NewRevision, Row};

/// What the services that are enabled keep to themselves.
pub(crate) fn claims<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Claim> {
    let enabled = rows.into_iter().filter(|row| row.enabled);
    let claim = |row: &Row| {
        let spec = &current(row).1.spec.service;
        Claim::of(row.service.clone(), spec, row.replicas)
    };
    enabled.map(claim).collect()
}

/// What the runs that have begun and are not over keep to themselves.
pub(crate) fn runs(shelves: &Shelves) -> Vec<Claim> {
    let all = shelves.iter().flat_map(|(id, shelf)| {
        let begun = shelf.active().filter(|run| !run.attempts.is_empty());
        begun.filter_map(|run| {
            let spec = &run.spec.as_ref()?.service;
            Some(Claim::of_run(id.clone(), Some(run.run), spec))
        })
    });
    all.collect()
}

/// Refuses what does not fit, with the sum.
///
/// # Errors
/// 409 `does-not-fit`.
pub(crate) fn check<'a>(
    plane: &Plane,
    rows: &[Row],
    asked: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec, u32)>,
) -> Result<(), Problem> {
    let asked: Vec<Claim> = (asked.into_iter())
        .map(|(id, spec, replicas)| Claim::of(id, spec, replicas))
        .collect();
    let mut claims = claims(rows);
    claims.extend(runs(&plane.jobs.shown().shelves));
    match shortage(&plane.config.machine, &claims, &asked) {
        None => Ok(()),
        Some(text) => Err(does_not_fit(text)),
    }
}

/// Refuses revisions for whose replicas their networks have too few addresses while those of before stand beside them.
///
/// # Errors
/// 409 `does-not-fit`.
pub(crate) fn check_rollouts(
    plane: &Plane,
    rows: &[Row],
    revisions: &[NewRevision],
) -> Result<(), Problem> {
    let asked = revisions.iter().filter_map(|new| {
        let row = rows.iter().find(|row| row.service == new.service);
        let enabled = row.is_none_or(|row| row.enabled) || new.enables;
        let spec = &new.spec.service;
        if !enabled || spec.job.is_some() || spec.replicas == 0 {
            return None;
        }
        let replicas = replicas(rows, &new.service, spec, new.unscale);
        let mut claim = Claim::of(new.service.clone(), spec, replicas);
        let stays = |row: &&Row| {
            let live = row.live.as_ref().map(|live| &live.spec.service.networks);
            row.enabled && live == Some(&spec.networks)
        };
        if spec.strategy != Strategy::StopFirst {
            claim.beside = row.filter(stays).map_or(0, |row| row.replicas);
        }
        Some(claim)
    });
    let asked: Vec<Claim> = asked.collect();
    let mut claims = claims(rows);
    claims.extend(runs(&plane.jobs.shown().shelves));
    match short_of_addresses(&plane.config.machine, &claims, &asked) {
        None => Ok(()),
        Some(text) => Err(does_not_fit(text)),
    }
}

/// Refuses a job that fits into the machine at no time. What fits at some time waits for that.
///
/// # Errors
/// 409 `does-not-fit`.
pub(crate) fn check_jobs<'a>(
    config: &ControlConfig,
    specs: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    let jobs = specs.into_iter().filter(|(_, spec)| spec.job.is_some());
    for (id, spec) in jobs {
        let asked = [Claim::of_run(id, None, spec)];
        if let Some(text) = shortage(&config.machine, &[], &asked) {
            return Err(Problem::new(StatusCode::CONFLICT, "does-not-fit", text)
                .hint("let it ask for less, or let fewer of its attempts go on at a time"));
        }
    }
    Ok(())
}

/// The refusal of what takes too much.
pub(crate) fn does_not_fit(text: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, "does-not-fit", text)
        .hint("scale something down, give it less power, or disable a service that is not needed")
}

/// How many replicas of a service fit that has some and is to have `wanted`, and what stands in the way of the others.
pub(crate) fn most(
    plane: &Plane,
    rows: &[Row],
    service: &Claim,
    wanted: u32,
) -> (u32, Option<String>) {
    let mut claims = claims(rows);
    claims.extend(runs(&plane.jobs.shown().shelves));
    let machine = &plane.config.machine;
    capacity::most(machine, &claims, service, service.replicas, wanted)
}

/// How many replicas a revision of a manifest or a deploy would have.
pub(crate) fn replicas(rows: &[Row], id: &ServiceId, spec: &ServiceSpec, unscale: bool) -> u32 {
    let row = rows.iter().find(|row| row.service == *id);
    let scale = row.and_then(|row| row.scale).filter(|_| !unscale);
    // One that was off begins with as many as a new one.
    let on = row.filter(|row| row.enabled);
    scale.unwrap_or_else(|| spec.replicas_beside(on.map(|row| row.replicas)))
}

/// Warnings of limits that limit nothing on this machine.
pub(crate) fn warnings<'a>(
    config: &ControlConfig,
    specs: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Vec<String> {
    let specs = specs.into_iter();
    specs
        .flat_map(|(id, spec)| idle_limits(&config.machine, &id, spec))
        .collect()
}
