//! What services have used, by the hour.

use layby_model::ServiceId;
use layby_model::advice::Used;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::unreadable;
use super::{Store, StoreError};

impl Store {
    /// Adds what services have used in an hour to what is known of it, and forgets all hours before `oldest`. A service that
    /// is gone meanwhile is left out.
    pub(crate) async fn add_usage(
        &self,
        hour: i64,
        used: Vec<(ServiceId, Used)>,
        oldest: i64,
    ) -> Result<(), StoreError> {
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            tx.execute("DELETE FROM usage WHERE hour < ?1", [oldest])?;
            for (id, new) in &used {
                let mut all = read(&tx, id, hour, hour)?;
                all.merge(new);
                write(&tx, id, hour, &all)?;
            }
            tx.commit()
        })
        .await
    }

    /// What a service has used since an hour.
    pub(crate) async fn usage(&self, id: &ServiceId, since: i64) -> Result<Used, StoreError> {
        let id = id.clone();
        self.call(move |db| read(db, &id, since, i64::MAX)).await
    }
}

/// All of these hours.
fn read(db: &Connection, id: &ServiceId, since: i64, until: i64) -> rusqlite::Result<Used> {
    let mut all = Used::default();
    let mut select = db.prepare_cached(
        "SELECT samples, cpu, memory_peak FROM usage WHERE app = ?1 AND service = ?2 AND hour BETWEEN ?3 AND ?4",
    )?;
    let mut rows = select.query(params![id.app.as_str(), id.service.as_str(), since, until])?;
    while let Some(row) = rows.next()? {
        let cpu: String = row.get(1)?;
        all.merge(&Used {
            samples: row.get::<_, i64>(0)?.unsigned_abs(),
            cpu: serde_json::from_str(&cpu).map_err(unreadable)?,
            memory_peak_bytes: row.get::<_, i64>(2)?.unsigned_abs(),
        });
    }
    Ok(all)
}

fn write(db: &Connection, id: &ServiceId, hour: i64, used: &Used) -> rusqlite::Result<()> {
    let (app, service) = (id.app.as_str(), id.service.as_str());
    let there = db
        .query_row(
            "SELECT 1 FROM services WHERE app = ?1 AND service = ?2",
            [app, service],
            |_| Ok(()),
        )
        .optional()?;
    if there.is_none() {
        return Ok(());
    }
    let figure = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    db.execute(
        "INSERT INTO usage (app, service, hour, samples, cpu, memory_peak) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET samples = ?4, cpu = ?5, memory_peak = ?6",
        params![
            app,
            service,
            hour,
            figure(used.samples),
            serde_json::to_string(&used.cpu).map_err(unreadable)?,
            figure(used.memory_peak_bytes)
        ],
    )
    .map(|_| ())
}
