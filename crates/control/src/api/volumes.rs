//! Named volumes of the node.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use layby_model::mounts::VolumeReport;

use super::body::Said;
use super::types::{Problem, VolumeBody, VolumeView};
use super::{Shared, Who};
use crate::audit::Target;
use crate::plane::Plane;
use crate::volumes;

/// Every named volume.
#[utoipa::path(get, path = "/v1/volumes", responses((status = 200, body = [VolumeView])))]
pub(super) async fn list(State(plane): Shared, who: Who) -> Result<Json<Vec<VolumeView>>, Problem> {
    let all = volumes::all(&plane).await?.into_iter();
    let seen = all.filter(|volume| who.rights.covers_owner(volume.app.as_ref()));
    Ok(Json(seen.map(view).collect()))
}

/// Makes a named volume; one that is there is left as it is.
#[utoipa::path(
    post,
    path = "/v1/volumes",
    request_body = VolumeBody,
    responses(
        (status = 200, body = VolumeView),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is none for a volume"),
    )
)]
pub(super) async fn create(
    State(plane): Shared,
    Said(body): Said<VolumeBody>,
) -> Result<(Extension<Target>, Json<VolumeView>), Problem> {
    let made = volumes::make(&plane, &body.name, &body.labels).await?;
    let target = Extension(Target(made.name.clone()));
    Ok((target, Json(view(made))))
}

/// One named volume.
#[utoipa::path(
    get,
    path = "/v1/volumes/{name}",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = VolumeView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn inspect(
    State(plane): Shared,
    who: Who,
    Path(name): Path<String>,
) -> Result<Json<VolumeView>, Problem> {
    Ok(Json(view(seen(&plane, &who, &name).await?)))
}

/// Removes a named volume with all that is in it.
#[utoipa::path(
    delete,
    path = "/v1/volumes/{name}",
    params(("name" = String, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "A service uses it"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    who: Who,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    seen(&plane, &who, &name).await?;
    volumes::remove(&plane, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A volume that this one may see; others are as if they were not there.
async fn seen(plane: &Plane, who: &Who, name: &str) -> Result<VolumeReport, Problem> {
    let volume = volumes::one(plane, name).await?;
    match who.rights.covers_owner(volume.app.as_ref()) {
        true => Ok(volume),
        false => Err(volumes::missing(name)),
    }
}

fn view(volume: VolumeReport) -> VolumeView {
    let created = i64::try_from(volume.created_ms).ok();
    let created = created.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    VolumeView {
        name: volume.name,
        app: volume.app.map(|app| app.to_string()),
        labels: volume.labels,
        created: created.map(|at| at.to_string()),
        path: volume.path,
        used_by: volume.used_by.iter().map(ToString::to_string).collect(),
    }
}
