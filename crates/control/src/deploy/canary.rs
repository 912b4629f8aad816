//! Canaries: a revision that is tried out on a part of the requests, and then takes all of them or goes.

use std::sync::Arc;

use layby_model::route::{Protocol, Share};
use layby_model::spec::{ServiceSpec, Strategy};
use layby_model::{RevisionId, ServiceId};
use tokio::sync::mpsc;

use super::commit::tell_driver;
use super::{Committed, EVENTS, finish, outcome};
use crate::api::Who;
use crate::api::types::{Event, EventKind, Failure, Problem, ServiceView};
use crate::driver::rolling;
use crate::names;
use crate::plane::Plane;
use crate::store::{NewRevision, Row};

/// Whether a revision can be tried out beside what is live. One of a service that has nothing live simply goes live.
///
/// # Errors
/// It cannot, and why.
pub(super) fn settle(row: Option<&Row>, new: &mut NewRevision) -> Result<(), Problem> {
    let Some(share) = &new.share else {
        return Ok(());
    };
    let Some(live) = row.and_then(|row| row.live.as_ref()) else {
        new.share = None;
        return Ok(());
    };
    let (id, spec) = (&new.service, &new.spec.service);
    if spec.strategy == Strategy::StopFirst {
        let text = format!(
            "{id} is replaced stop-first, so that no two revisions of it run at once: it can have no canary"
        );
        let hint =
            "deploy it whole, or let its manifest say start-first if that does its volumes no harm";
        return Err(Problem::conflict(text).hint(hint));
    }
    if spec.port != live.spec.service.port {
        let text = format!(
            "revision {} of {id}, which is live, answers on another port: a canary has to answer on the same",
            live.id
        );
        return Err(Problem::conflict(text).hint("deploy it whole"));
    }
    if spec.sandbox.network != live.spec.service.sandbox.network {
        let text = format!(
            "revision {} of {id}, which is live, is in another kind of network (`network_mode`): a canary has to be in the same",
            live.id
        );
        return Err(Problem::conflict(text).hint("deploy it whole"));
    }
    match share {
        Share::Header { .. } | Share::Cookie { .. } if !speaks_http(spec) => {
            let text = format!("no port of {id} is known to speak HTTP: {share} chooses nothing");
            Err(Problem::conflict(text).hint("give the canary a number of percent"))
        }
        Share::Percent(_) | Share::Header { .. } | Share::Cookie { .. } => Ok(()),
    }
}

fn speaks_http(spec: &ServiceSpec) -> bool {
    let mut ports = names::ports(spec).into_values();
    spec.port.is_some() || ports.any(|port| port.protocol == Protocol::Http)
}

/// Whether another revision may be made of the newest one's settings.
///
/// # Errors
/// That one is a canary: what is made of it would be deployed whole, untried.
pub(super) fn refuse_on_top(row: &Row, share: Option<&Share>) -> Result<(), Problem> {
    let (id, target) = (&row.service, row.target.id);
    if row.share.is_none() || !rolling(row) || share.is_some() {
        return Ok(());
    }
    let text = format!("revision {target} of {id} is tried out as a canary");
    Err(Problem::conflict(text).hint(format!(
        "end that first: `layby promote {id}` or `layby abort {id}`; or make another canary of it"
    )))
}

/// What is told where a newer revision takes the place of one that is tried out; `None`: none is.
pub(super) fn ends(row: &Row) -> Option<String> {
    let share = row.share.as_ref().filter(|_| rolling(row))?;
    let (id, canary, live) = (&row.service, row.target.id, row.live.as_ref()?.id);
    Some(format!(
        "the canary of {id} ends: revision {canary} was tried out on {share}, beside revision {live}, and a newer one takes its place"
    ))
}

/// Lets a canary take all requests, and tells how that goes.
///
/// # Errors
/// There is no such service; nothing of it is on its way, or what is goes live by itself.
pub(crate) async fn promote(
    plane: Arc<Plane>,
    id: &ServiceId,
    detach: bool,
    who: &Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let (task_plane, id, who) = (Arc::clone(&plane), id.clone(), who.clone());
    let work = async move { write_promotion(&task_plane, &id, &who).await };
    let committed = plane.carry_out(work).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    plane.spawn(async move {
        let code = outcome::wait(vec![committed], detach, &events).await;
        finish(&events, Ok(code)).await;
    });
    Ok(stream)
}

async fn write_promotion(
    plane: &Arc<Plane>,
    id: &ServiceId,
    who: &Who,
) -> Result<Committed, Problem> {
    let _turn = plane.deploys.lock().await;
    let row = on_its_way(plane, id).await?;
    let target = row.target.id;
    if !row.enabled {
        let text = format!("{id} is disabled");
        return Err(
            Problem::conflict(text).hint(format!("`layby enable {id}` goes on with its canary"))
        );
    }
    if row.share.is_none() {
        let text = format!(
            "revision {target} of {id} is no canary: it goes live by itself when it is ready"
        );
        return Err(
            Problem::conflict(text).hint(format!("`layby deploy {id} --follow` tells how it goes"))
        );
    }
    let row = plane.store.promote(&row).await?;
    let row = row.ok_or_else(|| Problem::changed_meanwhile(id))?;
    let text = format!("revision {target} is to take all requests");
    plane
        .events
        .of(id, EventKind::Promoted, text, Some(&who.name));
    let driver = plane.driver(id).ok_or_else(|| Problem::no_service(id))?;
    let committed = Committed {
        service: id.clone(),
        revision: Some(target),
        is_disabled: false,
        comes_back: false,
        generation: row.generation,
        ended_canary: None,
        status: driver.status,
    };
    tell_driver(plane, row).await;
    Ok(committed)
}

/// Gives up what is on its way, canary or not, and gives the service once it no longer gets requests. What is live was
/// never touched.
///
/// # Errors
/// There is no such service, or nothing of it is on its way.
pub(crate) async fn abort(
    plane: &Arc<Plane>,
    id: &ServiceId,
    who: &Who,
) -> Result<ServiceView, Problem> {
    let (task_plane, id, who) = (Arc::clone(plane), id.clone(), who.clone());
    let work = async move { abort_whole(&task_plane, &id, &who).await };
    plane.carry_out(work).await
}

async fn abort_whole(
    plane: &Arc<Plane>,
    id: &ServiceId,
    who: &Who,
) -> Result<ServiceView, Problem> {
    let turn = plane.deploys.lock().await;
    let row = on_its_way(plane, id).await?;
    let target = row.target.id;
    let failure = aborted(target, &who.name);
    let row = plane.store.abort(&row, &failure).await?;
    let row = row.ok_or_else(|| Problem::changed_meanwhile(id))?;
    let text = format!("revision {target} is given up");
    plane
        .events
        .of(id, EventKind::Aborted, text, Some(&who.name));
    let mut driver = plane.driver(id).ok_or_else(|| Problem::no_service(id))?;
    let generation = row.generation;
    tell_driver(plane, row).await;
    drop(turn);
    let known = driver
        .status
        .wait_for(|status| status.gone || status.row.generation >= generation);
    match known.await {
        Ok(status) if !status.gone => Ok(status.detail.view.clone()),
        Ok(_) | Err(_) => Err(Problem::no_service(id)),
    }
}

fn aborted(revision: RevisionId, who: &str) -> Failure {
    Failure {
        aborted_by: Some(who.to_owned()),
        ..Failure::plain(revision, format!("aborted by {who}"), 1)
    }
}

/// The row of a service of which something is on its way to be live.
async fn on_its_way(plane: &Plane, id: &ServiceId) -> Result<Row, Problem> {
    let row = plane.store.service(id).await?;
    let row = row.ok_or_else(|| Problem::no_service(id))?;
    let target = row.target.id;
    let text = match () {
        () if row.removing => format!("{id} is being taken down"),
        () if row.target_failed => {
            let ended = match row.aborted_by() {
                Some(who) => format!("was aborted by {who} already"),
                None => "has failed already".to_owned(),
            };
            format!("nothing of {id} is on its way: revision {target} {ended}")
        }
        () if !rolling(&row) => format!("nothing of {id} is on its way: revision {target} is live"),
        () => return Ok(row),
    };
    Err(Problem::conflict(text).hint(format!("`layby status {id}` shows how it stands")))
}
