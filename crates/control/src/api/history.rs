//! The history of a service: its revisions, how they differ, and ways back and anew.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use layby_model::diff::diff;
use layby_model::{RevisionId, ServiceId};

use super::Shared;
use super::query::{self, Pairs};
use super::roll::{self, Roll};
use super::services::parse;
use super::types::{ChangeView, DiffView, Problem, RevisionView};
use crate::deploy;
use crate::plane::Plane;
use crate::store::Record;

/// The revisions of a service that are kept, the newest first.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/history",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = [RevisionView]),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn history(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<Vec<RevisionView>>, Problem> {
    let id = parse(names)?;
    let records = plane.store.history(&id).await?;
    if records.is_empty() {
        return Err(Problem::no_service(&id));
    }
    Ok(Json(records.into_iter().map(view).collect()))
}

/// How two revisions of a service differ.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/diff",
    params(
        ("app" = String, Path),
        ("service" = String, Path),
        ("from" = u32, Query, description = "The revision to look at first"),
        ("to" = Option<u32>, Query, description = "The other; otherwise the live one"),
    ),
    responses(
        (status = 200, body = DiffView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of it is live"),
    )
)]
pub(super) async fn compare(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Json<DiffView>, Problem> {
    let id = parse(names)?;
    let row = plane.store.service(&id).await?;
    let row = row.ok_or_else(|| Problem::no_service(&id))?;
    let from =
        number(&pairs, "from")?.ok_or_else(|| Problem::bad_request("from= names no revision"))?;
    let to = match (number(&pairs, "to")?, row.live) {
        (Some(to), _) => to,
        (None, Some(live)) => live.id,
        (None, None) => {
            let text = format!("nothing of {id} is live yet");
            return Err(Problem::conflict(text).hint("name two revisions"));
        }
    };
    let (a, b) = (
        record(&plane, &id, from).await?,
        record(&plane, &id, to).await?,
    );
    Ok(Json(DiffView {
        from: from.0,
        to: to.0,
        changes: diff(&a.spec, &b.spec)
            .into_iter()
            .map(ChangeView::from)
            .collect(),
    }))
}

/// Makes a revision with the settings and images of an earlier one, and tells how its rollout goes.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/rollback",
    params(("to" = Option<u32>, Query, description = "Which one; otherwise the one that was live before")),
    responses(
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such service or revision, or its image is gone"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There is nothing to go back to"),
    )
)]
pub(super) async fn rollback(State(plane): Shared, roll: Roll) -> Result<Response, Problem> {
    let to = number(&roll.pairs, "to")?;
    roll::told(deploy::rollback(plane, &roll.id, to, roll.detach, roll.who).await)
}

/// Makes a revision with the settings of the newest one, and tells how its rollout goes.
#[utoipa::path(
    post,
    path = "/v1/services/{app}/{service}/redeploy",
    params(("pull" = Option<bool>, Query, description = "Ask for the images by their names again; otherwise they are the same")),
    responses(
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such service, or its image is gone"),
    )
)]
pub(super) async fn redeploy(State(plane): Shared, roll: Roll) -> Result<Response, Problem> {
    let pull = query::flag(&roll.pairs, "pull");
    roll::told(deploy::redeploy(plane, &roll.id, pull, roll.detach, roll.who).await)
}

/// A revision's number in a query.
fn number(pairs: &Pairs, name: &str) -> Result<Option<RevisionId>, Problem> {
    let number = query::number(pairs, name)?.map(|number| {
        let wrong = |_| Problem::bad_request(format!("{name}={number} is no revision"));
        u32::try_from(number).map_err(wrong)
    });
    Ok(number.transpose()?.map(RevisionId))
}

async fn record(plane: &Plane, id: &ServiceId, revision: RevisionId) -> Result<Record, Problem> {
    let record = plane.store.record(id, revision).await?;
    record.ok_or_else(|| {
        let text = format!("there is no revision {revision} of {id}");
        Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint(format!("`layby history {id}` shows those that are kept"))
    })
}

fn view(record: Record) -> RevisionView {
    let first = record.spec.service.containers.first();
    RevisionView {
        revision: record.id.0,
        active: record.is_live,
        outcome: record.outcome,
        made_at: record.made_at,
        made_by: record.made_by,
        cause: record.cause,
        ended_at: record.ended_at,
        deadline_ms: record.deadline_ms,
        image: first.map(|c| c.image.clone()).unwrap_or_default(),
        digest: record.spec.images.first().cloned(),
        failure: record.failure,
    }
}
