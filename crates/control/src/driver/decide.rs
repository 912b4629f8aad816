//! Deciding: what a driver writes to the store, beside its other work, and what it does with the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use layby_model::deadline;
use layby_model::engine::{Engine, LogQuery};
use layby_model::plan::{CRASH_LOOP_STARTS, Desired, FailReason, Observed};
use layby_model::replica::{End, ReplicaReport};
use layby_model::{ReplicaId, RevisionId, Wakefulness};

use super::{Driver, Request, Trouble};
use crate::api::types::{EventKind, Failure};
use crate::plane::Loaded;
use crate::store::{Decision, StoreError};

/// So many of the last log lines are kept with a failure.
const LOG_LINES: usize = 10;
/// So long may the engine take to hand them out.
const LOG_TIMEOUT: Duration = Duration::from_millis(500);

/// A write (or read) of the store that is under way; one at a time.
pub(super) type Pending = Pin<Box<dyn Future<Output = Written> + Send>>;

/// What came of it.
pub(super) enum Written {
    /// A decision made at `generation`; `Ok(false)`: the row had changed.
    Decision {
        generation: u64,
        decision: Decision,
        result: Result<bool, StoreError>,
    },
    /// The row as it is now.
    Row(Result<Option<Loaded>, StoreError>),
}

/// Waits for the store's answer; for ever while nothing was asked.
pub(super) async fn finished(pending: &mut Option<Pending>) -> Written {
    match pending {
        Some(under_way) => {
            let written = under_way.await;
            *pending = None;
            written
        }
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Begins to write a decision, unless a write is under way or has to wait: then the step comes again.
    pub(super) fn decide(&mut self, d: &Desired, decision: Decision) {
        if self.pending.is_some() || self.store_must_wait() {
            return;
        }
        let (store, id) = (self.plane.store.clone(), self.id.clone());
        let generation = d.generation;
        self.pending = Some(Box::pin(async move {
            let result = store.decide(&id, generation, decision.clone()).await;
            Written::Decision {
                generation,
                decision,
                result,
            }
        }));
    }

    /// Begins to write that the target failed, with all there is to find the cause.
    pub(super) fn decide_failure(
        &mut self,
        d: &Desired,
        o: &Observed,
        target: RevisionId,
        reason: FailReason,
        again: bool,
    ) {
        if self.pending.is_some() || self.store_must_wait() {
            return;
        }
        let reports = self.plane.facts.of(&self.id);
        let of_target: Vec<&ReplicaReport> =
            reports.iter().filter(|r| r.revision == target).collect();
        // The one that got the furthest in failing says the most.
        let worst = of_target.iter().max_by_key(|report| {
            let ended: u32 = report.containers.iter().map(|c| c.ended).sum();
            (ended, report.id)
        });
        let ended = worst.and_then(|report| end_of(report));
        let replica = worst.map(|report| report.id);
        let failed_starts = (o.replicas.iter().filter(|r| r.revision == target))
            .map(|r| r.failed_starts)
            .max();
        let failed_starts = failed_starts.unwrap_or(CRASH_LOOP_STARTS);
        let trouble = worst.and_then(|report| Some(report.trouble.as_ref()?.message.as_str()));
        let last_probe = replica.and_then(|id| self.health.last_answer(id));
        // That nobody listened says nothing of what ended before it could.
        let told = match reason {
            FailReason::Deadline => true,
            FailReason::CrashLoop | FailReason::Ended | FailReason::Hopeless(_) => false,
        };
        let last_probe = last_probe.filter(|answer| told || !answer.early);
        let last_probe = last_probe.map(|answer| answer.text);
        let failure = Failure {
            revision: target.0,
            reason: reason_text(&reason, d, ended.as_ref(), trouble, failed_starts),
            hint: hint(&reason, last_probe.is_some(), ended.as_ref()),
            last_probe,
            exit: ended.as_ref().map(|end| end.exit.into()),
            log: Vec::new(),
        };
        let container = ended.map(|end| end.container);
        let row = self.row();
        let of_live = (row.live.as_ref()).map(|live| live.spec.service.replicas.max(1));
        let replicas = row.scale.or(of_live).unwrap_or(d.replicas);
        let engine = Arc::clone(&self.plane.engine);
        let (store, id, generation) = (self.plane.store.clone(), self.id.clone(), d.generation);
        self.pending = Some(Box::pin(async move {
            // While the replicas are still there: they go when this is written.
            let mut failure = failure;
            if let Some(replica) = replica {
                failure.log = last_lines(&*engine, replica, container).await;
            }
            let failure = Box::new(failure);
            let decision = match again {
                true => Decision::Retry {
                    revision: target,
                    failure,
                },
                false => Decision::Fail {
                    revision: target,
                    failure,
                    replicas,
                },
            };
            let result = store.decide(&id, generation, decision.clone()).await;
            Written::Decision {
                generation,
                decision,
                result,
            }
        }));
    }

    /// Begins to read the row again.
    pub(super) fn reload(&mut self) {
        let (plane, id) = (Arc::clone(&self.plane), self.id.clone());
        self.pending = Some(Box::pin(async move {
            match plane.store.service(&id).await {
                Ok(Some(row)) => Written::Row(Ok(Some(plane.load(row).await))),
                Ok(None) => Written::Row(Ok(None)),
                Err(error) => Written::Row(Err(error)),
            }
        }));
    }

    /// Takes in the store's answer.
    pub(super) fn written(&mut self, written: Written) {
        match written {
            Written::Decision {
                generation,
                decision,
                result: Ok(true),
            } => {
                self.store_trouble = None;
                // A row that was read since has it already.
                if generation == self.row().generation {
                    self.decided(decision);
                }
            }
            Written::Decision {
                result: Ok(false), ..
            } => self.reload(),
            Written::Row(Ok(Some(loaded))) => self.take(Request::Reload(Box::new(loaded))),
            Written::Row(Ok(None)) => {
                tracing::warn!(service = %self.id, "the store no longer has the service that is driven");
            }
            Written::Decision {
                result: Err(error), ..
            }
            | Written::Row(Err(error)) => {
                tracing::warn!(service = %self.id, %error, "a decision could not be written; trying again");
                let now_ms = self.plane.clock.now_ms();
                let trouble =
                    Trouble::again(self.store_trouble.as_ref(), error.to_string(), now_ms);
                self.store_trouble = Some(trouble);
            }
        }
    }

    /// What was written holds in memory too.
    fn decided(&mut self, decision: Decision) {
        let row = &mut self.loaded.row;
        match decision {
            Decision::GoLive { revision, boot_ms } if row.target.id == revision => {
                boot_ms
                    .iter()
                    .for_each(|boot| deadline::remember(&mut row.boots_ms, *boot));
                (row.failed_attempts, row.share) = (0, None);
                tracing::info!(service = %self.id, %revision, "live");
                let text = format!("revision {revision} is live");
                self.plane.events.of(&self.id, EventKind::Live, text, None);
                row.live = Some(row.target.clone());
                row.last_failure = None;
                row.wanted = Wakefulness::Awake;
                self.stored = Wakefulness::Awake;
                self.wanted = Wakefulness::Awake;
            }
            Decision::Retry { revision, failure } if row.target.id == revision => {
                tracing::warn!(service = %self.id, %revision, reason = failure.reason, "failed, and is tried again");
                let text = format!(
                    "revision {revision} failed and is tried again: {}",
                    failure.reason
                );
                self.plane
                    .events
                    .of(&self.id, EventKind::Retrying, text, None);
                row.failed_attempts += 1;
                row.last_failure = Some(*failure);
            }
            Decision::Fail {
                revision,
                failure,
                replicas,
            } if row.target.id == revision => {
                tracing::warn!(service = %self.id, %revision, reason = failure.reason, "failed");
                let text = format!("revision {revision} failed: {}", failure.reason);
                self.plane
                    .events
                    .of(&self.id, EventKind::Failed, text, None);
                (row.target_failed, row.share) = (true, None);
                row.last_failure = Some(*failure);
                row.replicas = replicas;
            }
            // A row that was changed has another generation: these do not come.
            Decision::GoLive { .. } | Decision::Retry { .. } | Decision::Fail { .. } => {}
            Decision::Wakefulness(wanted) => self.stored = wanted,
        }
    }

    fn store_must_wait(&self) -> bool {
        let now_ms = self.plane.clock.now_ms();
        (self.store_trouble.as_ref()).is_some_and(|trouble| trouble.until_ms > now_ms)
    }
}

/// How a replica ended unasked last, if it ever did.
pub(super) fn end_of(report: &ReplicaReport) -> Option<End> {
    let before = || {
        let container = report.containers.iter().find(|c| c.ended > 0)?;
        Some(End {
            container: container.name.clone(),
            exit: container.last_exit?,
        })
    };
    report.ended.clone().or_else(before)
}

fn reason_text(
    reason: &FailReason,
    d: &Desired,
    ended: Option<&End>,
    trouble: Option<&str>,
    failed_starts: u32,
) -> String {
    match (reason, ended) {
        (FailReason::Hopeless(why), _) => why.clone(),
        (FailReason::Deadline, _) => {
            format!("it was not ready within {}", seconds(d.deadline_ms))
        }
        (FailReason::CrashLoop, Some(End { container, exit })) if exit.oom => format!(
            "its container {container} was ended for want of memory in each of {failed_starts} starts"
        ),
        (FailReason::CrashLoop, Some(End { container, exit })) => format!(
            "its container {container} ended with exit code {} in each of {failed_starts} starts",
            exit.code
        ),
        (FailReason::Ended, Some(End { container, exit })) if exit.oom => format!(
            "its container {container} was ended for want of memory, and its restart policy leaves it so"
        ),
        (FailReason::Ended, Some(End { container, exit })) => format!(
            "its container {container} ended with exit code {}, and its restart policy leaves it so",
            exit.code
        ),
        (FailReason::Ended, None) => "it ended, and its restart policy leaves it so".into(),
        (FailReason::CrashLoop, None) => match trouble {
            Some(why) => format!("it could not be started, {failed_starts} times in a row: {why}"),
            None => format!("it could not be started, {failed_starts} times in a row"),
        },
    }
}

fn hint(reason: &FailReason, probed: bool, ended: Option<&End>) -> Option<String> {
    let oom = ended.is_some_and(|end| end.exit.oom);
    let text = match reason {
        FailReason::Hopeless(_) => return None,
        FailReason::CrashLoop | FailReason::Ended if oom => {
            "raise its memory limit, or have it use less"
        }
        FailReason::CrashLoop if ended.is_none() => return None,
        FailReason::CrashLoop | FailReason::Ended => "see its last log lines for the cause",
        FailReason::Deadline if probed => {
            "make the app answer its probe, or give it longer (progressDeadlineSeconds)"
        }
        FailReason::Deadline => "give it longer (progressDeadlineSeconds)",
    };
    Some(text.into())
}

/// `300 s`, or `1.5 s`.
fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{} s", ms / 1000)
    } else {
        format!("{:.1} s", ms as f64 / 1000.0)
    }
}

/// The last lines of a replica's log; none where the engine does not hand them out in time.
async fn last_lines(
    engine: &dyn Engine,
    replica: ReplicaId,
    container: Option<String>,
) -> Vec<String> {
    let query = LogQuery {
        container,
        tail: Some(LOG_LINES),
        follow: false,
        ..LogQuery::default()
    };
    let read = async {
        let lines = engine.logs(replica, query).await.ok()?;
        Some(lines.take(LOG_LINES).map(|line| line.text).collect().await)
    };
    let lines: Option<Vec<String>> = tokio::time::timeout(LOG_TIMEOUT, read).await.ok().flatten();
    lines.unwrap_or_default()
}
