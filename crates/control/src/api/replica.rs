//! Which replica is meant, awake and kept so.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::state::Showing;
use layby_model::{ReplicaId, ServiceId};

use super::Who;
use super::query::{self, Pairs};
use super::services;
use super::types::Problem;
use crate::deploy::privilege;
use crate::driver::DriverHandle;
use crate::plane::Plane;
use crate::uses::Use;

/// How long a service may take to wake.
const WAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one that runs may take to be ready before it is taken as it is.
const UNREADY: Duration = Duration::from_secs(3);
/// How often it is looked whether one runs, where nothing is heard.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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

/// Whether somebody may reach into the containers of a service, as it is and as it is to be.
///
/// # Errors
/// There is no such service; 403: it has something of the machine, and no admin asks.
pub(super) fn enter(
    plane: &Arc<Plane>,
    names: &(String, String),
    who: &Who,
) -> Result<(), Problem> {
    let (service, driver) = services::find(plane, names.clone())?;
    let row = driver.status.borrow().row.clone();
    for revision in row.live.iter().chain([&row.target]) {
        privilege::enter(&plane.config, &who.rights, &service, &revision.spec.service)?;
    }
    Ok(())
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
        until_up(plane, &service, &mut driver).await?;
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
        if !enabled {
            return Err(Problem::conflict(format!("{service} is disabled"))
                .hint(format!("`layby enable {service}` brings it back")));
        }
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

/// As [`awake`]; of a service that has ended, a replica that lies there with its files.
pub(super) async fn with_files(
    plane: &Arc<Plane>,
    names: (String, String),
    pairs: &Pairs,
) -> Result<Held, Problem> {
    let (service, driver) = services::find(plane, names.clone())?;
    let showing = driver.status.borrow().detail.view.wakefulness;
    if showing == Some(Showing::Ended) {
        let only = named(pairs)?;
        let reports = plane.facts.of(&service);
        let mut ended = reports.iter().filter(|report| {
            report.phase == Phase::Stopped
                && report.ended.is_some()
                && only.is_none_or(|only| only == report.id)
        });
        if let Some(report) = ended.next() {
            return Ok(Held {
                id: report.id,
                _held: Use::begin(plane, &service),
            });
        }
    }
    awake(plane, names, pairs).await
}

/// Waits until a service is awake; or a replica of it has run for a while without being ready: then somebody may want
/// to find out why.
async fn until_up(
    plane: &Plane,
    service: &ServiceId,
    driver: &mut DriverHandle,
) -> Result<(), Problem> {
    let begun = tokio::time::Instant::now();
    loop {
        let (gone, showing) = {
            let status = driver.status.borrow_and_update();
            (status.gone, status.detail.view.wakefulness)
        };
        let waited = begun.elapsed();
        if gone {
            return Err(Problem::no_service(service));
        }
        match showing {
            Some(Showing::Awake | Showing::Unhealthy) => return Ok(()),
            Some(Showing::Ended) => {
                let text = format!("{service} has ended, and its restart policy leaves it so");
                return Err(
                    Problem::conflict(text).hint(format!("`layby wake {service}` runs it again"))
                );
            }
            Some(Showing::Asleep | Showing::Dozing | Showing::Waking) | None => {}
        }
        if waited > UNREADY && plane.facts.of(service).iter().any(runs) {
            return Ok(());
        }
        if waited > WAKE_TIMEOUT {
            let text = format!("{service} is not awake after {} s", WAKE_TIMEOUT.as_secs());
            return Err(Problem::timed_out(text)
                .hint(format!("`layby status {service}` says what it is at")));
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_AGAIN, driver.status.changed()).await {
            return Err(Problem::no_service(service)); // nobody drives it any more
        }
    }
}

fn runs(report: &ReplicaReport) -> bool {
    let up = matches!(report.phase, Phase::Ready | Phase::Starting);
    up && report
        .containers
        .iter()
        .any(|container| container.pid.is_some())
}
