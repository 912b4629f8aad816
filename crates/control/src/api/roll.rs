//! What requests have in common that set a rollout of a service off: whom they mean, whether somebody waits, and the events
//! that they are answered with.

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::Response;
use layby_model::ServiceId;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::lines::lines;
use super::query::{self, Pairs};
use super::services::parse;
use super::types::{Event, Problem};
use super::{Who, sse};

/// The last words of their paths.
const VERBS: [&str; 8] = [
    "deploy", "enable", "power", "promote", "redeploy", "restart", "rollback", "scale",
];

/// Such a request, beside what is its own.
pub(super) struct Roll {
    pub(super) id: ServiceId,
    /// Nobody waits for the outcome.
    pub(super) detach: bool,
    pub(super) who: Who,
    pub(super) pairs: Pairs,
}

impl<S: Send + Sync> FromRequestParts<S> for Roll {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        use axum::response::IntoResponse;
        let wrong = |problem: Problem| problem.into_response();
        let names = parts.extract::<Path<(String, String)>>().await;
        let Path(names) = names.map_err(IntoResponse::into_response)?;
        let pairs = parts.extract::<Pairs>().await;
        let pairs = pairs.map_err(IntoResponse::into_response)?;
        Ok(Self {
            id: parse(names).map_err(wrong)?,
            detach: query::flag(&pairs, "detach"),
            who: parts.extract::<Who>().await.map_err(wrong)?,
            pairs,
        })
    }
}

/// How it goes, an event a line.
pub(super) fn told(events: Result<mpsc::Receiver<Event>, Problem>) -> Result<Response, Problem> {
    Ok(lines(ReceiverStream::new(events?)))
}

/// Says in the document what holds for all of them.
pub(super) fn describe(path: &str, method: &str, operation: &mut Value) {
    let verb = path.strip_prefix("/v1/services/{app}/{service}/");
    if method != "post" || !verb.is_some_and(|verb| VERBS.contains(&verb)) {
        return;
    }
    let name = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let detach = json!({
        "name": "detach",
        "in": "query",
        "description": "Do not wait for the outcome",
        "required": false,
        "schema": {"type": "boolean"},
    });
    let mut parameters = vec![name("app"), name("service"), detach];
    if let Some(own) = operation["parameters"].as_array_mut() {
        parameters.append(own);
    }
    operation["parameters"] = Value::Array(parameters);
    operation["responses"]["200"] = json!({
        "description": "One event a line, the last is `done`",
        "content": {sse::LINES: {"schema": {"$ref": "#/components/schemas/Event"}}},
    });
    if operation["responses"]["404"].is_null() {
        let problem = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
        operation["responses"]["404"] = json!({
            "description": "No such service",
            "content": {"application/problem+json": problem},
        });
    }
}
