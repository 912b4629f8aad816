//! Whether a target that is not ready in time still moves: its log grows, or its image is being unpacked. Looked at only when
//! its deadline has passed: what gets ready in time costs no look.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use layby_model::engine::{Engine, LogQuery};
use layby_model::plan::{Desired, FailReason, Observed, Timer};
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::{ReplicaId, RevisionId};

use super::Driver;
use super::failure::LOG_TIMEOUT;

/// So many logs are looked at: if none of those moves, hardly another will.
const LOGS: usize = 8;

/// How a target moved last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// When its newest log line was written, in milliseconds since 1970; 0: none was seen yet.
    pub(super) line_at_ms: u64,
    /// How long ago it moved when that was found out, in milliseconds.
    ago_ms: u64,
}

/// What is to be looked at.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// Containers whose logs may move.
    logs: Vec<(ReplicaId, String)>,
    /// Something of it is being unpacked or prepared.
    is_prepared: bool,
    /// The newest line that was seen before.
    line_at_ms: u64,
    /// How long it may lie still.
    deadline_ms: u64,
}

impl Watch {
    /// What to look at before `target` is given up for `reason`; `None`: nothing would change that.
    pub(super) fn of(
        d: &Desired,
        o: &Observed,
        target: RevisionId,
        reason: &FailReason,
        reports: &[ReplicaReport],
        line_at_ms: u64,
    ) -> Option<Self> {
        let late = match reason {
            FailReason::Deadline => true,
            FailReason::CrashLoop | FailReason::Ended | FailReason::Hopeless(_) => false,
        };
        let began_ms = o.since.get(&Timer::Roll(target, d.failed_attempts));
        let rolls_ms = began_ms.map_or(0, |began| o.now_ms.saturating_sub(*began));
        if !late || rolls_ms >= d.deadline_max_ms {
            return None;
        }
        let mine = || reports.iter().filter(move |r| r.revision == target);
        let logs = mine().flat_map(|r| {
            let all = r.init.iter().chain(&r.containers);
            all.map(|c| (r.id, c.name.clone()))
        });
        let is_prepared = |r: &ReplicaReport| {
            let starts = r.phase == Phase::Starting && r.trouble.is_none();
            let mut all = r.containers.iter().chain(&r.init);
            starts && all.all(|c| c.pid.is_none() && c.ended == 0 && c.last_exit.is_none())
        };
        Some(Self {
            logs: logs.take(LOGS).collect(),
            is_prepared: mine().any(is_prepared),
            line_at_ms,
            deadline_ms: d.deadline_ms,
        })
    }

    /// How it moved, if it did.
    pub(super) async fn moved(self, engine: &dyn Engine) -> Option<Moved> {
        let mut line_at_ms = self.line_at_ms;
        for (replica, container) in &self.logs {
            let newest = newest_line_ms(engine, *replica, container);
            let newest = tokio::time::timeout(LOG_TIMEOUT, newest).await;
            line_at_ms = line_at_ms.max(newest.ok().flatten().unwrap_or(0));
        }
        if self.is_prepared {
            let ago_ms = 0;
            return Some(Moved { line_at_ms, ago_ms });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.as_ref().map_or(0, Duration::as_millis);
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        // A clock that was set does not make it older than the last look.
        let ago_ms = now_ms.saturating_sub(line_at_ms).min(self.deadline_ms);
        (line_at_ms > self.line_at_ms).then_some(Moved { line_at_ms, ago_ms })
    }
}

impl Driver {
    /// The target moved: its deadline counts from then.
    pub(super) fn note_moved(&mut self, target: RevisionId, moved: Moved) {
        self.moved = moved;
        self.progress += 1;
        let since_ms = self.plane.clock.now_ms().saturating_sub(moved.ago_ms);
        self.since
            .insert(Timer::Still(target, self.progress), since_ms);
    }
}

/// When the newest line of a container's log was written.
async fn newest_line_ms(engine: &dyn Engine, replica: ReplicaId, container: &str) -> Option<u64> {
    let query = LogQuery {
        container: Some(container.to_owned()),
        tail: Some(1),
        follow: false,
        ..LogQuery::default()
    };
    let mut lines = engine.logs(replica, query).await.ok()?;
    lines.next().await.map(|line| line.at_ms)
}
