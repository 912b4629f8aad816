//! Phase 4: balance. Claims the replica with the least in flight, of live or of the canary that it falls to.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use layby_model::ReplicaId;
use layby_model::route::Share;
use layby_model::share::falls;

use crate::codec::{has_cookie, has_header};
use crate::service::ServiceState;
use crate::slot::Slot;
use crate::snapshot::{Split, Upstream, Way};
use crate::worker::{View, Worker};

/// One request in flight to one replica, counted until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    view: Rc<View>,
    /// An index in the view's upstreams.
    at: usize,
    /// Its place there, where places are counted.
    slot: Option<Slot>,
}

impl Claim {
    /// Counts up, then looks whether the newest table still names the replica, and goes back if not.
    ///
    /// Control reads the counts after the gateway has confirmed the table that withdrew a replica. Both
    /// sides are SeqCst: either this sees the new table, or control sees this count.
    fn new(worker: &Worker, view: &Rc<View>, at: usize, slot: Option<Slot>) -> Option<Self> {
        view.upstreams[at].state.in_flight.fetch_add(1, SeqCst);
        let claim = Self {
            view: Rc::clone(view),
            at,
            slot,
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

    /// Hands its place over to whoever has it for longer than this.
    pub(crate) fn take_slot(&mut self) -> Option<Slot> {
        self.slot.take()
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

/// What one request or connection is bound to, from one attempt to the next.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// Replicas that just refused a connection.
    pub(crate) avoid: Vec<ReplicaId>,
    /// Whether it fell to the canary; `None`: there was none yet when it was asked.
    canary: Option<bool>,
}

impl Choice {
    /// Whether it falls to the canary: decided once, however often it is tried. `head` is what a request begins with;
    /// empty where no HTTP is spoken.
    fn falls(&mut self, split: &Split, service: &ServiceState, head: &[u8]) -> bool {
        *self.canary.get_or_insert_with(|| match &split.share {
            Share::Percent(percent) => falls(*percent, service.next_turn()),
            Share::Header { name, value } => has_header(head, name, value.as_deref()),
            Share::Cookie { name, value } => has_cookie(head, name, value.as_deref()),
        })
    }
}

/// What is found among replicas.
enum Found {
    /// The one with this index, and a place there.
    At(usize, Option<Slot>),
    /// All that are not to be avoided are full.
    Full,
    /// All are to be avoided.
    Nobody,
}

/// Whether a request for a service falls to its canary.
pub(crate) fn falls_to_canary(
    view: &View,
    service: usize,
    head: &[u8],
    choice: &mut Choice,
) -> bool {
    let service = &view.services[service];
    let split = service.split.as_ref();
    split.is_some_and(|split| choice.falls(split, &service.state, head))
}

/// Claims a replica of the service with index `service`, none that is to be avoided or full; `None`: there is none to be had
/// by this table, or it is no longer the newest. What falls to a canary that cannot be had goes to live; where it is only
/// full, that is waited for.
pub(crate) fn claim(
    worker: &Worker,
    view: &Rc<View>,
    service: usize,
    head: &[u8],
    choice: &mut Choice,
) -> Option<Claim> {
    let service = &view.services[service];
    let Way::Serve(live) = &service.way else {
        return None;
    };
    if let Some(split) = &service.split
        && choice.falls(split, &service.state, head)
    {
        match find(worker, view, &split.upstreams, &choice.avoid) {
            Found::At(at, slot) => return Claim::new(worker, view, at, slot),
            Found::Full => return None,
            Found::Nobody => {}
        }
    }
    match find(worker, view, live, &choice.avoid) {
        Found::At(at, slot) => Claim::new(worker, view, at, slot),
        Found::Full | Found::Nobody => None,
    }
}

/// Takes a place at the least busy of these upstreams.
fn find(worker: &Worker, view: &View, range: &Range<usize>, avoid: &[ReplicaId]) -> Found {
    loop {
        let Some(at) = least_busy(worker, view, range, avoid) else {
            let mut all = view.upstreams[range.clone()].iter();
            return match all.any(|upstream| !avoid.contains(&upstream.replica)) {
                true => Found::Full,
                false => Found::Nobody,
            };
        };
        let upstream = &view.upstreams[at];
        let Some(slots) = &upstream.slots else {
            return Found::At(at, None);
        };
        // Another worker may have taken the last one at this moment: then it is looked again.
        if let Some(slot) = slots.take(&upstream.state) {
            return Found::At(at, Some(slot));
        }
    }
}

/// Of these upstreams the one with the least in flight, none of `avoid` and none that is full.
fn least_busy(
    worker: &Worker,
    view: &View,
    range: &Range<usize>,
    avoid: &[ReplicaId],
) -> Option<usize> {
    let may = |at: &usize| !view.upstreams[*at].is_full();
    match range.len() {
        1 if avoid.is_empty() => Some(range.start).filter(may),
        len => {
            let first = next_turn(&worker.turn);
            (0..len)
                .map(|step| range.start + (first + step) % len)
                .filter(|at| !avoid.contains(&view.upstreams[*at].replica))
                .filter(may)
                .min_by_key(|at| view.upstreams[*at].busy())
        }
    }
}

/// Claims this replica and no other, for a connection that is already bound to it, and has its place there.
pub(crate) fn claim_again(worker: &Worker, view: &Rc<View>, replica: ReplicaId) -> Option<Claim> {
    Claim::new(worker, view, view.replica(replica)?, None)
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
            is_scaled: false,
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
            concurrency: None,
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

    fn try_claim(worker: &Worker, view: &Rc<View>) -> Option<Claim> {
        claim(worker, view, 0, b"", &mut Choice::default())
    }

    fn in_flight(shared: &Shared) -> u32 {
        let traffic = shared.traffic(&"a/b".parse().expect("a service id"));
        traffic.in_flight.get(&REPLICA).copied().unwrap_or(0)
    }

    #[test]
    fn a_claim_counts_until_it_is_dropped() {
        let (shared, worker) = worker();
        let claim = try_claim(&worker, &worker.view()).expect("it is served");
        assert_eq!(in_flight(&shared), 1);
        drop(claim);
        assert_eq!(in_flight(&shared), 0);
    }

    #[test]
    fn a_claim_by_an_old_table_goes_back_if_the_newest_withdrew_the_replica() {
        let (shared, worker) = worker();
        let old = worker.view();
        shared.swap(&table(Mode::Hold));
        assert!(try_claim(&worker, &old).is_none());
        assert_eq!(in_flight(&shared), 0);
        shared.swap(&serving());
        assert!(
            try_claim(&worker, &old).is_none(),
            "its counts were forgotten meanwhile, so that nobody would see this one"
        );
        assert!(try_claim(&worker, &worker.view()).is_some());
    }

    #[test]
    fn a_claim_by_an_old_table_holds_if_the_newest_names_the_replica_too() {
        let (shared, worker) = worker();
        let old = worker.view();
        shared.swap(&serving());
        let claim = try_claim(&worker, &old);
        assert!(claim.is_some());
        assert_eq!(in_flight(&shared), 1);
    }

    #[test]
    fn a_replica_to_be_avoided_is_not_claimed() {
        let (_, worker) = worker();
        let mut choice = Choice {
            avoid: vec![REPLICA],
            ..Choice::default()
        };
        assert!(claim(&worker, &worker.view(), 0, b"", &mut choice).is_none());
    }
}
