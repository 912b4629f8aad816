//! Operations in the store: what becomes of them is known after a restart, too.

use jiff::Timestamp;
use layby_model::RevisionId;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::unreadable;
use super::{Store, StoreError};
use crate::api::types::RevisionOutcome;

/// So many are kept.
const KEPT: u32 = 500;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperationRow {
    /// In which life of the node it began.
    pub(crate) life: u32,
    /// Its number in that life.
    pub(crate) number: u32,
    /// Whose it is, as `Who` has it.
    pub(crate) owner: String,
    /// What they are called.
    pub(crate) who: String,
    /// What was asked for.
    pub(crate) verb: String,
    /// On what.
    pub(crate) target: String,
    /// When it was asked for.
    pub(crate) begun: Timestamp,
    /// When it ended; `None`: it goes on.
    pub(crate) ended: Option<Timestamp>,
    /// The exit code; one that has ended without was interrupted.
    pub(crate) code: Option<i32>,
    /// What it told last (a JSON array).
    pub(crate) events: String,
}

/// A revision that was made for an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MadeRevision {
    /// Of which service, as `app/service`.
    pub(crate) service: String,
    /// Its number.
    pub(crate) id: RevisionId,
    /// What became of it.
    pub(crate) outcome: RevisionOutcome,
}

impl Store {
    /// Notes that an operation goes on, and lets go of the oldest ones.
    pub(crate) async fn begin_operation(&self, row: OperationRow) -> Result<(), StoreError> {
        self.call(move |db| {
            let tx = db.transaction()?;
            tx.execute(
                "INSERT INTO operations (life, number, owner, who, verb, target, begun_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    row.life,
                    row.number,
                    row.owner,
                    row.who,
                    row.verb,
                    row.target,
                    row.begun.as_millisecond()
                ],
            )?;
            tx.execute(
                "DELETE FROM operations WHERE (life, number) IN
                     (SELECT life, number FROM operations ORDER BY life DESC, number DESC LIMIT -1 OFFSET ?1)",
                [KEPT],
            )?;
            tx.commit()
        })
        .await
    }

    /// Notes how an operation ended.
    pub(crate) async fn end_operation(&self, row: OperationRow) -> Result<(), StoreError> {
        self.call(move |db| {
            db.execute(
                "UPDATE operations SET ended_ms = ?3, code = ?4, events = ?5 WHERE life = ?1 AND number = ?2",
                params![
                    row.life,
                    row.number,
                    row.ended.map(Timestamp::as_millisecond),
                    row.code,
                    row.events
                ],
            )
            .map(drop)
        })
        .await
    }

    /// Notes that those which went on in an earlier life of the node were interrupted, by now.
    pub(crate) async fn interrupt_operations(&self) -> Result<(), StoreError> {
        let now_ms = crate::clock::wall().as_millisecond();
        self.call(move |db| {
            db.execute(
                "UPDATE operations SET ended_ms = ?1 WHERE ended_ms IS NULL",
                [now_ms],
            )
            .map(drop)
        })
        .await
    }

    /// An operation, with the revisions that were made for it if it was interrupted.
    pub(crate) async fn operation(
        &self,
        life: u32,
        number: u32,
    ) -> Result<Option<(OperationRow, Vec<MadeRevision>)>, StoreError> {
        self.call(move |db| {
            let found = db
                .prepare_cached(
                    "SELECT life, number, owner, who, verb, target, begun_ms, ended_ms, code, events FROM operations
                     WHERE life = ?1 AND number = ?2",
                )?
                .query_row([life, number], row)
                .optional()?;
            let Some(found) = found else { return Ok(None) };
            let made = match found.code {
                Some(_) => Vec::new(),
                None => made(db, &found)?,
            };
            Ok(Some((found, made)))
        })
        .await
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<OperationRow> {
    let time = |ms: i64| Timestamp::from_millisecond(ms).map_err(unreadable);
    Ok(OperationRow {
        life: row.get(0)?,
        number: row.get(1)?,
        owner: row.get(2)?,
        who: row.get(3)?,
        verb: row.get(4)?,
        target: row.get(5)?,
        begun: time(row.get(6)?)?,
        ended: row.get::<_, Option<i64>>(7)?.map(time).transpose()?,
        code: row.get(8)?,
        events: row.get(9)?,
    })
}

/// The revisions of the app or service that an operation was about, which its owner made while it went on.
fn made(db: &Connection, of: &OperationRow) -> rusqlite::Result<Vec<MadeRevision>> {
    let mut found = db.prepare_cached(
        "SELECT r.app || '/' || r.service, r.revision,
             CASE WHEN r.outcome = 'rolling' AND r.revision <> s.target THEN 'superseded' ELSE r.outcome END, r.created_at
         FROM revisions AS r JOIN services AS s USING (app, service)
         WHERE r.made_by = ?1 AND ?2 IN (r.app, r.app || '/' || r.service) ORDER BY 1, 2",
    )?;
    let mut rows = found.query([&of.who, &of.target])?;
    let mut made = Vec::new();
    while let Some(row) = rows.next()? {
        let (outcome, at): (String, String) = (row.get(2)?, row.get(3)?);
        let at: Timestamp = at.parse().map_err(unreadable)?;
        if at < of.begun || of.ended.is_some_and(|ended| at > ended) {
            continue;
        }
        made.push(MadeRevision {
            service: row.get(0)?,
            id: RevisionId(row.get(1)?),
            outcome: serde_json::from_value(outcome.into()).map_err(unreadable)?,
        });
    }
    Ok(made)
}
