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
