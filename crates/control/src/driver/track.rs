//! What a driver remembers of each replica between looks: whether it ended unasked, and how often in a row.

use std::collections::BTreeMap;

use layby_model::ReplicaId;
use layby_model::plan::Ended;
use layby_model::replica::{ContainerReport, Phase, ReplicaReport};

/// One that ends so soon after it was ready came to nothing as much as one that never was, in milliseconds: or what
/// gets ready and dies at once would be started again and again without a wait.
const HOLDS_AFTER_MS: u64 = 10_000;

/// The memory of one service's replicas.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    tracks: BTreeMap<ReplicaId, Track>,
    /// How often each container of each replica had ended at the last look.
    ends: BTreeMap<ReplicaId, Vec<u32>>,
}

/// The memory of one replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Track {
    /// Starts in a row that ended before it was ready, or soon after.
    pub(super) failed_starts: u32,
    /// It ended unasked since it was last ordered to run.
    pub(super) crashed: bool,
    /// The last order was to run.
    ordered_to_run: bool,
    /// The run in which it was ready last, and since when, in milliseconds on the driver's clock.
    ready: Option<(u64, u64)>,
    /// The run whose end was counted last.
    ended_run: Option<u64>,
    /// The run whose end no longer keeps it from being started: a user asked for it.
    forgiven_run: Option<u64>,
    /// It failed its liveness probe for good.
    dead: bool,
}

impl Tracks {
    /// Forgets the replicas that are gone.
    pub(super) fn keep(&mut self, reports: &[ReplicaReport]) {
        let is_there = |id: &ReplicaId| reports.iter().any(|r| r.id == *id);
        self.tracks.retain(|id, _| is_there(id));
        self.ends.retain(|id, _| is_there(id));
    }

    /// Whether, as far as is known, it has not ended unasked since it was last ordered to run.
    pub(super) fn stands(&self, replica: ReplicaId) -> bool {
        !self.tracks.get(&replica).is_some_and(|track| track.crashed)
    }

    /// The containers that ended alone since the last look, while their replica went on.
    pub(super) fn fallen<'a>(
        &mut self,
        report: &'a ReplicaReport,
    ) -> impl Iterator<Item = &'a ContainerReport> + use<'a> {
        let ends: Vec<u32> = report.containers.iter().map(|c| c.ended).collect();
        let known = self.ends.insert(report.id, ends.clone()).unwrap_or(ends);
        let alone = report.containers.len() > 1 && report.ended.is_none();
        let all = report.containers.iter().zip(known);
        all.filter(move |(c, known)| alone && c.ended > *known)
            .map(|(c, _)| c)
    }

    /// It failed its liveness probe for good: gives the starts in a row that came to nothing, that one included; `None`: it was
    /// known. `proved`: the probe had succeeded before.
    pub(super) fn dies(
        &mut self,
        report: &ReplicaReport,
        proved: bool,
        now_ms: u64,
    ) -> Option<u32> {
        let track = self.tracks.entry(report.id).or_default();
        if std::mem::replace(&mut track.dead, true) {
            return None;
        }
        track.failed_starts = match proved && track.has_held(report.run, now_ms) {
            true => 0,
            false => track.failed_starts + 1,
        };
        Some(track.failed_starts)
    }

    /// It is made in a place in which so many starts in a row came to nothing.
    pub(super) fn inherit(&mut self, replica: ReplicaId, failed_starts: u32) {
        self.tracks.entry(replica).or_default().failed_starts = failed_starts;
    }

    /// It is ready, and nothing speaks against its going on: once it has held, it begins anew.
    pub(super) fn holds(&mut self, report: &ReplicaReport, now_ms: u64) -> Track {
        let track = self.tracks.entry(report.id).or_default();
        if track.has_held(report.run, now_ms) {
            track.failed_starts = 0;
        }
        *track
    }

    /// When the next one may have held that came to nothing before, in milliseconds.
    pub(super) fn next_hold_ms(&self, now_ms: u64) -> Option<u64> {
        let failed = self.tracks.values().filter(|track| track.failed_starts > 0);
        let ready = failed.filter_map(|track| Some(track.ready?.1 + HOLDS_AFTER_MS));
        ready.filter(|at_ms| *at_ms > now_ms).min()
    }

    /// Takes in one report; `phase` is the report's with what the probes say.
    pub(super) fn see(&mut self, report: &ReplicaReport, phase: Phase, now_ms: u64) -> Track {
        let track = self.tracks.entry(report.id).or_default();
        match phase {
            Phase::Ready => {
                if track.ready_in(report.run).is_none() {
                    track.ready = Some((report.run, now_ms));
                }
                track.crashed = false;
            }
            Phase::Stopped if track.ordered_to_run && track.ended_run != Some(report.run) => {
                track.ended_run = Some(report.run);
                track.crashed = true;
                track.failed_starts = match track.has_held(report.run, now_ms) {
                    true => 0,
                    false => track.failed_starts + 1,
                };
            }
            // It ended before this start of the node, or was begun by an earlier one: the engine has counted.
            Phase::Stopped if !track.ordered_to_run && track.ended_run.is_none() => {
                track.ended_run = Some(report.run);
                track.failed_starts = report.ended_in_a_row;
            }
            // It was still there when it was asked to rest: that start was good.
            Phase::Frozen | Phase::Freezing if track.ready_in(report.run).is_some() => {
                track.failed_starts = 0;
            }
            Phase::Stopped
            | Phase::Starting
            | Phase::Frozen
            | Phase::Freezing
            | Phase::Stopping
            | Phase::Lost
            | Phase::Removing => {}
        }
        *track
    }

    /// A user wants to have it run: what has ended may be started again, whatever its restart policy, and at once.
    pub(super) fn once_more(&mut self, reports: &[ReplicaReport]) {
        for report in reports.iter().filter(|report| report.ended.is_some()) {
            let track = self.tracks.entry(report.id).or_default();
            track.forgiven_run = Some(report.run);
            track.failed_starts = 0;
        }
    }

    /// It was ordered to run, or to run no more.
    pub(super) fn ordered(&mut self, replica: ReplicaId, to_run: bool) {
        let track = self.tracks.entry(replica).or_default();
        track.ordered_to_run = to_run;
        track.crashed = false;
        // It was still there when it was asked to stop.
        if !to_run
            && track
                .ready
                .is_some_and(|(run, _)| track.ended_run != Some(run))
        {
            track.failed_starts = 0;
        }
    }
}

impl Track {
    /// How it ended, as far as its restart policy is concerned.
    pub(super) fn ended(&self, report: &ReplicaReport) -> Option<Ended> {
        let end = report.ended.as_ref()?;
        let well = end.exit.code == 0 && !end.exit.oom;
        let how = if well { Ended::Well } else { Ended::Badly };
        (self.forgiven_run != Some(report.run)).then_some(how)
    }

    /// Whether it has been ready in `run` for so long that the start was good.
    fn has_held(&self, run: u64, now_ms: u64) -> bool {
        let since = self.ready_in(run);
        since.is_some_and(|since| now_ms.saturating_sub(since) >= HOLDS_AFTER_MS)
    }

    /// Since when it has been ready in `run`, if it was.
    fn ready_in(&self, run: u64) -> Option<u64> {
        self.ready
            .filter(|(ready, _)| *ready == run)
            .map(|(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use layby_model::RevisionId;
    use layby_model::replica::{End, Exit};

    use super::*;

    fn report(run: u64) -> ReplicaReport {
        ReplicaReport {
            id: ReplicaId(1),
            service: "a/x".parse().expect("a service id"),
            revision: RevisionId(1),
            generation: 1,
            phase: Phase::Stopped,
            address: None,
            containers: Vec::new(),
            init: Vec::new(),
            run,
            ended: None,
            ended_in_a_row: 0,
            trouble: None,
        }
    }

    #[test]
    fn each_start_that_ends_before_ready_counts_once() {
        let mut tracks = Tracks::default();
        for run in 1..=3 {
            tracks.ordered(ReplicaId(1), true);
            tracks.see(&report(run), Phase::Starting, 0);
            for _ in 0..2 {
                let track = tracks.see(&report(run), Phase::Stopped, 0);
                assert_eq!((track.failed_starts, track.crashed), (run as u32, true));
            }
        }
    }

    #[test]
    fn an_end_long_after_ready_is_no_failed_start_and_one_soon_after_is() {
        let mut tracks = Tracks::default();
        tracks.ordered(ReplicaId(1), true);
        for (run, lived_ms, failed_starts) in [
            (1, HOLDS_AFTER_MS - 1, 1),
            (2, 0, 2),
            (3, HOLDS_AFTER_MS, 0),
            (4, 1, 1),
        ] {
            tracks.ordered(ReplicaId(1), true);
            for now_ms in [100, 100 + lived_ms] {
                assert!(!tracks.see(&report(run), Phase::Ready, now_ms).crashed);
            }
            let track = tracks.see(&report(run), Phase::Stopped, 100 + lived_ms);
            assert_eq!((track.failed_starts, track.crashed), (failed_starts, true));
        }
    }

    #[test]
    fn a_start_that_was_good_until_it_was_to_rest_clears_those_that_failed() {
        let asleep = |tracks: &mut Tracks| tracks.ordered(ReplicaId(1), false);
        let frozen = |tracks: &mut Tracks| {
            tracks.see(&report(2), Phase::Frozen, 0);
        };
        for rest in [asleep as fn(&mut Tracks), frozen] {
            let mut tracks = Tracks::default();
            tracks.ordered(ReplicaId(1), true);
            assert_eq!(tracks.see(&report(1), Phase::Stopped, 0).failed_starts, 1);
            tracks.ordered(ReplicaId(1), true);
            assert_eq!(tracks.see(&report(2), Phase::Ready, 0).failed_starts, 1);
            rest(&mut tracks);
            assert_eq!(tracks.see(&report(2), Phase::Stopping, 0).failed_starts, 0);
        }
    }

    #[test]
    fn what_a_user_wants_to_run_again_has_not_ended() {
        let mut ended = report(1);
        ended.ended = Some(End {
            container: "main".into(),
            exit: Exit {
                code: 3,
                oom: false,
            },
            hook: false,
        });
        let mut tracks = Tracks::default();
        tracks.ordered(ReplicaId(1), true);
        let track = tracks.see(&ended, Phase::Stopped, 0);
        assert_eq!(
            (track.ended(&ended), track.failed_starts),
            (Some(Ended::Badly), 1)
        );
        tracks.once_more(&[ended.clone()]);
        let track = tracks.see(&ended, Phase::Stopped, 0);
        assert_eq!((track.ended(&ended), track.failed_starts), (None, 0));
        // It ended anew.
        ended.run = 2;
        assert_eq!(track.ended(&ended), Some(Ended::Badly));
    }

    #[test]
    fn a_death_counts_unless_the_probe_had_succeeded_and_the_replica_held() {
        for (proved, lived_ms, counts) in [
            (true, HOLDS_AFTER_MS - 1, 3),
            (true, HOLDS_AFTER_MS, 0),
            (false, HOLDS_AFTER_MS, 3),
        ] {
            let mut tracks = Tracks::default();
            tracks.inherit(ReplicaId(1), 2);
            tracks.ordered(ReplicaId(1), true);
            tracks.see(&report(1), Phase::Ready, 100);
            let dead_ms = 100 + lived_ms;
            assert_eq!(tracks.next_hold_ms(100), Some(100 + HOLDS_AFTER_MS));
            assert_eq!(tracks.dies(&report(1), proved, dead_ms), Some(counts));
            assert_eq!(tracks.dies(&report(1), proved, dead_ms), None, "known");
        }
    }

    #[test]
    fn one_that_holds_begins_anew_while_it_is_ready() {
        let mut tracks = Tracks::default();
        tracks.inherit(ReplicaId(1), 2);
        tracks.ordered(ReplicaId(1), true);
        tracks.see(&report(1), Phase::Ready, 100);
        for (now_ms, counts) in [(HOLDS_AFTER_MS, 2), (100 + HOLDS_AFTER_MS, 0)] {
            assert_eq!(tracks.holds(&report(1), now_ms).failed_starts, counts);
        }
        assert_eq!(tracks.next_hold_ms(0), None);
    }

    #[test]
    fn a_stop_that_was_ordered_is_no_crash() {
        let mut tracks = Tracks::default();
        tracks.ordered(ReplicaId(1), true);
        tracks.see(&report(1), Phase::Ready, 0);
        tracks.ordered(ReplicaId(1), false);
        assert!(!tracks.see(&report(1), Phase::Stopped, 0).crashed);
    }
}
