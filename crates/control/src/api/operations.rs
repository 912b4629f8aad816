//! What takes time, for who does not want to wait: 202 and the id of an operation (RFC 9110, 15.3.3), which tells how it
//! goes and ended. Asked for by `Prefer: respond-async` (RFC 7240), or by `detach=true` where no stream is accepted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use jiff::Timestamp;
use layby_model::error_chain;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::types::{Problem, RevisionOutcome};
use super::{Shared, Who, sse};
use crate::audit::Target;
use crate::clock::wall;
use crate::plane::Plane;
use crate::store::OperationRow;

/// So many are remembered; the oldest that have ended go first.
const KEPT: usize = 500;
/// So many of the last events of each are kept.
const EVENTS: usize = 200;
/// The longest line that is kept, in bytes.
const MAX_LINE: usize = 64 << 10;
/// So many bytes of lines are kept of one operation; the oldest lines go first.
const BYTES_OF_OPERATION: usize = 1 << 20;
/// So many of all that somebody asked for; the oldest that have ended go first.
const BYTES_OF_OWNER: usize = 4 << 20;
/// So many of all.
const BYTES: usize = 16 << 20;
/// So many bytes of the last events of each are written down when it ends.
const BYTES_WRITTEN: usize = 32 << 10;

/// Something that takes time. It is known until many others came after it, also when the node has started anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Its id.
    pub id: String,
    /// What was asked for: `up`, `deploy`, `image-pull`, ...
    pub verb: String,
    /// Who asked.
    pub who: String,
    /// On what: an app, a service, an image.
    pub target: String,
    /// Where it is.
    pub state: OperationState,
    /// When it was asked for (RFC 3339).
    pub begun_at: String,
    /// When it ended (RFC 3339); `null`: it goes on.
    pub ended_at: Option<String>,
    /// The exit code that `layby` would end with: 0 done, 3 failed and what was live is kept, 5 timed out, ...; `null`: it
    /// goes on, or was interrupted.
    pub code: Option<i32>,
    /// What happened, the newest 200: the same as the stream's lines. Of one that ended in an earlier life of the node the
    /// last few are kept.
    #[schema(value_type = Vec<Object>)]
    pub events: VecDeque<Value>,
    /// Of one that was interrupted: the revisions that were made for it, and what became of them since.
    pub revisions: Vec<OperationRevision>,
}

/// A revision that was made for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationRevision {
    /// The service, as `app/service`.
    pub service: String,
    /// The revision's number.
    pub revision: u32,
    /// What became of its rollout, with which the node goes on after a restart.
    pub outcome: RevisionOutcome,
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
    /// The node ended while it went on: nobody knows more of it than `revisions` say.
    Interrupted,
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
    let may_see = |owner: &str| who.rights.is_whole() || owner == who.owner;
    let kept = plane.operations.all().by_id.get(&id).map(|kept| {
        let view = kept.view.clone();
        (kept.owner.clone(), view)
    });
    let found = match kept {
        Some(kept) => Some(kept),
        None => written(&plane, &id).await?,
    };
    let found = found.filter(|(owner, _)| may_see(owner));
    found.map(|(_, view)| Json(view)).ok_or_else(|| {
        let text = format!("there is no operation {id:?} (any more)");
        Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby status` and `layby history` show what became of services")
    })
}

/// One that the store has; with its owner.
async fn written(plane: &Plane, id: &str) -> Result<Option<(String, OperationView)>, Problem> {
    let numbers = id.split_once('-');
    let numbers =
        numbers.and_then(|(life, number)| Some((life.parse().ok()?, number.parse().ok()?)));
    let Some((life, number)) = numbers else {
        return Ok(None);
    };
    let Some((row, made)) = plane.store.operation(life, number).await? else {
        return Ok(None);
    };
    let revisions = made.into_iter().map(|made| OperationRevision {
        service: made.service,
        revision: made.id.0,
        outcome: made.outcome,
    });
    let view = OperationView {
        id: format!("{}-{}", row.life, row.number),
        verb: row.verb,
        who: row.who,
        target: row.target,
        state: match (row.ended, row.code) {
            (None, _) => OperationState::Running,
            (Some(_), None) => OperationState::Interrupted,
            (Some(_), Some(code)) => state(code),
        },
        begun_at: row.begun.to_string(),
        ended_at: row.ended.map(|at| at.to_string()),
        code: row.code,
        // What cannot be read any more tells nothing.
        events: serde_json::from_str(&row.events).unwrap_or_default(),
        revisions: revisions.collect(),
    };
    Ok(Some((row.owner, view)))
}

/// All that the node remembers.
#[derive(Default)]
pub(crate) struct Operations {
    kept: Mutex<All>,
    /// How many there were in this life of the node.
    count: AtomicU32,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    /// A row's verb in the table of access.
    pub(super) verb: &'a str,
    /// On what, as far as the request says.
    pub(super) target: &'a str,
    pub(super) who: &'a Who,
    pub(super) asked_at: Timestamp,
}

/// One of them.
struct Kept {
    number: u32,
    asked_at: Timestamp,
    /// As `Who` has it.
    owner: String,
    /// How long each line was from which an event comes.
    lines: VecDeque<usize>,
    /// Their sum.
    bytes: usize,
    view: OperationView,
}

impl Kept {
    fn has_ended(&self) -> bool {
        self.view.ended_at.is_some()
    }

    /// As it is written down.
    fn row(&self, life: u32) -> OperationRow {
        let mut events = Vec::new();
        let mut bytes = 0;
        for (event, length) in self.view.events.iter().zip(&self.lines).rev() {
            bytes += length;
            if bytes > BYTES_WRITTEN {
                break;
            }
            events.insert(0, event);
        }
        OperationRow {
            life,
            number: self.number,
            owner: self.owner.clone(),
            who: self.view.who.clone(),
            verb: self.view.verb.clone(),
            target: self.view.target.clone(),
            begun: self.asked_at,
            ended: self.view.ended_at.as_ref().and_then(|at| at.parse().ok()),
            code: self.view.code,
            events: serde_json::to_string(&events).unwrap_or_default(),
        }
    }
}

/// Operations by id, with the sums of what they keep: a line is told without a look at all the others.
#[derive(Default)]
struct All {
    by_id: BTreeMap<String, Kept>,
    /// How many bytes of lines each owner has that has any.
    of_owners: BTreeMap<String, usize>,
    /// How many there are.
    bytes: usize,
}

impl All {
    /// Adds a line to one, and takes away what is too much of it, of its owner or of all.
    fn push(&mut self, id: &str, event: Value, length: usize) {
        let Some(kept) = self.by_id.get_mut(id) else {
            return;
        };
        kept.view.events.push_back(event);
        kept.lines.push_back(length);
        kept.bytes += length;
        let owner = kept.owner.clone();
        self.count(&owner, 0, length);
        while let Some(kept) = self.by_id.get(id)
            && (kept.lines.len() > EVENTS || kept.bytes > BYTES_OF_OPERATION)
        {
            self.pop(id);
        }
        self.make_room(Some(&owner), BYTES_OF_OWNER);
        self.make_room(None, BYTES);
    }

    /// Takes the oldest line of one away.
    fn pop(&mut self, id: &str) {
        let Some(kept) = self.by_id.get_mut(id) else {
            return;
        };
        kept.view.events.pop_front();
        let length = kept.lines.pop_front().unwrap_or(0);
        kept.bytes -= length;
        let owner = kept.owner.clone();
        self.count(&owner, length, 0);
    }

    /// Forgets one.
    fn remove(&mut self, id: &str) {
        if let Some(kept) = self.by_id.remove(id) {
            self.count(&kept.owner, kept.bytes, 0);
        }
    }

    fn count(&mut self, owner: &str, less: usize, more: usize) {
        self.bytes = self.bytes + more - less;
        let of_owner = self.of_owners.entry(owner.to_owned()).or_default();
        *of_owner = *of_owner + more - less;
        if *of_owner == 0 {
            self.of_owners.remove(owner);
        }
    }

    /// How many bytes those of `owner` keep, or all.
    fn bytes(&self, owner: Option<&str>) -> usize {
        match owner {
            Some(owner) => self.of_owners.get(owner).copied().unwrap_or(0),
            None => self.bytes,
        }
    }

    /// Lets go of the oldest that have ended, of those of `owner` or of all, until these keep no more than `most` bytes.
    fn make_room(&mut self, owner: Option<&str>, most: usize) {
        while self.bytes(owner) > most {
            let counted = || {
                let kept = self.by_id.iter();
                kept.filter(|(_, kept)| owner.is_none_or(|owner| kept.owner == owner))
            };
            let ended = counted().filter(|(_, kept)| kept.has_ended());
            let oldest = ended.min_by_key(|(_, kept)| kept.number);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                self.remove(&id);
                continue;
            }
            // None has ended: that which has the most to tell tells less.
            let largest = counted().max_by_key(|(_, kept)| kept.bytes);
            let Some(id) = largest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.pop(&id);
        }
    }
}

impl Operations {
    fn all(&self) -> MutexGuard<'_, All> {
        // Nothing panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new one; `None`: too many go on.
    fn begin(&self, life: u32, order: Order<'_>) -> Option<(OperationView, OperationRow)> {
        let mut all = self.all();
        if all.by_id.len() >= KEPT {
            let ended = all.by_id.iter().filter(|(_, kept)| kept.has_ended());
            let oldest = ended.min_by_key(|(_, kept)| kept.number);
            let oldest = oldest.map(|(id, _)| id.clone())?;
            all.remove(&oldest);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let view = OperationView {
            id: format!("{life}-{number}"),
            verb: order.verb.to_owned(),
            who: order.who.name.clone(),
            target: order.target.to_owned(),
            state: OperationState::Running,
            begun_at: order.asked_at.to_string(),
            ended_at: None,
            code: None,
            events: VecDeque::new(),
            revisions: Vec::new(),
        };
        let kept = Kept {
            number,
            asked_at: order.asked_at,
            owner: order.who.owner.clone(),
            lines: VecDeque::new(),
            bytes: 0,
            view: view.clone(),
        };
        let row = kept.row(life);
        all.by_id.insert(view.id.clone(), kept);
        Some((view, row))
    }

    fn tell(&self, id: &str, line: &[u8]) {
        let short = line.len() <= MAX_LINE;
        let event = match short {
            true => serde_json::from_slice(line).unwrap_or_default(),
            false => serde_json::json!({"type": "too-long"}),
        };
        self.all().push(id, event, line.len().min(MAX_LINE));
    }

    /// Ends one, and gives it as it is written down.
    fn end(&self, life: u32, id: &str) -> Option<OperationRow> {
        let mut all = self.all();
        let kept = all.by_id.get_mut(id)?;
        let view = &mut kept.view;
        let code = view.events.back().map_or(1, code);
        view.code = Some(code);
        view.ended_at = Some(wall().to_string());
        view.state = state(code);
        Some(kept.row(life))
    }
}

fn state(code: i32) -> OperationState {
    match code {
        0 => OperationState::Done,
        _ => OperationState::Failed,
    }
}

/// The exit code that a stream's last line says.
pub(super) fn code(last: &Value) -> i32 {
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
pub(super) async fn take(plane: &Arc<Plane>, order: Order<'_>, response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if response.status() != StatusCode::OK || kind.is_none_or(|kind| kind != sse::LINES) {
        return response;
    }
    let told = response.extensions().get::<Target>();
    let order = Order {
        target: told.map_or(order.target, |target| &target.0),
        ..order
    };
    let Some((view, row)) = plane.operations.begin(plane.life(), order) else {
        let text = format!("{KEPT} operations go on already");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text)
            .hint("wait until some have ended")
            .into_response();
    };
    if let Err(error) = plane.store.begin_operation(row).await {
        tracing::warn!(
            error = error_chain(&error),
            "an operation will not be known after a restart"
        );
    }
    let (parts, body) = response.into_parts();
    let (task_plane, id) = (Arc::clone(plane), view.id.clone());
    plane.spawn(async move {
        follow(&task_plane.operations, &id, body).await;
        let row = task_plane.operations.end(task_plane.life(), &id);
        if let Some(row) = row
            && let Err(error) = task_plane.store.end_operation(row).await
        {
            tracing::warn!(
                error = error_chain(&error),
                "the end of an operation will not be known after a restart"
            );
        }
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
    let mut line = Vec::new();
    while let Some(Ok(piece)) = data.next().await {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (ends, part) = match part {
                [part @ .., b'\n'] => (true, part),
                part => (false, part),
            };
            // Of one that is too long, enough to see that.
            let room = (MAX_LINE + 1).saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if ends {
                operations.tell(id, &line);
                line.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(operations: &Operations, who: &Who) -> Option<OperationView> {
        let order = Order {
            verb: "up",
            target: "shop",
            who,
            asked_at: wall(),
        };
        operations.begin(1, order).map(|(view, _)| view)
    }

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
            let begun = begin(&operations, &Who::root()).expect("room");
            assert_eq!(begun.state, OperationState::Running);
            follow(&operations, &begun.id, Body::from(lines)).await;
            let row = operations.end(1, &begun.id).expect("it is there");
            assert_eq!(row.code, Some(code));
            let all = operations.all();
            let ended = &all.by_id[&begun.id].view;
            assert_eq!((ended.code, ended.state), (Some(code), state), "{lines}");
        }
    }

    #[test]
    fn only_so_many_are_remembered_and_none_that_goes_on_is_forgotten() {
        let operations = Operations::default();
        let first = begin(&operations, &Who::root()).expect("room");
        let second = begin(&operations, &Who::root()).expect("room");
        operations.end(1, &second.id);
        for _ in 2..=KEPT {
            begin(&operations, &Who::root()).expect("room");
        }
        assert!(begin(&operations, &Who::root()).is_none());
        let all = operations.all();
        let all = &all.by_id;
        assert!(all.len() == KEPT && all.contains_key(&first.id) && !all.contains_key(&second.id));
    }

    #[tokio::test]
    async fn operations_keep_no_more_than_so_many_bytes() {
        let operations = Operations::default();
        let line = format!("\"{}\"\n", "x".repeat(MAX_LINE / 2));
        for n in 0..2 * BYTES / BYTES_OF_OPERATION {
            let who = Who {
                owner: format!("token {}", n % 8),
                ..Who::root()
            };
            let begun = begin(&operations, &who).expect("room");
            follow(&operations, &begun.id, Body::from(line.repeat(40))).await;
            let all = operations.all();
            assert!(all.by_id[&begun.id].bytes <= BYTES_OF_OPERATION);
            assert!(all.bytes(Some(&who.owner)) <= BYTES_OF_OWNER && all.bytes <= BYTES);
            // The sums are those of the lines.
            let mut of_owners: BTreeMap<String, usize> = BTreeMap::new();
            for kept in all.by_id.values() {
                assert_eq!(kept.bytes, kept.lines.iter().sum::<usize>());
                *of_owners.entry(kept.owner.clone()).or_default() += kept.bytes;
            }
            of_owners.retain(|_, bytes| *bytes > 0);
            assert_eq!(all.bytes, of_owners.values().sum::<usize>());
            assert_eq!(all.of_owners, of_owners);
        }
        let begun = begin(&operations, &Who::root()).expect("room");
        let long = format!("{}\n{{\"type\":\"done\"}}\n", "x".repeat(2 * MAX_LINE));
        follow(&operations, &begun.id, Body::from(long)).await;
        let all = operations.all();
        let kinds: Vec<&Value> = all.by_id[&begun.id]
            .view
            .events
            .iter()
            .map(|e| &e["type"])
            .collect();
        assert_eq!(kinds, ["too-long", "done"]);
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
