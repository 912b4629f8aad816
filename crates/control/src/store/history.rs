//! The record of revisions: who made each, why, and what became of it.

use std::sync::Arc;

use layby_model::engine::RunSpec;
use layby_model::{RevisionId, ServiceId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::unreadable;
use super::{Store, StoreError};
use crate::api::types::{Failure, RevisionOutcome};

/// One revision as history knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Its number.
    pub(crate) id: RevisionId,
    /// What it runs.
    pub(crate) spec: Arc<RunSpec>,
    /// When it was made (RFC 3339).
    pub(crate) made_at: String,
    /// Who made it; `None`: an older version of Layby did not note it.
    pub(crate) made_by: Option<String>,
    /// Why.
    pub(crate) cause: Option<String>,
    /// What became of its rollout.
    pub(crate) outcome: RevisionOutcome,
    /// When that was decided (RFC 3339).
    pub(crate) ended_at: Option<String>,
    /// Why it failed, if it did.
    pub(crate) failure: Option<Failure>,
    /// It is the live one.
    pub(crate) is_live: bool,
    /// How long its rollout might take while nothing of it moved, in milliseconds.
    pub(crate) deadline_ms: u64,
}

const SELECT: &str = "SELECT r.revision, r.spec, r.created_at, r.made_by, r.cause,
        CASE WHEN r.outcome = 'rolling' AND r.revision <> s.target THEN 'superseded' ELSE r.outcome END,
        r.ended_at, r.failure, r.revision IS s.live, r.deadline_ms
    FROM revisions AS r JOIN services AS s USING (app, service) WHERE app = ?1 AND service = ?2";

impl Store {
    /// The revisions of a service that are kept, the newest first.
    pub(crate) async fn history(&self, id: &ServiceId) -> Result<Vec<Record>, StoreError> {
        let id = id.clone();
        self.call(move |db| {
            db.prepare_cached(&format!("{SELECT} ORDER BY r.revision DESC"))?
                .query_map([id.app.as_str(), id.service.as_str()], record)?
                .collect()
        })
        .await
    }

    /// One revision of a service; `None`: it is not (or no longer) kept.
    pub(crate) async fn record(
        &self,
        id: &ServiceId,
        revision: RevisionId,
    ) -> Result<Option<Record>, StoreError> {
        let id = id.clone();
        self.call(move |db| one(db, &id, revision)).await
    }
}

fn one(db: &Connection, id: &ServiceId, revision: RevisionId) -> rusqlite::Result<Option<Record>> {
    db.prepare_cached(&format!("{SELECT} AND r.revision = ?3"))?
        .query_row(
            params![id.app.as_str(), id.service.as_str(), revision.0],
            record,
        )
        .optional()
}

fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<Record> {
    let spec: String = row.get(1)?;
    let outcome: String = row.get(5)?;
    let failure: Option<String> = row.get(7)?;
    Ok(Record {
        id: RevisionId(row.get(0)?),
        spec: Arc::new(serde_json::from_str(&spec).map_err(unreadable)?),
        made_at: row.get(2)?,
        made_by: row.get(3)?,
        cause: row.get(4)?,
        outcome: serde_json::from_value(outcome.into()).map_err(unreadable)?,
        ended_at: row.get(6)?,
        failure: failure
            .map(|text| serde_json::from_str(&text).map_err(unreadable))
            .transpose()?,
        is_live: row.get(8)?,
        deadline_ms: row.get::<_, i64>(9)?.unsigned_abs(),
    })
}

/// Notes how the rollout of a revision ended: `outcome` is `live`, `failed` or `aborted`.
pub(super) fn end(
    tx: &Transaction<'_>,
    id: &ServiceId,
    revision: RevisionId,
    outcome: &str,
    failure: Option<&str>,
) -> rusqlite::Result<()> {
    let now = crate::clock::wall().to_string();
    tx.execute(
        "UPDATE revisions SET outcome = ?4, ended_at = ?5, failure = ?6
         WHERE app = ?1 AND service = ?2 AND revision = ?3",
        params![
            id.app.as_str(),
            id.service.as_str(),
            revision.0,
            outcome,
            now,
            failure
        ],
    )
    .map(|_| ())
}

/// Notes that a rollout ends since a newer revision is made.
pub(super) fn overtake(tx: &Transaction<'_>, id: &ServiceId, now: &str) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE revisions SET ended_at = ?3
         WHERE app = ?1 AND service = ?2 AND outcome = 'rolling' AND ended_at IS NULL",
        params![id.app.as_str(), id.service.as_str(), now],
    )
    .map(|_| ())
}
