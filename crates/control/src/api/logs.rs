//! Logs: of a service, of several, of whole apps.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use layby_model::engine::{EngineError, LogQuery};
use layby_model::{ReplicaId, ServiceId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{LogView, Problem};
use super::{Shared, replica, services, usage};
use crate::plane::Plane;

/// How often a followed log looks for new replicas.
const NEWCOMERS: Duration = Duration::from_millis(300);
/// So many lines of a followed log may be under way.
const LINES: usize = 64;

/// The lines of one replica.
type Log = BoxStream<'static, LogView>;

/// The log of a service's replicas, by time; followed ones mixed as they come.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/logs",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("tail" = Option<u32>, Query, description = "Only so many of the last lines of each replica"),
        ("follow" = Option<bool>, Query, description = "Go on with new lines"),
        ("since_ms" = Option<u64>, Query, description = "Only lines from this moment on, in milliseconds since 1970"),
        ("until_ms" = Option<u64>, Query, description = "Only lines before this moment"),
        ("container" = Option<String>, Query, description = "Only of this container; the first if none is named"),
        ("replica" = Option<String>, Query, description = "Only of this replica"),
    ),
    responses(
        (status = 200, body = LogView, content_type = "application/x-ndjson", description = "One line of the log a line"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_service(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let (id, _) = services::find(&plane, names)?;
    answer(plane, vec![id], &pairs).await
}

/// The logs of several services, or of all of some apps, by time; followed ones mixed as they come.
#[utoipa::path(
    get,
    path = "/v1/logs",
    params(
        ("service" = Option<String>, Query, description = "Of this service, as app/service; may be given several times"),
        ("app" = Option<String>, Query, description = "Of all services of this app; may be given several times"),
        ("tail" = Option<u32>, Query, description = "Only so many of the last lines of each replica"),
        ("follow" = Option<bool>, Query, description = "Go on with new lines"),
        ("since_ms" = Option<u64>, Query, description = "Only lines from this moment on, in milliseconds since 1970"),
        ("until_ms" = Option<u64>, Query, description = "Only lines before this moment"),
        ("container" = Option<String>, Query, description = "Only of this container; the first of each if none is named"),
    ),
    responses(
        (status = 200, body = LogView, content_type = "application/x-ndjson", description = "One line of a log a line"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_several(State(plane): Shared, pairs: Pairs) -> Result<Response, Problem> {
    let mut ids = usage::services(&pairs)?;
    for id in &ids {
        plane.driver(id).ok_or_else(|| Problem::no_service(id))?;
    }
    for app in query::all(&pairs, "app") {
        let all = plane.all_drivers().into_iter().map(|(id, _)| id);
        let of_app: Vec<ServiceId> = all.filter(|id| id.app.to_string() == app).collect();
        if of_app.is_empty() {
            let text = format!("there is no app {app} on this node");
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
                .hint("`layby ls` shows what there is"));
        }
        ids.extend(of_app);
    }
    if ids.is_empty() {
        return Err(Problem::bad_request(
            "neither service= nor app= names anything",
        ));
    }
    ids.sort();
    ids.dedup();
    answer(plane, ids, &pairs).await
}

async fn answer(
    plane: Arc<Plane>,
    ids: Vec<ServiceId>,
    pairs: &Pairs,
) -> Result<Response, Problem> {
    let only = replica::named(pairs)?;
    let moment = |name| query::number(pairs, name).map(|ms| ms.map(|ms| ms as u64));
    let query = LogQuery {
        container: query::get(pairs, "container").map(str::to_owned),
        tail: query::number(pairs, "tail")?,
        follow: query::flag(pairs, "follow"),
        since_ms: moment("since_ms")?,
        until_ms: moment("until_ms")?,
    };
    let mut logs: Vec<Log> = Vec::new();
    let mut known = Vec::new();
    let mut missing = None;
    for id in &ids {
        let mut of_one = Vec::new();
        for report in plane.facts.of(id).iter() {
            if only.is_some_and(|only| only != report.id) {
                continue;
            }
            of_one.push(report.id);
            match log_of(&plane, id, report.id, query.clone()).await {
                Ok(log) => logs.push(log),
                // It was removed just now, or its revision has no such container: the others still have their say.
                Err(error @ EngineError::NotFound(_)) => missing = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        known.push((id.clone(), of_one));
    }
    if logs.is_empty() && !(query.follow && ids.len() > 1) {
        return Err(match (missing, only) {
            (Some(error), _) => error.into(),
            (None, Some(only)) => silent(format!("{} has no replica {only}", ids[0])),
            (None, None) if ids.len() == 1 => {
                silent(format!("{} has no replicas, and so no log", ids[0]))
            }
            (None, None) => silent("none of these services has replicas, and so a log".to_owned()),
        });
    }
    if !query.follow {
        return Ok(lines(by_time(logs)));
    }
    let (send, receive) = mpsc::channel(LINES);
    logs.into_iter().for_each(|log| pass_on(log, send.clone()));
    if only.is_none() {
        for (id, replicas) in known {
            let (plane, query, send) = (Arc::clone(&plane), query.clone(), send.clone());
            tokio::spawn(follow_newcomers(plane, id, replicas, query, send));
        }
    }
    Ok(lines(ReceiverStream::new(receive)))
}

fn silent(text: String) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", text).hint("`layby status` says why")
}

async fn log_of(
    plane: &Plane,
    service: &ServiceId,
    replica: ReplicaId,
    query: LogQuery,
) -> Result<Log, EngineError> {
    let log = plane.engine.logs(replica, query).await?;
    let service = service.to_string();
    Ok(Box::pin(log.map(move |line| LogView {
        service: service.clone(),
        replica: replica.to_string(),
        at_ms: line.at_ms,
        stream: line.stream,
        text: line.text,
    })))
}

/// Several logs as one: of the next line of each the earliest, each time. Those of one log keep their order.
fn by_time(logs: Vec<Log>) -> impl futures_util::Stream<Item = LogView> + Send + 'static {
    let begun: Vec<(Option<LogView>, Log)> = logs.into_iter().map(|log| (None, log)).collect();
    stream::unfold(begun, |mut logs| async move {
        let mut left = Vec::with_capacity(logs.len());
        for (next, mut log) in logs.drain(..) {
            let next = match next {
                Some(next) => Some(next),
                None => log.next().await,
            };
            left.extend(next.map(|next| (Some(next), log)));
        }
        let at = |next: &Option<LogView>| next.as_ref().map(|line| line.at_ms);
        let first = left.iter_mut().min_by_key(|(next, _)| at(next))?;
        let line = first.0.take()?;
        Some((line, left))
    })
}

/// Sends a log's lines on until it ends or nobody listens any more.
fn pass_on(mut log: Log, send: mpsc::Sender<LogView>) {
    tokio::spawn(async move {
        loop {
            let line = tokio::select! {
                line = log.next() => line,
                () = send.closed() => None,
            };
            let Some(line) = line else { return };
            if send.send(line).await.is_err() {
                return;
            }
        }
    });
}

/// Replicas that are made while a log is followed belong to it; it ends with the service, its span or its reader.
async fn follow_newcomers(
    plane: Arc<Plane>,
    id: ServiceId,
    mut known: Vec<ReplicaId>,
    query: LogQuery,
    send: mpsc::Sender<LogView>,
) {
    let whole = LogQuery {
        tail: None,
        ..query
    };
    let over = || whole.until_ms.is_some_and(|until| until <= now_ms());
    while !send.is_closed() && plane.driver(&id).is_some() && !over() {
        let reports = plane.facts.of(&id);
        known.retain(|old| reports.iter().any(|report| report.id == *old));
        for report in reports.iter() {
            if !known.contains(&report.id)
                && let Ok(log) = log_of(&plane, &id, report.id, whole.clone()).await
            {
                known.push(report.id); // one that has no log yet is asked again
                pass_on(log, send.clone());
            }
        }
        tokio::time::sleep(NEWCOMERS).await;
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
