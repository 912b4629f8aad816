//! What ties a tunnel, or a flow of datagrams, to one replica: claimed while bytes move, held when it sleeps.

use std::sync::Arc;
use std::task::Context;

use layby_model::ReplicaId;
use layby_model::route::Limits;

use crate::balance::{self, Claim};
use crate::clock::now_ms;
use crate::hold::Place;
use crate::overhear::Overheard;
use crate::service::{Opened, ServiceState};
use crate::slot::Slot;
use crate::snapshot::Way;
use crate::worker::Worker;

/// How long after a movement the replica stays claimed.
pub(crate) const ACTIVE_MS: u64 = 1000;

/// Whether bytes may be sent to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Not now; this task is woken when that may have changed.
    Shut,
    /// Never again.
    Gone,
}

/// What ties a tunnel, or a flow of datagrams, to its replica.
pub(crate) struct Link<'w> {
    worker: &'w Worker,
    service: Arc<ServiceState>,
    limits: Limits,
    replica: ReplicaId,
    /// It is open: while its replica is replaced, it has as long as a request in flight. While its client waits for an answer,
    /// whatever becomes of the replica.
    opened: Opened,
    overheard: Overheard,
    /// It counts as one request for as long as it is open, whether or not it moves bytes: while it waits, as one that waits.
    slot: Option<Slot>,
    claim: Option<Claim>,
    /// Its place among those that wait, while it waits.
    place: Option<Place<'w>>,
    /// The table by which the replica was last seen to take bytes.
    generation: u64,
    moved_ms: u64,
    counted_ms: u64,
    /// When it has waited as long as it may.
    give_up_ms: u64,
}

impl<'w> Link<'w> {
    /// Ties to the replica that was claimed.
    pub(crate) fn new(
        worker: &'w Worker,
        service: Arc<ServiceState>,
        limits: Limits,
        mut claim: Claim,
        overheard: Overheard,
    ) -> Self {
        let now = now_ms();
        Self {
            worker,
            service,
            limits,
            replica: claim.upstream().replica,
            opened: Opened::new(&claim.upstream().state),
            overheard,
            slot: claim.take_slot(),
            claim: Some(claim),
            place: None,
            generation: 0,
            moved_ms: now,
            counted_ms: now,
            give_up_ms: u64::MAX,
        }
    }

    pub(crate) fn worker(&self) -> &'w Worker {
        self.worker
    }

    /// When bytes moved last, in milliseconds.
    pub(crate) fn moved_ms(&self) -> u64 {
        self.moved_ms
    }

    /// Whether the client has sent something that waits for the replica.
    pub(crate) fn waits(&self) -> bool {
        self.place.is_some()
    }

    /// Whether bytes moved just now, or wait to.
    pub(crate) fn is_active(&self) -> bool {
        self.claim.is_some() || self.waits() || self.may_say_more()
    }

    /// Whether others serve instead of the replica, or it is gone for good.
    pub(crate) fn is_replaced(&self) -> bool {
        let view = self.worker.view();
        if view.replica(self.replica).is_some() {
            return false;
        }
        match view.service(&self.service.id).map(|service| &service.way) {
            Some(Way::Hold | Way::Unhealthy) => false,
            Some(Way::Serve(_) | Way::Refuse | Way::Disabled | Way::Ending) | None => true,
        }
    }

    /// Gives its place at the replica to others.
    pub(crate) fn leave_slot(&mut self) {
        self.slot = None;
    }

    /// Whether bytes of the client may be sent now: only while the newest table names the replica, or it
    /// is being replaced, or an exchange is under way that the replica is claimed for.
    pub(crate) fn gate(&mut self, cx: &Context<'_>) -> Gate {
        loop {
            let view = self.worker.view();
            if self.is_open() {
                return Gate::Open;
            }
            if view.replica(self.replica).is_some() {
                if self.claim.is_none() {
                    self.claim = balance::claim_again(self.worker, &view, self.replica);
                }
                if self.claim.is_some() {
                    self.generation = view.generation;
                    self.be_busy(true);
                    self.place = None;
                    return Gate::Open;
                }
                continue; // withdrawn at this moment
            }
            return match view.service(&self.service.id).map(|s| &s.way) {
                // Let through as a request is: it goes there though the replica was withdrawn since, and that waits for it.
                Some(Way::Hold | Way::Unhealthy)
                    if self.claim.is_some() && self.overheard.is_amid() =>
                {
                    Gate::Open
                }
                Some(Way::Hold | Way::Unhealthy) => self.wait(cx),
                // It is being replaced, and goes when this has ended or has had its time.
                Some(Way::Serve(_)) => Gate::Open,
                Some(Way::Refuse | Way::Disabled | Way::Ending) | None => match self.is_in_use() {
                    true => Gate::Open,
                    false => Gate::Gone,
                },
            };
        }
    }

    /// Whether the replica is claimed by the newest table.
    pub(crate) fn is_open(&self) -> bool {
        self.claim.is_some() && self.generation == self.worker.shared.generation()
    }

    /// Whether it counts as awaited only until a quiet moment.
    fn may_say_more(&self) -> bool {
        self.opened.is_awaited() && !self.overheard.awaits()
    }

    /// Whether its replica is given its time for what goes on here.
    fn is_in_use(&self) -> bool {
        self.claim.is_some() || self.opened.is_awaited()
    }

    fn wait(&mut self, cx: &Context<'_>) -> Gate {
        if self.place.is_none() {
            self.service.used();
            self.place = Place::take(self.worker, &self.service, self.limits.hold_queue, None);
            self.give_up_ms = now_ms().saturating_add(self.limits.hold_deadline_ms);
        }
        match &self.place {
            Some(place) => {
                place.set_waker(cx);
                self.be_busy(false);
                Gate::Shut
            }
            None => Gate::Gone, // too many wait
        }
    }

    fn be_busy(&mut self, is_busy: bool) {
        if let Some(slot) = &mut self.slot {
            slot.set_busy(is_busy);
        }
    }

    /// Bytes of the client were passed on.
    pub(crate) fn asked(&mut self, bytes: &[u8]) {
        self.overheard.asked(bytes);
        self.moved();
    }

    /// Bytes of the replica were passed on.
    pub(crate) fn answered(&mut self, bytes: &[u8]) {
        self.overheard.answered(bytes);
        self.moved();
    }

    /// Bytes moved.
    pub(crate) fn moved(&mut self) {
        // Where no HTTP is spoken, what was said may be only a part of the answer: it counts until a quiet moment.
        if self.overheard.awaits() || self.overheard.is_followed() {
            self.opened.set_awaited(self.overheard.awaits());
        }
        let now = now_ms();
        self.moved_ms = now;
        if self.claim.is_none() {
            // The replica speaks by itself. If it was withdrawn meanwhile, what it said is passed on uncounted.
            let view = self.worker.view();
            self.claim = balance::claim_again(self.worker, &view, self.replica);
        } else if now < self.counted_ms + ACTIVE_MS {
            self.service.touch();
            return;
        }
        self.counted_ms = now;
        self.service.used();
    }

    /// Gives the claim back after a quiet moment; false: it has waited too long.
    pub(crate) fn look_at_the_clock(&mut self) -> bool {
        let now = now_ms();
        if now >= self.moved_ms + ACTIVE_MS {
            self.claim = None;
            self.opened.set_awaited(self.overheard.awaits());
        }
        self.place.is_none() || now < self.give_up_ms
    }
}
