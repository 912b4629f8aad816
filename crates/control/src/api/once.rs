//! Requests that are not carried out twice: a POST with an `Idempotency-Key` that comes again gets the answer that the first
//! one got (draft-ietf-httpapi-idempotency-key-header). Keys are somebody's own, and kept for a day.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use layby_model::error_chain;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Who;
use super::types::Problem;
use crate::plane::{CLIENT_IDLE, Plane};
use crate::store::{Answer, AnswerKey, Asked};

/// The header.
const KEY: &str = "idempotency-key";
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in characters.
const MAX_KEY: usize = 255;
/// The longest answer that is kept, in bytes.
const MAX_ANSWER: usize = 256 << 10;
/// So many pieces of an answer may wait for a slow client.
const PIECES: usize = 16;
/// The status of an answer that is not there yet.
const BEGUN: u16 = 0;
/// Answers that hold a secret, which is kept nowhere.
const SECRET: [&str; 2] = ["/v1/tokens", "/v1/state/export"];

/// Keys of requests that are being carried out.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashSet<AnswerKey>>);

/// Held while a request is carried out.
struct Flight {
    plane: Arc<Plane>,
    key: AnswerKey,
}

impl Flight {
    /// `None`: one with this key is being carried out.
    fn begin(plane: &Arc<Plane>, key: &AnswerKey) -> Option<Self> {
        let mut all = plane
            .in_flight
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert(key.clone()).then(|| Self {
            plane: Arc::clone(plane),
            key: key.clone(),
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let all = self.plane.in_flight.0.lock();
        all.unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

/// The key of a request, if it has one.
///
/// # Errors
/// 400: it is none.
pub(super) fn key(headers: &HeaderMap, who: &Who) -> Result<Option<AnswerKey>, Problem> {
    let Some(value) = headers.get(KEY) else {
        return Ok(None);
    };
    let text = value.to_str().ok();
    let text = text.filter(|text| (1..=MAX_KEY).contains(&text.len()));
    let text = text.ok_or_else(|| {
        Problem::bad_request(format!(
            "Idempotency-Key is 1 to {MAX_KEY} printable characters"
        ))
    })?;
    Ok(Some(AnswerKey {
        owner: who.owner.clone(),
        key: text.to_owned(),
    }))
}

/// Carries a request out, unless that was done before.
pub(super) async fn answer<F: Future<Output = Response>>(
    plane: &Arc<Plane>,
    key: AnswerKey,
    request: Request,
    work: impl FnOnce(Request) -> F,
) -> Response {
    let Some(flight) = Flight::begin(plane, &key) else {
        let text = "the request with this Idempotency-Key is still being carried out";
        return Problem::conflict(text)
            .hint("ask again later")
            .into_response();
    };
    let path = request.uri().path().to_owned();
    let mut hash = Sha256::new();
    hash.update(format!("{}\n", request.uri()));
    let seen = Seen {
        hash,
        body_bytes: 0,
        is_whole: false,
    };
    match plane.store.answer(&key).await {
        Err(error) => return Problem::from(error).into_response(),
        Ok(Some(before)) => return again(before, request.into_body(), seen).await,
        Ok(None) => {}
    }
    // Should the node end in the midst of it, whoever asks again is told so.
    if let Err(error) = plane.store.keep_answer(key.clone(), begun(&seen)).await {
        return Problem::from(error).into_response();
    }
    let (request, read) = hashed(request, seen);
    let response = work(request).await;
    if !response.status().is_success() {
        // Nothing was done: it may be tried again with the same key.
        if let Err(error) = plane.store.forget_answer(key).await {
            tracing::warn!(error = error_chain(&error), "an Idempotency-Key stays used");
        }
        return response;
    }
    keep(
        plane,
        flight,
        response,
        read,
        SECRET.contains(&path.as_str()),
    )
}

/// The answer of before, if the request is the one of before.
async fn again(before: Answer, body: Body, mut seen: Seen) -> Response {
    let mut data = body.into_data_stream();
    let asked = before.request;
    // Of a body that was not read to its end, what was not read made no difference.
    while asked.is_whole || seen.body_bytes < asked.body_bytes {
        match tokio::time::timeout(CLIENT_IDLE, data.next()).await {
            Ok(Some(Ok(piece))) => {
                let left = asked.body_bytes - seen.body_bytes.min(asked.body_bytes);
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                if asked.is_whole && piece.len() > left {
                    seen.add(&piece);
                    break; // it is longer
                }
                seen.add(&piece[..piece.len().min(left)]);
            }
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => {
                return Problem::bad_request("the body broke off").into_response();
            }
        }
    }
    if asked.hash != seen.so_far().hash {
        let text = "this Idempotency-Key was used for another request";
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key-reused", text)
            .hint("each request takes a key of its own")
            .into_response();
    }
    if before.status == BEGUN {
        let text = "this was begun before the node ended last, and how it ended is not known";
        let problem = Problem::conflict(text);
        return problem.hint("look at what there is now").into_response();
    }
    let Some(body) = before.body else {
        let text = "this was done before, and its answer is not kept";
        let problem = Problem::conflict(text);
        return problem.hint("look at what there is now").into_response();
    };
    let status = StatusCode::from_u16(before.status).unwrap_or(StatusCode::OK);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    let kept = [
        (header::CONTENT_TYPE, before.kind),
        (header::LOCATION, before.location),
    ];
    for (name, value) in kept {
        let value = value.and_then(|value| HeaderValue::try_from(value).ok());
        headers.extend(value.map(|value| (name, value)));
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// What was seen of a request: its URI, and of its body what was read.
struct Seen {
    hash: Sha256,
    body_bytes: u64,
    is_whole: bool,
}

impl Seen {
    fn add(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.body_bytes += piece.len() as u64;
    }

    fn so_far(&self) -> Asked {
        Asked {
            hash: self.hash.clone().finalize().into(),
            body_bytes: self.body_bytes,
            is_whole: self.is_whole,
        }
    }
}

/// What is kept of a request that is begun.
fn begun(seen: &Seen) -> Answer {
    Answer {
        request: seen.so_far(),
        status: BEGUN,
        kind: None,
        location: None,
        body: None,
    }
}

/// What was read of a request, as it is read.
type Read = Arc<Mutex<Seen>>;

/// A request whose body is hashed as it is read.
fn hashed(request: Request, mut seen: Seen) -> (Request, Read) {
    let (parts, body) = request.into_parts();
    seen.is_whole = hyper::body::Body::is_end_stream(&body);
    let read = Arc::new(Mutex::new(seen));
    let told = Arc::clone(&read);
    let data = stream::unfold(body.into_data_stream(), move |mut data| {
        let told = Arc::clone(&told);
        async move {
            let piece = data.next().await;
            let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
            match &piece {
                Some(Ok(piece)) => seen.add(piece),
                Some(Err(_)) => {}
                None => seen.is_whole = true,
            }
            drop(seen);
            piece.map(|piece| (piece, data))
        }
    });
    (Request::from_parts(parts, Body::from_stream(data)), read)
}

fn so_far(read: &Read) -> Asked {
    read.lock().unwrap_or_else(PoisonError::into_inner).so_far()
}

/// Passes an answer on and keeps it, whether the client stays to the end or not.
fn keep(
    plane: &Arc<Plane>,
    flight: Flight,
    response: Response,
    read: Read,
    is_secret: bool,
) -> Response {
    let (parts, body) = response.into_parts();
    let (send, pieces) = mpsc::channel::<Result<Bytes, axum::Error>>(PIECES);
    let text = |name: HeaderName| {
        let value = parts.headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let mut answer = Answer {
        request: so_far(&read),
        status: parts.status.as_u16(),
        kind: text(header::CONTENT_TYPE),
        location: text(header::LOCATION),
        body: (!is_secret).then(Vec::new),
    };
    let task_plane = Arc::clone(plane);
    plane.spawn(async move {
        let mut data = body.into_data_stream();
        let mut last = None;
        while let Some(piece) = data.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    let _ = send.send(Err(error)).await; // it may be gone
                    return;
                }
            };
            let kept = answer.body.as_mut();
            let fits = kept.is_some_and(|kept| {
                kept.extend_from_slice(&piece);
                kept.len() <= MAX_ANSWER
            });
            if !fits {
                answer.body = None;
            }
            // The last piece is sent when all is kept: who has it all may rely on that.
            if let Some(before) = last.replace(piece) {
                let _ = send.send(Ok(before)).await;
            }
        }
        answer.request = so_far(&read); // it may have been read meanwhile
        if let Err(error) = task_plane
            .store
            .keep_answer(flight.key.clone(), answer)
            .await
        {
            tracing::warn!(
                error = error_chain(&error),
                "an answer is not kept for its Idempotency-Key"
            );
        }
        drop(flight);
        if let Some(last) = last {
            let _ = send.send(Ok(last)).await;
        }
    });
    Response::from_parts(parts, Body::from_stream(ReceiverStream::new(pieces)))
}
