//! Answers that are kept for requests that may come again.

use jiff::SignedDuration;
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};
use crate::clock::wall;

/// For how long they are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// So many at most, and so many bytes; the oldest go first.
const MOST: Room = Room {
    count: 10_000,
    bytes: 64 << 20,
};
/// The same of one owner.
const MOST_OF_ONE: Room = Room {
    count: 2_000,
    bytes: 16 << 20,
};

/// How much is kept.
struct Room {
    count: u32,
    bytes: u32,
}

/// What a row takes beside its body, about.
const ROW_BYTES: usize = 512;

/// Whose request it was, and what they called it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AnswerKey {
    /// The user's or token's, as `Who` has it.
    pub(crate) owner: String,
    /// The `Idempotency-Key`.
    pub(crate) key: String,
}

/// Which request it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The SHA-256 of its URI, and of so much of its body.
    pub(crate) hash: [u8; 32],
    /// So many bytes of its body were read.
    pub(crate) body_bytes: u64,
    /// That was all of it.
    pub(crate) is_whole: bool,
}

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of which request.
    pub(crate) request: Asked,
    /// The status; 0: it is being carried out, or the node ended meanwhile.
    pub(crate) status: u16,
    /// `Content-Type`.
    pub(crate) kind: Option<String>,
    /// `Location`.
    pub(crate) location: Option<String>,
    /// The body; `None`: it is long, or held a secret.
    pub(crate) body: Option<Vec<u8>>,
}

impl Store {
    /// The answer that is kept for a key.
    pub(crate) async fn answer(&self, key: &AnswerKey) -> Result<Option<Answer>, StoreError> {
        let (key, oldest) = (key.clone(), oldest());
        self.call(move |db| {
            db.prepare_cached(
                "SELECT request, status, kind, location, body, body_bytes, is_whole FROM answers
                 WHERE owner = ?1 AND key = ?2 AND at_ms >= ?3",
            )?
            .query_row(params![key.owner, key.key, oldest], |row| {
                Ok(Answer {
                    request: Asked {
                        hash: row.get(0)?,
                        body_bytes: row.get::<_, i64>(5)?.unsigned_abs(),
                        is_whole: row.get(6)?,
                    },
                    status: row.get(1)?,
                    kind: row.get(2)?,
                    location: row.get(3)?,
                    body: row.get(4)?,
                })
            })
            .optional()
        })
        .await
    }

    /// Keeps an answer, and lets go of the oldest.
    pub(crate) async fn keep_answer(
        &self,
        key: AnswerKey,
        answer: Answer,
    ) -> Result<(), StoreError> {
        let read = i64::try_from(answer.request.body_bytes).unwrap_or(i64::MAX);
        let bytes = ROW_BYTES + answer.body.as_ref().map_or(0, Vec::len);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.call(move |db| {
            let transaction = db.transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO answers
                     (owner, key, at_ms, request, status, kind, location, body, body_bytes, is_whole, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                params![
                    key.owner,
                    key.key,
                    wall().as_millisecond(),
                    answer.request.hash,
                    answer.status,
                    answer.kind,
                    answer.location,
                    answer.body,
                    read,
                    answer.request.is_whole,
                    bytes
                ],
            )?;
            transaction.execute("DELETE FROM answers WHERE at_ms < ?1", [oldest()])?;
            transaction.execute(
                "DELETE FROM answers WHERE owner = ?1 AND key IN (
                     SELECT key FROM (
                         SELECT key, row_number() OVER w AS n, sum(bytes) OVER w AS total
                         FROM answers WHERE owner = ?1 WINDOW w AS (ORDER BY at_ms DESC, key))
                     WHERE n > ?2 OR total > ?3)",
                params![key.owner, MOST_OF_ONE.count, MOST_OF_ONE.bytes],
            )?;
            transaction.execute(
                "DELETE FROM answers WHERE (owner, key) IN (
                     SELECT owner, key FROM (
                         SELECT owner, key, row_number() OVER w AS n, sum(bytes) OVER w AS total
                         FROM answers WINDOW w AS (ORDER BY at_ms DESC, owner, key))
                     WHERE n > ?1 OR total > ?2)",
                params![MOST.count, MOST.bytes],
            )?;
            transaction.commit()
        })
        .await
    }

    /// Forgets a key: its request came to nothing.
    pub(crate) async fn forget_answer(&self, key: AnswerKey) -> Result<(), StoreError> {
        self.call(move |db| {
            let sql = "DELETE FROM answers WHERE owner = ?1 AND key = ?2";
            db.execute(sql, params![key.owner, key.key]).map(drop)
        })
        .await
    }
}

fn oldest() -> i64 {
    (wall() - KEPT).as_millisecond()
}
