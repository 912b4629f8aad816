//! Building an image of a context that is sent along, without deploying anything.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use tokio_stream::wrappers::ReceiverStream;

use super::apps::receive_with_contexts;
use super::lines::lines;
use super::types::{BuildBody, Event, Problem};
use super::{Shared, Who};
use crate::audit::Target;
use crate::deploy;

/// Builds an image, and tells how it goes. It is given up when the client leaves.
#[utoipa::path(
    post,
    path = "/v1/builds",
    request_body(content = BuildBody, content_type = "application/x-tar", description = "`build.json`: what to build; `context/0/`: the build context, `context/<n>/`: further ones; `secret/<n>`: the values of its secrets. Secrets come before the contexts. `kept/<n>` and `doubted/<n>`: as for `/v1/apps`"),
    responses(
        (status = 200, body = Event, content_type = "application/x-ndjson", description = "One event a line, the last is `done`"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn build(State(plane): Shared, who: Who, body: Body) -> Result<Response, Problem> {
    let upload = receive_with_contexts(&plane, &who, body).await?;
    let text = upload.files.0.get("build.json");
    let text = text.ok_or_else(|| Problem::bad_request("the upload has no build.json"))?;
    let ask: BuildBody = serde_json::from_slice(text)
        .map_err(|error| Problem::bad_request(format!("build.json: {error}")))?;
    let target = Extension(Target(ask.tags.join(" ")));
    let events = deploy::build(Arc::clone(&plane), upload, ask, &who).await?;
    Ok((target, lines(ReceiverStream::new(events))).into_response())
}
