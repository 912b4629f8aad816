//! What happened: read by the page, or followed.

use axum::extract::State;
use axum::response::Response;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::lines::lines;
use super::query::{self, Pairs};
use super::types::{EventKind, EventView, Problem};
use super::{Shared, Who};
use crate::store::{EventQuery, Store};

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
        (status = 403, body = Problem, content_type = "application/problem+json", description = "The token is for other apps"),
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
    if let Some(app) = &wanted.app {
        who.rights.require(app)?;
    }
    plane.events.settle().await;
    // Before the read: what happens in between comes twice, and is told once.
    let listening = query::flag(&pairs, "follow").then(|| plane.events.listen());
    let newest = plane.store.newest_event().await?;
    let past = plane.store.events(wanted.clone()).await?;
    let Some(listening) = listening else {
        return Ok(lines(stream::iter(past)));
    };
    let reader = Reader {
        // Those after one that somebody has seen are the oldest: where they are many, there are more of them.
        is_behind: wanted.after.is_some() && past.len() == wanted.limit as usize,
        last: (past.last().and_then(|event| event.id))
            .or(newest)
            .unwrap_or(0),
        store: plane.store.clone(),
        listening,
        wanted,
    };
    Ok(lines(stream::iter(past).chain(follow(reader))))
}

fn parse(pairs: &Pairs) -> Result<EventQuery, Problem> {
    let kind = |name: String| {
        let known = serde_json::from_value(name.clone().into());
        known.map_err(|error: serde_json::Error| {
            let problem = Problem::bad_request(format!("{name:?} is no kind of event"));
            // serde names them all.
            let text = error.to_string().replace('`', "");
            match text.split_once("expected one of ") {
                Some((_, all)) => problem.hint(format!("there are {all}")),
                None => problem,
            }
        })
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

/// Somebody who follows what happens.
struct Reader {
    store: Store,
    listening: broadcast::Receiver<EventView>,
    wanted: EventQuery,
    /// The newest event that they were told of, or that was there when they began.
    last: u64,
    /// There are events in the store that they were not told of.
    is_behind: bool,
}

/// What happens from now on; what a slow reader misses is read again from the store, as far as it was written. It ends
/// where the store cannot be read: a reader who asks again sees no gap.
fn follow(reader: Reader) -> impl Stream<Item = EventView> + Send {
    stream::unfold(reader, |mut reader| async move {
        loop {
            let heard = match reader.is_behind {
                true => reader.catch_up().await?,
                false => match reader.listening.recv().await {
                    Ok(event) => vec![event],
                    Err(RecvError::Lagged(_)) => {
                        reader.is_behind = true;
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
            };
            let fits = heard.into_iter().filter(|event| {
                let new = event.id.is_none_or(|id| id > reader.last);
                new && reader.wanted.fits(event)
            });
            let fits: Vec<EventView> = fits.collect();
            if let Some(newest) = fits.iter().filter_map(|event| event.id).max() {
                reader.last = newest;
            }
            if !fits.is_empty() {
                return Some((stream::iter(fits), reader));
            }
        }
    })
    .flatten()
}

impl Reader {
    /// The next of those that were missed. `None`: they cannot be read.
    async fn catch_up(&mut self) -> Option<Vec<EventView>> {
        let missed = EventQuery {
            after: Some(self.last),
            limit: MAX_LIMIT,
            ..self.wanted.clone()
        };
        let read = self.store.events(missed).await;
        let read = read
            .inspect_err(|error| tracing::warn!(%error, "events cannot be followed any longer"))
            .ok()?;
        self.is_behind = read.len() == MAX_LIMIT as usize;
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::NewEvent;

    #[tokio::test]
    async fn a_reader_who_was_far_behind_is_told_of_everything_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(&dir.path().join("layby.db")).expect("a store");
        let told = broadcast::Sender::new(8);
        let reader = Reader {
            store: store.clone(),
            listening: told.subscribe(),
            wanted: EventQuery {
                limit: LIMIT,
                ..EventQuery::default()
            },
            last: 0,
            is_behind: false,
        };
        let new = NewEvent {
            at_ms: 1,
            kind: EventKind::Live,
            app: None,
            service: None,
            text: "it".to_owned(),
            who: None,
        };
        let count = 2 * MAX_LIMIT + 500;
        let written = store.add_events(vec![new; count as usize]).await;
        for event in written.expect("to write") {
            told.send(event).expect("somebody listens");
        }
        drop(told);
        let heard: Vec<EventView> = follow(reader).collect().await;
        let ids: Vec<u64> = heard.iter().filter_map(|event| event.id).collect();
        assert_eq!(ids, Vec::from_iter(1..=u64::from(count)));
    }
}
