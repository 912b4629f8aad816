//! The HTTP service: routes, the one endpoint that works, and an orderly end.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body::{HeldBody, Room};
use crate::docs::{self, Document};
use crate::network::{Guess, Network};
use crate::picture;
use crate::refusal::{Problem, Refusal};

/// How long requests under way may take after the signal to end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Takes base64 with its padding and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A picture of one digit.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Question<'a> {
    /// A PNG or JPEG of any size, grey or colour, in base64; a `data:` URL is taken too.
    #[serde(borrow)]
    #[schema(value_type = String, format = Byte)]
    pub base64: Cow<'a, str>,
}

/// The digit in the picture.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// The likeliest digit, 0 to 9.
    #[schema(example = 7)]
    pub digit: u8,
    /// The probability of each digit from 0 to 9; they add up to 1.
    pub probabilities: [f32; 10],
}

#[derive(Debug, Clone)]
struct App {
    network: Arc<Network>,
    room: Room,
}

/// All routes of the service.
pub fn router(network: Network) -> Router {
    let app = App {
        network: Arc::new(network),
        room: Room::new(),
    };
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(recognise))
        .routes(routes!(healthz))
        .split_for_parts();
    router
        .route("/mnist", post(recognise))
        .with_state(app)
        .merge(docs::router(document))
        .fallback(|| async { Refusal::NotFound })
        .method_not_allowed_fallback(|| async { Refusal::Method })
}

/// Serves until `stop` ends, then answers what is under way, for ten seconds at most.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // An answer is one small write: waiting to fill a packet (Nagle) would only delay it.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        let _ = stopping.send(());
    });
    tokio::select! {
        result = serving => result,
        () = async { let _ = stopped.await; tokio::time::sleep(DRAIN_MAX).await } => Ok(()),
    }
}

/// Recognises the digit in a picture.
///
/// Light on dark and dark on light are both read; the digit may stand anywhere in the picture.
#[utoipa::path(
    post,
    path = "/mnist/",
    request_body = Question,
    responses(
        (status = 200, body = Answer),
        (status = 400, body = Problem, description = "No JSON, or no base64 in it"),
        (status = 413, body = Problem, description = "The body is larger than 8 MiB"),
        (status = 422, body = Problem, description = "Not a picture, or none that can be read"),
        (status = 503, body = Problem, description = "Busy: try again in a moment"),
    )
)]
async fn recognise(State(app): State<App>, request: Request) -> Result<Json<Answer>, Refusal> {
    let body = app.room.read(request.into_body()).await?;
    let permit = app.room.to_decode().await?;
    let network = Arc::clone(&app.network);
    // Both permits go along: should the client leave, the memory is in use until the work is done.
    let work = tokio::task::spawn_blocking(move || {
        let guess = work_on(&network, body);
        drop(permit);
        guess
    });
    let guess = match work.await {
        Ok(guess) => guess?,
        Err(panic) => {
            eprintln!("error: a picture could not be worked on: {panic}");
            return Err(Refusal::Failed);
        }
    };
    Ok(Json(Answer {
        digit: guess.digit,
        probabilities: guess.probabilities,
    }))
}

/// From the body to the guess: all that takes time.
fn work_on(network: &Network, body: HeldBody) -> Result<Guess, Refusal> {
    let question: Question = serde_json::from_slice(&body.bytes).map_err(Refusal::Json)?;
    let bytes = decode_base64(&question.base64)?;
    drop(body);
    let ink = picture::read(&bytes)?;
    drop(bytes);
    let guesses = network.guess(&[ink]).map_err(|error| {
        eprintln!("error: the network failed: {error}");
        Refusal::Failed
    })?;
    guesses.into_iter().next().ok_or(Refusal::Failed)
}

/// Takes what people send: with line breaks, without padding, as a `data:` URL.
fn decode_base64(text: &str) -> Result<Vec<u8>, Refusal> {
    let text = match text.strip_prefix("data:") {
        Some(url) => url.split_once(',').map_or(url, |(_, data)| data),
        None => text,
    };
    let broken = text.bytes().any(|byte| byte.is_ascii_whitespace());
    let text = if broken {
        Cow::Owned(text.split_ascii_whitespace().collect())
    } else {
        Cow::Borrowed(text)
    };
    BASE64.decode(text.as_bytes()).map_err(Refusal::Base64)
}

/// Says that the service is up.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, example = "ok")))]
async fn healthz() -> &'static str {
    "ok"
}

#[cfg(test)]
mod tests {
    use super::decode_base64;

    #[test]
    fn base64_is_taken_with_line_breaks_without_padding_and_as_a_data_url() {
        for text in [
            "b25lIQ==",
            "b25lIQ",
            "b25l\nIQ=\r\n=",
            "data:image/png;base64,b25lIQ==",
        ] {
            assert_eq!(decode_base64(text).unwrap().len(), 4, "{text}");
        }
        assert!(decode_base64("b25l*Q==").is_err());
    }
}
