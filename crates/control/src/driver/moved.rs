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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::stream::{self, BoxStream};
    use layby_model::ServiceId;
    use layby_model::engine::{
        BoxFuture, EngineError, EngineTraits, ExecOutput, LogLine, Workload,
    };
    use layby_model::replica::ContainerReport;
    use layby_model::route::Version;

    use super::*;

    /// An engine of which only the logs are asked: the moment of each one's newest line.
    struct Logs(BTreeMap<ReplicaId, u64>);

    impl Engine for Logs {
        fn traits(&self) -> EngineTraits {
            EngineTraits {
                can_doze: true,
                reports_health: false,
                can_exec: false,
            }
        }

        fn apply<'a>(&'a self, _: &'a Workload) -> BoxFuture<'a, Result<(), EngineError>> {
            Box::pin(async { Ok(()) })
        }

        fn observe<'a>(
            &'a self,
            _: Option<&'a ServiceId>,
        ) -> BoxFuture<'a, Result<Vec<ReplicaReport>, EngineError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn changes(&self) -> BoxStream<'static, Option<ServiceId>> {
            Box::pin(stream::pending())
        }

        fn logs<'a>(
            &'a self,
            replica: ReplicaId,
            query: LogQuery,
        ) -> BoxFuture<'a, Result<BoxStream<'static, LogLine>, EngineError>> {
            assert_eq!((query.tail, query.follow), (Some(1), false));
            let line = self.0.get(&replica).map(|at_ms| LogLine {
                at_ms: *at_ms,
                stream: "stdout".into(),
                text: "on and on".into(),
            });
            let lines: BoxStream<'static, LogLine> = Box::pin(stream::iter(line));
            Box::pin(async { Ok(lines) })
        }

        fn exec<'a>(
            &'a self,
            replica: ReplicaId,
            _: Option<&'a str>,
            _: &'a [String],
            _: u64,
        ) -> BoxFuture<'a, Result<ExecOutput, EngineError>> {
            panic!("nothing is to be executed in {replica}")
        }

        fn end<'a>(
            &'a self,
            replica: ReplicaId,
            _: &'a str,
            _: Option<u64>,
        ) -> BoxFuture<'a, Result<(), EngineError>> {
            panic!("nothing is to be ended in {replica}")
        }
    }

    const TARGET: RevisionId = RevisionId(2);
    const DEADLINE_MS: u64 = 10_000;

    fn desired() -> Desired {
        Desired {
            enabled: true,
            target: Some(TARGET),
            live: Some(RevisionId(1)),
            target_failed: false,
            retries: 0,
            failed_attempts: 0,
            deadline_ms: DEADLINE_MS,
            deadline_max_ms: 60_000,
            share: None,
            stop_first: false,
            replicas: 1,
            wanted: layby_model::Wakefulness::Awake,
            ladder: Default::default(),
            drain_ms: 0,
            generation: 1,
        }
    }

    /// A target that rolls for so long.
    fn observed(rolls_ms: u64) -> Observed {
        Observed {
            now_ms: 100_000,
            replicas: Vec::new(),
            vacancies: Vec::new(),
            published: None,
            base: Version::default(),
            named: BTreeMap::new(),
            gateway: None,
            hopeless: None,
            progress: 0,
            blocked: None,
            since: BTreeMap::from([(Timer::Roll(TARGET, 0), 100_000 - rolls_ms)]),
        }
    }

    fn report(id: u64, revision: RevisionId, pid: Option<i32>) -> ReplicaReport {
        ReplicaReport {
            id: ReplicaId(id),
            service: "shop/web".parse().expect("an id"),
            revision,
            generation: 1,
            phase: Phase::Starting,
            address: None,
            init: Vec::new(),
            containers: vec![ContainerReport {
                pid,
                ..ContainerReport::new("web")
            }],
            run: 1,
            ended: None,
            ended_in_a_row: 0,
            trouble: None,
        }
    }

    fn watch(reports: &[ReplicaReport], rolls_ms: u64, reason: &FailReason) -> Option<Watch> {
        let (d, o) = (desired(), observed(rolls_ms));
        Watch::of(&d, &o, TARGET, reason, reports, 7)
    }

    fn wall_ms() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::try_from(now.expect("after 1970").as_millis()).expect("a moment")
    }

    #[test]
    fn only_what_is_late_and_may_still_come_is_looked_at() {
        let target = [
            report(1, RevisionId(1), Some(9)),
            report(2, TARGET, Some(10)),
        ];
        let late = watch(&target, DEADLINE_MS, &FailReason::Deadline).expect("a look");
        assert_eq!(
            late.logs,
            [(ReplicaId(2), "web".to_owned())],
            "live's log says nothing of it"
        );
        assert!(!late.is_prepared);
        assert!(
            watch(&target, 60_000, &FailReason::Deadline).is_none(),
            "its last moment is over"
        );
        for reason in [
            FailReason::CrashLoop,
            FailReason::Ended,
            FailReason::Hopeless("no image".into()),
        ] {
            assert!(watch(&target, DEADLINE_MS, &reason).is_none(), "{reason:?}");
        }
        let many: Vec<ReplicaReport> = (1..20).map(|id| report(id, TARGET, Some(1))).collect();
        let many = watch(&many, DEADLINE_MS, &FailReason::Deadline).expect("a look");
        assert_eq!(many.logs.len(), LOGS);
    }

    #[tokio::test]
    async fn what_is_still_prepared_moves_and_what_failed_to_be_does_not() {
        let engine = Logs(BTreeMap::new());
        let mut unpacked = report(2, TARGET, None);
        let moves = async |report: &ReplicaReport| {
            let reports = std::slice::from_ref(report);
            let watch = watch(reports, DEADLINE_MS, &FailReason::Deadline).expect("a look");
            watch.moved(&engine).await
        };
        let moved = Moved {
            line_at_ms: 7,
            ago_ms: 0,
        };
        assert_eq!(moves(&unpacked).await, Some(moved));
        unpacked.containers[0].ended = 1;
        assert_eq!(moves(&unpacked).await, None, "it ran and ended");
        unpacked.phase = Phase::Stopped;
        assert_eq!(moves(&unpacked).await, None);
    }

    #[tokio::test]
    async fn a_log_moves_when_its_newest_line_is_newer_than_the_one_that_was_seen() {
        let watch = Watch {
            logs: vec![(ReplicaId(2), "web".into()), (ReplicaId(3), "web".into())],
            is_prepared: false,
            line_at_ms: 500,
            deadline_ms: DEADLINE_MS,
        };
        let moved = async |lines: &[(u64, u64)]| {
            let lines = lines.iter().map(|(id, at_ms)| (ReplicaId(*id), *at_ms));
            watch.clone().moved(&Logs(lines.collect())).await
        };
        assert_eq!(moved(&[]).await, None, "nothing was written");
        assert_eq!(moved(&[(2, 500), (3, 499)]).await, None, "nothing more was");
        // From long ago: not longer than the last look is over.
        let old = Moved {
            line_at_ms: 501,
            ago_ms: DEADLINE_MS,
        };
        assert_eq!(moved(&[(2, 500), (3, 501)]).await, Some(old));
        let now_ms = wall_ms();
        let new = moved(&[(2, now_ms)]).await.expect("it moves");
        assert_eq!(new.line_at_ms, now_ms);
        assert!(new.ago_ms < DEADLINE_MS, "{new:?}");
        // A clock that was set back makes no line come from the future.
        let ahead = moved(&[(2, now_ms + 3_600_000)]).await.expect("it moves");
        assert_eq!(ahead.ago_ms, 0);
    }
}
