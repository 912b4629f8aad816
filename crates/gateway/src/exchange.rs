//! One request and its response over one connection to a replica.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::buffer::{Buffers, Lent};
use crate::client::{Client, Request};
use crate::codec::{Framing, HeadFinder, Method, Refusal, ResponseHead, Terms, parse_response};
use crate::hold::Held;
use crate::io::{Peer, poll_peer, poll_read, write_all};
use crate::watchdog::Pulse;

/// How long a client may let a body, or the reading of its answer, rest.
const STALL_MS: u64 = 60_000;
/// When an answer is not there after this, the client is watched: it may have gone away.
const WATCH_AFTER_MS: u64 = 1000;

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The response was passed on whole.
    Complete {
        /// The upstream takes another request, for so many seconds if it said so.
        keep: Option<Option<u64>>,
        /// The client may send another request.
        keep_alive: bool,
    },
    /// The upstream agreed to speak another protocol; it has said this much of it.
    Switched(Lent),
    /// The upstream closed before any byte of an answer. Nothing was sent to the client.
    Unanswered {
        /// Bytes of the body went out that are not kept.
        streamed: bool,
    },
    /// The upstream's answer is no HTTP. Nothing was sent to the client.
    Malformed(Refusal),
    /// The client's body is not well formed. Nothing was sent to the client.
    BadBody(Refusal),
    /// The client's body did not come. Nothing was sent to the client.
    SlowBody,
    /// The answer had begun and cannot be completed.
    Broken,
    /// The client went away.
    ClientGone,
}

/// Sends `request` and passes on what comes back.
pub(crate) async fn exchange(
    client: &mut Client,
    upstream: &mut TcpStream,
    request: &mut Request,
    held: &mut Option<Held>,
) -> End {
    let Client {
        worker,
        stream,
        pulse,
        input,
        ..
    } = client;
    // If this fails there may still be an answer to be read: the upstream may not want the body.
    let sent = write_all(upstream, &request.bytes).await;
    let (from_client, to_client) = stream.split();
    let (from_upstream, to_upstream) = upstream.split();
    let state = State {
        terms: Terms {
            head: request.head.method == Method::Head,
            http10: request.head.http10,
            keep_alive: request.head.keep_alive,
            upgrade: request.head.upgrade,
        },
        buffers: &worker.buffers,
        pulse,
        uploaded: Cell::new(request.rest.is_done()),
        streamed: Cell::new(false),
        begun: Cell::new(false),
    };
    let download = Download {
        state: &state,
        upstream: from_upstream,
        client: to_client,
        watch: Watch::Later,
    };
    if sent.is_err() || request.rest.is_done() {
        return download.run(held).await;
    }
    let upload = Upload {
        state: &state,
        client: from_client,
        upstream: to_upstream,
        input,
        rest: &mut request.rest,
    };
    Box::pin(both(&state, upload.run(), download.run(held))).await
}

/// What both directions see.
struct State<'a> {
    terms: Terms,
    buffers: &'a Rc<Buffers>,
    pulse: &'a Pulse,
    /// All of the request was sent.
    uploaded: Cell<bool>,
    /// Bytes of the request's body were read that are not kept.
    streamed: Cell<bool>,
    /// Something of the answer was sent to the client.
    begun: Cell<bool>,
}

/// Runs both directions until the answer is complete, or nothing more can come of it.
async fn both(
    state: &State<'_>,
    upload: impl Future<Output = UploadEnd>,
    download: impl Future<Output = End>,
) -> End {
    let mut upload = pin!(upload);
    let mut download = pin!(download);
    let mut uploading = true;
    let end = poll_fn(|cx| {
        if uploading && let Poll::Ready(end) = upload.as_mut().poll(cx) {
            uploading = false;
            match end {
                UploadEnd::Done => {
                    state.uploaded.set(true);
                    state.pulse.expire_in(WATCH_AFTER_MS);
                }
                UploadEnd::UpstreamGone => {} // an answer may still be there
                UploadEnd::ClientGone => return Poll::Ready(End::ClientGone),
                _ if state.begun.get() => return Poll::Ready(End::Broken),
                UploadEnd::Slow => return Poll::Ready(End::SlowBody),
                UploadEnd::Bad(refusal) => return Poll::Ready(End::BadBody(refusal)),
            }
        }
        download.as_mut().poll(cx)
    })
    .await;
    match end {
        // The rest of the body is still to come: neither connection can carry another request.
        End::Complete { .. } if !state.uploaded.get() => End::Complete {
            keep: None,
            keep_alive: false,
        },
        end => end,
    }
}

/// The request's body, from the client to the upstream.
struct Upload<'a> {
    state: &'a State<'a>,
    client: ReadHalf<'a>,
    upstream: WriteHalf<'a>,
    input: &'a mut Option<Lent>,
    rest: &'a mut Framing,
}

enum UploadEnd {
    Done,
    UpstreamGone,
    ClientGone,
    Slow,
    Bad(Refusal),
}

impl Upload<'_> {
    async fn run(mut self) -> UploadEnd {
        while !self.rest.is_done() {
            let mut buffer = self.state.buffers.large();
            let pulse = self.state.pulse;
            pulse.expire_in(STALL_MS);
            let read = poll_fn(|cx| {
                if pulse.is_expired() {
                    return Poll::Ready(None);
                }
                poll_read(&mut self.client, cx, &mut buffer).map(Some)
            });
            match read.await {
                None => return UploadEnd::Slow,
                Some(Err(_) | Ok(0)) => return UploadEnd::ClientGone,
                Some(Ok(_)) => self.state.streamed.set(true),
            }
            let len = match self.rest.take(buffer.filled()) {
                Ok(len) => len,
                Err(refusal) => return UploadEnd::Bad(refusal),
            };
            // While the upstream is slow, the client waits, and that is not its fault.
            pulse.rest();
            if write_all(&mut self.upstream, &buffer.filled()[..len])
                .await
                .is_err()
            {
                return UploadEnd::UpstreamGone;
            }
            buffer.consume(len);
            if !buffer.is_empty() {
                *self.input = Some(buffer); // the next request
            }
        }
        UploadEnd::Done
    }
}

/// Whether the client is watched while its answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Not yet: most answers come soon.
    Later,
    Now,
    /// It will send no more, and may be gone: a while longer, from one movement to the next.
    Finished,
    /// It has sent something: what comes after that cannot be seen.
    Blind,
}

/// The response, from the upstream to the client.
struct Download<'a> {
    state: &'a State<'a>,
    upstream: ReadHalf<'a>,
    client: WriteHalf<'a>,
    watch: Watch,
}

impl Download<'_> {
    async fn run(mut self, held: &mut Option<Held>) -> End {
        if !self.upstream_ready().await {
            return End::ClientGone;
        }
        // Taken only now: requests that wait for their answers share the few buffers that are in use.
        let mut buffer = self.state.buffers.small();
        let mut ready = true;
        loop {
            let mut head = match self.read_head(&mut buffer, ready).await {
                Ok(head) => head,
                Err(end) => return end,
            };
            ready = false;
            if let Some(held) = held.take() {
                held.answered();
            }
            let interim = head.response.status < 200;
            if interim && self.state.terms.http10 {
                buffer.consume(head.len);
                self.state.buffers.give_back(head.bytes);
                continue;
            }
            let mut body = head.response.body;
            if let Err(end) = self.write_head(&mut head, &mut body, &mut buffer).await {
                return end;
            }
            self.state.buffers.give_back(head.bytes);
            if head.response.status == 101 {
                return End::Switched(buffer);
            }
            if interim {
                continue;
            }
            if body.is_done() {
                return self.complete(&head.response, buffer.is_empty());
            }
            drop(buffer);
            return Box::pin(self.copy_body(&head.response, body)).await;
        }
    }

    fn complete(&self, response: &ResponseHead, clean: bool) -> End {
        // Bytes after the response belong to nothing that was asked for.
        let keep = (response.reusable && clean).then_some(response.keep_alive_s);
        End::Complete {
            keep,
            keep_alive: response.keep_alive,
        }
    }

    /// Reads a head into `buffer`, and leaves it there; `ready`: there is something to be read.
    async fn read_head(&mut self, buffer: &mut Lent, mut ready: bool) -> Result<Head, End> {
        let mut finder = HeadFinder::default();
        loop {
            // An interim response may have brought the next head with it.
            if !buffer.is_empty()
                && let Some(head) = self.next_head(buffer, &mut finder)?
            {
                return Ok(head);
            }
            if !ready && !self.upstream_ready().await {
                return Err(End::ClientGone);
            }
            ready = false;
            let read = poll_fn(|cx| poll_read(&mut self.upstream, cx, buffer)).await;
            if !matches!(read, Ok(len) if len > 0) {
                return Err(if self.state.begun.get() {
                    End::Broken
                } else {
                    End::Unanswered {
                        streamed: self.state.streamed.get(),
                    }
                });
            }
        }
    }

    /// The head at the front of `buffer`, if all of it is there.
    fn next_head(&self, buffer: &Lent, finder: &mut HeadFinder) -> Result<Option<Head>, End> {
        let refuse = |refusal| self.malformed(refusal);
        let Some(len) = finder.find(buffer.filled()).map_err(refuse)? else {
            return Ok(None);
        };
        let mut bytes = self.state.buffers.head();
        let head = &buffer.filled()[..len];
        let response = parse_response(head, self.state.terms, &mut bytes).map_err(refuse)?;
        Ok(Some(Head {
            response,
            bytes,
            len,
        }))
    }

    fn malformed(&self, refusal: Refusal) -> End {
        if self.state.begun.get() {
            End::Broken
        } else {
            End::Malformed(refusal)
        }
    }

    /// Sends the head, and in the same write what of the body came with it.
    async fn write_head(
        &mut self,
        head: &mut Head,
        body: &mut Framing,
        buffer: &mut Lent,
    ) -> Result<(), End> {
        let before = *body;
        let after = &buffer.filled()[head.len..];
        let taken = body
            .take(after)
            .map_err(|refusal| self.malformed(refusal))?;
        self.state.begun.set(true);
        if head.response.verbatim {
            self.write(&buffer.filled()[..head.len + taken]).await?;
        } else {
            append(&head.response, before, &after[..taken], &mut head.bytes);
            self.write(&head.bytes).await?;
        }
        buffer.consume(head.len + taken);
        Ok(())
    }

    /// Passes on the rest of the body.
    async fn copy_body(mut self, response: &ResponseHead, mut body: Framing) -> End {
        let mut clean = true;
        while !body.is_done() {
            if !self.upstream_ready().await {
                return End::ClientGone;
            }
            let mut buffer = self.state.buffers.large();
            match poll_fn(|cx| poll_read(&mut self.upstream, cx, &mut buffer)).await {
                Ok(0) if body.ends_by_close() => break,
                Ok(0) | Err(_) => return End::Broken,
                Ok(_) => {}
            }
            let before = body;
            let Ok(taken) = body.take(buffer.filled()) else {
                return End::Broken;
            };
            let content = &buffer.filled()[..taken];
            let written = if response.unchunk {
                let mut bytes = self.state.buffers.head();
                append(response, before, content, &mut bytes);
                self.write(&bytes).await
            } else {
                self.write(content).await
            };
            if let Err(end) = written {
                return end;
            }
            clean = taken == buffer.filled().len();
        }
        self.complete(response, clean)
    }

    /// Writes to the client, which must not let it rest for too long.
    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        let pulse = self.state.pulse;
        let mut waited = false;
        poll_fn(|cx| {
            while !bytes.is_empty() {
                let written = Pin::new(&mut self.client).poll_write(cx, bytes);
                if written.is_pending() && !std::mem::replace(&mut waited, true) {
                    pulse.expire_in(STALL_MS);
                } else if written.is_pending() && pulse.is_expired() {
                    return Poll::Ready(Err(End::ClientGone));
                }
                match ready!(written) {
                    Ok(len) if len > 0 => bytes = &bytes[len..],
                    _ => return Poll::Ready(Err(End::ClientGone)),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits until the upstream has something to read, or has closed; false: the client is gone.
    async fn upstream_ready(&mut self) -> bool {
        let (state, client) = (self.state, self.client.as_ref());
        if state.uploaded.get() {
            state.pulse.expire_in(match self.watch {
                Watch::Finished => STALL_MS,
                Watch::Later | Watch::Now | Watch::Blind => WATCH_AFTER_MS,
            });
        }
        let watch = &mut self.watch;
        let upstream: &TcpStream = self.upstream.as_ref();
        poll_fn(|cx| {
            if upstream.poll_read_ready(cx).is_ready() {
                return Poll::Ready(true);
            }
            if !state.uploaded.get() {
                return Poll::Pending; // the upload watches the client
            }
            if state.pulse.is_expired() {
                match watch {
                    Watch::Finished => return Poll::Ready(false),
                    Watch::Later => *watch = Watch::Now,
                    Watch::Now | Watch::Blind => {}
                }
                state.pulse.rest();
            }
            if *watch == Watch::Now
                && let Poll::Ready(peer) = poll_peer(client, cx)
            {
                match peer {
                    Peer::Gone => return Poll::Ready(false),
                    Peer::Spoke => *watch = Watch::Blind,
                    Peer::Finished => {
                        *watch = Watch::Finished;
                        state.pulse.expire_in(STALL_MS);
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A response's head.
struct Head {
    response: ResponseHead,
    /// What the client is to be sent instead of it, unless it goes on as it came.
    bytes: Vec<u8>,
    /// Its length as it came.
    len: usize,
}

/// Appends `bytes` of a body, of which `body` was still to come, as the client is to be sent them.
fn append(response: &ResponseHead, mut body: Framing, mut bytes: &[u8], out: &mut Vec<u8>) {
    if !response.unchunk {
        out.extend_from_slice(bytes);
        return;
    }
    while let Ok(piece) = body.take_piece(bytes)
        && piece.len > 0
    {
        if piece.content {
            out.extend_from_slice(&bytes[..piece.len]);
        }
        bytes = &bytes[piece.len..];
    }
}
