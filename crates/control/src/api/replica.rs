//! Which replica is meant, awake and kept so.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use layby_model::ReplicaId;
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::state::Showing;

use super::query::{self, Pairs};
use super::services;
use super::types::Problem;
use crate::driver::Status;
use crate::plane::Plane;
use crate::uses::Use;

/// How long a service may take to wake.
const WAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// A replica that takes commands now. Its service stays awake as long as this is kept.
pub(super) struct Held {
    pub(super) id: ReplicaId,
    _held: Use,
}

/// The replica that a query names, if it does.
pub(super) fn named(pairs: &Pairs) -> Result<Option<ReplicaId>, Problem> {
    let id = query::get(pairs, "replica").map(str::parse::<ReplicaId>);
    id.transpose().map_err(|error| {
        Problem::bad_request(format!(
            "{:?} is no replica id (12 hexadecimal digits)",
            error.name
        ))
    })
}

/// Wakes a service if it rests, and gives the replica that a query names, else the oldest that is ready of its live
/// revision. Where nothing is live yet, any that runs will do: somebody wants to know why.
pub(super) async fn awake(
    plane: &Arc<Plane>,
    names: (String, String),
    pairs: &Pairs,
) -> Result<Held, Problem> {
    let (service, mut driver) = services::find(plane, names)?;
    let only = named(pairs)?;
    let (removing, live, enabled) = {
        let status = driver.status.borrow();
        let live = status.row.live.as_ref().map(|live| live.id);
        (status.row.removing, live, status.row.enabled)
    };
    if removing {
        return Err(Problem::conflict(format!("{service} is being taken down")));
    }
    let held = Use::begin(plane, &service);
    if live.is_some() && enabled {
        let there = |status: &Arc<Status>| {
            status.gone || status.detail.view.wakefulness == Some(Showing::Awake)
        };
        match tokio::time::timeout(WAKE_TIMEOUT, driver.status.wait_for(there)).await {
            Ok(Ok(status)) if !status.gone => {}
            Ok(_) => return Err(Problem::no_service(&service)),
            Err(_) => {
                let text = format!("{service} is not awake after {} s", WAKE_TIMEOUT.as_secs());
                return Err(Problem::timed_out(text)
                    .hint(format!("`layby status {service}` says what it is at")));
            }
        }
    }
    let reports = plane.facts.of(&service);
    let running = reports.iter().filter(|report| runs(report));
    let running = running.filter(|report| only.is_none_or(|only| only == report.id));
    let best = running.min_by_key(|report| {
        (
            Some(report.revision) != live,
            report.phase != Phase::Ready,
            report.id,
        )
    });
    let Some(report) = best else {
        let text = match only {
            Some(only) => format!("{service} has no replica {only} that runs"),
            None => format!("{service} has no replica that runs"),
        };
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint(format!("`layby status {service}` says why")));
    };
    Ok(Held {
        id: report.id,
        _held: held,
    })
}

fn runs(report: &ReplicaReport) -> bool {
    let up = matches!(report.phase, Phase::Ready | Phase::Starting);
    up && report
        .containers
        .iter()
        .any(|container| container.pid.is_some())
}
