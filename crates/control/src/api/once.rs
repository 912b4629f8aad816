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
use crate::store::{Answer, AnswerKey};

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
/// Answers that hold a secret, which is kept nowhere.
const SECRET: [&str; 1] = ["/v1/tokens"];

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
        who: who.name.clone(),
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
    match plane.store.answer(&key).await {
        Err(error) => return Problem::from(error).into_response(),
        Ok(Some(before)) => return again(before, request.into_body(), hash).await,
        Ok(None) => {}
    }
    let (request, read) = hashed(request, hash);
    let response = work(request).await;
    if !response.status().is_success() {
        // Nothing was done: it may be tried again with the same key.
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
async fn again(before: Answer, body: Body, mut hash: Sha256) -> Response {
    let mut data = body.into_data_stream();
    loop {
        match tokio::time::timeout(CLIENT_IDLE, data.next()).await {
            Ok(Some(Ok(piece))) => hash.update(&piece),
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => {
                return Problem::bad_request("the body broke off").into_response();
            }
        }
    }
    let now: [u8; 32] = hash.finalize().into();
    if before.request.is_some_and(|before| before != now) {
        let text = "this Idempotency-Key was used for another request";
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key-reused", text)
            .hint("each request takes a key of its own")
            .into_response();
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

/// What was read of a request's body.
type Read = Arc<Mutex<Option<[u8; 32]>>>;

/// A request whose body is hashed as it is read; the hash is there when all of it was.
fn hashed(request: Request, hash: Sha256) -> (Request, Read) {
    let read = Read::default();
    let (parts, body) = request.into_parts();
    let told = Arc::clone(&read);
    if hyper::body::Body::is_end_stream(&body) {
        let done: [u8; 32] = hash.finalize().into();
        *read.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        return (Request::from_parts(parts, body), read);
    }
    let begin = (body.into_data_stream(), hash);
    let data = stream::unfold(begin, move |(mut data, mut hash)| {
        let told = Arc::clone(&told);
        async move {
            match data.next().await {
                Some(piece) => {
                    if let Ok(piece) = &piece {
                        hash.update(piece);
                    }
                    Some((piece, (data, hash)))
                }
                None => {
                    let done: [u8; 32] = hash.finalize().into();
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
                    None
                }
            }
        }
    });
    (Request::from_parts(parts, Body::from_stream(data)), read)
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
        request: None,
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
        answer.request = *read.lock().unwrap_or_else(PoisonError::into_inner);
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
