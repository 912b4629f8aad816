//! Deciding: what a driver writes to the store, beside its other work, and what it does with the answer.

use std::pin::Pin;
use std::sync::Arc;

use layby_model::deadline;
use layby_model::plan::{Desired, FailReason, Observed};
use layby_model::{RevisionId, Wakefulness};

use super::moved::{Moved, Watch};
use super::{Driver, Request, Trouble, failure};
use crate::api::types::EventKind;
use crate::plane::Loaded;
use crate::store::{Decision, StoreError};

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
    Row(Result<Option<Box<Loaded>>, StoreError>),
    /// Nothing was written: the target moves.
    Moved(RevisionId, Moved),
}

/// What is under way with the store. An answer is never dropped: what was written holds in memory, too.
#[derive(Default)]
pub(super) struct Work {
    under_way: Option<Pending>,
    /// The row is to be read, as soon as nothing is under way.
    read_due: bool,
}

impl Work {
    fn is_free(&self) -> bool {
        self.under_way.is_none() && !self.read_due
    }

    /// Begins work; it is free.
    fn begin(&mut self, work: Pending) {
        self.under_way = Some(work);
    }

    fn ask_for_row(&mut self) {
        self.read_due = true;
    }

    /// Whether the row is to be read now; then that is begun.
    fn takes_read(&mut self) -> bool {
        self.under_way.is_none() && std::mem::take(&mut self.read_due)
    }

    /// Waits for the store's answer; for ever while nothing was asked.
    pub(super) async fn finished(&mut self) -> Written {
        match &mut self.under_way {
            Some(under_way) => {
                let written = under_way.await;
                self.under_way = None;
                written
            }
            None => std::future::pending().await,
        }
    }
}

impl Driver {
    /// Begins to write a decision, unless a write is under way or has to wait: then the step comes again.
    pub(super) fn decide(&mut self, d: &Desired, decision: Decision) {
        if !self.work.is_free() || self.store_must_wait() {
            return;
        }
        let (store, id) = (self.plane.store.clone(), self.id.clone());
        let (generation, replicas) = (d.generation, d.replicas);
        self.work.begin(Box::pin(async move {
            let made_with = (generation, replicas);
            let result = store.decide(&id, made_with, decision.clone()).await;
            Written::Decision {
                generation,
                decision,
                result,
            }
        }));
    }

    /// Begins to write that the target failed, with all there is to find the cause; or finds that it moves, and lets it.
    pub(super) fn decide_failure(
        &mut self,
        d: &Desired,
        o: &Observed,
        target: RevisionId,
        reason: FailReason,
        again: bool,
    ) {
        if !self.work.is_free() || self.store_must_wait() {
            return;
        }
        let reports = self.plane.facts.of(&self.id);
        let watch = Watch::of(d, o, target, &reason, &reports, self.moved.line_at_ms);
        let (failure, from) = self.failure(d, o, target, &reason, &reports);
        let row = self.row();
        let of_live = row.live.as_ref().map(|live| {
            let live = &live.spec.service;
            live.replicas_beside(Some(d.replicas)).max(1)
        });
        let replicas = row.scale.or(of_live).unwrap_or(d.replicas);
        let engine = Arc::clone(&self.plane.engine);
        let (store, id, generation) = (self.plane.store.clone(), self.id.clone(), d.generation);
        let made_with = (generation, d.replicas);
        self.work.begin(Box::pin(async move {
            if let Some(watch) = watch
                && let Some(moved) = watch.moved(&*engine).await
            {
                return Written::Moved(target, moved);
            }
            // While the replicas are still there: they go when this is written.
            let mut failure = failure;
            if let Some((replica, container)) = from {
                failure.log = failure::last_lines(&*engine, replica, container).await;
                failure.hint = failure.hint.map(|hint| failure::beside(&failure.log, hint));
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
            let result = store.decide(&id, made_with, decision.clone()).await;
            Written::Decision {
                generation,
                decision,
                result,
            }
        }));
    }

    /// Begins to read the row again, after what is under way.
    pub(super) fn reload(&mut self) {
        self.work.ask_for_row();
        self.read_if_due();
    }

    fn read_if_due(&mut self) {
        if !self.work.takes_read() {
            return;
        }
        let (plane, id) = (Arc::clone(&self.plane), self.id.clone());
        self.work.begin(Box::pin(async move {
            match plane.store.service(&id).await {
                Ok(Some(row)) => Written::Row(Ok(Some(Box::new(plane.load(row).await)))),
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
            Written::Moved(target, moved) => self.note_moved(target, moved),
            Written::Row(Ok(Some(loaded))) => self.take(Request::Reload(loaded)),
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
        self.read_if_due();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_row_that_is_asked_for_during_a_write_is_read_after_the_writes_answer() {
        let mut work = Work::default();
        let written = Written::Decision {
            generation: 1,
            decision: Decision::Wakefulness(Wakefulness::Asleep),
            result: Ok(true),
        };
        work.begin(Box::pin(async move { written }));
        work.ask_for_row();
        assert!(!work.takes_read(), "the write is under way");
        let answer = work.finished().await;
        assert!(matches!(
            answer,
            Written::Decision {
                result: Ok(true),
                ..
            }
        ));
        assert!(!work.is_free() && work.takes_read() && !work.takes_read());
    }
}
