//! Why a request was refused, and how that reads as HTTP: `{"error": "one sentence"}`.

use std::error::Error;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::body::BODY_MAX_BYTES;
use crate::picture::PictureError;

/// Every way in which a request can fail.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The body is not the JSON that is asked for.
    #[error("the body is not JSON of the form {{\"base64\": \"...\"}}")]
    Json(#[source] serde_json::Error),
    /// The value of `base64` is not base64.
    #[error("the value of base64 cannot be decoded")]
    Base64(#[source] base64::DecodeError),
    /// What was sent cannot be read as a picture of a digit.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The body is larger than is read.
    #[error("the body is larger than the {} MiB that are read", BODY_MAX_BYTES >> 20)]
    BodyTooLarge,
    /// The body did not come in time.
    #[error("the body did not arrive within 30 s")]
    BodySlow,
    /// The connection broke while the body was read.
    #[error("the body could not be read to its end")]
    BodyBroken(#[source] axum::Error),
    /// Too much is being worked on.
    #[error("the service is busy: try again in a moment")]
    Busy,
    /// No such path.
    #[error("there is nothing at this path: GET /docs shows what there is")]
    NotFound,
    /// The path exists, the method does not.
    #[error("this path does not take that method: GET /docs shows what there is")]
    Method,
    /// A mistake of the service's own.
    #[error("the service failed to work on this picture; the cause is in its log")]
    Failed,
}

/// The body of every refusal.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong, in one sentence.
    #[schema(example = "what was sent is not a picture: it must be a PNG or a JPEG")]
    pub error: String,
}

impl Refusal {
    /// The HTTP status that stands for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Json(_) | Refusal::Base64(_) | Refusal::BodyBroken(_) => {
                StatusCode::BAD_REQUEST
            }
            Refusal::Picture(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodySlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The whole story: this error and its causes.
    pub fn sentence(&self) -> String {
        let mut sentence = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            sentence = format!("{sentence}: {error}");
            cause = error.source();
        }
        sentence
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = Problem {
            error: self.sentence(),
        };
        let mut response = (self.status(), Json(problem)).into_response();
        if matches!(self, Refusal::Busy) {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
