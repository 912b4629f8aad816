//! What a failed attempt leaves behind: why it failed, and all there is to find the cause.

use std::time::Duration;

use futures_util::StreamExt;
use layby_model::diff::{Change, diff};
use layby_model::engine::{Engine, LogQuery};
use layby_model::plan::{CRASH_LOOP_STARTS, Desired, FailReason, Observed, Timer};
use layby_model::replica::{End, ReplicaReport};
use layby_model::{ReplicaId, RevisionId};

use super::Driver;
use crate::api::types::{ChangeView, Failure};

/// So many of the last log lines are kept with a failure.
const LOG_LINES: usize = 50;
/// So much of each, in bytes.
const LINE_BYTES: usize = 1_000;
/// So long may the engine take to hand them out.
pub(super) const LOG_TIMEOUT: Duration = Duration::from_millis(500);
/// What to do where it said something.
const SEE_LOG: &str = "see its last log lines for the cause";
/// So many differences to the live revision are kept with it.
const CHANGES: usize = 100;

impl Driver {
    /// The failure of the target but for its log, and whose log is to be read: a replica's, and which container's.
    pub(super) fn failure(
        &self,
        d: &Desired,
        o: &Observed,
        target: RevisionId,
        reason: &FailReason,
        reports: &[ReplicaReport],
    ) -> (Failure, Option<(ReplicaId, Option<String>)>) {
        let of_target = reports.iter().filter(|r| r.revision == target);
        // The one that got the furthest in failing says the most.
        let worst = of_target.clone().max_by_key(|report| {
            let ended: u32 = report
                .containers
                .iter()
                .chain(&report.init)
                .map(|c| c.ended)
                .sum();
            (ended, report.id)
        });
        let ended = worst.and_then(end_of);
        let replica = worst.map(|report| report.id);
        let failed_starts = (o.replicas.iter().filter(|r| r.revision == target))
            .map(|r| r.failed_starts)
            .max();
        let failed_starts = failed_starts.unwrap_or(CRASH_LOOP_STARTS);
        // Of a target that starts, and is not well for long.
        let dead = (self.vacancies.empty())
            .filter(|(vacancy, _)| vacancy.revision == target)
            .map(|(_, past)| past);
        let replaced = of_target.clone().filter_map(|r| self.vacancies.past(r.id));
        let died = dead.chain(replaced).max_by_key(|past| past.deaths);
        let died = died.map(|past| past.said.as_str());
        let trouble = worst.and_then(|report| {
            let of_all = report.trouble.as_ref().map(|trouble| &trouble.message);
            let mut down = report.containers.iter().filter(|c| c.down);
            of_all.or_else(|| down.find_map(|c| c.trouble.as_ref()))
        });
        let trouble = trouble.map(String::as_str);
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
            reason: reason_text(
                reason,
                d,
                o,
                Seen {
                    ended: ended.as_ref(),
                    trouble,
                    died,
                    failed_starts,
                },
            ),
            hint: hint(reason, last_probe.is_some(), ended.as_ref()),
            last_probe,
            exit: ended.as_ref().map(|end| end.exit.into()),
            log: Vec::new(),
            attempt: d.failed_attempts + 1,
            difference: self.difference(),
            aborted_by: None,
        };
        let container = ended.map(|end| end.container);
        (failure, replica.map(|replica| (replica, container)))
    }

    /// How live, which works, differs from the target; of variables only which: whoever may look sees failures.
    fn difference(&self) -> Vec<ChangeView> {
        let row = self.row();
        let live = row.live.iter();
        live.flat_map(|live| diff(&live.spec, &row.target.spec))
            .take(CHANGES)
            .map(|change| ChangeView::from(Change::without_value(change)))
            .collect()
    }
}

/// A line as it is kept.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LINE_BYTES));
    text
}

/// How a replica ended unasked last, if it ever did.
pub(super) fn end_of(report: &ReplicaReport) -> Option<End> {
    let before = || {
        let container = report
            .containers
            .iter()
            .chain(&report.init)
            .filter(|c| c.ended > 0)
            // One that lies alone now, before those that have run again since.
            .max_by_key(|c| (c.down, c.ended))?;
        Some(End {
            container: container.name.clone(),
            exit: container.last_exit?,
            // Then the engine says why: its hook failed, or it could not be started again.
            hook: container.down && container.trouble.is_some(),
        })
    };
    report.ended.clone().or_else(before)
}

/// What was seen of a target that failed.
struct Seen<'a> {
    /// How a container ended last.
    ended: Option<&'a End>,
    /// What stood in the way of starting it.
    trouble: Option<&'a str>,
    /// What was said to a liveness probe that failed for good.
    died: Option<&'a str>,
    /// The most starts in a row that came to nothing.
    failed_starts: u32,
}

fn reason_text(reason: &FailReason, d: &Desired, o: &Observed, seen: Seen<'_>) -> String {
    let Seen {
        ended,
        trouble,
        died,
        failed_starts,
    } = seen;
    match (reason, ended) {
        (FailReason::Hopeless(why), _) => why.clone(),
        (FailReason::Deadline, _) => late(d, o),
        (FailReason::CrashLoop, Some(end)) => {
            format!("{} in each of {failed_starts} starts", how(end, trouble))
        }
        (FailReason::Ended, Some(end)) => {
            let how = how(end, trouble);
            format!("{how}, and its restart policy leaves it so")
        }
        (FailReason::Ended, None) => "it ended, and its restart policy leaves it so".into(),
        (FailReason::CrashLoop, None) => match (trouble, died) {
            (Some(why), _) => {
                format!("it could not be started, {failed_starts} times in a row: {why}")
            }
            (None, Some(said)) => {
                format!("its liveness probe failed, {failed_starts} times in a row: {said}")
            }
            (None, None) => format!("it could not be started, {failed_starts} times in a row"),
        },
    }
}

/// What ended, and how. The engine says more of a hook: in `trouble`.
fn how(end: &End, trouble: Option<&str>) -> String {
    let End {
        container,
        exit,
        hook,
    } = end;
    match (hook, exit.oom, trouble) {
        (true, _, Some(trouble)) => trouble.to_owned(),
        (true, _, None) => format!(
            "a hook after the start of its container {container} ended with exit code {}",
            exit.code
        ),
        (false, true, _) => {
            format!("its container {container} was ended for want of memory")
        }
        (false, false, _) => format!(
            "its container {container} ended with exit code {}",
            exit.code
        ),
    }
}

/// What was too late.
fn late(d: &Desired, o: &Observed) -> String {
    let since = |timer: Timer| o.since.get(&timer).copied();
    let began_ms = (d.target).and_then(|target| since(Timer::Roll(target, d.failed_attempts)));
    let moved_ms = (d.target).and_then(|target| since(Timer::Still(target, o.progress)));
    let took_ms = began_ms.map_or(0, |began| o.now_ms.saturating_sub(began));
    // What it said when it was started is no movement, and that it was looked at late on a busy machine is none either.
    let moved = began_ms.zip(moved_ms);
    let moved = moved.is_some_and(|(began, moved)| moved.saturating_sub(began) >= 1_000);
    match (moved, took_ms >= d.deadline_max_ms) {
        (true, true) => format!(
            "it was not ready within {}, though its log or its image moved",
            seconds(d.deadline_max_ms)
        ),
        (true, false) => format!(
            "it was not ready after {}, and neither its log nor its image moved for {}",
            seconds(took_ms / 1_000 * 1_000),
            seconds(d.deadline_ms)
        ),
        (false, _) => format!("it was not ready within {}", seconds(d.deadline_ms)),
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
        FailReason::CrashLoop | FailReason::Ended => SEE_LOG,
        FailReason::Deadline if probed => {
            "make the app answer its probe, or give it longer (progressDeadlineSeconds, or progress_deadline in x-layby)"
        }
        FailReason::Deadline => {
            "give it longer (progressDeadlineSeconds, or progress_deadline in x-layby)"
        }
    };
    Some(text.into())
}

/// The hint beside the last log lines: there may be none.
pub(super) fn beside(log: &[String], hint: String) -> String {
    match log.is_empty() && hint == SEE_LOG {
        true => "its log is empty: see whether its command is the right one".to_owned(),
        false => hint,
    }
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
pub(super) async fn last_lines(
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
        let lines = lines.take(LOG_LINES).map(|line| cut(line.text));
        Some(lines.collect().await)
    };
    let lines: Option<Vec<String>> = tokio::time::timeout(LOG_TIMEOUT, read).await.ok().flatten();
    lines.unwrap_or_default()
}
