//! Apps: reading, deploying and taking down a manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use layby_model::{AppName, error_chain};
use tokio_stream::wrappers::ReceiverStream;

use super::canary;
use super::lines::lines;
use super::pipe::{self, BodyReader};
use super::query::{self, Pairs};
use super::types::{Event, ManifestView, Problem, RemovedView};
use super::{Shared, Who};
use crate::audit::Target;
use crate::deploy::upload::{Keeper, Upload};
use crate::deploy::{self, Ask};
use crate::plane::Plane;
use crate::volumes;

/// Says what a manifest describes, and what has to be sent along to deploy it. Changes nothing.
#[utoipa::path(
    post,
    path = "/v1/manifests",
    params(
        ("app" = Option<String>, Query, description = "The app's name"),
        ("folder" = Option<String>, Query, description = "The name of the manifest's folder"),
        ("folder_path" = Option<String>, Query, description = "Its absolute path on the node's machine: relative paths of bind mounts start there"),
        ("file" = Option<Vec<String>>, Query, description = "The files to read, in order; none: look for them"),
        ("env_file" = Option<Vec<String>>, Query, description = "The files of variables, in order, instead of `.env`"),
        ("profile" = Option<Vec<String>>, Query, description = "The profiles that are switched on (Compose)"),
        ("service" = Option<Vec<String>>, Query, description = "Only these services of it, and what they need; otherwise all"),
        ("no_deps" = Option<bool>, Query, description = "Not what those need"),
        ("scale" = Option<Vec<String>>, Query, description = "So many replicas a service gets, whatever the manifest says: `NAME=N`"),
        ("build" = Option<bool>, Query, description = "Build also what is there already"),
    ),
    request_body(content_type = "application/x-tar", description = "The manifest's files; `.layby/env.json`: the caller's environment; `.layby/file/<n>`: the further files that were asked for as `more`, whose names are a list in `.layby/files.json`"),
    responses(
        (status = 200, body = ManifestView),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "All that is wrong with it, one line each"),
    )
)]
pub(super) async fn manifest(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
    body: Body,
) -> Result<Json<ManifestView>, Problem> {
    let upload = receive(&plane, body).await?;
    let view = deploy::describe(&plane, upload, &ask(&pairs)?, &who.rights).await?;
    Ok(Json(view))
}

/// Deploys a manifest, and tells how it goes until every service is live or has failed.
#[utoipa::path(
    post,
    path = "/v1/apps",
    params(
        ("app" = Option<String>, Query, description = "The app's name"),
        ("folder" = Option<String>, Query, description = "The name of the manifest's folder"),
        ("folder_path" = Option<String>, Query, description = "Its absolute path on the node's machine: relative paths of bind mounts start there"),
        ("file" = Option<Vec<String>>, Query, description = "The files to read, in order; none: look for them"),
        ("env_file" = Option<Vec<String>>, Query, description = "The files of variables, in order, instead of `.env`"),
        ("profile" = Option<Vec<String>>, Query, description = "The profiles that are switched on (Compose)"),
        ("service" = Option<Vec<String>>, Query, description = "Only these services of it, and what they need; otherwise all"),
        ("no_deps" = Option<bool>, Query, description = "Not what those need"),
        ("scale" = Option<Vec<String>>, Query, description = "So many replicas a service gets, whatever the manifest says: `NAME=N`"),
        ("build" = Option<bool>, Query, description = "Build also what is there already"),
        ("dry_run" = Option<bool>, Query, description = "Only tell the steps"),
        ("detach" = Option<bool>, Query, description = "Do not wait for the outcome"),
        ("atomic" = Option<bool>, Query, description = "If one service fails, the others go back to where they were, and new ones are removed"),
        ("remove_orphans" = Option<bool>, Query, description = "Take services of the app down that the manifest does not name"),
        ("canary" = Option<String>, Query, description = "Try what changes out on so many percent of the requests, `1%` to `99%`"),
        ("canary_header" = Option<String>, Query, description = "The same on requests with this header, `NAME` or `NAME=VALUE`"),
        ("canary_cookie" = Option<String>, Query, description = "The same on requests with this cookie"),
        ("retries" = Option<u32>, Query, description = "So many more attempts failed rollouts get (0 to 10), whatever the manifest says"),
        ("agents" = Option<String>, Query, description = "The key of the connection that lends SSH agents to its builds"),
    ),
    request_body(content_type = "application/x-tar", description = "`manifest/`: its files, as for `/v1/manifests`; `file/<n>` and `context/<n>/`: the further files and the build contexts that `/v1/manifests` asked for. Before a context of which something is kept, `kept/<n>`: a `KeptContext`; of it only the lacking files are sent, and after them `doubted/<n>`: the places of those that changed meanwhile"),
    responses(
        (status = 200, body = Event, content_type = "application/x-ndjson", description = "One event a line, the last is `done`"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "An image is not there"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Another service has the port or name"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "All that is wrong with it, one line each"),
    )
)]
pub(super) async fn up(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
    body: Body,
) -> Result<Response, Problem> {
    let upload = receive_with_contexts(&plane, &who, body).await?;
    let (app, events) = deploy::up(plane, upload, ask(&pairs)?, who).await?;
    let target = Extension(Target(app.to_string()));
    Ok((target, lines(ReceiverStream::new(events))).into_response())
}

/// Takes an app down, and answers when all of it is gone.
#[utoipa::path(
    delete,
    path = "/v1/apps/{app}",
    params(
        ("app" = String, Path),
        ("volumes" = Option<bool>, Query, description = "Remove the volumes that were made for it too"),
    ),
    responses(
        (status = 200, body = RemovedView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It takes longer: it goes on"),
    )
)]
pub(super) async fn down(
    State(plane): Shared,
    who: Who,
    Path(app): Path<String>,
    pairs: Pairs,
) -> Result<Json<RemovedView>, Problem> {
    let app = AppName::new(&app).map_err(|error| Problem::bad_request(error.to_string()))?;
    let and_volumes = query::flag(&pairs, "volumes");
    let down = deploy::down(&plane, &app, &who).await;
    // One that was taken down before may have left volumes.
    let gone = matches!(&down, Err(problem) if problem.status == StatusCode::NOT_FOUND.as_u16());
    let volumes = match and_volumes && (down.is_ok() || gone) {
        true => volumes::remove_of(&plane, &app).await?,
        false => Vec::new(),
    };
    let removed = match down {
        Err(_) if gone && !volumes.is_empty() => Vec::new(),
        down => down?,
    };
    Ok(Json(RemovedView {
        removed: removed.iter().map(ToString::to_string).collect(),
        volumes,
    }))
}

pub(super) fn ask(pairs: &Pairs) -> Result<Ask, Problem> {
    let retries = query::number(pairs, "retries")?;
    Ok(Ask {
        app: query::get(pairs, "app").map(str::to_owned),
        folder: query::get(pairs, "folder").unwrap_or_default().to_owned(),
        folder_path: query::get(pairs, "folder_path").map(str::to_owned),
        files: query::all(pairs, "file"),
        env_files: query::all(pairs, "env_file"),
        profiles: query::all(pairs, "profile"),
        services: query::all(pairs, "service"),
        no_deps: query::flag(pairs, "no_deps"),
        scale: scale(pairs)?,
        build: query::flag(pairs, "build"),
        dry_run: query::flag(pairs, "dry_run"),
        detach: query::flag(pairs, "detach"),
        atomic: query::flag(pairs, "atomic"),
        remove_orphans: query::flag(pairs, "remove_orphans"),
        share: canary::share(pairs)?,
        agents: query::get(pairs, "agents").map(str::to_owned),
        retries: retries.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
    })
}

/// `scale=NAME=N`, for several services.
fn scale(pairs: &Pairs) -> Result<BTreeMap<String, u32>, Problem> {
    let said = query::all(pairs, "scale");
    let each = said.iter().map(|text| {
        let (name, number) = text.split_once('=').unwrap_or((text, ""));
        let wrong = |_| Problem::bad_request(format!("scale={text:?} is not NAME=N"));
        Ok((name.to_owned(), number.parse().map_err(wrong)?))
    });
    each.collect()
}

/// Reads an upload with build contexts, off the async threads.
pub(super) async fn receive_with_contexts(
    plane: &Arc<Plane>,
    who: &Who,
    body: Body,
) -> Result<Upload, Problem> {
    let parent = plane.config.data_dir.join("tmp");
    let keeper = Keeper {
        images: Arc::clone(&plane.images),
        owner: who.owner.clone(),
    };
    read(plane, body, move |body| {
        Upload::read_with_contexts(body, &parent, &keeper)
    })
    .await
}

/// Reads an upload with the files of a manifest alone, off the async threads.
pub(super) async fn receive(plane: &Plane, body: Body) -> Result<Upload, Problem> {
    read(plane, body, Upload::read).await
}

async fn read(
    plane: &Plane,
    body: Body,
    read: impl FnOnce(BodyReader) -> Result<Upload, Problem> + Send + 'static,
) -> Result<Upload, Problem> {
    let reader = pipe::reader(body);
    let read = plane.at_clients_pace(move || read(reader));
    read.await
        .await
        .map_err(|error| Problem::failed(error_chain(&error)))?
}
