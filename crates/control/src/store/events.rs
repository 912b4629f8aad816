//! What happened, in the store.

use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};

use super::rows::unreadable;
use super::{Store, StoreError};
use crate::api::types::{EventKind, EventView};
use crate::events::NewEvent;

/// So many are kept.
const KEPT: u32 = 20_000;

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventQuery {
    /// Only of these apps, which are all that the one who asks may see.
    pub(crate) apps: Option<Vec<String>>,
    /// Only of this app.
    pub(crate) app: Option<String>,
    /// Only of this service of the app.
    pub(crate) service: Option<String>,
    /// Only of these kinds; empty: of all.
    pub(crate) kinds: Vec<EventKind>,
    /// Only from this moment on, in milliseconds since 1970-01-01T00:00:00Z.
    pub(crate) since_ms: Option<u64>,
    /// Only those after this one.
    pub(crate) after: Option<u64>,
    /// Only those before this one.
    pub(crate) before: Option<u64>,
    /// At most so many, the newest; with `after` the oldest of those.
    pub(crate) limit: u32,
}

impl EventQuery {
    /// Whether an event that just happened is asked for.
    pub(crate) fn fits(&self, event: &EventView) -> bool {
        let same = |asked: &Option<String>, is: &Option<String>| asked.is_none() || asked == is;
        same(&self.app, &event.app)
            && same(&self.service, &event.service)
            && (self.apps.as_ref())
                .is_none_or(|apps| event.app.as_ref().is_some_and(|app| apps.contains(app)))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

impl Store {
    /// Writes what happened, in order, and gives it as it is read; forgets the oldest beyond those that are kept.
    pub(crate) async fn add_events(
        &self,
        events: Vec<NewEvent>,
    ) -> Result<Vec<EventView>, StoreError> {
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut written = Vec::with_capacity(events.len());
            {
                let mut insert = tx.prepare_cached(
                    "INSERT INTO events (at_ms, kind, app, service, text, who) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     RETURNING id, at_ms, kind, app, service, text, who",
                )?;
                for event in &events {
                    let values = params![
                        i64::try_from(event.at_ms).unwrap_or(i64::MAX),
                        event.kind.to_string(),
                        event.app.as_ref().map(|app| app.as_str()),
                        event.service.as_ref().map(|service| service.as_str()),
                        event.text,
                        event.who
                    ];
                    written.push(insert.query_row(values, view)?);
                }
            }
            tx.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?1", [KEPT])?;
            tx.commit()?;
            Ok(written)
        })
        .await
    }

    /// The events that a query asks for, the oldest first.
    pub(crate) async fn events(&self, query: EventQuery) -> Result<Vec<EventView>, StoreError> {
        self.call(move |db| {
            let mut text =
                "SELECT id, at_ms, kind, app, service, text, who FROM events WHERE 1".to_owned();
            let mut values: Vec<Value> = Vec::new();
            let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
            for (condition, value) in [
                (" AND app = ?", query.app.map(Value::Text)),
                (" AND service = ?", query.service.map(Value::Text)),
                (" AND at_ms >= ?", query.since_ms.map(number)),
                (" AND id > ?", query.after.map(number)),
                (" AND id < ?", query.before.map(number)),
            ] {
                if let Some(value) = value {
                    text.push_str(condition);
                    values.push(value);
                }
            }
            if !query.kinds.is_empty() {
                let places = vec!["?"; query.kinds.len()].join(", ");
                text.push_str(&format!(" AND kind IN ({places})"));
                values.extend(query.kinds.iter().map(|kind| Value::Text(kind.to_string())));
            }
            if let Some(apps) = query.apps {
                let places = vec!["?"; apps.len()].join(", ");
                text.push_str(&format!(" AND app IN ({places})"));
                values.extend(apps.into_iter().map(Value::Text));
            }
            let order = if query.after.is_some() { "ASC" } else { "DESC" };
            text.push_str(&format!(" ORDER BY id {order} LIMIT ?"));
            values.push(Value::Integer(query.limit.into()));
            let mut events: Vec<EventView> = db
                .prepare_cached(&text)?
                .query_map(params_from_iter(values), view)?
                .collect::<rusqlite::Result<_>>()?;
            events.sort_unstable_by_key(|event| event.id);
            Ok(events)
        })
        .await
    }

    /// The number of the newest event.
    pub(crate) async fn newest_event(&self) -> Result<Option<u64>, StoreError> {
        self.call(|db| {
            let newest: Option<i64> =
                db.query_row("SELECT max(id) FROM events", [], |row| row.get(0))?;
            Ok(newest.map(i64::unsigned_abs))
        })
        .await
    }
}

fn view(row: &Row<'_>) -> rusqlite::Result<EventView> {
    let kind: String = row.get(2)?;
    Ok(EventView {
        id: Some(row.get::<_, i64>(0)?.unsigned_abs()),
        at_ms: row.get::<_, i64>(1)?.unsigned_abs(),
        kind: serde_json::from_value(kind.into()).map_err(unreadable)?,
        app: row.get(3)?,
        service: row.get(4)?,
        text: row.get(5)?,
        who: row.get(6)?,
    })
}

#[cfg(test)]
mod tests {
    use layby_model::ServiceId;

    use super::*;

    fn new(at_ms: u64, kind: EventKind, id: &str) -> NewEvent {
        let id: ServiceId = id.parse().expect("an id");
        NewEvent {
            at_ms,
            kind,
            app: Some(id.app),
            service: Some(id.service),
            text: "it".to_owned(),
            who: None,
        }
    }

    #[tokio::test]
    async fn events_are_read_as_they_are_asked_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(&dir.path().join("layby.db")).expect("a store");
        let events = vec![
            new(10, EventKind::Deployed, "shop/web"),
            new(20, EventKind::Live, "shop/web"),
            new(30, EventKind::Live, "shop/db"),
            new(40, EventKind::Failed, "blog/web"),
        ];
        let written = store.add_events(events).await.expect("to write");
        let all = EventQuery {
            limit: 100,
            ..EventQuery::default()
        };
        assert_eq!(store.events(all.clone()).await.expect("events"), written);
        let app = EventQuery {
            app: Some("shop".into()),
            ..all.clone()
        };
        let live = EventQuery {
            kinds: vec![EventKind::Live],
            ..all.clone()
        };
        let late = EventQuery {
            since_ms: Some(30),
            ..all.clone()
        };
        let newest = EventQuery {
            limit: 1,
            ..all.clone()
        };
        let next = EventQuery {
            after: Some(1),
            limit: 1,
            ..all.clone()
        };
        let before = EventQuery {
            before: Some(3),
            limit: 1,
            ..all
        };
        let table: [(EventQuery, &[u64]); 6] = [
            (app, &[1, 2, 3]),
            (live, &[2, 3]),
            (late, &[3, 4]),
            (newest, &[4]),
            (next, &[2]),
            (before, &[2]),
        ];
        for (query, wanted) in table {
            let read = store.events(query.clone()).await.expect("events");
            let ids: Vec<u64> = read.iter().filter_map(|event| event.id).collect();
            assert_eq!(ids, wanted, "{query:?}");
            if query.after.is_none()
                && query.before.is_none()
                && query.limit > 1
                && query.since_ms.is_none()
            {
                let fit = written.iter().filter(|event| query.fits(event));
                assert_eq!(fit.count(), wanted.len(), "{query:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(&dir.path().join("layby.db")).expect("a store");
        for _ in 0..3 {
            let many = vec![new(1, EventKind::Live, "shop/web"); KEPT as usize / 2];
            store.add_events(many).await.expect("to write");
        }
        let query = EventQuery {
            after: Some(0),
            limit: 1,
            ..EventQuery::default()
        };
        let oldest = store.events(query).await.expect("events").remove(0);
        assert_eq!(oldest.id, Some(u64::from(KEPT / 2) + 1));
    }
}
