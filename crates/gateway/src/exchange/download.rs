//! The response, on its way to the client.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{End, STALL_MS, State, WATCH_AFTER_MS};
use crate::buffer::Lent;
use crate::codec::{
    Framing, HeadFinder, Refusal, ResponseHead, parse_bare_response, parse_response,
};
use crate::hold::Held;
use crate::io::{Departure, Leaving, poll_read};

/// The response, from the upstream to the client.
pub(super) struct Download<'a> {
    state: &'a State<'a>,
    upstream: ReadHalf<'a>,
    client: WriteHalf<'a>,
    /// The client is watched while its answer is waited for: not at first, as most answers come soon.
    watching: bool,
}

impl<'a> Download<'a> {
    /// A response that is still to come.
    pub(super) fn new(state: &'a State<'a>, upstream: ReadHalf<'a>, client: WriteHalf<'a>) -> Self {
        Self {
            state,
            upstream,
            client,
            watching: false,
        }
    }

    /// Passes it on whole, interim responses included.
    pub(super) async fn run(mut self, held: &mut Option<Held>) -> End {
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
            failed: response.status >= 500,
        }
    }

    /// Reads a head into `buffer`, and leaves it there; `ready`: there is something to be read.
    async fn read_head(&mut self, buffer: &mut Lent, mut ready: bool) -> Result<Head, End> {
        let mut finder = HeadFinder::response();
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
                return Err(match (self.state.begun.get(), buffer.is_empty()) {
                    (true, _) => End::Broken,
                    (false, true) => End::Unanswered {
                        streamed: self.state.streamed.get(),
                    },
                    (false, false) => End::Malformed(Refusal::Malformed("its head is cut off")),
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
        let terms = self.state.terms;
        let response = match finder.has_bare_lf() {
            false => parse_response(head, terms, &mut bytes),
            true => parse_bare_response(head, terms, &mut bytes),
        };
        let response = response.map_err(refuse)?;
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
            state.pulse.expire_in(WATCH_AFTER_MS);
        }
        let watching = &mut self.watching;
        let mut departure = Departure::of(client, Leaving::Broken);
        let upstream: &TcpStream = self.upstream.as_ref();
        poll_fn(|cx| {
            if upstream.poll_read_ready(cx).is_ready() {
                return Poll::Ready(true);
            }
            if !state.uploaded.get() {
                return Poll::Pending; // the upload watches the client
            }
            if state.pulse.is_expired() {
                *watching = true;
                state.pulse.rest();
            }
            if *watching && departure.poll(cx).is_ready() {
                return Poll::Ready(false);
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
