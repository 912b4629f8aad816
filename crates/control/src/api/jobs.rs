//! Jobs and their runs, and one-off commands beside services.

use std::sync::Arc;

use axum::Json;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use layby_model::ServiceId;
use layby_model::engine::{LogQuery, RunSpec};
use layby_model::job::RunId;

use super::body::Said;
use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{CommandBody, JobView, LogView, Problem, RunView};
use super::{Shared, Who, exec, services};
use crate::deploy::privilege;
use crate::jobs::{self, Holding, OneOff};
use crate::plane::Plane;
use crate::store::{Cause, NewRun};

/// Every job, by app and name.
#[utoipa::path(get, path = "/v1/jobs", responses((status = 200, body = Vec<JobView>)))]
pub(super) async fn list(State(plane): Shared, who: Who) -> Json<Vec<JobView>> {
    let shown = plane.jobs.shown();
    let shelves = shown.shelves.iter();
    let shelves = shelves.filter(|(id, _)| who.rights.covers(id.app.as_str()));
    let views = shelves.filter_map(|(id, shelf)| jobs::job_view(id, shelf, &shown));
    Json(views.collect())
}

/// One job.
#[utoipa::path(
    get,
    path = "/v1/jobs/{app}/{job}",
    params(("app" = String, Path), ("job" = String, Path)),
    responses(
        (status = 200, body = JobView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn detail(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<JobView>, Problem> {
    let id = services::parse(names)?;
    view(&plane, &id).map(Json)
}

/// Takes a job away: its runs are ended, and its history and logs removed.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{app}/{job}",
    params(("app" = String, Path), ("job" = String, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It takes longer: it goes on"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let id = services::parse(names)?;
    view(&plane, &id)?;
    plane.jobs.remove(&id.app, Some(&id), &who.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a job wait: it is not run by its schedule until it is resumed. What goes on goes on.
#[utoipa::path(
    post,
    path = "/v1/jobs/{app}/{job}/suspend",
    params(("app" = String, Path), ("job" = String, Path)),
    responses(
        (status = 200, body = JobView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn suspend(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<JobView>, Problem> {
    let id = services::parse(names)?;
    plane.jobs.suspend(&id, true).await?;
    view(&plane, &id).map(Json)
}

/// Ends a suspension. What was due meanwhile is not made up.
#[utoipa::path(
    post,
    path = "/v1/jobs/{app}/{job}/resume",
    params(("app" = String, Path), ("job" = String, Path)),
    responses(
        (status = 200, body = JobView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn resume(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<JobView>, Problem> {
    let id = services::parse(names)?;
    plane.jobs.suspend(&id, false).await?;
    view(&plane, &id).map(Json)
}

/// The runs of a job, or of a service, that are kept, the newest first.
#[utoipa::path(
    get,
    path = "/v1/jobs/{app}/{job}/runs",
    params(
        ("app" = String, Path),
        ("job" = String, Path, description = "The job, or the service"),
    ),
    responses(
        (status = 200, body = Vec<RunView>),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn runs(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<Vec<RunView>>, Problem> {
    let id = services::parse(names)?;
    let shown = plane.jobs.shown();
    match shown.shelves.get(&id) {
        Some(shelf) => {
            let runs = shelf.runs.iter().rev();
            Ok(Json(
                runs.map(|run| jobs::run_view(&id, run, &shown)).collect(),
            ))
        }
        None if plane.driver(&id).is_some() => Ok(Json(Vec::new())),
        None => Err(Problem::no_job(&id)),
    }
}

/// One run.
#[utoipa::path(
    get,
    path = "/v1/jobs/{app}/{job}/runs/{run}",
    params(("app" = String, Path), ("job" = String, Path), ("run" = u32, Path)),
    responses(
        (status = 200, body = RunView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn run(
    State(plane): Shared,
    Path((app, job, run)): Path<(String, String, String)>,
) -> Result<Json<RunView>, Problem> {
    let id = services::parse((app, job))?;
    run_view(&plane, &id, number(&run)?).map(Json)
}

/// Runs a job now, whatever its schedule says and though it may be suspended.
#[utoipa::path(
    post,
    path = "/v1/jobs/{app}/{job}/runs",
    params(("app" = String, Path), ("job" = String, Path)),
    responses(
        (status = 202, body = RunView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "A run goes on that it may not overlap"),
    )
)]
pub(super) async fn begin(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
) -> Result<(StatusCode, Json<RunView>), Problem> {
    let id = services::parse(names)?;
    let spec = jobs::spec_of(&plane, &id)?;
    let run = NewRun {
        of: id.clone(),
        of_service: false,
        spec,
        cause: Cause::Command,
        made_by: who.name,
        due_ms: None,
        command: None,
        held: false,
    };
    let run = plane.jobs.run(run).await?;
    Ok((StatusCode::ACCEPTED, Json(run_view(&plane, &id, run)?)))
}

/// Ends a run: its containers are asked to end, and killed after their grace.
#[utoipa::path(
    delete,
    path = "/v1/jobs/{app}/{job}/runs/{run}",
    params(("app" = String, Path), ("job" = String, Path), ("run" = u32, Path)),
    responses(
        (status = 202, body = RunView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is over already"),
    )
)]
pub(super) async fn stop(
    State(plane): Shared,
    who: Who,
    Path((app, job, run)): Path<(String, String, String)>,
) -> Result<(StatusCode, Json<RunView>), Problem> {
    let id = services::parse((app, job))?;
    let run = number(&run)?;
    plane.jobs.stop(&id, run, &who.name).await?;
    Ok((StatusCode::ACCEPTED, Json(run_view(&plane, &id, run)?)))
}

/// What a run wrote, attempt after attempt.
#[utoipa::path(
    get,
    path = "/v1/jobs/{app}/{job}/runs/{run}/logs",
    params(
        ("app" = String, Path),
        ("job" = String, Path),
        ("run" = u32, Path),
        ("tail" = Option<u32>, Query, description = "Only so many of the last lines of each attempt"),
        ("follow" = Option<bool>, Query, description = "Go on with new lines until the run is over"),
        ("since_ms" = Option<u64>, Query, description = "Only lines from this moment on, in milliseconds since 1970"),
        ("until_ms" = Option<u64>, Query, description = "Only lines before this moment"),
    ),
    responses(
        (status = 200, body = LogView, content_type = "application/x-ndjson", description = "One line of the log a line"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn logs(
    State(plane): Shared,
    Path((app, job, run)): Path<(String, String, String)>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let id = services::parse((app, job))?;
    let moment = |name| query::number(&pairs, name).map(|ms| ms.map(|ms| ms as u64));
    let query = LogQuery {
        container: None,
        tail: query::number(&pairs, "tail")?,
        follow: query::flag(&pairs, "follow"),
        since_ms: moment("since_ms")?,
        until_ms: moment("until_ms")?,
    };
    Ok(lines(jobs::log(&plane, &id, number(&run)?, query)?))
}

/// Runs a command in a container of its own that is otherwise as those of a service, and does not wait for it. A service
/// that sleeps is not woken.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/runs",
    params(("app" = String, Path), ("service" = String, Path)),
    request_body = CommandBody,
    responses(
        (status = 202, body = RunView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of the service is live, or too many runs go on"),
    )
)]
pub(super) async fn begin_command(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
    Said(body): Said<CommandBody>,
) -> Result<(StatusCode, Json<RunView>), Problem> {
    let id = services::parse(names)?;
    let order = OneOff {
        command: body.command,
        env: body.env,
        working_dir: body.working_dir,
        user: body.user,
        time_limit_ms: body.time_limit_ms,
    };
    if order.command.first().is_none_or(String::is_empty) {
        return Err(Problem::bad_request("no command is given"));
    }
    let live = live(&plane, &id).await?;
    privilege::enter(&plane.config, &who.rights, &id, &live.service)?;
    let run = NewRun {
        of: id.clone(),
        of_service: true,
        spec: Arc::new(jobs::one_off(&live, &order, false)),
        cause: Cause::Command,
        made_by: who.name,
        due_ms: None,
        command: Some(order.command),
        held: false,
    };
    let run = plane.jobs.run(run).await?;
    Ok((StatusCode::ACCEPTED, Json(run_view(&plane, &id, run)?)))
}

/// Runs a command in a container of its own that is otherwise as those of a service, with the caller at its other end; who
/// goes ends it. Binary messages are as with `exec`. A service that sleeps is not woken.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/run",
    params(("time_limit_ms" = Option<u64>, Query, description = "It is ended after this; its exit code is 124 then")),
    responses(
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of the service is live, or too many runs go on"),
    )
)]
pub(super) async fn hold(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let id = services::parse(names)?;
    let request = exec::request(&pairs)?;
    let limit = query::number(&pairs, "time_limit_ms")?;
    let upgrade = exec::upgrade(upgrade)?;
    let live = live(&plane, &id).await?;
    privilege::enter(&plane.config, &who.rights, &id, &live.service)?;
    let order = OneOff {
        command: request.argv.clone(),
        time_limit_ms: limit.map(|ms| ms as u64),
        ..OneOff::default()
    };
    let session = jobs::hold(
        &plane,
        Holding {
            of: id,
            spec: Arc::new(jobs::one_off(&live, &order, true)),
            request,
            by: who.name,
        },
    );
    let session = session.await?;
    Ok(upgrade.on_upgrade(move |socket| exec::serve(socket, session, ())))
}

/// What of a service is live.
async fn live(plane: &Plane, id: &ServiceId) -> Result<Arc<RunSpec>, Problem> {
    let row = plane.store.service(id).await?;
    let row = row.ok_or_else(|| match plane.jobs.has(id) {
        true => Problem::conflict(format!("{id} is a job, not a service"))
            .hint(format!("`layby job run {id}` runs it")),
        false => Problem::no_service(id),
    })?;
    if row.removing {
        return Err(Problem::conflict(format!("{id} is being taken down")));
    }
    let live = row.live.map(|live| live.spec);
    live.ok_or_else(|| {
        Problem::conflict(format!("nothing of {id} is live yet"))
            .hint(format!("`layby status {id}` says why"))
    })
}

fn view(plane: &Plane, id: &ServiceId) -> Result<JobView, Problem> {
    let shown = plane.jobs.shown();
    let shelf = shown.shelves.get(id);
    let view = shelf.and_then(|shelf| jobs::job_view(id, shelf, &shown));
    view.ok_or_else(|| Problem::no_job(id))
}

fn run_view(plane: &Plane, id: &ServiceId, run: RunId) -> Result<RunView, Problem> {
    let shown = plane.jobs.shown();
    let row = shown.shelves.get(id).and_then(|shelf| shelf.run(run));
    let row = row.ok_or_else(|| Problem::no_run(id, run))?;
    Ok(jobs::run_view(id, row, &shown))
}

fn number(text: &str) -> Result<RunId, Problem> {
    let number = text.parse().map(RunId);
    number.map_err(|_| Problem::bad_request(format!("{text:?} is no number of a run")))
}
