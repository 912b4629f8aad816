//! What the gateway remembers of services and replicas from one table to the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use layby_model::route::{Load, Served, Traffic, WakeTiming};
use layby_model::{ReplicaId, ServiceId};

use crate::clock::now_ms;
use crate::line::Line;
use crate::load::Level;

/// One replica. Carried over by its id for as long as a table names it or anything is in flight to it.
#[derive(Debug, Default)]
pub(crate) struct UpstreamState {
    /// Claims that were not given back yet. SeqCst: see [`crate::balance`].
    pub(crate) in_flight: AtomicU32,
    /// Tunnels that were not closed yet, idle ones too.
    open: AtomicU32,
    /// Those of them whose clients wait for an answer.
    awaited: AtomicU32,
    /// Places that are taken, where they are counted. SeqCst: see [`crate::line`].
    pub(crate) taken: AtomicU32,
    requests: AtomicU64,
    errors: AtomicU64,
}

/// A tunnel that is open to a replica, counted until dropped.
#[derive(Debug)]
pub(crate) struct Opened {
    upstream: Arc<UpstreamState>,
    awaited: bool,
}

impl Opened {
    /// Counts one more.
    pub(crate) fn new(upstream: &Arc<UpstreamState>) -> Self {
        upstream.open.fetch_add(1, SeqCst);
        Self {
            upstream: Arc::clone(upstream),
            awaited: false,
        }
    }

    /// Whether its client is counted as one that waits for an answer.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// Whether its client waits for an answer.
    pub(crate) fn set_awaited(&mut self, awaited: bool) {
        match (std::mem::replace(&mut self.awaited, awaited), awaited) {
            (false, true) => self.upstream.awaited.fetch_add(1, SeqCst),
            (true, false) => self.upstream.awaited.fetch_sub(1, SeqCst),
            (true, true) | (false, false) => return,
        };
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.set_awaited(false);
        self.upstream.open.fetch_sub(1, SeqCst);
    }
}

/// A flow of datagrams, counted until dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicU32>);

impl Counted {
    /// Counts one more.
    pub(crate) fn new(flows: &Arc<AtomicU32>) -> Self {
        flows.fetch_add(1, SeqCst);
        Self(Arc::clone(flows))
    }

    /// How many there are, with this one.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl UpstreamState {
    /// A request that it was given has its answer; `failed`: a 5xx, or none, or half of one.
    pub(crate) fn served(&self, failed: bool) {
        self.requests.fetch_add(1, Relaxed);
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    /// Whether anything goes on there, or may at any time.
    fn is_used(&self) -> bool {
        let counts = [&self.in_flight, &self.open, &self.taken];
        counts.into_iter().any(|count| count.load(SeqCst) > 0)
    }

    fn counts(&self) -> Served {
        // Errors first: so they are never more than the requests.
        let errors = self.errors.load(Relaxed);
        let requests = self.requests.load(Relaxed);
        Served { requests, errors }
    }
}

/// One service, carried over by its id.
#[derive(Debug)]
pub(crate) struct ServiceState {
    pub(crate) id: ServiceId,
    uses: AtomicU64,
    /// 0: never.
    last_use_ms: AtomicU64,
    /// How many are held.
    pub(crate) waiting: Level,
    /// How many are in flight or open, where that is counted.
    pub(crate) busy: Level,
    /// Those who wait because all replicas are full.
    pub(crate) line: Line,
    /// Flows of datagrams, over all of its ports.
    flows: Arc<AtomicU32>,
    /// Counts the requests among which a canary gets so many of a hundred.
    turns: AtomicU64,
    /// Counts its changes from Hold to Serve.
    wakes: AtomicU64,
    last_wake: Mutex<Option<(u64, WakeTiming)>>,
    upstreams: Mutex<BTreeMap<ReplicaId, Arc<UpstreamState>>>,
}

impl ServiceState {
    pub(crate) fn new(id: ServiceId) -> Self {
        Self {
            id,
            uses: AtomicU64::new(0),
            last_use_ms: AtomicU64::new(0),
            waiting: Level::default(),
            busy: Level::default(),
            line: Line::default(),
            flows: Arc::default(),
            turns: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            last_wake: Mutex::new(None),
            upstreams: Mutex::new(BTreeMap::new()),
        }
    }

    /// A request arrived, or bytes moved: before anything is done with it, so that whoever reads the
    /// in-flight counts first and this after cannot miss it.
    pub(crate) fn used(&self) {
        self.uses.fetch_add(1, SeqCst);
        self.touch();
    }

    /// It is still in use, or just was.
    pub(crate) fn touch(&self) {
        self.last_use_ms.store(now_ms(), Relaxed);
    }

    /// The number of one more request that may go to the canary.
    pub(crate) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Relaxed)
    }

    /// Counts its flows of datagrams.
    pub(crate) fn flows(&self) -> &Arc<AtomicU32> {
        &self.flows
    }

    /// The state of one of its replicas.
    pub(crate) fn upstream(&self, replica: ReplicaId) -> Arc<UpstreamState> {
        Arc::clone(lock(&self.upstreams).entry(replica).or_default())
    }

    /// Forgets replicas that `named` does not name and that nothing is in flight or open to.
    pub(crate) fn forget_others(&self, named: impl Fn(ReplicaId) -> bool) {
        lock(&self.upstreams).retain(|replica, state| named(*replica) || state.is_used());
    }

    /// Whether nothing of it is left to count.
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.count() == 0 && lock(&self.upstreams).is_empty()
    }

    /// Its route turned from Hold to Serve.
    pub(crate) fn woke(&self) {
        self.wakes.fetch_add(1, SeqCst);
    }

    /// A request that was held got its first answer byte: kept if it was held longest since the wake.
    pub(crate) fn held(&self, timing: WakeTiming) {
        let wake = self.wakes.load(SeqCst);
        let mut last = lock(&self.last_wake);
        let longest = last.is_none_or(|(of, known)| of != wake || known.held_ms < timing.held_ms);
        if longest {
            *last = Some((wake, timing));
        }
    }

    fn load(&self) -> Load {
        let (at_us, in_flight, in_flight_us) = self.busy.read();
        let (_, held, held_us) = self.waiting.read();
        Load {
            at_us,
            in_flight,
            held,
            in_flight_us,
            held_us,
        }
    }

    /// All that is known of it now: in flight is read first, then uses.
    pub(crate) fn traffic(&self) -> Traffic {
        let upstreams = lock(&self.upstreams);
        let some = |of: fn(&UpstreamState) -> &AtomicU32| {
            let counts = upstreams.iter();
            let counts = counts.map(|(replica, state)| (*replica, of(state).load(SeqCst)));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        // What is awaited before what is in flight: a movement takes the claim before it is known what was said.
        let awaited = some(|state| &state.awaited);
        let (in_flight, open) = (some(|state| &state.in_flight), some(|state| &state.open));
        let counts =
            |(replica, state): (&ReplicaId, &Arc<UpstreamState>)| (*replica, state.counts());
        let served = upstreams.iter().map(counts).collect();
        drop(upstreams);
        let uses = self.uses.load(SeqCst);
        let last_use_ms = self.last_use_ms.load(Relaxed);
        Traffic {
            uses,
            idle_ms: (last_use_ms > 0).then(|| now_ms().saturating_sub(last_use_ms)),
            in_flight,
            open,
            awaited,
            served,
            last_wake: lock(&self.last_wake).map(|(_, timing)| timing),
            load: self.load(),
        }
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is whole at every moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(held_ms: f64) -> WakeTiming {
        WakeTiming {
            held_ms,
            answered_ms: held_ms + 1.0,
        }
    }

    #[test]
    fn the_longest_hold_since_the_last_wake_is_kept() {
        let state = ServiceState::new("a/b".parse().expect("a service id"));
        assert_eq!(state.traffic().last_wake, None);
        for held_ms in [3.0, 9.0, 5.0] {
            state.held(timing(held_ms));
        }
        assert_eq!(state.traffic().last_wake, Some(timing(9.0)));
        state.woke();
        state.held(timing(2.0));
        assert_eq!(state.traffic().last_wake, Some(timing(2.0)));
    }

    #[test]
    fn a_replica_is_remembered_while_anything_is_in_flight_to_it() {
        let state = ServiceState::new("a/b".parse().expect("a service id"));
        let replica = ReplicaId::new(1, 1);
        let upstream = state.upstream(replica);
        upstream.in_flight.fetch_add(1, SeqCst);
        state.forget_others(|_| false);
        assert_eq!(state.traffic().in_flight.get(&replica), Some(&1));
        upstream.in_flight.fetch_sub(1, SeqCst);
        assert!(!state.is_quiet());
        state.forget_others(|_| false);
        assert!(state.is_quiet());
    }

    #[test]
    fn a_service_that_was_never_used_has_no_idle_time() {
        let state = ServiceState::new("a/b".parse().expect("a service id"));
        assert_eq!(state.traffic().idle_ms, None);
        state.used();
        let traffic = state.traffic();
        assert_eq!(traffic.uses, 1);
        assert!(traffic.idle_ms.is_some());
    }
}
