//! The places that a replica of a scaled service has for requests, and who has one.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::service::{ServiceState, UpstreamState};

/// How a replica's requests are counted, and how many it may have.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    /// The most at once.
    pub(crate) most: u32,
    /// Whose load they are.
    pub(crate) service: Arc<ServiceState>,
}

impl Slots {
    /// Takes one of the places of `upstream`, unless all are taken. Exact, whoever else takes one at the same moment.
    pub(crate) fn take(&self, upstream: &Arc<UpstreamState>) -> Option<Slot> {
        let more = |taken: u32| (taken < self.most).then_some(taken + 1);
        let taken = upstream.taken.fetch_update(SeqCst, SeqCst, more);
        taken.ok()?;
        self.service.busy.raise();
        Some(Slot {
            upstream: Arc::clone(upstream),
            service: Arc::clone(&self.service),
            is_busy: true,
        })
    }

    /// Whether all places of `upstream` are taken.
    pub(crate) fn are_taken(&self, upstream: &UpstreamState) -> bool {
        upstream.taken.load(SeqCst) >= self.most
    }
}

/// The place of one request, or of one connection for as long as it is open; free again when dropped, and then the first in line
/// is told.
#[derive(Debug)]
pub(crate) struct Slot {
    upstream: Arc<UpstreamState>,
    service: Arc<ServiceState>,
    /// It counts as something to do.
    is_busy: bool,
}

impl Slot {
    /// Whether it counts as something to do. Who waits and has its place all the same is counted as waiting.
    pub(crate) fn set_busy(&mut self, is_busy: bool) {
        if is_busy == self.is_busy {
            return;
        }
        self.is_busy = is_busy;
        match is_busy {
            true => self.service.busy.raise(),
            false => self.service.busy.lower(),
        };
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.set_busy(false);
        self.upstream.taken.fetch_sub(1, SeqCst);
        self.service.line.next();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64};
    use std::thread;

    use super::*;

    #[test]
    fn a_place_that_waits_stays_taken_and_is_counted_once() {
        let service = Arc::new(ServiceState::new("a/b".parse().expect("a service id")));
        let slots = Slots { most: 1, service };
        let upstream = Arc::new(UpstreamState::default());
        let mut slot = slots.take(&upstream).expect("it is free");
        let busy = || slots.service.busy.count();
        for (is_busy, count) in [(true, 1), (false, 0), (false, 0), (true, 1), (false, 0)] {
            slot.set_busy(is_busy);
            assert_eq!(busy(), count);
            assert!(slots.take(&upstream).is_none(), "it is taken");
        }
        drop(slot);
        assert_eq!(busy(), 0);
        assert!(slots.take(&upstream).is_some());
    }

    #[test]
    fn no_more_than_the_most_are_ever_taken_at_once() {
        let service = Arc::new(ServiceState::new("a/b".parse().expect("a service id")));
        let slots = Slots { most: 3, service };
        let upstream = Arc::new(UpstreamState::default());
        let (now, taken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
        let threads = (0..8).map(|_| {
            let (slots, upstream) = (slots.clone(), Arc::clone(&upstream));
            let (now, taken) = (Arc::clone(&now), Arc::clone(&taken));
            thread::spawn(move || {
                for _ in 0..2_000 {
                    if let Some(slot) = slots.take(&upstream) {
                        assert!(now.fetch_add(1, SeqCst) < 3);
                        taken.fetch_add(1, SeqCst);
                        now.fetch_sub(1, SeqCst);
                        drop(slot);
                    }
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .for_each(|t| t.join().expect("no panic"));
        assert!(taken.load(SeqCst) > 0 && !slots.are_taken(&upstream));
        assert_eq!(slots.service.busy.count(), 0);
    }
}
