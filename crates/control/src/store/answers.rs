//! Answers that are kept for requests that may come again.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};

/// For how long they are kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// So many at most; the oldest go first.
const MOST: u32 = 10_000;

/// Whose request it was, and what they called it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AnswerKey {
    /// The user or token.
    pub(crate) who: String,
    /// The `Idempotency-Key`.
    pub(crate) key: String,
}

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The SHA-256 of the request; `None`: its body was not read to its end.
    pub(crate) request: Option<[u8; 32]>,
    /// The status.
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
                "SELECT request, status, kind, location, body FROM answers
                 WHERE who = ?1 AND key = ?2 AND at_ms >= ?3",
            )?
            .query_row(params![key.who, key.key, oldest], |row| {
                Ok(Answer {
                    request: row.get(0)?,
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
        self.call(move |db| {
            let transaction = db.transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO answers (who, key, at_ms, request, status, kind, location, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    key.who,
                    key.key,
                    Timestamp::now().as_millisecond(),
                    answer.request,
                    answer.status,
                    answer.kind,
                    answer.location,
                    answer.body
                ],
            )?;
            transaction.execute(
                "DELETE FROM answers WHERE at_ms < ?1 OR at_ms < (
                     SELECT at_ms FROM answers ORDER BY at_ms DESC LIMIT 1 OFFSET ?2)",
                params![oldest(), MOST],
            )?;
            transaction.commit()
        })
        .await
    }
}

fn oldest() -> i64 {
    (Timestamp::now() - KEPT).as_millisecond()
}
