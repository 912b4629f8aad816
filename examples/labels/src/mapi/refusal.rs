//! Why mapi does not answer a request, and how that reads as HTTP.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::picture::PictureError;
use crate::reading::Problem;

/// Every way in which a request can fail.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// What was sent is no picture that is read.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The body broke off.
    #[error("the body could not be read to its end")]
    Body,
    /// What was sent is no question to the rules.
    #[error("the body is no question: {0}")]
    Question(serde_json::Error),
    /// As many wait as may.
    #[error("more pictures wait than may: try again in a moment")]
    Busy,
    /// One picture took too long.
    #[error("the picture was not read in time")]
    Slow,
    /// A mistake of the service's own.
    #[error("the picture could not be worked on; the cause is in the service's log")]
    Failed,
    /// No such path.
    #[error("there is nothing at this path: GET /openapi.json says what there is")]
    NotFound,
    /// Not this method.
    #[error("this path does not take that method: GET /openapi.json says what there is")]
    Method,
}

impl Refusal {
    /// The status that says the same.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Picture(PictureError::Bytes) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Picture(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Body | Refusal::Question(_) => StatusCode::BAD_REQUEST,
            Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            // The machine may have been full: who asks tells by `slow` how often it was the same picture.
            Refusal::Slow => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = Problem {
            error: self.to_string(),
            slow: matches!(self, Refusal::Slow),
        };
        let mut response = (self.status(), Json(problem)).into_response();
        if matches!(self, Refusal::Busy) {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
