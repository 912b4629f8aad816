//! What a driver remembers of places in which replicas failed their liveness probe: each such replica is replaced, after a
//! pause that grows with every further one in the same place.

use std::collections::BTreeMap;

use layby_model::plan::{Desired, Vacancy};
use layby_model::{ReplicaId, RevisionId};

/// So many empty places are remembered for a service at most: it cannot miss more replicas.
const MAX: usize = layby_model::spec::REPLICAS_MAX as usize;

/// The memory of one service's places. A kill of the node forgets it.
#[derive(Debug, Default)]
pub(super) struct Vacancies {
    empty: Vec<Empty>,
    /// The places in which replicas were made, as they were before.
    filled: BTreeMap<ReplicaId, Empty>,
}

/// An empty place.
#[derive(Debug)]
struct Empty {
    vacancy: Vacancy,
    past: Past,
}

/// What happened in a place before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// So many replicas in it failed their liveness probe, one after another.
    pub(super) deaths: u32,
    /// What was said to the last one's.
    pub(super) said: String,
}

impl Vacancies {
    /// The place of a replica is empty. `failed_starts`: as it is to count now.
    pub(super) fn add(
        &mut self,
        replica: ReplicaId,
        revision: RevisionId,
        failed_starts: u32,
        said: &str,
    ) {
        let deaths = self.past(replica).map_or(0, |past| past.deaths) + 1;
        let vacancy = Vacancy {
            replica,
            revision,
            failed_starts,
        };
        let said = said.to_owned();
        let past = Past { deaths, said };
        self.empty.push(Empty { vacancy, past });
        let more = self.empty.len().saturating_sub(MAX);
        self.empty.drain(..more);
    }

    /// A replica of a revision is made: in the first of its empty places that `is_over` allows, if there is one. Gives what it
    /// is to count.
    pub(super) fn fill(
        &mut self,
        revision: RevisionId,
        replica: ReplicaId,
        is_over: impl Fn(&Vacancy) -> bool,
    ) -> u32 {
        let fits = |empty: &Empty| empty.vacancy.revision == revision && is_over(&empty.vacancy);
        let Some(at) = self.empty.iter().position(fits) else {
            return 0;
        };
        let place = self.empty.remove(at);
        let failed_starts = place.vacancy.failed_starts;
        self.filled.insert(replica, place);
        failed_starts
    }

    /// A replica was not made after all: its place, if it was to have one, is as empty as before. The pause before it is filled
    /// is over already.
    pub(super) fn give_back(&mut self, replica: ReplicaId) {
        self.empty.extend(self.filled.remove(&replica));
    }

    /// Forgets replicas that are not there, and places that nobody misses: `there` says how many replicas of a revision can
    /// be counted on.
    pub(super) fn keep(
        &mut self,
        d: &Desired,
        is_there: impl Fn(ReplicaId) -> bool,
        there: impl Fn(RevisionId) -> usize,
    ) {
        self.filled.retain(|id, _| is_there(*id));
        self.empty.retain(|empty| {
            let revision = empty.vacancy.revision;
            let is_wanted = d.live == Some(revision) || d.rolling() && d.target == Some(revision);
            d.enabled && is_wanted && there(revision) < d.replicas as usize
        });
    }

    /// A user wants it to run: nothing is waited for.
    pub(super) fn once_more(&mut self) {
        for empty in &mut self.empty {
            empty.vacancy.failed_starts = 0;
        }
    }

    /// The empty places, for the rules.
    pub(super) fn all(&self) -> Vec<Vacancy> {
        self.empty.iter().map(|empty| empty.vacancy).collect()
    }

    /// The empty places, and what happened in them.
    pub(super) fn empty(&self) -> impl Iterator<Item = (&Vacancy, &Past)> {
        let all = self.empty.iter();
        all.map(|empty| (&empty.vacancy, &empty.past))
    }

    /// What happened in the place of a replica before it was made.
    pub(super) fn past(&self, replica: ReplicaId) -> Option<&Past> {
        self.filled.get(&replica).map(|place| &place.past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVISION: RevisionId = RevisionId(1);

    #[test]
    fn a_place_keeps_its_count_from_one_replica_to_the_next() {
        let mut vacancies = Vacancies::default();
        for n in 1..=3 {
            vacancies.add(ReplicaId(n), REVISION, n as u32, "503");
            let counts = vacancies.fill(REVISION, ReplicaId(n + 1), |_| true);
            assert_eq!(u64::from(counts), n);
        }
        let past = vacancies.past(ReplicaId(4)).expect("it has one");
        assert_eq!((past.deaths, past.said.as_str()), (3, "503"));
        assert_eq!(vacancies.past(ReplicaId(1)), None);
        assert_eq!(vacancies.fill(REVISION, ReplicaId(9), |_| true), 0);
    }

    #[test]
    fn a_place_whose_replica_was_not_made_is_as_empty_as_before() {
        let mut vacancies = Vacancies::default();
        vacancies.add(ReplicaId(1), REVISION, 1, "503");
        vacancies.fill(REVISION, ReplicaId(2), |_| true);
        vacancies.add(ReplicaId(2), REVISION, 2, "503");
        let before = vacancies.all();
        for n in 3..=4 {
            assert_eq!(vacancies.fill(REVISION, ReplicaId(n), |_| true), 2);
            vacancies.give_back(ReplicaId(n));
            assert_eq!(vacancies.all(), before);
            assert_eq!(vacancies.past(ReplicaId(n)), None);
        }
        vacancies.fill(REVISION, ReplicaId(5), |_| true);
        let past = vacancies.past(ReplicaId(5)).expect("it has one");
        assert_eq!(past.deaths, 2);
        vacancies.give_back(ReplicaId(6));
        assert_eq!(vacancies.all(), [], "it had no place");
    }

    #[test]
    fn the_place_is_filled_whose_pause_is_over() {
        let mut vacancies = Vacancies::default();
        vacancies.add(ReplicaId(1), REVISION, 5, "503");
        vacancies.add(ReplicaId(2), RevisionId(2), 0, "503");
        vacancies.add(ReplicaId(3), REVISION, 1, "500");
        let is_over = |vacancy: &Vacancy| vacancy.failed_starts < 2;
        assert_eq!(vacancies.fill(REVISION, ReplicaId(4), is_over), 1);
        let left: Vec<u64> = vacancies.all().iter().map(|v| v.replica.0).collect();
        assert_eq!(left, [1, 2]);
        vacancies.once_more();
        assert_eq!(vacancies.fill(REVISION, ReplicaId(5), is_over), 0);
    }
}
