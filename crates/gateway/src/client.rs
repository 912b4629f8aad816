//! One HTTP/1.1 connection from a client: its requests, one after another, each through all phases.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::buffer::Lent;
use crate::codec::{Framing, HeadFinder, Hop, Method, Refusal, RequestHead, parse_request};
use crate::errors::{Answer, Manner};
use crate::exchange::{End, exchange};
use crate::finish::finish;
use crate::forward;
use crate::hold::{self, Search, Unserved, Waiter};
use crate::io::{Leaving, has_input, poll_read, write_all};
use crate::overhear::Overheard;
use crate::retry::{Again, Unanswered, again};
use crate::route::{Entry, route};
use crate::tunnel::Tunnel;
use crate::watchdog::{Pulse, Watched};
use crate::worker::Worker;

/// How long a connection may be idle between requests.
const IDLE_MS: u64 = 75_000;
/// How long a head may take, from its first byte.
const HEAD_MS: u64 = 30_000;
/// How long, and how much, is read and thrown away before closing, so that the answer is not lost to a
/// reset (RFC 9112, section 9.6).
const LINGER_MS: u64 = 2000;
const LINGER_BYTES: usize = 1024 * 1024;

/// A connection from a client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) stream: TcpStream,
    pub(crate) pulse: Watched,
    /// What was read and not used yet.
    pub(crate) input: Option<Lent>,
    entry: Entry,
    peer: String,
    local: String,
}

/// A request, ready to be forwarded.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    /// What the upstream is sent: the head written anew, and what of the body came with it.
    pub(crate) bytes: Vec<u8>,
    /// What of the body is still to be read.
    pub(crate) rest: Framing,
}

impl Request {
    /// The host that it names.
    fn host(&self) -> Option<&[u8]> {
        let range = self.head.host.clone()?;
        self.bytes.get(range)
    }
}

/// What becomes of the connection after a request.
enum Next {
    /// It waits for the next.
    Again,
    /// It is closed, after what the client may still be sending was read.
    Close,
    /// It is closed at once: the client is gone, or must see that its answer is not whole.
    Drop,
    /// It is no longer HTTP.
    Tunnel(Box<Tunnel>),
}

/// Why there is no (further) request.
enum Unread {
    Closed,
    Slow,
    Refused(Refusal),
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, entry: Entry) {
    let mut client = Client {
        pulse: worker.watchdog.watch(),
        worker,
        stream,
        input: None,
        entry,
        peer: peer.ip().to_canonical().to_string(),
        local: entry.addr().to_string(),
    };
    loop {
        let mut request = match client.next_request().await {
            Ok(request) => request,
            Err(Unread::Closed) => return,
            Err(Unread::Slow) => return client.refuse(&Answer::slow()).await,
            Err(Unread::Refused(refusal)) => return client.refuse(&Answer::refused(refusal)).await,
        };
        let next = client.answer(&mut request).await;
        client.worker.buffers.give_back(request.bytes);
        match next {
            Next::Again => {}
            Next::Close => return Box::pin(client.linger()).await,
            Next::Drop => return,
            Next::Tunnel(tunnel) => {
                let Client {
                    worker,
                    stream,
                    pulse,
                    input,
                    ..
                } = client;
                return Box::pin(tunnel.run(worker, stream, pulse, input)).await;
            }
        }
    }
}

impl Client {
    /// Reads the next request. An idle connection has no buffer.
    async fn next_request(&mut self) -> Result<Request, Unread> {
        let Self {
            worker,
            stream,
            pulse,
            input,
            ..
        } = self;
        pulse.expire_in(IDLE_MS);
        if input.is_none() {
            if worker.shared.is_stopping() && !has_input(stream) {
                return Err(Unread::Closed);
            }
            pulse.set_idle(true);
            let readable = poll_fn(|cx| {
                pulse.set_waker(cx);
                if pulse.is_expired() {
                    if !has_input(stream) {
                        return Poll::Ready(Err(Unread::Closed));
                    }
                    pulse.expire_in(IDLE_MS); // a request came at the last moment
                }
                stream.poll_read_ready(cx).map_err(Unread::from)
            });
            let readable = readable.await;
            pulse.set_idle(false);
            readable?;
        }
        let buffer = input.get_or_insert_with(|| worker.buffers.small());
        let mut finder = HeadFinder::request();
        let mut reads = 0;
        let len = loop {
            if let Some(len) = finder.find(buffer.filled())? {
                break len;
            }
            reads += 1;
            if reads == 2 {
                pulse.expire_in(HEAD_MS);
            }
            let read = poll_fn(|cx| {
                pulse.set_waker(cx);
                if pulse.is_expired() {
                    return Poll::Ready(Err(Unread::Slow));
                }
                poll_read(stream, cx, buffer).map_err(Unread::from)
            });
            if read.await? == 0 {
                return Err(Unread::Closed);
            }
        };
        self.take_request(len)
    }

    /// Takes a request whose head is `len` bytes long out of the input.
    fn take_request(&mut self, len: usize) -> Result<Request, Unread> {
        let Some(buffer) = &mut self.input else {
            return Err(Unread::Closed);
        };
        let mut bytes = self.worker.buffers.head();
        let hop = Hop {
            client: &self.peer,
            host: &self.local,
        };
        let head = parse_request(&buffer.filled()[..len], hop, &mut bytes)?;
        buffer.consume(len);
        let mut rest = head.body;
        let taken = rest.take(buffer.filled())?;
        bytes.extend_from_slice(&buffer.filled()[..taken]);
        buffer.consume(taken);
        if buffer.is_empty() {
            self.input = None;
        }
        Ok(Request { head, bytes, rest })
    }

    /// Takes a request through the phases.
    async fn answer(&mut self, request: &mut Request) -> Next {
        let worker = Rc::clone(&self.worker);
        let view = worker.view();
        let target = match route(&view, self.entry, request.host(), &request.bytes) {
            Ok(target) => target,
            Err(lost) => return self.reject(request, &Answer::lost(&lost)).await,
        };
        let service = &view.services[target.service];
        service.state.used();
        let mut search = Search::default();
        let (mut new, mut moved) = (false, false);
        loop {
            let waiter = Waiter {
                client: Some(&self.stream),
                head: &request.bytes,
                leaving: Leaving::Finished,
                pulse: &self.pulse,
            };
            let claim = hold::claim(&worker, &view, target.service, waiter, &mut search).await;
            let claim = match claim {
                Ok(claim) => claim,
                Err(Unserved::ClientGone) => return Next::Drop,
                Err(why) => {
                    let name = service.state.id.to_string();
                    let deadline_ms = service.limits.hold_deadline_ms;
                    let answer = Answer::unserved(why, &name, deadline_ms);
                    return self.reject(request, &answer).await;
                }
            };
            // A table that came while it waited may also have moved the port.
            let port = if claim.view().generation == view.generation {
                target.port
            } else {
                match route(claim.view(), self.entry, request.host(), &request.bytes) {
                    Ok(target) => target.port,
                    Err(lost) => return self.reject(request, &Answer::lost(&lost)).await,
                }
            };
            let replica = claim.upstream().replica;
            let mut upstream = match forward::connect(&worker, &claim, port, new).await {
                Ok(upstream) => upstream,
                Err(error) => {
                    tracing::debug!(%replica, port, %error, "cannot connect");
                    search.choice.avoid.push(replica);
                    continue;
                }
            };
            let end = exchange(self, &mut upstream.stream, request, &mut search.held).await;
            let (error, failed) = match end {
                End::Complete {
                    keep,
                    keep_alive,
                    failed,
                } => {
                    claim.upstream().state.served(failed);
                    finish(&worker, &service.state, claim, port, upstream, keep);
                    return if keep_alive { Next::Again } else { Next::Close };
                }
                End::Switched(early) => {
                    claim.upstream().state.served(false);
                    return Next::Tunnel(Box::new(Tunnel {
                        upstream: upstream.stream,
                        claim,
                        service: Arc::clone(&service.state),
                        limits: service.limits,
                        early: Some(early),
                        overheard: Overheard::no_http(),
                    }));
                }
                End::Unanswered { streamed } => {
                    let unanswered = Unanswered {
                        method: request.head.method,
                        reused: upstream.reused,
                        bodiless: request.head.body.is_done(),
                        streamed,
                        moved,
                    };
                    match again(unanswered) {
                        Some(Again::Anew) => {
                            new = true;
                            continue;
                        }
                        Some(Again::Elsewhere) => {
                            claim.upstream().state.served(true);
                            (new, moved) = (true, true);
                            search.move_on(replica);
                            continue;
                        }
                        None => {}
                    }
                    let answer = Answer::unanswered(&service.state.id.to_string());
                    (Some(answer), true)
                }
                End::Malformed(refusal) => {
                    let answer = Answer::malformed(&service.state.id.to_string(), refusal);
                    (Some(answer), true)
                }
                End::BadBody(refusal) => (Some(Answer::refused(refusal)), false),
                End::SlowBody => (Some(Answer::slow()), false),
                End::Broken => (None, true),
                End::ClientGone => (None, false),
            };
            claim.upstream().state.served(failed);
            service.state.touch();
            let Some(error) = error else {
                return Next::Drop;
            };
            drop((upstream, claim));
            return self.reject(request, &error).await;
        }
    }

    /// Answers a request with an error; the connection goes on if all of the request was read.
    async fn reject(&mut self, request: &Request, answer: &Answer) -> Next {
        let manner = Manner {
            json: request.head.wants_json,
            head: request.head.method == Method::Head,
            keep_alive: request.head.keep_alive && !request.head.http10 && request.rest.is_done(),
        };
        match write_all(&mut self.stream, &answer.render(manner)).await {
            Ok(()) if manner.keep_alive => Next::Again,
            Ok(()) => Next::Close,
            Err(_) => Next::Drop,
        }
    }

    /// Answers what is not a request, and ends the connection.
    async fn refuse(mut self, answer: &Answer) {
        if write_all(&mut self.stream, &answer.render(Manner::default()))
            .await
            .is_ok()
        {
            Box::pin(self.linger()).await;
        }
    }

    /// Closes so that the client can read the answer, though it may still be sending.
    async fn linger(self) {
        linger(&self.worker, self.stream, &self.pulse).await;
    }
}

/// Closes so that the client can read what it was sent last, though it may still be sending.
pub(crate) async fn linger(worker: &Worker, mut stream: TcpStream, pulse: &Pulse) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut buffer = worker.buffers.small();
    let mut left = LINGER_BYTES;
    pulse.expire_in(LINGER_MS);
    let drained = poll_fn(|cx| {
        pulse.set_waker(cx);
        while left > 0 && !pulse.is_expired() {
            match ready!(poll_read(&mut stream, cx, &mut buffer)) {
                Ok(len) if len > 0 => left = left.saturating_sub(len),
                _ => break,
            }
            let len = buffer.filled().len();
            buffer.consume(len);
        }
        Poll::Ready(())
    });
    drained.await;
}
