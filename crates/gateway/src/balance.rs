//! Phase 4: balance. Claims the replica with the least in flight.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use layby_model::ReplicaId;

use crate::snapshot::{Upstream, Way};
use crate::worker::{View, Worker};

/// One request in flight to one replica, counted until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    view: Rc<View>,
    /// An index in the view's upstreams.
    at: usize,
}

impl Claim {
    /// Counts up, then looks whether the newest table still names the replica, and goes back if not.
    ///
    /// Control reads the counts after the gateway has confirmed the table that withdrew a replica. Both
    /// sides are SeqCst: either this sees the new table, or control sees this count.
    fn new(worker: &Worker, view: &Rc<View>, at: usize) -> Option<Self> {
        view.upstreams[at].state.in_flight.fetch_add(1, SeqCst);
        let claim = Self {
            view: Rc::clone(view),
            at,
        };
        if worker.shared.generation() == view.generation {
            return Some(claim);
        }
        let newest = worker.view();
        let upstream = claim.upstream();
        let named = newest.replica(upstream.replica).is_some_and(|now| {
            // The same state, not only the same id: counts in a forgotten one are not looked at.
            std::sync::Arc::ptr_eq(&newest.upstreams[now].state, &upstream.state)
        });
        named.then_some(claim)
    }

    /// The table by which it was claimed.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// What was claimed.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.view.upstreams[self.at]
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.upstream().state.in_flight.fetch_sub(1, SeqCst);
    }
}

/// Claims a replica of the service with index `service`, none of `avoid`; `None`: there is none to be had
/// by this table, or it is no longer the newest.
pub(crate) fn claim(
    worker: &Worker,
    view: &Rc<View>,
    service: usize,
    avoid: &[ReplicaId],
) -> Option<Claim> {
    let Way::Serve(range) = &view.services[service].way else {
        return None;
    };
    let at = match range.len() {
        1 if avoid.is_empty() => range.start,
        len => {
            let first = next_turn(&worker.turn);
            (0..len)
                .map(|step| range.start + (first + step) % len)
                .filter(|at| !avoid.contains(&view.upstreams[*at].replica))
                .min_by_key(|at| view.upstreams[*at].state.in_flight.load(SeqCst))?
        }
    };
    Claim::new(worker, view, at)
}

/// Claims this replica and no other, for a connection that is already bound to it.
pub(crate) fn claim_again(worker: &Worker, view: &Rc<View>, replica: ReplicaId) -> Option<Claim> {
    Claim::new(worker, view, view.replica(replica)?)
}

/// Among equals the search begins at another one each time.
fn next_turn(turn: &Cell<usize>) -> usize {
    turn.set(turn.get().wrapping_add(1));
    turn.get()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use layby_model::route::{Demand, Limits, Mode, RouteTable, ServiceRoute, Upstream};
    use tokio::sync::watch;

    use super::*;
    use crate::worker::Shared;

    const REPLICA: ReplicaId = ReplicaId(1);

    fn table(mode: Mode) -> Arc<RouteTable> {
        let route = ServiceRoute {
            mode,
            port: Some(80),
            limits: Limits::default(),
        };
        let mut table = RouteTable::default();
        let service = "a/b".parse().expect("a service id");
        table.services.insert(service, route);
        Arc::new(table)
    }

    fn serving() -> Arc<RouteTable> {
        let upstreams = vec![Upstream {
            replica: REPLICA,
            ip: [127, 0, 0, 1].into(),
        }];
        table(Mode::Serve {
            upstreams,
            canary: None,
        })
    }

    fn worker() -> (Arc<Shared>, Worker) {
        let shared = Arc::new(Shared::new(watch::channel(Demand::default()).0, 1));
        shared.swap(&serving());
        (Arc::clone(&shared), Worker::new(shared, 0))
    }

    fn in_flight(shared: &Shared) -> u32 {
        let traffic = shared.traffic(&"a/b".parse().expect("a service id"));
        traffic.in_flight.get(&REPLICA).copied().unwrap_or(0)
    }

    #[test]
    fn a_claim_counts_until_it_is_dropped() {
        let (shared, worker) = worker();
        let claim = claim(&worker, &worker.view(), 0, &[]).expect("it is served");
        assert_eq!(in_flight(&shared), 1);
        drop(claim);
        assert_eq!(in_flight(&shared), 0);
    }

    #[test]
    fn a_claim_by_an_old_table_goes_back_if_the_newest_withdrew_the_replica() {
        let (shared, worker) = worker();
        let old = worker.view();
        shared.swap(&table(Mode::Hold));
        assert!(claim(&worker, &old, 0, &[]).is_none());
        assert_eq!(in_flight(&shared), 0);
        shared.swap(&serving());
        assert!(
            claim(&worker, &old, 0, &[]).is_none(),
            "its counts were forgotten meanwhile, so that nobody would see this one"
        );
        assert!(claim(&worker, &worker.view(), 0, &[]).is_some());
    }

    #[test]
    fn a_claim_by_an_old_table_holds_if_the_newest_names_the_replica_too() {
        let (shared, worker) = worker();
        let old = worker.view();
        shared.swap(&serving());
        let claim = claim(&worker, &old, 0, &[]);
        assert!(claim.is_some());
        assert_eq!(in_flight(&shared), 1);
    }

    #[test]
    fn a_replica_to_be_avoided_is_not_claimed() {
        let (_, worker) = worker();
        assert!(claim(&worker, &worker.view(), 0, &[REPLICA]).is_none());
    }
}
