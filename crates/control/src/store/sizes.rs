//! How large services are: what `layby scale` said, and the node's own powers beside those that every node has.

use layby_model::ServiceId;
use layby_model::power::Power;
use rusqlite::params;

use super::rows::{next_generation, read};
use super::{Row, Store, StoreError};

impl Store {
    /// Writes how many replicas a service is to have, and whether that is by hand; it is enabled by that. Gives the row as it
    /// then is. `None`: another revision counts by now than in this row.
    pub(crate) async fn scale(
        &self,
        row: &Row,
        scale: Option<u32>,
        replicas: u32,
    ) -> Result<Option<Row>, StoreError> {
        let row = row.clone();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let now = read(&tx, &row.service)?.filter(|now| {
                let live = |row: &Row| row.live.as_ref().map(|live| live.id);
                (now.generation, now.target_failed, live(now))
                    == (row.generation, row.target_failed, live(&row))
            });
            if now.is_none() {
                return Ok(None);
            }
            let (id, generation) = (row.service, next_generation(&tx)?);
            tx.execute(
                "UPDATE services SET scale = ?3, replicas = ?4, generation = ?5, enabled = 1 WHERE app = ?1 AND service = ?2",
                params![
                    id.app.as_str(),
                    id.service.as_str(),
                    scale,
                    replicas,
                    generation
                ],
            )?;
            let row = read(&tx, &id)?;
            tx.commit()?;
            Ok(row)
        })
        .await
    }

    /// Writes how many replicas a service that is scaled by what it has to do needs, if its row is still of this generation: it
    /// is no change of a user's, and makes no new one. `false`: it is not written.
    pub(crate) async fn set_replicas(
        &self,
        id: &ServiceId,
        generation: u64,
        replicas: u32,
    ) -> Result<bool, StoreError> {
        let id = id.clone();
        self.call(move |db| {
            let changed = db.execute(
                "UPDATE services SET replicas = ?4
                 WHERE app = ?1 AND service = ?2 AND generation = ?3 AND scale IS NULL AND enabled AND NOT removing",
                params![
                    id.app.as_str(),
                    id.service.as_str(),
                    i64::try_from(generation).unwrap_or(i64::MAX),
                    replicas
                ],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// The node's own powers, by name.
    pub(crate) async fn powers(&self) -> Result<Vec<Power>, StoreError> {
        self.call(|db| {
            db.prepare_cached("SELECT name, cpu_milli, memory_bytes FROM powers ORDER BY name")?
                .query_map([], |row| {
                    Ok(Power {
                        name: row.get(0)?,
                        cpu_milli: row.get::<_, i64>(1)?.unsigned_abs(),
                        memory_bytes: row.get::<_, i64>(2)?.unsigned_abs(),
                    })
                })?
                .collect()
        })
        .await
    }

    /// Makes a power, or gives the one of this name other figures. `false`: there are `most` of them already.
    pub(crate) async fn set_power(&self, power: Power, most: u32) -> Result<bool, StoreError> {
        let figure = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.call(move |db| {
            let changed = db.execute(
                "INSERT INTO powers (name, cpu_milli, memory_bytes)
                 SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM powers WHERE name = ?1)
                     OR (SELECT count(*) FROM powers) < ?4
                 ON CONFLICT DO UPDATE SET cpu_milli = ?2, memory_bytes = ?3",
                params![
                    power.name,
                    figure(power.cpu_milli),
                    figure(power.memory_bytes),
                    most
                ],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// Forgets a power. `false`: there is none of this name.
    pub(crate) async fn remove_power(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.call(move |db| Ok(db.execute("DELETE FROM powers WHERE name = ?1", [name])? == 1))
            .await
    }
}
