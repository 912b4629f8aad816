//! The statements by which a canary ends.

use layby_model::ServiceId;
use rusqlite::params;

use super::rows::{next_generation, read, unreadable};
use super::{Row, Store, StoreError, history};
use crate::api::types::Failure;

impl Store {
    /// Takes the share away from a target, which then goes live as any other; gives the row as it then is.
    pub(crate) async fn promote(&self, id: &ServiceId) -> Result<Option<Row>, StoreError> {
        let id = id.clone();
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let generation = next_generation(&tx)?;
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

    /// Ends a target that rolls: it will not go live. As many replicas are wanted again as live has.
    pub(crate) async fn abort(
        &self,
        id: &ServiceId,
        failure: &Failure,
    ) -> Result<Option<Row>, StoreError> {
        let (id, failure) = (id.clone(), failure.clone());
        self.call(move |db| {
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let Some(row) = read(&tx, &id)? else {
                return Ok(None);
            };
            let live = row.live.as_ref().map(|live| live.spec.service.replicas.max(1));
            let replicas = row.scale.or(live).unwrap_or(row.replicas);
            let failure = serde_json::to_string(&failure).map_err(unreadable)?;
            let generation = next_generation(&tx)?;
            tx.execute(
                "UPDATE services SET target_failed = 1, failed_attempts = 0, share = NULL, last_failure = ?3,
                     replicas = ?4, generation = ?5
                 WHERE app = ?1 AND service = ?2",
                params![id.app.as_str(), id.service.as_str(), failure, replicas, generation],
            )?;
            history::end(&tx, &id, row.target.id, "aborted", Some(&failure))?;
            let row = read(&tx, &id)?;
            tx.commit()?;
            Ok(row)
        })
        .await
    }
}
