//! The audit log in the store.

use jiff::Timestamp;
use rusqlite::params;

use super::rows::unreadable;
use super::{Store, StoreError};
use crate::audit::{Entry, FAILED_LOGIN};

/// Which records are asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditQuery {
    /// Not before.
    pub(crate) since: Option<Timestamp>,
    /// Only by this user or token.
    pub(crate) who: Option<String>,
    /// Only those that are older than the record with this number.
    pub(crate) before: Option<i64>,
    /// So many at most.
    pub(crate) limit: usize,
}

impl Store {
    /// Writes records, and how the streams of earlier ones ended, in one write. Gives the numbers of the new ones.
    pub(crate) async fn add_audit(
        &self,
        entries: Vec<Entry>,
        ends: Vec<(i64, i32)>,
    ) -> Result<Vec<i64>, StoreError> {
        self.call(move |db| {
            let transaction = db.transaction()?;
            let mut ids = Vec::with_capacity(entries.len());
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO audit (at_ms, who, from_where, via, verb, target, status, took_ms, code)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                )?;
                for entry in &entries {
                    ids.push(insert.insert(params![
                        entry.at.as_millisecond(),
                        entry.who,
                        entry.from,
                        entry.via,
                        entry.verb,
                        entry.target,
                        entry.status,
                        i64::try_from(entry.took_ms).unwrap_or(i64::MAX),
                        entry.code,
                    ])?);
                }
                let mut end = transaction.prepare_cached("UPDATE audit SET code = ?2 WHERE id = ?1")?;
                for (id, code) in &ends {
                    end.execute(params![id, code])?;
                }
            }
            transaction.commit()?;
            Ok(ids)
        })
        .await
    }

    /// Records with their numbers, the newest first.
    pub(crate) async fn audit(&self, query: AuditQuery) -> Result<Vec<(i64, Entry)>, StoreError> {
        self.call(move |db| {
            db.prepare_cached(
                "SELECT id, at_ms, who, from_where, via, verb, target, status, took_ms, code FROM audit
                 WHERE at_ms >= ?1 AND (?2 IS NULL OR who = ?2) AND id < ?3 ORDER BY id DESC LIMIT ?4",
            )?
            .query_map(
                params![
                    query.since.map_or(i64::MIN, Timestamp::as_millisecond),
                    query.who,
                    query.before.unwrap_or(i64::MAX),
                    i64::try_from(query.limit).unwrap_or(i64::MAX),
                ],
                |row| {
                    let at = Timestamp::from_millisecond(row.get(1)?).map_err(unreadable)?;
                    let took: i64 = row.get(8)?;
                    let entry = Entry {
                        at,
                        who: row.get(2)?,
                        from: row.get(3)?,
                        via: row.get(4)?,
                        verb: row.get(5)?,
                        target: row.get(6)?,
                        status: row.get(7)?,
                        took_ms: u64::try_from(took).unwrap_or_default(),
                        code: row.get(9)?,
                        ticket: None,
                    };
                    Ok((row.get(0)?, entry))
                },
            )?
            .collect()
        })
        .await
    }

    /// Lets go of records that are older than `oldest`, and of the oldest beyond so many of each kind.
    pub(crate) async fn prune_audit(
        &self,
        done: u32,
        failed_logins: u32,
        oldest: Timestamp,
    ) -> Result<(), StoreError> {
        self.call(move |db| {
            let transaction = db.transaction()?;
            transaction.execute(
                "DELETE FROM audit WHERE at_ms < ?1",
                [oldest.as_millisecond()],
            )?;
            for (is_failed_login, keep) in [(false, done), (true, failed_logins)] {
                transaction.execute(
                    "DELETE FROM audit WHERE (verb = ?1) = ?2 AND id <= (
                         SELECT id FROM audit WHERE (verb = ?1) = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
                    params![FAILED_LOGIN, is_failed_login, keep],
                )?;
            }
            transaction.commit()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use std::time::Duration;
    use tempfile::TempDir;

    use super::*;
    use crate::api::Who;

    fn entry(verb: &str, target: &str) -> Entry {
        let who = Who::root();
        Entry::new(&who, verb, target, StatusCode::OK, Duration::from_millis(5))
    }

    async fn targets(store: &Store, query: AuditQuery) -> Vec<String> {
        let query = AuditQuery {
            limit: 100,
            ..query
        };
        let found = store.audit(query).await.expect("an answer");
        found.into_iter().map(|(_, entry)| entry.target).collect()
    }

    #[tokio::test]
    async fn records_are_read_newest_first_and_the_oldest_go() {
        let dir = TempDir::new().expect("a folder");
        let store = Store::open(&dir.path().join("layby.db")).expect("a store");
        let mut entries: Vec<Entry> = (0..5).map(|n| entry("wake", &n.to_string())).collect();
        entries.extend((5..8).map(|n| entry(FAILED_LOGIN, &n.to_string())));
        entries[0].at = Timestamp::UNIX_EPOCH;
        let ids = store
            .add_audit(entries, Vec::new())
            .await
            .expect("to write");
        assert_eq!(ids, Vec::from_iter(1..=8));
        let ends = vec![(8, 3)];
        store.add_audit(Vec::new(), ends).await.expect("to write");
        let newest = AuditQuery {
            limit: 1,
            ..AuditQuery::default()
        };
        let newest = store.audit(newest).await.expect("an answer");
        assert_eq!(newest[0].1.code, Some(3));
        let all = targets(&store, AuditQuery::default()).await;
        assert_eq!(all, ["7", "6", "5", "4", "3", "2", "1", "0"]);
        let before = AuditQuery {
            before: Some(3),
            ..AuditQuery::default()
        };
        assert_eq!(targets(&store, before).await, ["1", "0"]);
        let by_other = AuditQuery {
            who: Some("ann".to_owned()),
            ..AuditQuery::default()
        };
        assert_eq!(targets(&store, by_other).await, [] as [&str; 0]);
        let oldest = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1);
        store.prune_audit(3, 1, oldest).await.expect("to write");
        let left = targets(&store, AuditQuery::default()).await;
        assert_eq!(left, ["7", "4", "3", "2"]);
    }
}
