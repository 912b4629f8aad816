//! Services: what they are at, how awake they are, what they say.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use layby_model::engine::{EngineError, LogQuery};
use layby_model::state::Showing;
use layby_model::{ReplicaId, ServiceId, Wakefulness};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{DeployBody, Event, LogView, Problem, ServiceDetail, ServiceView};
use crate::addresses;
use crate::deploy;
use crate::driver::{DriverHandle, Request, Status, shown_spec};
use crate::plane::Plane;

/// How long a service may take to be as awake as it was asked to.
const REACH_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a followed log looks for new replicas.
const NEWCOMERS: Duration = Duration::from_millis(300);
/// So many lines of a followed log may be under way.
const LINES: usize = 64;

/// Every service of the node.
#[utoipa::path(get, path = "/v1/services", responses((status = 200, body = [ServiceView])))]
pub(super) async fn list(State(plane): Shared) -> Json<Vec<ServiceView>> {
    let drivers = plane.all_drivers().into_iter();
    let views = drivers.map(|(_, driver)| driver.status.borrow().detail.view.clone());
    Json(views.collect())
}

/// One service in full.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceDetail),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn detail(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceDetail>, Problem> {
    let (id, driver) = find(&plane, names)?;
    let mut detail = {
        let status = driver.status.borrow();
        let mut detail = status.detail.clone();
        let now_ms = plane.clock.now_ms();
        let ends = status.ends.iter().map(|ending| ending.condition(now_ms));
        detail.conditions.extend(ends);
        detail
    };
    if let Some(wake) = detail
        .last_wake
        .as_mut()
        .filter(|wake| wake.held_ms.is_some())
    {
        // The gateway saw the request that was held to its end.
        let seen = (plane.traffic)(&id).last_wake;
        wake.held_ms = seen.map(|timing| timing.held_ms).or(wake.held_ms);
    }
    let row = driver.status.borrow().row.clone();
    let ports = addresses::public_ports(&id, shown_spec(&row), plane.config.publish_on);
    for (port, chain) in (plane.dropped_ports)(ports).await {
        detail.conditions.push(format!(
            "a firewall drops what other machines send to port {port} (its {chain}): accept TCP port {port} there"
        ));
    }
    Ok(Json(detail))
}

/// Wakes a service, and answers when a replica of it is ready.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/wake",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is live"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Not reached within 60 s"),
    )
)]
pub(super) async fn wake(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    reach(&plane, names, Wakefulness::Awake).await
}

/// Freezes a service in memory, and answers when it is.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/doze",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is live"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Not reached within 60 s"),
    )
)]
pub(super) async fn doze(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    reach(&plane, names, Wakefulness::Dozing).await
}

/// Stops a service and keeps it prepared, and answers when it is.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/sleep",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is live"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "Not reached within 60 s"),
    )
)]
pub(super) async fn sleep(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    reach(&plane, names, Wakefulness::Asleep).await
}

/// Deploys a service anew with another image or environment, and tells how it goes.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/deploy",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("detach" = Option<bool>, Query, description = "Do not wait for the outcome"),
    ),
    request_body = DeployBody,
    responses(
        (status = 200, body = Event, content_type = "application/x-ndjson", description = "One event a line, the last is `done`"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such service, or no such image"),
    )
)]
pub(super) async fn deploy(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = parse(names)?;
    let body: DeployBody = match body.is_empty() {
        true => DeployBody::default(),
        false => serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_request(format!("the body: {error}")))?,
    };
    let detach = query::flag(&pairs, "detach");
    let events = deploy::change(plane, &id, body, detach).await?;
    Ok(lines(ReceiverStream::new(events)))
}

/// Tells how the rollout of a service's newest revision goes until it is live or has failed; also one that a push has
/// just begun, or that is over.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/rollout",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = Event, content_type = "application/x-ndjson", description = "One event a line, the last is `done`"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollout(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Response, Problem> {
    let events = deploy::follow(plane, &parse(names)?).await?;
    Ok(lines(ReceiverStream::new(events)))
}

/// The log of a service's replicas, the oldest replica first; followed ones mixed as they come.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/logs",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("tail" = Option<u32>, Query, description = "Only so many of the last lines of each replica"),
        ("follow" = Option<bool>, Query, description = "Go on with new lines"),
        ("container" = Option<String>, Query, description = "Only of this container; the first if none is named"),
        ("replica" = Option<String>, Query, description = "Only of this replica"),
    ),
    responses(
        (status = 200, body = LogView, content_type = "application/x-ndjson", description = "One line of the log a line"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn logs(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let (id, _) = find(&plane, names)?;
    let only = query::get(&pairs, "replica")
        .map(str::parse::<ReplicaId>)
        .transpose();
    let only = only.map_err(|error| {
        Problem::bad_request(format!(
            "{:?} is no replica id (12 hexadecimal digits)",
            error.name
        ))
    })?;
    let query = LogQuery {
        container: query::get(&pairs, "container").map(str::to_owned),
        tail: query::number(&pairs, "tail")?,
        follow: query::flag(&pairs, "follow"),
        ..LogQuery::default()
    };
    let follow = query.follow;
    let reports = plane.facts.of(&id);
    let replicas = reports.iter().map(|report| report.id);
    let replicas: Vec<ReplicaId> = replicas
        .filter(|id| only.is_none_or(|o| o == *id))
        .collect();
    if replicas.is_empty() {
        let text = match only {
            Some(replica) => format!("{id} has no replica {replica}"),
            None => format!("{id} has no replicas, and so no log"),
        };
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint(format!("`layby status {id}` says why")));
    }
    let mut logs: Vec<BoxStream<'static, LogView>> = Vec::new();
    let mut missing = None;
    for replica in &replicas {
        match log_of(&plane, *replica, query.clone()).await {
            Ok(log) => logs.push(log),
            // It was removed just now, or its revision has no such container: the others still have their say.
            Err(error @ EngineError::NotFound(_)) => missing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    if let (true, Some(error)) = (logs.is_empty(), missing) {
        return Err(error.into());
    }
    if !follow {
        return Ok(lines(stream::iter(logs).flatten()));
    }
    let (send, receive) = mpsc::channel(LINES);
    logs.into_iter().for_each(|log| pass_on(log, send.clone()));
    if only.is_none() {
        tokio::spawn(follow_newcomers(plane, id, replicas, query, send));
    }
    Ok(lines(ReceiverStream::new(receive)))
}

async fn log_of(
    plane: &Plane,
    replica: ReplicaId,
    query: LogQuery,
) -> Result<BoxStream<'static, LogView>, EngineError> {
    let log = plane.engine.logs(replica, query).await?;
    Ok(Box::pin(log.map(move |line| LogView {
        replica: replica.to_string(),
        at_ms: line.at_ms,
        stream: line.stream,
        text: line.text,
    })))
}

/// Sends a log's lines on until it ends or nobody listens any more.
fn pass_on(mut log: BoxStream<'static, LogView>, send: mpsc::Sender<LogView>) {
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

/// Replicas that are made while a log is followed belong to it; it ends with the service or its reader.
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
    while !send.is_closed() && plane.driver(&id).is_some() {
        let reports = plane.facts.of(&id);
        known.retain(|old| reports.iter().any(|report| report.id == *old));
        for report in reports.iter() {
            if !known.contains(&report.id)
                && let Ok(log) = log_of(&plane, report.id, whole.clone()).await
            {
                known.push(report.id); // one that has no log yet is asked again
                pass_on(log, send.clone());
            }
        }
        tokio::time::sleep(NEWCOMERS).await;
    }
}

/// Asks a service to be so awake, and waits until it is.
async fn reach(
    plane: &Arc<Plane>,
    names: (String, String),
    wanted: Wakefulness,
) -> Result<Json<ServiceView>, Problem> {
    let (id, mut driver) = find(plane, names)?;
    if driver.status.borrow().row.removing {
        return Err(Problem::conflict(format!("{id} is being taken down")));
    }
    if driver.status.borrow().row.live.is_none() {
        return Err(Problem::conflict(format!("nothing of {id} is live yet"))
            .hint(format!("`layby status {id}` says why")));
    }
    let asked = driver.requests.try_send(Request::Want(wanted));
    asked.map_err(|_| {
        let text = format!("too many requests for {id} wait already");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text).hint("try again")
    })?;
    let lowest = plane.engine.traits().possible(wanted);
    let ends = |status: &Status| -> u32 {
        let replicas = status.detail.replicas.iter();
        replicas
            .flat_map(|r| &r.containers)
            .map(|c| c.restarts)
            .sum()
    };
    let ends_before = ends(&driver.status.borrow());
    let mut lowered = false;
    let there = |status: &Arc<Status>| {
        // A request may wake it at once: then it was there.
        let showing = status.detail.view.wakefulness;
        lowered |= matches!(showing, Some(Showing::Dozing | Showing::Asleep));
        let woken = lowered && wanted < Wakefulness::Awake && showing == Some(Showing::Awake);
        // One ready replica is awake enough, and whether that is written is nobody's concern.
        let awake =
            wanted == Wakefulness::Awake && status.detail.view.wakefulness == Some(Showing::Awake);
        // It ran, and ended again for good.
        let ended = wanted == Wakefulness::Awake
            && showing == Some(Showing::Ended)
            && ends(status) > ends_before;
        status.gone || awake || woken || ended || status.resting == Some(lowest)
    };
    let reached = tokio::time::timeout(REACH_TIMEOUT, driver.status.wait_for(there)).await;
    match reached {
        Ok(Ok(status)) if !status.gone => Ok(Json(status.detail.view.clone())),
        Ok(_) => Err(Problem::no_service(&id)),
        Err(_) => Err(Problem::timed_out(format!(
            "{id} is not {wanted} after {} s",
            REACH_TIMEOUT.as_secs()
        ))
        .hint(format!("`layby status {id}` says what it is at"))),
    }
}

fn find(plane: &Plane, names: (String, String)) -> Result<(ServiceId, DriverHandle), Problem> {
    let id = parse(names)?;
    let driver = plane.driver(&id).ok_or_else(|| Problem::no_service(&id))?;
    Ok((id, driver))
}

fn parse((app, service): (String, String)) -> Result<ServiceId, Problem> {
    let id = format!("{app}/{service}").parse();
    id.map_err(|error: layby_model::NameError| Problem::bad_request(error.to_string()))
}
