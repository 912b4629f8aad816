//! The request's body, on its way to the replica.

use std::future::poll_fn;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{STALL_MS, State};
use crate::buffer::Lent;
use crate::codec::{Framing, Refusal};
use crate::io::{poll_read, write_all};

/// The request's body, from the client to the upstream.
pub(super) struct Upload<'a> {
    pub(super) state: &'a State<'a>,
    pub(super) client: ReadHalf<'a>,
    pub(super) upstream: WriteHalf<'a>,
    pub(super) input: &'a mut Option<Lent>,
    pub(super) rest: &'a mut Framing,
}

/// How it ended.
pub(super) enum UploadEnd {
    Done,
    UpstreamGone,
    ClientGone,
    Slow,
    Bad(Refusal),
}

impl Upload<'_> {
    /// Sends all that is left of the body.
    pub(super) async fn run(mut self) -> UploadEnd {
        while !self.rest.is_done() {
            if !self.client_ready().await {
                return UploadEnd::Slow;
            }
            let mut buffer = self.state.buffers.large();
            match poll_fn(|cx| poll_read(&mut self.client, cx, &mut buffer)).await {
                Err(_) | Ok(0) => return UploadEnd::ClientGone,
                Ok(_) => self.state.streamed.set(true),
            }
            let len = match self.rest.take(buffer.filled()) {
                Ok(len) => len,
                Err(refusal) => return UploadEnd::Bad(refusal),
            };
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

    /// Waits until the client has something to read, or has closed; false: it let its body rest for too
    /// long. While the upstream is slow the client waits too, and that is not its fault.
    async fn client_ready(&self) -> bool {
        let (client, pulse): (&TcpStream, _) = (self.client.as_ref(), self.state.pulse);
        pulse.expire_in(STALL_MS);
        let ready = poll_fn(|cx| {
            if client.poll_read_ready(cx).is_ready() {
                return Poll::Ready(true);
            }
            if pulse.is_expired() {
                return Poll::Ready(false);
            }
            Poll::Pending
        });
        let ready = ready.await;
        pulse.rest();
        ready
    }
}
