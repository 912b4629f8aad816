//! Restarting a service in place: its containers end and are started again, one replica after the other; no revision is made,
//! and what they have written stays.

use std::sync::Arc;
use std::time::Duration;

use layby_model::ServiceId;
use layby_model::replica::Phase;
use layby_model::state::Showing;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::outcome::SLACK;
use super::progress::{Progress, counts};
use super::{EVENTS, finish};
use crate::api::Who;
use crate::api::types::{Event, EventKind, Failure, Outcome, Problem};
use crate::driver::{Request, Status};
use crate::plane::Plane;
use crate::room;
use crate::store::Row;
use crate::uses::Use;

/// Restarts the live revision's replicas, each when the ones before are ready again, and tells how it goes. One that rests
/// is woken.
///
/// # Errors
/// There is no such service, it is disabled or on its way out, nothing of it is live, or the disk is full.
pub(crate) async fn restart(
    plane: Arc<Plane>,
    id: &ServiceId,
    detach: bool,
    who: &Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let (row, driver) = (plane.store.service(id).await?, plane.driver(id));
    let (Some(row), Some(driver)) = (row, driver) else {
        return Err(Problem::no_service(id));
    };
    if row.removing {
        return Err(Problem::conflict(format!("{id} is being taken down")));
    }
    if !row.enabled {
        return Err(Problem::conflict(format!("{id} is disabled"))
            .hint(format!("`layby enable {id}` starts it")));
    }
    if row.live.is_none() {
        let text = format!("nothing of {id} is live: there is nothing to restart");
        return Err(Problem::conflict(text).hint(format!("`layby redeploy {id}` tries it again")));
    }
    // Once it is drained, a replica is ended only when that is written.
    room::check(&plane).await?;
    let (answer, taken) = oneshot::channel();
    let _ = driver.requests.send(Request::Restart(answer)).await;
    let asked = taken.await.map_err(|_| Problem::no_service(id))?;
    let text = "is restarted, one replica after the other".to_owned();
    (plane.events).of(id, EventKind::Restarted, text, Some(&who.name));
    let (events, stream) = mpsc::channel(EVENTS);
    // Idleness does not come in between.
    let held = Use::begin(&plane, id);
    plane.spawn(async move {
        let _held = held;
        let code = wait(&row, asked, driver.status, detach, &events).await;
        finish(&events, Ok(code)).await;
    });
    Ok(stream)
}

/// Waits until all have restarted and are ready, telling how it goes; gives the exit code.
async fn wait(
    row: &Row,
    asked: u64,
    mut status: watch::Receiver<Arc<Status>>,
    detach: bool,
    events: &mpsc::Sender<Event>,
) -> i32 {
    let mut progress = Progress::default();
    let mut left = usize::MAX;
    let mut deadline = Instant::now();
    loop {
        let shown = Arc::clone(&status.borrow_and_update());
        let heard = shown.restarting.asked >= asked;
        if heard && detach {
            return tell(&shown, Outcome::Pending, None, events).await;
        }
        let live = shown.row.live.as_ref().map(|live| live.id);
        let is_other = live != row.live.as_ref().map(|live| live.id);
        if shown.gone || !shown.row.enabled || is_other || shown.restarting.asked > asked {
            // Somebody else has changed it since: what was asked for here is no longer waited for.
            return tell(&shown, Outcome::Pending, None, events).await;
        }
        if heard && is_done(&shown) {
            return tell(&shown, Outcome::Restarted, None, events).await;
        }
        if heard && gives_up(&shown).is_some() {
            return tell(&shown, Outcome::Failed, stuck(&shown), events).await;
        }
        if shown.restarting.left < left {
            left = shown.restarting.left;
            deadline = Instant::now() + longest(&shown.row);
        }
        let (text, again) = progress.tell(at(&shown), shown.last_answer.as_deref(), Instant::now());
        if let Some(text) = text.filter(|_| heard) {
            let progress = Event::Progress {
                service: row.service.to_string(),
                state: shown.detail.view.state,
                text,
            };
            let _ = events.send(progress).await;
        }
        let until = again.min(deadline);
        match tokio::time::timeout_at(until, status.changed()).await {
            Ok(Ok(())) => {}
            // There is more to tell.
            Err(_) if until < deadline => {}
            Ok(Err(_)) | Err(_) => {
                let failure = stuck(&shown);
                return tell(&shown, Outcome::Failed, failure, events).await;
            }
        }
    }
}

/// Whether all have restarted, and are ready or have ended well, as they may.
fn is_done(status: &Status) -> bool {
    let ended = status.detail.view.wakefulness == Some(Showing::Ended);
    let there = status.resting.is_some() || ended;
    status.restarting.left == 0 && there && left_failed(status).is_none()
}

/// How long one replica may take to be drained, to end, and to be ready again.
fn longest(row: &Row) -> Duration {
    let live = row.live.as_ref().unwrap_or(&row.target);
    let ms = live.deadline_ms.saturating_add(live.spec.service.drain_ms);
    Duration::from_millis(ms.min(u64::from(u32::MAX))) + SLACK
}

/// `1 of 2 ready, 1 to restart`.
fn at(status: &Status) -> String {
    let (row, view) = (&status.row, &status.detail.view);
    let counts = counts(&status.detail.replicas, view.revision, row.replicas, 0);
    match status.restarting.left {
        0 => counts,
        left => format!("{counts}, {left} to restart"),
    }
}

/// What ended again and again, or badly and for good, or cannot be started.
fn gives_up(status: &Status) -> Option<String> {
    let live = status.row.live.as_ref()?.id;
    let looping = status.ends.iter().find_map(|ending| ending.gives_up(live));
    looping.or_else(|| left_failed(status))
}

/// What ended badly since it was restarted, and is left so.
fn left_failed(status: &Status) -> Option<String> {
    let live = status.row.live.as_ref()?.id;
    (status.ends.iter()).find_map(|ending| ending.left_failed(live))
}

/// Why it does not go on.
fn stuck(status: &Status) -> Option<Failure> {
    let live = status.row.live.as_ref()?;
    let mine = status.detail.replicas.iter();
    let mut waited_for = mine.filter(|r| r.revision == live.id.0 && r.phase != Phase::Ready);
    let (next, left) = (waited_for.next(), status.restarting.left);
    let why = gives_up(status).unwrap_or_else(|| match (next, left) {
        (Some(replica), 0) => format!("replica {} is not ready again", replica.id),
        (Some(replica), left) => {
            format!(
                "replica {} is not ready again, and {left} more are as they were",
                replica.id
            )
        }
        (None, _) => "it was not restarted in time".to_owned(),
    });
    let id = &status.row.service;
    let mut failure = Failure::plain(live.id, why, 1);
    failure.hint = Some(format!("`layby logs {id}` shows what it says"));
    Some(failure)
}

async fn tell(
    status: &Status,
    outcome: Outcome,
    failure: Option<Failure>,
    events: &mpsc::Sender<Event>,
) -> i32 {
    let service = status.detail.view.clone();
    let event = Event::Service {
        service,
        outcome,
        failure,
    };
    let _ = events.send(event).await;
    i32::from(outcome == Outcome::Failed)
}
