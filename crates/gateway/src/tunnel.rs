//! Bytes both ways between a client and one replica: TCP connections, and HTTP ones that were upgraded.
//!
//! Being open is no use, moving bytes is: the replica is claimed while bytes move and a moment longer. An
//! idle tunnel thus does not keep its replica awake, and survives when that is frozen. New bytes of the
//! client then raise demand, and wait here, not in a frozen process, until the table names the replica again.
//! That it is open is counted apart: a replica that is replaced is not stopped under an idle tunnel before its time. So is that
//! its client waits for an answer ([`crate::overhear`]): under such a one no replica is stopped or frozen before its time.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use layby_model::ReplicaId;
use layby_model::route::Limits;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::balance::{self, Claim};
use crate::buffer::{Buffers, Lent};
use crate::clock::now_ms;
use crate::hold::Place;
use crate::io::{Peer, poll_peer, poll_read};
use crate::overhear::Overheard;
use crate::service::{Opened, ServiceState};
use crate::slot::Slot;
use crate::snapshot::Way;
use crate::watchdog::Watched;
use crate::worker::Worker;

/// How long after a movement the replica stays claimed.
const ACTIVE_MS: u64 = 1000;

/// A tunnel that is about to begin.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) upstream: TcpStream,
    pub(crate) claim: Claim,
    pub(crate) service: Arc<ServiceState>,
    pub(crate) limits: Limits,
    /// What the upstream has already said.
    pub(crate) early: Option<Lent>,
    /// What was heard of it so far.
    pub(crate) overheard: Overheard,
}

impl Tunnel {
    /// Passes bytes until both sides have ended, or one is gone. `input`: what the client has already said.
    pub(crate) async fn run(
        self,
        worker: Rc<Worker>,
        mut client: TcpStream,
        pulse: Watched,
        input: Option<Lent>,
    ) {
        let mut upstream = self.upstream;
        let mut claim = self.claim;
        let now = now_ms();
        let mut link = Link {
            worker: &worker,
            service: self.service,
            limits: self.limits,
            replica: claim.upstream().replica,
            opened: Opened::new(&claim.upstream().state),
            overheard: self.overheard,
            slot: claim.take_slot(),
            claim: Some(claim),
            place: None,
            generation: 0,
            moved_ms: now,
            counted_ms: now,
            give_up_ms: u64::MAX,
        };
        let mut up = Flow::new(input, |link, bytes| link.asked(bytes));
        let mut down = Flow::new(self.early, |link, bytes| link.answered(bytes));
        pulse.expire_in(ACTIVE_MS);
        let ended = poll_fn(|cx| {
            pulse.set_waker(cx);
            if pulse.is_expired() {
                if !link.look_at_the_clock() {
                    return Poll::Ready(());
                }
                if link.claim.is_some() || link.place.is_some() || link.may_say_more() {
                    pulse.expire_in(ACTIVE_MS);
                } else if worker.shared.is_stopping() {
                    return Poll::Ready(());
                } else {
                    pulse.rest();
                    pulse.set_idle(true);
                }
            }
            let before = link.moved_ms;
            let open = down.poll(cx, &mut upstream, &mut client, &mut link, |_, _| Gate::Open)
                && up.poll(cx, &mut client, &mut upstream, &mut link, |link, cx| {
                    if down.finished {
                        Gate::Open
                    } else {
                        link.gate(cx)
                    }
                });
            if !open || (up.closed && down.closed) {
                return Poll::Ready(());
            }
            if link.moved_ms != before || link.place.is_some() {
                pulse.expire_in_at_most(ACTIVE_MS);
                pulse.set_idle(false);
            }
            Poll::Pending
        });
        ended.await;
    }
}

/// Whether bytes may be sent to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Not now; this task is woken when that may have changed.
    Shut,
    /// Never again.
    Gone,
}

/// What ties a tunnel to its replica.
struct Link<'w> {
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

impl Link<'_> {
    /// Whether bytes of the client may be sent now: only while the newest table names the replica, or it
    /// is being replaced.
    fn gate(&mut self, cx: &Context<'_>) -> Gate {
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
    fn is_open(&self) -> bool {
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
    fn asked(&mut self, bytes: &[u8]) {
        self.overheard.asked(bytes);
        self.moved();
    }

    /// Bytes of the replica were passed on.
    fn answered(&mut self, bytes: &[u8]) {
        self.overheard.answered(bytes);
        self.moved();
    }

    /// Bytes moved.
    fn moved(&mut self) {
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
    fn look_at_the_clock(&mut self) -> bool {
        let now = now_ms();
        if now >= self.moved_ms + ACTIVE_MS {
            self.claim = None;
            self.opened.set_awaited(self.overheard.awaits());
        }
        self.place.is_none() || now < self.give_up_ms
    }
}

/// One direction.
struct Flow {
    buffer: Option<Lent>,
    /// What is told of bytes that were passed on.
    passed: fn(&mut Link<'_>, &[u8]),
    /// The sender will send no more.
    finished: bool,
    /// The receiver has been told so.
    closed: bool,
}

impl Flow {
    fn new(buffer: Option<Lent>, passed: fn(&mut Link<'_>, &[u8])) -> Self {
        Self {
            buffer: buffer.filter(|buffer| !buffer.is_empty()),
            passed,
            finished: false,
            closed: false,
        }
    }

    /// Passes on what can be passed on now; false: one of the two is gone.
    fn poll<'w>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        link: &mut Link<'w>,
        gate: impl Fn(&mut Link<'w>, &Context<'_>) -> Gate,
    ) -> bool {
        let buffers: &Rc<Buffers> = &link.worker.buffers;
        while !self.closed {
            if self.buffer.is_none() && self.finished {
                let Poll::Ready(shut) = Pin::new(&mut *to).poll_shutdown(cx) else {
                    return true;
                };
                self.closed = true;
                return shut.is_ok();
            }
            if self.buffer.is_none() && from.poll_read_ready(cx).is_pending() {
                return true;
            }
            // To be closed is no use: a client that leaves wakes nobody.
            if self.buffer.is_none() && !link.is_open() {
                match poll_peer(from, cx) {
                    Poll::Ready(Peer::Gone) => return false,
                    Poll::Ready(Peer::Finished) => {
                        self.finished = true;
                        continue;
                    }
                    Poll::Ready(Peer::Spoke) | Poll::Pending => {}
                }
            }
            match gate(link, cx) {
                Gate::Open => {}
                Gate::Shut => return true,
                Gate::Gone => return false,
            }
            let Some(buffer) = &mut self.buffer else {
                let mut buffer = buffers.large();
                match poll_read(from, cx, &mut buffer) {
                    Poll::Pending => return true,
                    Poll::Ready(Err(_)) => return false,
                    Poll::Ready(Ok(0)) => self.finished = true,
                    Poll::Ready(Ok(_)) => self.buffer = Some(buffer),
                }
                continue;
            };
            match Pin::new(&mut *to).poll_write(cx, buffer.filled()) {
                Poll::Pending => return true,
                Poll::Ready(Ok(len)) if len > 0 => {
                    (self.passed)(link, &buffer.filled()[..len]);
                    buffer.consume(len);
                    if buffer.is_empty() {
                        self.buffer = None;
                    }
                }
                Poll::Ready(_) => return false,
            }
        }
        true
    }
}
