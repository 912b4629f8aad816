//! Errors as answers: the one place where an error becomes an RFC 9457 problem.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use layby_image::client::{Fault, RegistryError};
use layby_model::engine::EngineError;
use layby_model::job::RunId;
use layby_model::{ServiceId, error_chain};

use super::types::{Problem, ProblemType};
use crate::store::StoreError;

/// The most problems that are told at once.
const MAX_LINES: usize = 100;

impl Problem {
    /// The code of [`Problem::context_gone`].
    pub const CONTEXT_GONE: &str = "context-gone";

    /// A problem with the status' own title and no hint.
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: ProblemType::Blank,
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.into(),
            hint: None,
        }
    }

    /// The same, saying what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What was to be written was decided by what is so no longer.
    pub(crate) fn changed_meanwhile(id: &ServiceId) -> Self {
        Self::conflict(format!(
            "{id} was changed meanwhile by somebody else, or went live or failed"
        ))
        .hint(format!(
            "look how it stands with `layby status {id}`, then run it again"
        ))
    }

    /// No such service.
    pub(crate) fn no_service(id: &ServiceId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("there is no service {id} on this node"),
        )
        .hint("`layby ls` shows what there is")
    }

    /// No such job.
    pub(crate) fn no_job(id: &ServiceId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("there is no job {id} on this node"),
        )
        .hint("`layby job ls` shows what there is")
    }

    /// No such run, or no longer.
    pub(crate) fn no_run(id: &ServiceId, run: RunId) -> Self {
        let text = format!("there is no run {run} of {id} (any more)");
        Self::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint(format!("`layby job runs {id}` shows those that are kept"))
    }

    /// The request itself is wrong.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// Who asks is not known.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// Who asks may not do it.
    pub(crate) fn not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not-allowed", detail)
    }

    /// It clashes with something that is there.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// What was kept of a build context is not there for this build.
    pub(crate) fn context_gone() -> Self {
        let text = "what the node has of a build context is used by another build, or was let go meanwhile";
        Self::new(StatusCode::CONFLICT, Self::CONTEXT_GONE, text)
            .hint("send all of it, as if nothing were kept")
    }

    /// Something on the node failed.
    pub(crate) fn failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
    }

    /// The disk is full.
    pub(crate) fn full_disk(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "full-disk", detail)
            .hint("free some space and try again; what runs goes on")
    }

    /// Another registry could not give or take an image.
    pub(crate) fn registry(error: &RegistryError) -> Self {
        let (status, code) = match error.fault {
            Fault::NotFound | Fault::Platform => (StatusCode::NOT_FOUND, "image-not-found"),
            Fault::Unauthorized | Fault::Denied => {
                (StatusCode::UNPROCESSABLE_ENTITY, "registry-denied")
            }
            Fault::Unreachable | Fault::Busy => (StatusCode::BAD_GATEWAY, "registry-unreachable"),
            Fault::Broken | Fault::Refused => (StatusCode::BAD_GATEWAY, "registry-failed"),
            Fault::Cancelled => (StatusCode::CONFLICT, "conflict"),
        };
        let mut problem = Self::new(status, code, error.to_string());
        problem.hint = error.advice();
        problem
    }

    /// Several problems as one, so that all can be mended in one round: a line each; status and code are those of the first.
    /// `None`: there are none.
    pub(crate) fn all(problems: Vec<Self>) -> Option<Self> {
        let mut problems = problems.into_iter();
        let mut whole = problems.next()?;
        let rest: Vec<Self> = problems.collect();
        let is_shared = rest.iter().all(|problem| problem.hint == whole.hint);
        let line = |problem: &Self| match &problem.hint {
            Some(hint) if !is_shared => format!("{} ({hint})", problem.detail),
            Some(_) | None => problem.detail.clone(),
        };
        let mut lines = vec![line(&whole)];
        for line in rest.iter().map(line) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let more = lines.len().saturating_sub(MAX_LINES);
        lines.truncate(MAX_LINES);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        whole.detail = lines.join("\n");
        whole.hint = whole.hint.filter(|_| is_shared);
        Some(whole)
    }

    /// The answer took too long.
    pub(crate) fn timed_out(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timed-out", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::full_disk(error_chain(&error)),
            StoreError::Closed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                error.to_string(),
            ),
            StoreError::Newer { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Sql { .. }
            | StoreError::Thread(_) => Self::failed(error_chain(&error)),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotFound(text) => Self::new(StatusCode::NOT_FOUND, "not-found", text),
            EngineError::Conflict(text) => Self::conflict(text),
            EngineError::Stale { .. } | EngineError::Failed(_) => Self::failed(error.to_string()),
        }
    }
}

impl From<layby_image::Error> for Problem {
    fn from(error: layby_image::Error) -> Self {
        let detail = error_chain(&error);
        match error {
            layby_image::Error::NotFound { .. } => {
                Self::new(StatusCode::NOT_FOUND, "image-not-found", detail)
                    .hint("give it a build, or load it with `layby image load`")
            }
            layby_image::Error::DiskFull { .. } => Self::full_disk(detail),
            layby_image::Error::IndexFull => Self::conflict(detail),
            layby_image::Error::Registry(error) => Self::registry(&error),
            layby_image::Error::Busy => Self::conflict(detail),
            layby_image::Error::Context(_) => Self::bad_request(detail),
            layby_image::Error::BadReference { .. }
            | layby_image::Error::Archive(_)
            | layby_image::Error::Corrupt { .. }
            | layby_image::Error::Malformed { .. }
            | layby_image::Error::Layer { .. }
            | layby_image::Error::Dockerfile { .. }
            | layby_image::Error::Changed { .. }
            | layby_image::Error::Build(_)
            | layby_image::Error::ArchiveRead(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-image", detail)
            }
            layby_image::Error::Io { .. } | layby_image::Error::ArchiveWrite(_) => {
                Self::failed(detail)
            }
        }
    }
}
