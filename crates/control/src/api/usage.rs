//! What replicas use.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use layby_model::access::ReplicaUsage;
use layby_model::{ReplicaId, ServiceId};

use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{Problem, UsageView};
use super::{Shared, Who};
use crate::plane::Plane;
use crate::tokens::Rights;

/// From one look to the next where nothing else is asked, in milliseconds.
const INTERVAL_MS: usize = 1_000;
/// The shortest that is taken.
const LEAST_INTERVAL_MS: usize = 100;

/// What the replicas that run use, once or again and again.
#[utoipa::path(
    get,
    path = "/v1/usage",
    params(
        ("service" = Option<String>, Query, description = "Only of this service, as app/service; may be given several times"),
        ("watch" = Option<bool>, Query, description = "Go on: one list a line (application/x-ndjson)"),
        ("interval_ms" = Option<u64>, Query, description = "From one list to the next; 1000 otherwise, 100 at least"),
    ),
    responses(
        (status = 200, body = [UsageView]),
        (status = 400, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn usage(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let only = services(&pairs)?;
    for id in &only {
        who.rights.require(id.app.as_str())?;
    }
    let rights = who.rights;
    if !query::flag(&pairs, "watch") {
        return Ok(Json(look(&plane, &rights, &only).await?).into_response());
    }
    let interval = query::number(&pairs, "interval_ms")?.unwrap_or(INTERVAL_MS);
    let interval = Duration::from_millis(interval.max(LEAST_INTERVAL_MS) as u64);
    let looks = stream::unfold(None, move |next: Option<tokio::time::Instant>| {
        let (plane, rights, only) = (Arc::clone(&plane), rights.clone(), only.clone());
        async move {
            let now = next.unwrap_or_else(tokio::time::Instant::now);
            tokio::time::sleep_until(now).await;
            let views = look(&plane, &rights, &only).await.ok()?;
            // One that is late does not come twice.
            let next = (now + interval).max(tokio::time::Instant::now());
            Some((views, Some(next)))
        }
    });
    Ok(lines(looks))
}

/// The services that a query names; none: all.
pub(super) fn services(pairs: &Pairs) -> Result<Vec<ServiceId>, Problem> {
    let named = query::all(pairs, "service").into_iter();
    let parsed = named.map(|name| name.parse());
    let parsed: Result<_, layby_model::NameError> = parsed.collect();
    parsed.map_err(|error| Problem::bad_request(error.to_string()))
}

async fn look(
    plane: &Plane,
    rights: &Rights,
    only: &[ServiceId],
) -> Result<Vec<UsageView>, Problem> {
    let mut usage = plane.access.usage().await?;
    let mut views = Vec::new();
    for (id, _) in plane.all_drivers() {
        let asked = only.is_empty() || only.contains(&id);
        if asked && rights.covers(id.app.as_str()) {
            for report in plane.facts.of(&id).iter() {
                let found = usage.remove(&report.id);
                views.extend(found.map(|usage| view(&id, report.id, usage)));
            }
        }
    }
    Ok(views)
}

fn view(service: &ServiceId, replica: ReplicaId, usage: ReplicaUsage) -> UsageView {
    UsageView {
        app: service.app.to_string(),
        service: service.service.to_string(),
        replica: replica.to_string(),
        cpu_us: usage.cpu_us,
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        pids: usage.pids,
        network_in_bytes: usage.network_in_bytes,
        network_out_bytes: usage.network_out_bytes,
        disk_read_bytes: usage.disk_read_bytes,
        disk_write_bytes: usage.disk_write_bytes,
        disk_bytes: usage.disk_bytes,
    }
}
