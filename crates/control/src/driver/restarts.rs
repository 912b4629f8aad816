//! Which replicas a user wants restarted, and which of them were not started since. In memory: a restart of the node forgets it.

use std::collections::BTreeSet;

use layby_model::replica::ReplicaReport;
use layby_model::{ReplicaId, RevisionId};

/// The restarts of one service.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    stale: BTreeSet<ReplicaId>,
    /// How often it was asked for.
    asked: u64,
}

/// The restarts as they are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restarting {
    /// How often it was asked for, in this life of the driver.
    pub(crate) asked: u64,
    /// So many replicas are still as they were.
    pub(crate) left: usize,
}

impl Restarts {
    /// All replicas of a revision are to be restarted. Gives how often that was asked for.
    pub(super) fn ask(&mut self, revision: Option<RevisionId>, reports: &[ReplicaReport]) -> u64 {
        let mine = reports.iter().filter(|r| Some(r.revision) == revision);
        self.stale = mine.map(|report| report.id).collect();
        self.asked += 1;
        self.asked
    }

    /// Forgets the replicas that are gone.
    pub(super) fn keep(&mut self, reports: &[ReplicaReport]) {
        self.stale.retain(|id| reports.iter().any(|r| r.id == *id));
    }

    /// One is started from nothing.
    pub(super) fn started(&mut self, replica: ReplicaId) {
        self.stale.remove(&replica);
    }

    /// Whether one is still to be restarted.
    pub(super) fn is_stale(&self, replica: ReplicaId) -> bool {
        self.stale.contains(&replica)
    }

    pub(super) fn shown(&self) -> Restarting {
        Restarting {
            asked: self.asked,
            left: self.stale.len(),
        }
    }
}
