//! Networks that apps share.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use layby_model::AppName;

use super::body::Said;
use super::types::{NetworkBody, NetworkView, Problem};
use super::{Shared, Who};
use crate::audit::Target;
use crate::networks::{self, Used};

/// Every network that apps share.
#[utoipa::path(get, path = "/v1/networks", responses((status = 200, body = [NetworkView])))]
pub(super) async fn list(
    State(plane): Shared,
    who: Who,
) -> Result<Json<Vec<NetworkView>>, Problem> {
    let all = networks::all(&plane).await?.into_iter();
    let seen = all.filter(|used| sees(used, &who));
    Ok(Json(seen.map(|used| view(used, &who)).collect()))
}

/// Makes a network that apps share; of one that is there, who may join is said anew.
#[utoipa::path(
    post,
    path = "/v1/networks",
    request_body = NetworkBody,
    responses(
        (status = 200, body = NetworkView),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The name is none for a network, or an app that is in it would be left out"),
    )
)]
pub(super) async fn create(
    State(plane): Shared,
    who: Who,
    Said(body): Said<NetworkBody>,
) -> Result<(Extension<Target>, Json<NetworkView>), Problem> {
    let apps = body.apps.into_iter().collect();
    let made = networks::make(&plane, &body.name, apps, &who.name).await?;
    let target = Extension(Target(body.name));
    Ok((target, Json(view(made, &who))))
}

/// One network that apps share.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = NetworkView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn inspect(
    State(plane): Shared,
    who: Who,
    Path(name): Path<String>,
) -> Result<Json<NetworkView>, Problem> {
    let used = networks::one(&plane, &name).await?;
    match sees(&used, &who) {
        true => Ok(Json(view(used, &who))),
        false => Err(networks::missing(&name)),
    }
}

/// Removes a network that nothing is in.
#[utoipa::path(
    delete,
    path = "/v1/networks/{name}",
    params(("name" = String, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "A service is in it"),
    )
)]
pub(super) async fn remove(
    State(plane): Shared,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    networks::remove(&plane, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whoever is limited to some apps sees the networks that these are in, or may be.
fn sees(used: &Used, who: &Who) -> bool {
    let mut apps = used.network.apps.iter().map(String::as_str);
    let mut users = used.by.iter().map(|id| id.app.as_str());
    who.rights.is_whole()
        || apps.any(|app| who.rights.covers(app))
        || users.any(|app| who.rights.covers(app))
}

fn view(used: Used, who: &Who) -> NetworkView {
    let Used {
        network,
        by,
        doubled,
    } = used;
    let doubled = match who.rights.is_whole() {
        true => doubled,
        false => BTreeMap::new(),
    };
    let told = |apps: BTreeSet<AppName>| apps.iter().map(ToString::to_string).collect();
    let created = jiff::Timestamp::from_millisecond(network.created_ms).ok();
    // Of other apps such a one is told nothing.
    let covers = |app: &str| who.rights.covers(app);
    let by = by.iter().filter(|id| covers(id.app.as_str()));
    NetworkView {
        limited: !network.apps.is_empty(),
        used_by: by.map(ToString::to_string).collect(),
        apps: (network.apps.into_iter())
            .filter(|app| covers(app))
            .collect(),
        doubled: (doubled.into_iter())
            .map(|(name, apps)| (name, told(apps)))
            .collect(),
        name: network.name,
        made_by: network.made_by,
        created: created.map(|at| at.to_string()),
    }
}
