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

use layby_model::route::Limits;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::balance::Claim;
use crate::buffer::{Buffers, Lent};
use crate::io::{Peer, poll_peer, poll_read};
use crate::link::{ACTIVE_MS, Gate, Link};
use crate::overhear::Overheard;
use crate::service::ServiceState;
use crate::watchdog::Watched;
use crate::worker::Worker;

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
        let (service, limits) = (self.service, self.limits);
        let mut link = Link::new(&worker, service, limits, self.claim, self.overheard);
        let mut up = Flow::new(input, |link, bytes| link.asked(bytes));
        let mut down = Flow::new(self.early, |link, bytes| link.answered(bytes));
        pulse.expire_in(ACTIVE_MS);
        let ended = poll_fn(|cx| {
            pulse.set_waker(cx);
            if pulse.is_expired() {
                if !link.look_at_the_clock() {
                    return Poll::Ready(());
                }
                if link.is_active() {
                    pulse.expire_in(ACTIVE_MS);
                } else if worker.shared.is_stopping() {
                    return Poll::Ready(());
                } else {
                    pulse.rest();
                    pulse.set_idle(true);
                }
            }
            let before = link.moved_ms();
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
            if link.moved_ms() != before || link.waits() {
                pulse.expire_in_at_most(ACTIVE_MS);
                pulse.set_idle(false);
            }
            Poll::Pending
        });
        ended.await;
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
        let buffers: &Rc<Buffers> = &link.worker().buffers;
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
