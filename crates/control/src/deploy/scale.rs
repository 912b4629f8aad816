//! Another number of replicas for a service, without a revision: live gets more of what it is, or has some drained.

use std::sync::Arc;
use std::time::Duration;

use layby_model::replica::Phase;
use layby_model::spec::REPLICAS_MAX;
use layby_model::state::Showing;
use layby_model::{RevisionId, ServiceId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::commit::tell_driver;
use super::outcome::SLACK;
use super::progress::{Progress, counts};
use super::switch::{disable, switch};
use super::{Committed, EVENTS, current, finish, outcome};
use crate::api::Who;
use crate::api::types::{Event, EventKind, Failure, Outcome, Problem};
use crate::capacity;
use crate::driver::{Status, rolling};
use crate::plane::Plane;
use crate::store::Row;

/// The exit code of what failed, and left what was there before.
const KEPT: i32 = 3;
/// That of what failed, and had nothing there before.
const FAILED: i32 = 1;
/// That of what somebody else's word took the place of.
const OVERTAKEN: i32 = 6;

/// Gives a service so many replicas, whatever its manifest says; `None`: as many as that says. One that is disabled is
/// enabled by that, 0 disables it.
///
/// # Errors
/// There is no such service, it is on its way out, or so many do not fit into the machine.
pub(crate) async fn change(
    plane: Arc<Plane>,
    id: &ServiceId,
    replicas: Option<u32>,
    detach: bool,
    who: &Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    if let Some(replicas) = replicas.filter(|n| *n > REPLICAS_MAX) {
        return Err(Problem::bad_request(format!(
            "a service can have up to {REPLICAS_MAX} replicas, not {replicas}"
        )));
    }
    if replicas == Some(0) {
        return off(plane, id, detach, who).await;
    }
    let (task_plane, id, who) = (Arc::clone(&plane), id.clone(), who.clone());
    let work = async move { write(&task_plane, &id, replicas, &who).await };
    let Written {
        row,
        change,
        status,
    } = plane.carry_out(work).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    plane.spawn(async move {
        let code = match change {
            // It never was live: that it is then is what counts.
            Change::Back if rolling(&row) => {
                outcome::wait(vec![Committed::back(&row, status)], detach, &events).await
            }
            Change::Back | Change::Scaled => wait(&row, status, detach, &events).await,
            Change::None => {
                let shown = Arc::clone(&status.borrow());
                tell(&shown, Outcome::Unchanged, &events).await;
                0
            }
        };
        finish(&events, Ok(code)).await;
    });
    Ok(stream)
}

/// No replicas at all: it is disabled, and keeps its scale for when it is enabled.
async fn off(
    plane: Arc<Plane>,
    id: &ServiceId,
    detach: bool,
    who: &Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    switch(&plane, id, false, who).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    let (task_plane, id, who) = (Arc::clone(&plane), id.clone(), who.clone());
    plane.spawn(async move {
        let plane = task_plane;
        let ended = match (detach, plane.driver(&id)) {
            (true, Some(driver)) => Ok(driver.status.borrow().detail.view.clone()),
            (true, None) => Err(Problem::no_service(&id)),
            (false, _) => disable(&plane, &id, &who).await,
        };
        let outcome = match detach {
            true => Outcome::Pending,
            false => Outcome::Disabled,
        };
        let ended = match ended {
            Ok(service) => {
                let event = Event::Service {
                    service,
                    outcome,
                    failure: None,
                };
                let _ = events.send(event).await;
                Ok(0)
            }
            Err(problem) => Err(problem),
        };
        finish(&events, ended).await;
    });
    Ok(stream)
}

/// What was written.
struct Written {
    row: Row,
    change: Change,
    status: watch::Receiver<Arc<Status>>,
}

/// What a service has otherwise.
enum Change {
    /// Nothing, but whose word it is.
    None,
    /// Another number of replicas.
    Scaled,
    /// It was disabled.
    Back,
}

/// Writes it, and tells the driver and who listens; nothing is written where it is so already.
async fn write(
    plane: &Arc<Plane>,
    id: &ServiceId,
    scale: Option<u32>,
    who: &Who,
) -> Result<Written, Problem> {
    let _turn = plane.deploys.lock().await;
    let rows = plane.store.services().await?;
    let row = rows.iter().find(|row| row.service == *id);
    let (Some(row), Some(driver)) = (row, plane.driver(id)) else {
        return Err(Problem::no_service(id));
    };
    if row.removing {
        return Err(Problem::conflict(format!("{id} is being taken down")));
    }
    let spec = &current(row).1.spec.service;
    if let (Some(set), Some(2..)) = (&spec.pod_of, scale) {
        let text = format!(
            "{id} is a pod of the StatefulSet {set}: it is one replica, with a name and volumes of its own"
        );
        let hint = format!(
            "set `replicas` of {set} in its manifest, and `layby up`: that adds pods with volumes of their own"
        );
        return Err(Problem::conflict(text).hint(hint));
    }
    if !row.enabled && scale.is_none() && spec.replicas == 0 && spec.autoscale.is_none() {
        let text = format!("{id} is disabled, and its manifest says that it has no replicas");
        return Err(Problem::conflict(text).hint(format!("give it some: `layby scale {id} 1`")));
    }
    let on = Some(row.replicas).filter(|_| row.enabled);
    let replicas = scale.unwrap_or_else(|| spec.replicas_beside(on).max(1));
    capacity::check(plane, &rows, [(id.clone(), spec, replicas)])?;
    if row.enabled && (row.scale, row.replicas) == (scale, replicas) {
        return Ok(Written {
            row: row.clone(),
            change: Change::None,
            status: driver.status,
        });
    }
    let change = match (row.enabled, row.replicas == replicas) {
        (false, _) => Change::Back,
        (true, false) => Change::Scaled,
        (true, true) => Change::None,
    };
    let written = plane.store.scale(row, scale, replicas).await?;
    let row = written.ok_or_else(|| Problem::changed_meanwhile(id))?;
    tell_driver(plane, row.clone()).await;
    let to = scaled_to(row.replicas);
    let told = match change {
        Change::None => None,
        Change::Scaled => Some((EventKind::Scaled, to)),
        Change::Back => Some((EventKind::Enabled, format!("is enabled: {to}"))),
    };
    if let Some((kind, text)) = told {
        plane.events.of(id, kind, text, Some(&who.name));
    }
    if matches!(change, Change::Back) {
        plane.desk.pushed(); // what was pushed meanwhile was not for it
    }
    Ok(Written {
        row,
        change,
        status: driver.status,
    })
}

/// Waits until there are as many as were asked for, telling how it goes; gives the exit code.
async fn wait(
    row: &Row,
    mut status: watch::Receiver<Arc<Status>>,
    detach: bool,
    events: &mpsc::Sender<Event>,
) -> i32 {
    let spec = &current(row).1.spec.service;
    let ms = row.target.deadline_ms.saturating_add(spec.drain_ms);
    let deadline = Instant::now() + Duration::from_millis(ms.min(u64::from(u32::MAX))) + SLACK;
    let mut progress = Progress::default();
    loop {
        let mut until = deadline;
        let shown = Arc::clone(&status.borrow_and_update());
        let heard = shown.row.generation >= row.generation;
        if heard && detach {
            tell(&shown, Outcome::Pending, events).await;
            return 0;
        }
        if let Some(failure) = overtaken(row, &shown).filter(|_| heard) {
            tell_with(&shown, Outcome::Overtaken, Some(failure), events).await;
            return OVERTAKEN;
        }
        if heard && shown.row.live.is_none() && !rolling(&shown.row) {
            let failure = Some(never_live(&shown.row));
            tell_with(&shown, Outcome::Failed, failure, events).await;
            return FAILED;
        }
        if heard && reached(&shown) {
            tell(&shown, Outcome::Scaled, events).await;
            return 0;
        }
        if let Some(failure) = failure(&shown).filter(|_| heard) {
            tell_with(&shown, Outcome::Kept, Some(failure), events).await;
            return KEPT;
        }
        if heard {
            let counts = counts_of(&shown);
            let live = RevisionId(shown.detail.view.revision);
            let told = shown.ends.iter().find_map(|end| end.told(live));
            let answer = shown.last_answer.as_deref().or(told.as_deref());
            let (text, again) = progress.tell(counts, answer, Instant::now());
            until = until.min(again);
            if let Some(text) = text {
                let progress = Event::Progress {
                    service: row.service.to_string(),
                    state: shown.detail.view.state,
                    text,
                };
                let _ = events.send(progress).await;
            }
        }
        match tokio::time::timeout_at(until, status.changed()).await {
            Ok(Ok(())) => {}
            // There is more to tell.
            Err(_) if until < deadline => {}
            Ok(Err(_)) | Err(_) => {
                tell(&shown, Outcome::Pending, events).await;
                return 5;
            }
        }
    }
}

/// By what somebody else has asked for since, if anything: what was asked for here is no longer waited for.
fn overtaken(row: &Row, status: &Status) -> Option<Failure> {
    let now = &status.row;
    let why = if status.gone || now.removing {
        "it was taken down meanwhile".to_owned()
    } else if now.generation <= row.generation {
        return None;
    } else if now.target.id != row.target.id {
        let newer = outcome::overtaken(&now.target);
        return Some(Failure::plain(now.target.id, newer, 1));
    } else if !now.enabled {
        "overtaken: it was disabled meanwhile".to_owned()
    } else if now.scale.is_none() && row.scale.is_some() {
        "overtaken: its scale was reset meanwhile".to_owned()
    } else if (now.scale, now.replicas) != (row.scale, row.replicas) {
        format!("overtaken: it was {} meanwhile", scaled_to(now.replicas))
    } else {
        "overtaken: it was changed meanwhile by somebody else".to_owned()
    };
    let mut failure = Failure::plain(now.target.id, why, 1);
    failure.hint = Some(format!(
        "`layby status {}` shows how it stands",
        row.service
    ));
    Some(failure)
}

/// `scaled to 3 replicas`.
fn scaled_to(replicas: u32) -> String {
    match replicas {
        1 => "scaled to 1 replica".to_owned(),
        n => format!("scaled to {n} replicas"),
    }
}

/// Whether live has as many replicas as are wanted, where it is to rest, and none beside them is on its way out.
fn reached(status: &Status) -> bool {
    let row = &status.row;
    let live = row.live.as_ref().map(|live| live.id);
    let all = status.detail.replicas.iter();
    let of_live = all.filter(|r| Some(RevisionId(r.revision)) == live).count();
    // A canary goes on until somebody ends it.
    let settled = !rolling(row) || (row.share.is_some() && live.is_some());
    // So do tasks that have ended.
    let ended = status.detail.view.wakefulness == Some(Showing::Ended);
    settled && (status.resting.is_some() || ended) && of_live == row.replicas as usize
}

/// `1 of 3 ready`, of more than are wanted `5 of 3 draining`.
fn counts_of(status: &Status) -> String {
    let (row, view) = (&status.row, &status.detail.view);
    let all = status.detail.replicas.iter();
    let there = all
        .filter(|r| r.revision == view.revision && r.phase != Phase::Removing)
        .count();
    let more = there.saturating_sub(row.replicas as usize);
    match more {
        0 => counts(&status.detail.replicas, view.revision, row.replicas, 0),
        more => format!("{more} more than wanted, draining"),
    }
}

/// That there will be none: the only revision has failed, or was called off.
fn never_live(row: &Row) -> Failure {
    let reason = format!(
        "it was never live, and no other is on its way: the next one begins with {}",
        match row.replicas {
            1 => "1 replica".to_owned(),
            n => format!("{n} replicas"),
        }
    );
    let mut failure = Failure::plain(row.target.id, reason, 1);
    let id = &row.service;
    failure.hint = Some(format!(
        "`layby status {id}` says why it failed, `layby redeploy {id}` tries it again"
    ));
    failure
}

/// Why there will not be as many as were asked for: starts of those that are missing come to nothing again and again. A
/// rollout that goes on has its own end.
fn failure(status: &Status) -> Option<Failure> {
    let row = &status.row;
    let live = row.live.as_ref().filter(|_| !rolling(row))?;
    let why = status.ends.iter().find_map(|end| end.gives_up(live.id))?;
    let ready = status.detail.view.replicas_ready;
    let reason = format!("{ready} of {} replicas are ready; {why}", row.replicas);
    let mut failure = Failure::plain(live.id, reason, 1);
    let id = &row.service;
    failure.hint = Some(format!(
        "it is tried on; scale it down again, or see `layby status {id}` and `layby logs {id}`"
    ));
    Some(failure)
}

async fn tell(status: &Status, outcome: Outcome, events: &mpsc::Sender<Event>) {
    tell_with(status, outcome, None, events).await;
}

async fn tell_with(
    status: &Status,
    outcome: Outcome,
    failure: Option<Failure>,
    events: &mpsc::Sender<Event>,
) {
    let service = status.detail.view.clone();
    let event = Event::Service {
        service,
        outcome,
        failure,
    };
    let _ = events.send(event).await;
}
