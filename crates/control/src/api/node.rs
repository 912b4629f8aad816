//! The node itself.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Shared;
use super::Who;
use super::query::{self, Pairs};
use super::types::VersionView;
use crate::config::StopRequest;

/// Which node answers, and where it listens.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = VersionView)))]
pub(super) async fn version(State(plane): Shared) -> Json<VersionView> {
    let config = &plane.config;
    Json(VersionView {
        version: config.version.clone(),
        pid: std::process::id(),
        http: config.http.to_string(),
        registry: config.registry.listen.map(|addr| addr.to_string()),
        api: config.api.as_ref().map(|api| api.addr.to_string()),
        api_fingerprint: (config.api.as_ref()).map(|api| api.fingerprint.borrow().clone()),
        publish_on: config.publish_on.to_string(),
        domain: config.domain.clone(),
        data_dir: config.data_dir.display().to_string(),
    })
}

/// Ends the node. Replicas go on running unless `all`.
#[utoipa::path(
    post,
    path = "/v1/node/stop",
    params(("all" = Option<bool>, Query, description = "End the replicas too")),
    responses((status = 202, description = "It is ending"))
)]
pub(super) async fn stop(State(plane): Shared, who: Who, pairs: Pairs) -> StatusCode {
    let all = query::flag(&pairs, "all");
    tracing::info!(who = who.name, from = who.from, all, "asked to end");
    plane.stop.send_replace(Some(StopRequest { all }));
    StatusCode::ACCEPTED
}
