//! The statements by which a canary ends.

use rusqlite::{Transaction, params};

use super::rows::{next_generation, read, unreadable};
use super::{Row, Store, StoreError, history};
use crate::api::types::Failure;

impl Store {
    /// Takes the share away from a target, which then goes live as any other; gives the row as it then is. `None`: the
    /// target is no longer on its way as it was in this row.
    pub(crate) async fn promote(&self, row: &Row) -> Result<Option<Row>, StoreError> {
        let row = row.clone();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            if !is_on_its_way(&tx, &row)? {
                return Ok(None);
            }
            let (id, generation) = (row.service, next_generation(&tx)?);
            tx.execute(
                "UPDATE services SET share = NULL, generation = ?3 WHERE app = ?1 AND service = ?2",
                params![id.app.as_str(), id.service.as_str(), generation],
            )?;
            let row = read(&tx, &id)?;
            tx.commit()?;
            Ok(row)
        })
        .await
    }

    /// Ends a target that rolls: it will not go live. As many replicas are wanted again as live has. `None`: the target
    /// is no longer on its way as it was in this row.
    pub(crate) async fn abort(
        &self,
        row: &Row,
        failure: &Failure,
    ) -> Result<Option<Row>, StoreError> {
        let (row, failure) = (row.clone(), failure.clone());
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            if !is_on_its_way(&tx, &row)? {
                return Ok(None);
            }
            let (id, target) = (row.service, row.target.id);
            let live = row.live.as_ref().map(|live| {
                let live = &live.spec.service;
                live.replicas_beside(Some(row.replicas)).max(1)
            });
            let replicas = row.scale.or(live).unwrap_or(row.replicas);
            let failure = serde_json::to_string(&failure).map_err(unreadable)?;
            let generation = next_generation(&tx)?;
            tx.execute(
                "UPDATE services SET target_failed = 1, failed_attempts = 0, share = NULL, last_failure = ?3,
                     replicas = ?4, generation = ?5
                 WHERE app = ?1 AND service = ?2",
                params![id.app.as_str(), id.service.as_str(), failure, replicas, generation],
            )?;
            history::end(&tx, &id, target, "aborted", Some(&failure))?;
            let row = read(&tx, &id)?;
            tx.commit()?;
            Ok(row)
        })
        .await
    }
}

/// Whether the target of a row is on its way still. That it went live, or failed, makes no newer generation.
fn is_on_its_way(tx: &Transaction<'_>, row: &Row) -> rusqlite::Result<bool> {
    let now = read(tx, &row.service)?;
    Ok(now.is_some_and(|now| {
        let live = now.live.as_ref().map(|live| live.id);
        now.generation == row.generation && live != Some(now.target.id) && !now.target_failed
    }))
}
