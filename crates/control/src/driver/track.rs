//! What a driver remembers of each replica between looks: whether it ended unasked, and how often in a row.

use std::collections::BTreeMap;

use layby_model::ReplicaId;
use layby_model::replica::{Phase, ReplicaReport};

/// The memory of one service's replicas.
#[derive(Debug, Default)]
pub(super) struct Tracks(BTreeMap<ReplicaId, Track>);

/// The memory of one replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Track {
    /// Starts in a row that ended before it was ready.
    pub(super) failed_starts: u32,
    /// It ended unasked since it was last ordered to run.
    pub(super) crashed: bool,
    /// The last order was to run.
    ordered_to_run: bool,
    /// The run in which it was ready last.
    ready_run: Option<u64>,
    /// The run whose end was counted last.
    ended_run: Option<u64>,
}

impl Tracks {
    /// Forgets the replicas that are gone.
    pub(super) fn keep(&mut self, reports: &[ReplicaReport]) {
        self.0.retain(|id, _| reports.iter().any(|r| r.id == *id));
    }

    /// Takes in one report; `phase` is the report's with what the probes say.
    pub(super) fn see(&mut self, report: &ReplicaReport, phase: Phase) -> Track {
        let track = self.0.entry(report.id).or_default();
        match phase {
            Phase::Ready => {
                track.ready_run = Some(report.run);
                track.failed_starts = 0;
                track.crashed = false;
            }
            Phase::Stopped if track.ordered_to_run && track.ended_run != Some(report.run) => {
                track.ended_run = Some(report.run);
                track.crashed = true;
                if track.ready_run == Some(report.run) {
                    track.failed_starts = 0;
                } else {
                    track.failed_starts += 1;
                }
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

    /// It was ordered to run, or to run no more.
    pub(super) fn ordered(&mut self, replica: ReplicaId, to_run: bool) {
        let track = self.0.entry(replica).or_default();
        track.ordered_to_run = to_run;
        track.crashed = false;
    }
}

#[cfg(test)]
mod tests {
    use layby_model::RevisionId;

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
            run,
            trouble: None,
        }
    }

    #[test]
    fn each_start_that_ends_before_ready_counts_once() {
        let mut tracks = Tracks::default();
        for run in 1..=3 {
            tracks.ordered(ReplicaId(1), true);
            tracks.see(&report(run), Phase::Starting);
            for _ in 0..2 {
                let track = tracks.see(&report(run), Phase::Stopped);
                assert_eq!((track.failed_starts, track.crashed), (run as u32, true));
            }
        }
    }

    #[test]
    fn an_end_after_ready_is_no_failed_start() {
        let mut tracks = Tracks::default();
        tracks.ordered(ReplicaId(1), true);
        tracks.see(&report(1), Phase::Ready);
        let track = tracks.see(&report(1), Phase::Stopped);
        assert_eq!((track.failed_starts, track.crashed), (0, true));
    }

    #[test]
    fn a_stop_that_was_ordered_is_no_crash() {
        let mut tracks = Tracks::default();
        tracks.ordered(ReplicaId(1), true);
        tracks.see(&report(1), Phase::Ready);
        tracks.ordered(ReplicaId(1), false);
        assert!(!tracks.see(&report(1), Phase::Stopped).crashed);
    }
}
