//! How a service is scaled, and why it has as many replicas as it has.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use layby_model::ServiceId;

use super::Shared;
use super::services::find;
use super::types::{PolicyView, Problem, ScaleView, SeenView};
use crate::deploy::current;
use crate::driver::Status;
use crate::plane::Plane;

/// How many replicas a service has, by which policy, and why.
#[utoipa::path(
    get,
    path = "/v1/services/{app}/{service}/scale",
    params(("app" = String, Path), ("service" = String, Path)),
    responses(
        (status = 200, body = ScaleView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(plane): Shared,
    Path(names): Path<(String, String)>,
) -> Result<Json<ScaleView>, Problem> {
    let (id, driver) = find(&plane, names)?;
    let status = Arc::clone(&driver.status.borrow());
    Ok(Json(view(&plane, &id, &status)))
}

fn view(plane: &Plane, id: &ServiceId, status: &Status) -> ScaleView {
    let row = &status.row;
    let spec = &current(row).1.spec.service;
    let found = plane.scaling.found(id).filter(|_| row.scale.is_none());
    let why = match (row.scale, &spec.autoscale, &found) {
        (Some(_), Some(_), _) => "by `layby scale`, until `layby scale --auto`".to_owned(),
        (Some(_), None, _) => "by `layby scale`".to_owned(),
        (None, None, _) => "its manifest says so".to_owned(),
        (None, Some(_), Some(found)) => found.decision.why.clone(),
        (None, Some(_), None) if !row.enabled => "it is disabled".to_owned(),
        (None, Some(_), None) if status.is_awake => "it was not looked at yet".to_owned(),
        (None, Some(_), None) => "it rests: that is what it wakes with".to_owned(),
    };
    ScaleView {
        replicas: row.replicas,
        by_hand: row.scale,
        policy: spec.autoscale.as_ref().map(PolicyView::from),
        seen: found
            .as_ref()
            .map(|found| SeenView::from(&found.decision.seen)),
        why,
        short: found.and_then(|found| found.short),
    }
}
