//! What happened: read by the page, or followed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{EventKind, EventView, Problem};
use super::{Shared, Who};
use crate::plane::Plane;
use crate::store::EventQuery;

/// How many are read if nobody says.
const LIMIT: u32 = 100;
/// The most that are read at once.
const MAX_LIMIT: u32 = 1_000;

/// What happened to services, the oldest first; the newest ones unless `after` is given. With `follow`, what happens from
/// then on follows, also what is not written down.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(
        ("app" = Option<String>, Query, description = "Only of this app"),
        ("service" = Option<String>, Query, description = "Only of this service, as app/service"),
        ("kind" = Option<EventKind>, Query, description = "Only of this kind; may be given several times"),
        ("since_ms" = Option<u64>, Query, description = "Only from this moment on, in milliseconds since 1970"),
        ("after" = Option<u64>, Query, description = "Only those after the one with this id"),
        ("before" = Option<u64>, Query, description = "Only those before the one with this id"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 if left out, 1000 at most"),
        ("follow" = Option<bool>, Query, description = "Go on with what happens"),
    ),
    responses(
        (status = 200, body = EventView, content_type = "application/x-ndjson", description = "One event a line"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(plane): Shared,
    who: Who,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let wanted = EventQuery {
        apps: who.rights.apps().map(|apps| apps.iter().cloned().collect()),
        ..parse(&pairs)?
    };
    // Before the read: what happens in between comes twice, and is told once.
    let listening = query::flag(&pairs, "follow").then(|| plane.events.listen());
    let past = plane.store.events(wanted.clone()).await?;
    let last = past.last().and_then(|event| event.id);
    let past = stream::iter(past);
    Ok(match listening {
        None => lines(past),
        Some(listening) => lines(past.chain(follow(plane, listening, wanted, last))),
    })
}

fn parse(pairs: &Pairs) -> Result<EventQuery, Problem> {
    let kind = |name: String| {
        let known = serde_json::from_value(name.clone().into());
        known.map_err(|_| Problem::bad_request(format!("{name:?} is no kind of event")))
    };
    let kinds: Result<Vec<EventKind>, Problem> =
        query::all(pairs, "kind").into_iter().map(kind).collect();
    let number = |name| query::number(pairs, name).map(|n| n.map(|n| n as u64));
    let limit = query::number(pairs, "limit")?.map_or(LIMIT, |n| {
        u32::try_from(n).unwrap_or(MAX_LIMIT).min(MAX_LIMIT)
    });
    let (app, service) = match query::get(pairs, "service") {
        None => (query::get(pairs, "app").map(str::to_owned), None),
        Some(name) => {
            let Some((app, service)) = name.split_once('/') else {
                return Err(Problem::bad_request(format!(
                    "service={name:?} is not written as app/service"
                )));
            };
            (Some(app.to_owned()), Some(service.to_owned()))
        }
    };
    Ok(EventQuery {
        apps: None,
        app,
        service,
        kinds: kinds?,
        since_ms: number("since_ms")?,
        after: number("after")?,
        before: number("before")?,
        limit,
    })
}

/// What happens from now on; what a slow reader misses is read again from the store, as far as it was written.
fn follow(
    plane: Arc<Plane>,
    listening: broadcast::Receiver<EventView>,
    wanted: EventQuery,
    last: Option<u64>,
) -> impl Stream<Item = EventView> + Send {
    let begin = (plane, listening, wanted, last);
    stream::unfold(
        begin,
        |(plane, mut listening, wanted, mut last)| async move {
            loop {
                let heard = match listening.recv().await {
                    Ok(event) => vec![event],
                    Err(RecvError::Lagged(_)) => {
                        let missed = EventQuery {
                            after: Some(last.unwrap_or(0)),
                            limit: MAX_LIMIT,
                            ..wanted.clone()
                        };
                        plane.store.events(missed).await.unwrap_or_default()
                    }
                    Err(RecvError::Closed) => return None,
                };
                let fits = heard.into_iter().filter(|event| {
                    let new = event.id.is_none_or(|id| last.is_none_or(|last| id > last));
                    new && wanted.fits(event)
                });
                let fits: Vec<EventView> = fits.collect();
                if let Some(newest) = fits.iter().filter_map(|event| event.id).max() {
                    last = Some(newest);
                }
                if !fits.is_empty() {
                    return Some((stream::iter(fits), (plane, listening, wanted, last)));
                }
            }
        },
    )
    .flatten()
}
