//! Waiting for what becomes of a deploy, telling it as it goes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use layby_model::depends::Blockade;
use layby_model::plan::pause_ms;
use layby_model::state::Showing;
use layby_model::{RevisionId, ServiceId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Committed;
use super::progress::{Progress, counts};
use crate::api::types::{Event, Failure, Outcome};
use crate::driver::{self, Status};
use crate::store::{Revision, Row};

/// Beside the deadline, a rollout may wait this long: for old replicas to drain, and for the disk.
pub(super) const SLACK: Duration = Duration::from_secs(60);

/// What became of one service.
pub(super) struct Done {
    pub(super) service: ServiceId,
    /// The one that was made or rolled; `None`: there was none.
    pub(super) revision: Option<RevisionId>,
    pub(super) outcome: Outcome,
    pub(super) failure: Option<Failure>,
    pub(super) status: watch::Receiver<Arc<Status>>,
}

/// Waits until every service has its outcome, and gives the exit code.
pub(crate) async fn wait(
    committed: Vec<Committed>,
    detach: bool,
    events: &mpsc::Sender<Event>,
) -> i32 {
    code(&each(committed, detach, events).await, detach)
}

/// Waits until every service has its outcome.
pub(super) async fn each(
    committed: Vec<Committed>,
    detach: bool,
    events: &mpsc::Sender<Event>,
) -> Vec<Done> {
    let waits = committed.into_iter().map(async |one| {
        let (outcome, failure) = wait_for(&one, detach, events).await;
        Done {
            service: one.service,
            revision: one.revision,
            outcome,
            failure,
            status: one.status,
        }
    });
    join_all(waits).await
}

/// The exit code that these outcomes make.
pub(super) fn code(done: &[Done], detach: bool) -> i32 {
    let any = |outcome| done.iter().any(|one| one.outcome == outcome);
    if any(Outcome::Failed) {
        1
    } else if any(Outcome::Kept) {
        3
    } else if any(Outcome::Overtaken) || any(Outcome::Aborted) {
        6
    } else if any(Outcome::Pending) && !detach {
        5
    } else {
        0
    }
}

async fn wait_for(
    one: &Committed,
    detach: bool,
    events: &mpsc::Sender<Event>,
) -> (Outcome, Option<Failure>) {
    if let Some(text) = one.ended_canary.clone() {
        let _ = events.send(Event::Warning { text }).await;
    }
    let mut status = one.status.clone();
    let Some(revision) = one.revision else {
        return settled(one, detach, events).await;
    };
    let mut progress = Progress::default();
    let mut limit = None;
    let mut held_up = Blockade::Open;
    let mut attempts = 0;
    loop {
        let shown = Arc::clone(&status.borrow_and_update());
        let known = shown.row.generation >= one.generation || shown.gone;
        if known && let Some((outcome, failure)) = verdict(&shown, revision, one.is_disabled) {
            return tell(&shown, outcome, failure, events).await;
        }
        if detach && known {
            return tell(&shown, Outcome::Pending, None, events).await;
        }
        let mut again = None;
        if known && attempts != shown.row.failed_attempts {
            attempts = shown.row.failed_attempts;
            tell_retry(&shown, events).await;
        }
        // That the gateway takes it up is a matter of milliseconds, and so is that a failure is written: nothing starts meanwhile.
        let live = shown.row.live.as_ref().map(|live| live.id);
        let is_over = live == Some(revision) || shown.is_hopeless(revision);
        if known && !shown.rests && !is_over {
            if held_up != shown.blockade {
                held_up = shown.blockade.clone();
                limit = None;
            }
            let counts = match &held_up {
                Blockade::Waits(why) | Blockade::Stuck(why) => format!("waits: {why}"),
                Blockade::Fails(why) => format!("gives up: {why}"),
                Blockade::Open => {
                    let failed = shown.failed_starts(revision);
                    counts(
                        &shown.detail.replicas,
                        revision.0,
                        shown.row.replicas,
                        failed,
                    )
                }
            };
            let answer = shown.last_answer.as_deref();
            let (now, next) = progress.tell(counts, answer, Instant::now());
            again = Some(next);
            if let Some(text) = now {
                let progress = Event::Progress {
                    service: one.service.to_string(),
                    state: shown.detail.view.state,
                    text,
                };
                let _ = events.send(progress).await;
            }
        }
        let deadline = *limit.get_or_insert_with(|| {
            let ms = match held_up {
                Blockade::Open | Blockade::Fails(_) => longest_ms(&shown.row),
                // What it waits for has its own time.
                Blockade::Waits(_) => u64::MAX,
                Blockade::Stuck(_) => 0,
            };
            Instant::now() + Duration::from_millis(ms.min(u64::from(u32::MAX))) + SLACK
        });
        let until = again.map_or(deadline, |again: Instant| again.min(deadline));
        match tokio::time::timeout_at(until, status.changed()).await {
            Ok(Ok(())) => {}
            // There is more to tell.
            Err(_) if until < deadline => {}
            // The driver is gone, or it takes too long.
            Ok(Err(_)) | Err(_) => return tell(&shown, Outcome::Pending, None, events).await,
        }
    }
}

/// Tells that an attempt failed, and when the next one is made.
async fn tell_retry(status: &Status, events: &mpsc::Sender<Event>) {
    let row = &status.row;
    let d = driver::desired(row);
    let next = match status.rests {
        true => format!("in {} s", pause_ms(d.failed_attempts) / 1_000),
        false => "now".to_owned(),
    };
    let (failed, all) = (d.failed_attempts, d.retries.max(d.failed_attempts) + 1);
    let why = match &row.last_failure {
        Some(failure) => format!(": {}", failure.reason),
        None => String::new(),
    };
    let progress = Event::Progress {
        service: row.service.to_string(),
        state: status.detail.view.state,
        text: format!("attempt {failed} of {all} failed, the next one begins {next}{why}"),
    };
    let _ = events.send(progress).await;
}

/// The longest that a rollout may take, with all attempts and the pauses between them, in milliseconds.
fn longest_ms(row: &Row) -> u64 {
    let d = driver::desired(row);
    let attempt_ms = d.deadline_max_ms.saturating_add(d.drain_ms);
    let pauses_ms = (1..=d.retries).map(pause_ms).fold(0, u64::saturating_add);
    attempt_ms
        .saturating_mul(u64::from(d.retries) + 1)
        .saturating_add(pauses_ms)
}

/// Waits for a service that nothing rolls of: it stays as it is, or comes back after it was disabled.
async fn settled(
    one: &Committed,
    detach: bool,
    events: &mpsc::Sender<Event>,
) -> (Outcome, Option<Failure>) {
    let mut status = one.status.clone();
    let known = |status: &Status| status.gone || status.row.generation >= one.generation;
    // It has no other word than this to wait for.
    let _ = status.wait_for(|status| known(status)).await;
    let back = |status: &Status| {
        let showing = status.detail.view.wakefulness;
        let there = matches!(showing, Some(Showing::Awake | Showing::Ended));
        let back = (there || status.resting.is_some()) && status.is_confirmed;
        back || status.row.live.is_none() || !status.row.enabled
    };
    if one.comes_back && !detach {
        let wait = status.wait_for(|status| status.gone || back(status));
        let _ = tokio::time::timeout(SLACK, wait).await;
    }
    let shown = Arc::clone(&status.borrow());
    let row = &shown.row;
    let (outcome, failure) = match () {
        () if !row.enabled => (Outcome::Disabled, None),
        () if row.live.is_none() => (Outcome::Failed, row.last_failure.clone()),
        () if !one.comes_back => (Outcome::Unchanged, None),
        () if back(&shown) => (Outcome::Live, None),
        () => (Outcome::Pending, None),
    };
    tell(&shown, outcome, failure, events).await
}

/// What became of a revision; `None`: it still rolls, or the gateway has not taken up that it is live.
/// `is_disabled`: that it does not roll was known from the start.
fn verdict(
    status: &Status,
    revision: RevisionId,
    is_disabled: bool,
) -> Option<(Outcome, Option<Failure>)> {
    let row = &status.row;
    let over = |reason: String| Some(Failure::plain(revision, reason, row.failed_attempts + 1));
    let lost = match row.live {
        Some(_) => Outcome::Kept,
        None => Outcome::Failed,
    };
    let is_target = row.target.id == revision;
    if status.gone || row.removing {
        Some((Outcome::Failed, over("it was taken down meanwhile".into())))
    } else if row.live.as_ref().is_some_and(|live| live.id == revision) {
        // Once something newer is on its way, the table that is waited for may never be the newest one.
        (status.is_confirmed || !is_target).then_some((Outcome::Live, None))
    } else if row.target.id > revision {
        Some((Outcome::Overtaken, over(overtaken(&row.target))))
    } else if is_target && row.target_failed {
        let outcome = match row.aborted_by() {
            Some(_) => Outcome::Aborted,
            None => lost,
        };
        Some((outcome, row.last_failure.clone()))
    } else if row.enabled && is_target && status.canary_stands() {
        status.is_confirmed.then_some((Outcome::Canary, None))
    } else if !row.enabled && is_disabled {
        Some((Outcome::Disabled, None))
    } else if !row.enabled {
        Some((lost, over("it was disabled meanwhile".into())))
    } else {
        None
    }
}

/// `overtaken by revision 3, deployed by ann`.
pub(super) fn overtaken(newer: &Revision) -> String {
    let id = newer.id;
    match &newer.made_by {
        Some(who) => format!("overtaken by revision {id}, deployed by {who}"),
        None => format!("overtaken by revision {id}"),
    }
}

async fn tell(
    status: &Status,
    outcome: Outcome,
    failure: Option<Failure>,
    events: &mpsc::Sender<Event>,
) -> (Outcome, Option<Failure>) {
    let service = status.detail.view.clone();
    let event = Event::Service {
        service,
        outcome,
        failure: failure.clone(),
    };
    let _ = events.send(event).await;
    (outcome, failure)
}
