//! Ending what is tried out: by letting it take all requests, or by giving it up.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use layby_model::route::Share;

use super::query::{self, Pairs};
use super::roll::{self, Roll};
use super::services::parse;
use super::types::{Problem, ServiceView};
use super::{Shared, Who};
use crate::deploy;

/// Lets a canary take all requests, and tells how that goes.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/promote",
    responses(
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is tried out"),
    )
)]
pub(super) async fn promote(State(plane): Shared, roll: Roll) -> Result<Response, Problem> {
    roll::told(deploy::promote(plane, &roll.id, roll.detach, &roll.who).await)
}

/// Gives up the revision of a service that is on its way to be live, canary or not. What is live goes on.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/abort",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ServiceView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is on its way"),
    )
)]
pub(super) async fn abort(
    State(plane): Shared,
    who: Who,
    Path(names): Path<(String, String)>,
) -> Result<Json<ServiceView>, Problem> {
    let view = deploy::abort(&plane, &parse(names)?, &who).await?;
    Ok(Json(view))
}

/// Which requests are asked for a canary: `canary=10%`, `canary_header=NAME[=VALUE]` or `canary_cookie=NAME[=VALUE]`.
pub(super) fn share(pairs: &Pairs) -> Result<Option<Share>, Problem> {
    let asked = [
        query::get(pairs, "canary").map(Share::percent),
        query::get(pairs, "canary_header").map(Share::header),
        query::get(pairs, "canary_cookie").map(Share::cookie),
    ];
    let mut asked = asked.into_iter().flatten();
    let share = asked.next().transpose();
    let share = share.map_err(|error| Problem::bad_request(format!("canary: {error}")))?;
    match asked.next() {
        Some(_) => Err(Problem::bad_request(
            "a canary is chosen by one thing alone",
        )),
        None => Ok(share),
    }
}
