//! mapi over HTTP: one picture at a time, in the order of their coming.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::digest::Digest;
use crate::label::extract::extract;
use crate::label::rule::{Label, check};
use crate::mapi::cache::Cache;
use crate::mapi::prepare::prepare;
use crate::mapi::refusal::Refusal;
use crate::mapi::tesseract::Tesseract;
use crate::picture::{self, BYTES_MAX, PictureError};
use crate::reading::{CheckList, Line, Problem, Question, Reading};

/// How many pictures may wait for the one that is read. A gateway that knows of the concurrency lets none wait here.
const WAITING_MAX: usize = 16;

/// How long the one under way may take after the signal to end.
pub const DRAIN_MAX: Duration = Duration::from_secs(120);

/// The largest question to the rules.
const QUESTION_MAX_BYTES: usize = 1 << 20;

#[derive(OpenApi)]
#[openapi(info(
    title = "mapi",
    description = "Reads pictures of product labels, and checks what they say.",
    version = "1.0.0"
))]
struct Document;

#[derive(Debug)]
struct Mapi {
    tesseract: Tesseract,
    cache: Cache,
    /// Whoever holds it reads.
    turn: Semaphore,
    waiting: AtomicUsize,
}

/// All routes.
pub fn router(tesseract: Tesseract, cache: Cache) -> Router {
    let mapi = Arc::new(Mapi {
        tesseract,
        cache,
        turn: Semaphore::new(1),
        waiting: AtomicUsize::new(0),
    });
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(read))
        .routes(routes!(check_list))
        .routes(routes!(healthz))
        .split_for_parts();
    router
        .with_state(mapi)
        .route("/openapi.json", get(|| async { Json(document) }))
        .fallback(|| async { Refusal::NotFound })
        .method_not_allowed_fallback(|| async { Refusal::Method })
}

/// Read a picture.
///
/// The body is a PNG or a JPEG as it is. One picture is read at a time; others wait for it.
#[utoipa::path(
    post,
    path = "/v1/readings",
    request_body(content(
        (Vec<u8> = "image/png"),
        (Vec<u8> = "image/jpeg"),
    )),
    responses(
        (status = 200, body = Reading),
        (status = 400, body = Problem, description = "The body broke off"),
        (status = 413, body = Problem, description = "The picture has more than 20 MiB"),
        (status = 422, body = Problem, description = "No picture, or one that cannot be read"),
        (status = 500, body = Problem, description = "The service failed; its log says why"),
        (status = 503, body = Problem, description = "Too many wait: try again in a moment"),
        (status = 504, body = Problem, description = "The picture was not read in time"),
    )
)]
async fn read(State(mapi): State<Arc<Mapi>>, request: Request) -> Result<Json<Reading>, Refusal> {
    // First the turn, then the body: who waits holds no picture in memory.
    let _place = Place::take(&mapi.waiting)?;
    let _turn = mapi.turn.acquire().await.map_err(|_| Refusal::Failed)?;
    let begun = Instant::now();
    let bytes = body(request, BYTES_MAX).await?;
    let sha256 = Digest::of(&bytes);
    let key = format!("labels:{}:{sha256}", mapi.tesseract.version);
    if let Some(kept) = mapi.cache.get(&key).await
        && let Ok(reading) = serde_json::from_slice(&kept)
    {
        return Ok(Json(reading));
    }
    let work = tokio::task::spawn_blocking(move || picture::decode(&bytes).map(prepare));
    let prepared = work.await.map_err(|panic| {
        eprintln!("error: a picture could not be decoded: {panic}");
        Refusal::Failed
    })??;
    let lines = mapi.tesseract.read(&prepared).await?;
    let text = text(&lines);
    let reading = Reading {
        engine: mapi.tesseract.version.clone(),
        sha256: sha256.to_string(),
        width: prepared.width,
        height: prepared.height,
        fields: extract(&text),
        confidence: confidence(&lines),
        text,
        lines,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    if let Ok(value) = serde_json::to_vec(&reading) {
        mapi.cache.put(&key, &value).await;
    }
    Ok(Json(reading))
}

/// Check what a label says.
///
/// Applies the rules of a category to fields, or to those found in a text.
#[utoipa::path(
    post,
    path = "/v1/checks",
    request_body = Question,
    responses(
        (status = 200, body = CheckList),
        (status = 400, body = Problem, description = "No such question"),
    )
)]
async fn check_list(request: Request) -> Result<Json<CheckList>, Refusal> {
    let bytes = body(request, QUESTION_MAX_BYTES).await?;
    let question: Question = serde_json::from_slice(&bytes).map_err(Refusal::Question)?;
    let fields = question.fields.unwrap_or_else(|| extract(&question.text));
    let label = Label {
        text: &question.text,
        fields: &fields,
    };
    let outcomes = check(question.category, label);
    Ok(Json(CheckList { outcomes, fields }))
}

/// Say that the service is up.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, example = "ok")))]
async fn healthz() -> &'static str {
    "ok"
}

/// One of those that wait or are read; given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Place<'a>, Refusal> {
        let place = Place(waiting);
        if waiting.fetch_add(1, Ordering::SeqCst) > WAITING_MAX {
            return Err(Refusal::Busy);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn body(request: Request, most: usize) -> Result<Vec<u8>, Refusal> {
    match Limited::new(request.into_body(), most).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(PictureError::Bytes.into())
        }
        Err(_) => Err(Refusal::Body),
    }
}

fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.text);
        text.push('\n');
    }
    text
}

fn confidence(lines: &[Line]) -> f32 {
    let with_words = lines.iter().filter(|line| !line.text.is_empty());
    let count = |line: &Line| line.text.split(' ').count() as f32;
    let words: f32 = with_words.clone().map(count).sum();
    let sum: f32 = with_words.map(|line| line.confidence * count(line)).sum();
    if words > 0.0 { sum / words } else { 0.0 }
}
