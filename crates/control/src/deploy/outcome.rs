//! Waiting for what becomes of a deploy, telling it as it goes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use layby_model::RevisionId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Committed;
use super::progress::{Progress, counts};
use crate::api::types::{Event, Failure, Outcome};
use crate::driver::Status;

/// Beside the deadline, a rollout may wait this long: for old replicas to drain, and for the disk.
const SLACK: Duration = Duration::from_secs(60);

/// Waits until every service has its outcome, and gives the exit code.
pub(crate) async fn wait(
    committed: Vec<Committed>,
    detach: bool,
    events: &mpsc::Sender<Event>,
) -> i32 {
    let waits = committed
        .into_iter()
        .map(|one| wait_for(one, detach, events));
    let outcomes = join_all(waits).await;
    let any = |outcome| outcomes.contains(&outcome);
    if any(Outcome::Failed) {
        1
    } else if any(Outcome::Kept) {
        3
    } else if any(Outcome::Pending) && !detach {
        5
    } else {
        0
    }
}

async fn wait_for(one: Committed, detach: bool, events: &mpsc::Sender<Event>) -> Outcome {
    let Committed {
        service,
        revision,
        mut status,
    } = one;
    let Some(revision) = revision else {
        let shown = Arc::clone(&status.borrow());
        return tell(&shown, Outcome::Unchanged, None, events).await;
    };
    let mut progress = Progress::default();
    let mut limit = None;
    loop {
        let shown = Arc::clone(&status.borrow_and_update());
        if let Some((outcome, failure)) = verdict(&shown, revision) {
            return tell(&shown, outcome, failure, events).await;
        }
        let known = shown.row.target.id == revision;
        if detach && known {
            return tell(&shown, Outcome::Pending, None, events).await;
        }
        let mut again = None;
        if known {
            let counts = counts(&shown.detail.replicas, revision.0, shown.row.replicas);
            let answer = shown.last_answer.as_deref();
            let (now, next) = progress.tell(counts, answer, Instant::now());
            again = next;
            if let Some(text) = now {
                let progress = Event::Progress {
                    service: service.to_string(),
                    state: shown.detail.view.state,
                    text,
                };
                let _ = events.send(progress).await;
            }
        }
        let deadline = *limit.get_or_insert_with(|| {
            let spec = &shown.row.target.spec.service;
            let ms = spec.progress_deadline_ms.saturating_add(spec.drain_ms);
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

/// What became of a revision; `None`: it still rolls, or its driver has not heard of it.
fn verdict(status: &Status, revision: RevisionId) -> Option<(Outcome, Option<Failure>)> {
    let row = &status.row;
    let over = |reason: String| Failure {
        revision: revision.0,
        reason,
        last_probe: None,
        exit: None,
        log: Vec::new(),
        hint: None,
    };
    let lost = match row.live {
        Some(_) => Outcome::Kept,
        None => Outcome::Failed,
    };
    if status.gone || row.removing {
        Some((
            Outcome::Failed,
            Some(over("it was taken down meanwhile".into())),
        ))
    } else if row.live.as_ref().is_some_and(|live| live.id == revision) {
        Some((Outcome::Live, None))
    } else if row.target.id > revision {
        let text = format!("it was overtaken by revision {}", row.target.id);
        Some((lost, Some(over(text))))
    } else if row.target.id == revision && row.target_failed {
        Some((lost, row.last_failure.clone()))
    } else {
        None
    }
}

async fn tell(
    status: &Status,
    outcome: Outcome,
    failure: Option<Failure>,
    events: &mpsc::Sender<Event>,
) -> Outcome {
    let service = status.detail.view.clone();
    let event = Event::Service {
        service,
        outcome,
        failure,
    };
    let _ = events.send(event).await;
    outcome
}
