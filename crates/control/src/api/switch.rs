//! Disabling, enabling and removing one service.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;

use super::roll::{self, Roll};
use super::services::parse;
use super::types::{Problem, RemovedView, ServiceView};
use super::{Shared, Who};
use crate::deploy;

/// Disables a service, and answers when nothing of it runs any more. Its settings and its history stay.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/disable",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is being taken down"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It takes longer: it goes on"),
    )
)]
pub(super) async fn disable(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    let view = deploy::disable(&plane, &parse(names)?, &who).await?;
    Ok(Json(view))
}

/// Enables a service, and tells how it comes back.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/enable",
    responses(
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is being taken down"),
    )
)]
pub(super) async fn enable(State(plane): Shared, roll: Roll) -> Result<Response, Problem> {
    roll::told(deploy::enable(plane, &roll.id, roll.detach, &roll.who).await)
}

/// Restarts the containers of a service as they are, one replica after the other, and tells how it goes. It is no revision, and
/// what they have written stays. One that rests is woken.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/restart",
    responses(
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is disabled, or nothing of it is live"),
    )
)]
pub(super) async fn restart(State(plane): Shared, roll: Roll) -> Result<Response, Problem> {
    roll::told(deploy::restart(plane, &roll.id, roll.detach, &roll.who).await)
}

/// Takes a service down with its history, and answers when it is gone. Its volumes stay.
#[utoipa::path(
    delete,
    path = "/v1/services/{app}/{service}",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = RemovedView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "It takes longer: it goes on"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
) -> Result<Json<RemovedView>, Problem> {
    let id = parse(names)?;
    deploy::remove(&plane, &id, &who).await?;
    Ok(Json(RemovedView {
        removed: vec![id.to_string()],
        volumes: Vec::new(),
    }))
}
