//! One request and its response over one connection to a replica.

mod download;
mod upload;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::net::TcpStream;

use crate::buffer::{Buffers, Lent};
use crate::client::{Client, Request};
use crate::codec::{Method, Refusal, Terms};
use crate::hold::Held;
use crate::io::write_all;
use crate::watchdog::Pulse;

use download::Download;
use upload::{Upload, UploadEnd};

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
        /// It was a 5xx.
        failed: bool,
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
    let download = Download::new(&state, from_upstream, to_client).run(held);
    let end = if sent.is_err() || request.rest.is_done() {
        download.await
    } else {
        let upload = Upload {
            state: &state,
            client: from_client,
            upstream: to_upstream,
            input,
            rest: &mut request.rest,
        };
        Box::pin(both(&state, upload.run(), download)).await
    };
    match end {
        // What was not sent of the request is still to come: no connection can carry another one.
        End::Complete {
            keep,
            keep_alive,
            failed,
        } => End::Complete {
            keep: keep.filter(|_| sent.is_ok() && state.uploaded.get()),
            keep_alive: keep_alive && state.uploaded.get(),
            failed,
        },
        // Bytes of the other protocol cannot follow half a body.
        End::Switched(_) if !state.uploaded.get() => End::Broken,
        end => end,
    }
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
    poll_fn(|cx| {
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
    .await
}
