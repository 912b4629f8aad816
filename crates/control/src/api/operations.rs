//! What takes time, for who does not want to wait: 202 and the id of an operation (RFC 9110, 15.3.3), which tells how it
//! goes and ended. Asked for by `Prefer: respond-async` (RFC 7240), or by `detach=true` where no stream is accepted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::types::Problem;
use super::{Shared, Who, sse};
use crate::plane::Plane;

/// So many are remembered; the oldest that have ended go first.
const KEPT: usize = 500;
/// So many of the last events of each are kept.
const EVENTS: usize = 200;
/// The longest line that is kept, in bytes.
const MAX_LINE: usize = 64 << 10;

/// Something that takes time. It is known until the node starts anew, or until many others came after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Its id.
    pub id: String,
    /// What was asked for: `up`, `deploy`, `image-pull`, ...
    pub verb: String,
    /// Who asked.
    pub who: String,
    /// Where it is.
    pub state: OperationState,
    /// When it began (RFC 3339).
    pub begun_at: String,
    /// When it ended (RFC 3339); `null`: it goes on.
    pub ended_at: Option<String>,
    /// The exit code that `layby` would end with: 0 done, 3 failed and what was live is kept, 5 timed out, ...; `null`: it
    /// goes on.
    pub code: Option<i32>,
    /// What happened, the newest 200: the same as the stream's lines.
    #[schema(value_type = Vec<Object>)]
    pub events: VecDeque<Value>,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// It goes on.
    Running,
    /// It is done.
    Done,
    /// It failed.
    Failed,
}

/// One operation, as it is now.
#[utoipa::path(
    get,
    path = "/v1/operations/{id}",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = OperationView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn operation(
    State(plane): Shared,
    who: Who,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, Problem> {
    let found = plane
        .operations
        .all()
        .get(&id)
        .map(|(_, view)| view.clone());
    let seen = found.filter(|view| who.rights.is_whole() || view.who == who.name);
    seen.map(Json).ok_or_else(|| {
        let text = format!("there is no operation {id:?} in this life of the node");
        Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby status` and `layby history` show what became of services")
    })
}

/// All that the node remembers.
#[derive(Default)]
pub(crate) struct Operations(Mutex<BTreeMap<String, (u64, OperationView)>>);

impl Operations {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, (u64, OperationView)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new one; `None`: too many go on.
    fn begin(&self, life: u32, verb: &str, who: &Who) -> Option<OperationView> {
        let mut all = self.all();
        if all.len() >= KEPT {
            let ended = all.iter().filter(|(_, (_, view))| view.ended_at.is_some());
            let oldest = ended.min_by_key(|(_, (number, _))| *number);
            let oldest = oldest.map(|(id, _)| id.clone())?;
            all.remove(&oldest);
        }
        let number = all
            .values()
            .map(|(number, _)| number + 1)
            .max()
            .unwrap_or(1);
        let view = OperationView {
            id: format!("{life}-{number}"),
            verb: verb.to_owned(),
            who: who.name.clone(),
            state: OperationState::Running,
            begun_at: Timestamp::now().to_string(),
            ended_at: None,
            code: None,
            events: VecDeque::new(),
        };
        all.insert(view.id.clone(), (number, view.clone()));
        Some(view)
    }

    fn tell(&self, id: &str, line: &[u8]) {
        let short = line.len() <= MAX_LINE;
        let event = match short {
            true => serde_json::from_slice(line).unwrap_or_default(),
            false => serde_json::json!({"type": "too-long"}),
        };
        if let Some((_, view)) = self.all().get_mut(id) {
            if view.events.len() >= EVENTS {
                view.events.pop_front();
            }
            view.events.push_back(event);
        }
    }

    fn end(&self, id: &str) {
        if let Some((_, view)) = self.all().get_mut(id) {
            let code = view.events.back().map_or(1, code);
            view.code = Some(code);
            view.ended_at = Some(Timestamp::now().to_string());
            view.state = match code {
                0 => OperationState::Done,
                _ => OperationState::Failed,
            };
        }
    }
}

/// The exit code that a stream's last line says.
fn code(last: &Value) -> i32 {
    match (last["type"].as_str(), last["code"].as_i64()) {
        (Some("done"), Some(code)) => i32::try_from(code).unwrap_or(1),
        (Some("done"), None) => 0,
        _ => 1,
    }
}

/// Whether an operation is asked for.
pub(super) fn is_asked(headers: &HeaderMap, detach: bool) -> bool {
    let prefers = headers.get_all("prefer").iter().any(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
            .any(|one| one.trim().eq_ignore_ascii_case("respond-async"))
    });
    let streams = sse::accepts(headers, sse::LINES) || sse::accepts(headers, sse::KIND);
    prefers || (detach && !streams)
}

/// Answers with an operation, if what the handler answers is a stream of lines; anything else is answered as it is.
pub(super) fn take(plane: &Arc<Plane>, verb: &str, who: &Who, response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if response.status() != StatusCode::OK || kind.is_none_or(|kind| kind != sse::LINES) {
        return response;
    }
    let Some(view) = plane.operations.begin(plane.life(), verb, who) else {
        let text = format!("{KEPT} operations go on already");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text)
            .hint("wait until some have ended")
            .into_response();
    };
    let (parts, body) = response.into_parts();
    let (task_plane, id) = (Arc::clone(plane), view.id.clone());
    plane.spawn(async move {
        follow(&task_plane.operations, &id, body).await;
        task_plane.operations.end(&id);
    });
    let place = [
        (header::LOCATION, format!("/v1/operations/{}", view.id)),
        (header::RETRY_AFTER, "1".to_owned()),
    ];
    let mut answer = (StatusCode::ACCEPTED, place, Json(view)).into_response();
    // What the handler said of it beside the lines.
    answer.extensions_mut().extend(parts.extensions);
    answer
}

async fn follow(operations: &Operations, id: &str, body: Body) {
    let mut data = body.into_data_stream();
    let mut rest = Vec::new();
    while let Some(Ok(piece)) = data.next().await {
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            operations.tell(id, line.trim_ascii());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_ends_as_its_last_line_says() {
        let operations = Operations::default();
        for (lines, code, state) in [
            ("{\"type\":\"done\",\"code\":0}\n", 0, OperationState::Done),
            (
                "{\"type\":\"x\"}\n{\"type\":\"done\",\"code\":3}\n",
                3,
                OperationState::Failed,
            ),
            (
                "{\"type\":\"done\",\"digest\":\"d\"}\n",
                0,
                OperationState::Done,
            ),
            ("{\"type\":\"error\"}\n", 1, OperationState::Failed),
            ("", 1, OperationState::Failed),
        ] {
            let begun = operations.begin(1, "up", &Who::root()).expect("room");
            assert_eq!(begun.state, OperationState::Running);
            follow(&operations, &begun.id, Body::from(lines)).await;
            operations.end(&begun.id);
            let all = operations.all();
            let (_, ended) = &all[&begun.id];
            assert_eq!((ended.code, ended.state), (Some(code), state), "{lines}");
        }
    }

    #[test]
    fn only_so_many_are_remembered_and_none_that_goes_on_is_forgotten() {
        let operations = Operations::default();
        let first = operations.begin(1, "up", &Who::root()).expect("room");
        let second = operations.begin(1, "up", &Who::root()).expect("room");
        operations.end(&second.id);
        for _ in 2..=KEPT {
            operations.begin(1, "up", &Who::root()).expect("room");
        }
        assert!(operations.begin(1, "up", &Who::root()).is_none());
        let all = operations.all();
        assert!(all.len() == KEPT && all.contains_key(&first.id) && !all.contains_key(&second.id));
    }

    #[test]
    fn an_operation_is_asked_for_by_preference_or_by_not_waiting() {
        let mut headers = HeaderMap::new();
        assert!(!is_asked(&headers, false) && is_asked(&headers, true));
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(sse::LINES));
        assert!(!is_asked(&headers, true), "it takes the stream");
        headers.insert(
            "prefer",
            header::HeaderValue::from_static("wait=5, respond-async"),
        );
        assert!(is_asked(&headers, false));
    }
}
