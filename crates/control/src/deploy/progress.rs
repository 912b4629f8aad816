//! What a rollout is at, in a few words for people, told when it changes.

use std::time::Duration;

use layby_model::plan::CRASH_LOOP_STARTS;
use layby_model::replica::Phase;
use tokio::time::Instant;

use crate::api::types::{ContainerView, ReplicaView};

/// What the probes say is told at most so often: an app that boots has many answers, and the last one counts.
const ANSWER_EVERY: Duration = Duration::from_secs(3);
/// So often it is told how things stand although nothing has changed, with the last answer: or whoever waits would not
/// know that something is being waited for.
const AGAIN_EVERY: Duration = Duration::from_secs(15);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Progress {
    counts: String,
    answer: Option<String>,
    /// Since when these counts stand, and when something was told of them last.
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Progress {
    /// The line to tell now, if there is a new one; and when to ask again even if nothing changes. `counts` is as
    /// of [`counts`], `answer` what a probe said last.
    pub(super) fn tell(
        &mut self,
        counts: String,
        answer: Option<&str>,
        now: Instant,
    ) -> (Option<String>, Instant) {
        let (since, told) = match (self.since, self.told) {
            (Some(since), Some(told)) if counts == self.counts => (since, told),
            _ => {
                self.counts.clone_from(&counts);
                (self.since, self.told) = (Some(now), Some(now));
                return (Some(counts), now + self.pause(answer));
            }
        };
        let due = told + self.pause(answer);
        if due > now {
            return (None, due);
        }
        let is_new = answer.is_some() && answer != self.answer.as_deref();
        self.answer = answer.map(str::to_owned);
        self.told = Some(now);
        let stands = match is_new {
            true => counts,
            false => format!("{counts} for {} s", (now - since).as_secs()),
        };
        let line = match answer {
            Some(answer) => format!("{stands}: {answer}"),
            None => stands,
        };
        (Some(line), now + AGAIN_EVERY)
    }

    /// From what was told last to what is to be told next.
    fn pause(&self, answer: Option<&str>) -> Duration {
        match answer.is_some() && answer != self.answer.as_deref() {
            true => ANSWER_EVERY,
            false => AGAIN_EVERY,
        }
    }
}

/// How far the `wanted` replicas of a revision are, such as `1 of 2 ready, 1 of 2 starting`. `failed_starts`: the most starts in
/// a row of one of them that came to nothing.
pub(super) fn counts(
    replicas: &[ReplicaView],
    revision: u32,
    wanted: u32,
    failed_starts: u32,
) -> String {
    let (mut ready, mut starting, mut before, mut short, mut ended, mut oom) = (0, 0, 0, 0, 0, 0);
    for replica in replicas.iter().filter(|r| r.revision == revision) {
        match replica.phase {
            Phase::Ready => ready += 1,
            Phase::Starting if runs(replica) => starting += 1,
            Phase::Starting if runs_before(replica) => before += 1,
            Phase::Starting | Phase::Stopped | Phase::Lost if has_run_out(replica) => oom += 1,
            Phase::Starting if runs_partly(replica) => short += 1,
            Phase::Starting | Phase::Stopped | Phase::Lost if has_ended(replica) => ended += 1,
            Phase::Starting
            | Phase::Stopped
            | Phase::Lost
            | Phase::Frozen
            | Phase::Freezing
            | Phase::Stopping
            | Phase::Removing => {}
        }
    }
    let all = [
        (ready, "ready"),
        (starting, "starting"),
        (before, "in its init containers"),
        (short, "starting without a container that has ended"),
        (ended, "ended"),
        (oom, "ran out of memory"),
    ];
    let parts: Vec<String> = (all.into_iter())
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} of {wanted} {what}"))
        .collect();
    let what = match (parts.is_empty(), failed_starts, wanted) {
        (false, _, _) => parts.join(", "),
        (true, 0, 1) => "preparing 1 replica".into(),
        (true, 0, n) => format!("preparing {n} replicas"),
        (true, _, 1) => "starting it again".into(),
        (true, _, n) => format!("starting some of {n} again"),
    };
    match failed_starts {
        0 => what,
        n => format!(
            "{what} (start {} of {CRASH_LOOP_STARTS})",
            (n + 1).min(CRASH_LOOP_STARTS)
        ),
    }
}

/// Whether its processes run. "Starting" begins with the order, while it is still being prepared.
fn runs(replica: &ReplicaView) -> bool {
    replica.containers.iter().all(|c| c.init || c.pid.is_some())
}

/// Whether one of the containers runs that have to end before its own are started.
fn runs_before(replica: &ReplicaView) -> bool {
    replica.containers.iter().any(|c| c.init && c.pid.is_some())
}

/// Whether some of its containers run: another has ended, and is started again or left so.
fn runs_partly(replica: &ReplicaView) -> bool {
    replica
        .containers
        .iter()
        .any(|c| !c.init && c.pid.is_some())
}

/// Whether it came to an end that nobody asked for; it is started again.
fn has_ended(replica: &ReplicaView) -> bool {
    replica.containers.iter().any(ended)
}

/// Whether that was for want of memory.
fn has_run_out(replica: &ReplicaView) -> bool {
    let mut containers = replica.containers.iter().filter(|c| ended(c));
    containers.any(|c| c.last_exit.is_some_and(|exit| exit.oom))
}

/// The first end stands, and it was started again after each further one. An init container is to end.
fn ended(container: &ContainerView) -> bool {
    let stands = !container.init && container.pid.is_none() && container.last_exit.is_some();
    container.restarts > 0 || stands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::ExitView;

    fn replica(revision: u32, phase: Phase, pid: Option<i32>, restarts: u32) -> ReplicaView {
        ReplicaView {
            id: String::new(),
            revision,
            phase,
            address: None,
            deaths: 0,
            last_death: None,
            containers: vec![ContainerView {
                init: false,
                name: "main".into(),
                pid,
                restarts,
                last_exit: None,
                last_exit_ms: None,
            }],
        }
    }

    #[test]
    fn the_counts_say_what_goes_on() {
        let table = [
            (vec![], "preparing 2 replicas"),
            (
                vec![
                    replica(1, Phase::Ready, Some(1), 0),
                    replica(2, Phase::Starting, None, 0),
                ],
                "preparing 2 replicas",
            ),
            (
                vec![replica(2, Phase::Starting, Some(1), 0)],
                "1 of 2 starting",
            ),
            (
                vec![
                    replica(2, Phase::Ready, Some(1), 0),
                    replica(2, Phase::Starting, Some(2), 1),
                ],
                "1 of 2 ready, 1 of 2 starting",
            ),
            (vec![replica(2, Phase::Stopped, None, 1)], "1 of 2 ended"),
        ];
        let mut first = replica(2, Phase::Stopped, None, 0);
        first.containers[0].last_exit = Some(ExitView {
            code: 9,
            oom: false,
        });
        assert_eq!(
            counts(&[first], 2, 1, 0),
            "1 of 1 ended",
            "for the first time"
        );
        for (replicas, text) in table {
            assert_eq!(counts(&replicas, 2, 2, 0), text);
        }
        let mut short = replica(2, Phase::Starting, Some(1), 0);
        short
            .containers
            .extend(replica(2, Phase::Starting, None, 1).containers);
        let text = "1 of 1 starting without a container that has ended";
        assert_eq!(counts(&[short], 2, 1, 0), text);
        assert_eq!(counts(&[], 2, 1, 0), "preparing 1 replica");
        let again = [replica(2, Phase::Starting, None, 0)];
        assert_eq!(counts(&again, 2, 1, 1), "starting it again (start 2 of 3)");
        let runs = [replica(2, Phase::Starting, Some(1), 2)];
        assert_eq!(counts(&runs, 2, 2, 2), "1 of 2 starting (start 3 of 3)");
    }

    /// What is told of these looks: when, in milliseconds, at what counts, and what a probe said.
    fn told(looks: &[(u64, &str, Option<&str>)]) -> Vec<String> {
        let mut progress = Progress::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for (at_ms, counts, answer) in looks {
            let now = start + Duration::from_millis(*at_ms);
            let (text, again) = progress.tell((*counts).into(), *answer, now);
            told.extend(text);
            assert!(again > now);
        }
        told
    }

    #[test]
    fn nothing_is_told_twice_and_answers_only_now_and_then() {
        let all = told(&[
            (0, "preparing", None),
            (10, "preparing", None),
            (20, "starting", None),
            (30, "starting", Some("refused")),
            (3_019, "starting", Some("503")),
            (3_020, "starting", Some("503")),
            (9_000, "starting", Some("503")),
            (9_010, "starting", Some("500")),
            (9_020, "ready", None),
        ]);
        let should = [
            "preparing",
            "starting",
            "starting: 503",
            "starting: 500",
            "ready",
        ];
        assert_eq!(all, should);
    }

    #[test]
    fn what_does_not_change_is_told_again_every_so_often_with_the_last_answer() {
        let all = told(&[
            (0, "preparing", None),
            (14_999, "preparing", None),
            (15_000, "preparing", None),
            (20_000, "starting", None),
            (23_000, "starting", Some("503")),
            (30_000, "starting", Some("503")),
            (38_000, "starting", Some("503")),
            (53_100, "starting", Some("503")),
        ]);
        let should = [
            "preparing",
            "preparing for 15 s",
            "starting",
            "starting: 503",
            "starting for 18 s: 503",
            "starting for 33 s: 503",
        ];
        assert_eq!(all, should);
    }
}
