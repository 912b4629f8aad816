//! The datagrams of one client to one UDP port: held while its service wakes, passed on to one replica, its answers passed back.
//!
//! Nobody says when a client is done: a flow that was silent for long enough ends. One whose replica is being replaced goes on to
//! another as soon as that one says nothing for a moment, since what comes after that is mostly a new question, and since nothing
//! is told of datagrams that are sent where nobody is any more.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tokio::time::Sleep;

use crate::clock::now_ms;
use crate::datagram::{Ends, Incoming, LONGEST};
use crate::desk::Inbox;
use crate::hold::{self, Held, Search, Waiter};
use crate::io::Leaving;
use crate::link::{ACTIVE_MS, Gate, Link};
use crate::overhear::Overheard;
use crate::parcel::{Parcel, Queue};
use crate::watchdog::Pulse;
use crate::worker::Worker;

/// How long a flow may be silent to which nothing came back, in milliseconds; as the kernel's own table of flows has it.
const SILENT_MS: u64 = 30_000;
/// The same, once both sides were heard.
const SILENT_BOTH_MS: u64 = 120_000;
/// How long a replica that is being replaced says nothing before it is left, in milliseconds: however much its client says.
const SILENT_REPLACED_MS: u64 = 3_000;
/// How long a replica that was just begun with may refuse datagrams, in milliseconds: it may have started, and not listen yet.
const REFUSED_PATIENCE_MS: u64 = 3_000;
/// How long is waited then before they are sent again, in milliseconds; each time twice as long: the kernel tells of a few refusals
/// at once, and of one a second after that.
const FIRST_PAUSE_MS: u64 = 20;
const LONGEST_PAUSE_MS: u64 = 1_000;
/// How often at most is told that a socket cannot be had, in milliseconds.
const TELLING_MS: u64 = 1_000;

/// One flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) worker: Rc<Worker>,
    /// Where its client is answered.
    pub(crate) socket: Rc<Incoming>,
    /// The address that the port is listened on.
    pub(crate) addr: SocketAddr,
    pub(crate) ends: Ends,
    pub(crate) inbox: Rc<Inbox>,
}

/// How a flow goes on after it has left a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// To another one.
    Another,
    /// Not at all.
    Over,
}

impl Flow {
    /// Lives until it was silent for long enough, it is closed, or nobody serves it.
    pub(crate) async fn run(&self) {
        let pulse = self.worker.watchdog.watch();
        while self.with_one(&pulse).await == Next::Another {}
    }

    /// Claims a replica, and goes on with it as long as it can.
    async fn with_one(&self, pulse: &Pulse) -> Next {
        let view = self.worker.view();
        let Some((_, at)) = view.datagrams(&self.addr) else {
            return Next::Over;
        };
        let service = &view.services[at];
        service.state.used();
        let mut search = Search::default();
        let waiter = Waiter {
            client: None,
            head: &[],
            leaving: Leaving::Finished,
            pulse,
        };
        let closed = poll_fn(|cx| {
            self.inbox.set_waker(cx);
            match self.inbox.is_closed() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let claim = tokio::select! {
            biased;
            () = closed => return Next::Over,
            claim = hold::claim(&self.worker, &view, at, waiter, &mut search) => claim,
        };
        let claim = match claim {
            Ok(claim) => claim,
            Err(why) => {
                tracing::debug!(service = %service.state.id, ?why, "datagrams are not served");
                return Next::Over;
            }
        };
        // A table that came while it waited may also have moved the port.
        let Some((target, _)) = claim.view().datagrams(&self.addr) else {
            return Next::Over;
        };
        let to = SocketAddr::new(claim.upstream().ip, target);
        let upstream = match connect(to).await {
            Ok(upstream) => Rc::new(upstream),
            Err(error) => {
                // The next datagram of the client tries it again, however fast they come.
                let now = now_ms();
                if now >= self.worker.told_ms.get() + TELLING_MS {
                    self.worker.told_ms.set(now);
                    tracing::warn!(service = %service.state.id, "no datagrams can be sent to {to}: {error}");
                }
                return Next::Over;
            }
        };
        claim.upstream().state.served(false);
        let state = Arc::clone(&service.state);
        let mut exchange = Exchange {
            flow: self,
            link: Link::new(
                &self.worker,
                state,
                service.limits,
                claim,
                Overheard::no_http(),
            ),
            refusal: refusal(&upstream),
            upstream,
            held: search.held.take(),
            again: Queue::default(),
            kept: Queue::default(),
            pause: None,
            pause_ms: FIRST_PAUSE_MS,
            begun_ms: now_ms(),
            heard_ms: now_ms(),
            answered: false,
            both: false,
            was_refused: false,
            is_gone: false,
        };
        pulse.expire_in(ACTIVE_MS);
        poll_fn(|cx| exchange.poll(cx, pulse)).await
    }
}

/// A socket that speaks with a replica alone.
async fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Waits until a refusal of what was sent before is told: that makes a socket neither readable nor writable.
fn refusal(socket: &Rc<UdpSocket>) -> Pin<Box<dyn Future<Output = ()>>> {
    let socket = Rc::clone(socket);
    Box::pin(async move {
        let told = || match socket.take_error() {
            Ok(None) => Err(ErrorKind::WouldBlock.into()),
            Ok(Some(_)) | Err(_) => Ok(()),
        };
        // Whatever goes wrong with it, something was not delivered.
        let _ = socket.async_io(Interest::ERROR, told).await;
    })
}

/// A flow and the replica that it is with.
struct Exchange<'f> {
    flow: &'f Flow,
    link: Link<'f>,
    upstream: Rc<UdpSocket>,
    /// Ends when the replica's kernel has refused a datagram.
    refusal: Pin<Box<dyn Future<Output = ()>>>,
    /// It waited for the replica, and has no answer yet.
    held: Option<Held>,
    /// Datagrams that are to be sent before those that wait.
    again: Queue,
    /// Those that were sent, as long as they may be refused because nobody listens yet.
    kept: Queue,
    /// Until then nothing is sent.
    pause: Option<Pin<Box<Sleep>>>,
    pause_ms: u64,
    /// When the replica was begun with, or woke, in milliseconds.
    begun_ms: u64,
    /// When the replica said something last, or was begun with, in milliseconds.
    heard_ms: u64,
    /// Something came back since then.
    answered: bool,
    /// Something came back at all.
    both: bool,
    /// The last one that was to be sent was not, because one before was refused.
    was_refused: bool,
    /// It was replaced, and nobody listens there any more.
    is_gone: bool,
}

impl Exchange<'_> {
    /// Passes on what can be passed on now.
    fn poll(&mut self, cx: &mut Context<'_>, pulse: &Pulse) -> Poll<Next> {
        pulse.set_waker(cx);
        self.flow.inbox.set_waker(cx);
        if self.flow.inbox.is_closed() {
            return Poll::Ready(Next::Over);
        }
        if pulse.is_expired() {
            if let Some(next) = self.look_at_the_clock() {
                return Poll::Ready(next);
            }
            pulse.expire_in(ACTIVE_MS);
        }
        while self.refusal.as_mut().poll(cx).is_ready() {
            self.refused();
            self.refusal = refusal(&self.upstream);
        }
        self.answers(cx);
        self.questions(cx)
    }

    /// Passes on what the replica has sent.
    fn answers(&mut self, cx: &mut Context<'_>) {
        let mut bytes = self.flow.worker.datagram.borrow_mut();
        bytes.resize(LONGEST, 0);
        loop {
            let mut room = ReadBuf::new(&mut bytes);
            match self.upstream.poll_recv(cx, &mut room) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {
                    self.heard_ms = now_ms();
                    self.answered = true;
                    self.both = true;
                    self.kept = Queue::default();
                    // What cannot be delivered is lost, as anywhere on the way.
                    let _ = self.flow.socket.answer(room.filled(), &self.flow.ends);
                    self.link.moved();
                    if let Some(held) = self.held.take() {
                        held.answered();
                    }
                }
                // Told once, of a datagram that was sent before.
                Poll::Ready(Err(_)) => self.refused(),
            }
        }
    }

    /// Passes on what the client has sent.
    fn questions(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.again.is_empty() && self.flow.inbox.is_empty() {
                return Poll::Pending;
            }
            if self.leaves() {
                while let Some(datagram) = self.again.pop_back() {
                    self.flow.inbox.put_back(datagram);
                }
                return Poll::Ready(Next::Another);
            }
            let waited = self.link.waits();
            match self.link.gate(cx) {
                Gate::Open => {}
                Gate::Shut => return Poll::Pending,
                Gate::Gone => return Poll::Ready(Next::Over),
            }
            if waited {
                self.begun_ms = now_ms();
                self.heard_ms = self.begun_ms;
                self.pause_ms = FIRST_PAUSE_MS;
                self.answered = false;
            }
            let next = self.again.pop_front();
            let Some(datagram) = next.or_else(|| self.flow.inbox.take()) else {
                return Poll::Pending;
            };
            match self.upstream.poll_send(cx, datagram.bytes()) {
                Poll::Pending => {
                    self.again.put_back(datagram);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(_)) => {
                    self.was_refused = false;
                    self.link.moved();
                    self.keep(datagram);
                }
                // That is told of one before, and this one was not sent.
                Poll::Ready(Err(error)) if is_refusal(&error) && !self.was_refused => {
                    self.was_refused = true;
                    self.again.put_back(datagram);
                    self.refused();
                }
                // It is too long, or there is no way: lost, as anywhere.
                Poll::Ready(Err(_)) => {}
            }
        }
    }

    /// Keeps one that was sent, as long as that may be in vain.
    fn keep(&mut self, datagram: Parcel) {
        self.forget_kept();
        if self.is_beginning() {
            self.kept.keep(datagram);
        }
    }

    /// Keeps nothing once a refusal means that nobody listens there any more.
    fn forget_kept(&mut self) {
        if !self.is_beginning() {
            self.kept = Queue::default();
        }
    }

    /// Whether a refusal may mean that the replica does not listen yet.
    fn is_beginning(&self) -> bool {
        !self.answered && now_ms() < self.begun_ms + REFUSED_PATIENCE_MS
    }

    /// The replica's kernel has refused a datagram: nobody listens there.
    fn refused(&mut self) {
        if self.pause.is_some() {
            return;
        }
        let is_gone = self.link.is_replaced();
        if !is_gone && !self.is_beginning() {
            self.kept = Queue::default();
            return;
        }
        // They go before what was not sent yet.
        let mut again = std::mem::take(&mut self.kept);
        again.append(std::mem::take(&mut self.again));
        self.again = again;
        if is_gone {
            self.is_gone = true;
            return;
        }
        let pause = Duration::from_millis(self.pause_ms);
        self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        self.pause_ms = (self.pause_ms * 2).min(LONGEST_PAUSE_MS);
    }

    /// Whether what comes now is to go to another replica.
    fn leaves(&self) -> bool {
        let unheard_ms = now_ms().saturating_sub(self.heard_ms);
        // What waited while nobody served goes to who serves now.
        let is_done = unheard_ms >= SILENT_REPLACED_MS || self.link.waits();
        self.is_gone || is_done && self.link.is_replaced()
    }

    fn silent_ms(&self) -> u64 {
        now_ms().saturating_sub(self.link.moved_ms())
    }

    /// Whether it goes on with this replica: `None`.
    fn look_at_the_clock(&mut self) -> Option<Next> {
        // Also of a client that says nothing more.
        self.forget_kept();
        if !self.link.look_at_the_clock() {
            return Some(Next::Over); // it has waited too long
        }
        if !self.link.is_active() {
            // A client that is done does not say so: others are to have its place.
            self.link.leave_slot();
        }
        if self.link.waits() || self.pause.is_some() || !self.flow.inbox.is_empty() {
            return None;
        }
        let limit_ms = match self.both {
            true => SILENT_BOTH_MS,
            false => SILENT_MS,
        };
        let is_over = self.leaves() || self.silent_ms() >= limit_ms;
        is_over.then_some(Next::Over)
    }
}

/// Whether a socket tells that nobody takes what was sent to its peer.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
    )
}
