//! A copy of another node's store put into this one, in one transaction: its apps, secrets, tokens, powers and its record.
//!
//! What a table is not said to need otherwise below is replaced as a whole, so that a new table needs nothing here.

use std::path::{Path, PathBuf};

use layby_model::ReplicaId;
use rusqlite::{Connection, Transaction, TransactionBehavior, ffi};

use super::rows::{self, next_generation, unreadable};
use super::{Row, Store, StoreError, Token, content, jobs, tokens};

/// What is of the node and its life, or has a rule of its own.
const OTHERWISE: &[&str] = &[
    "meta",
    "events",
    "audit",
    "answers",
    "operations",
    "tokens",
    "powers",
    "master_key",
];

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TakenOver {
    /// Tokens of the node itself that stayed where the copy had others of the same names.
    pub(crate) kept_tokens: Vec<String>,
    /// The replicas that the copy's runs of jobs had: no new one may have such an id.
    pub(crate) replicas: Vec<ReplicaId>,
    /// The services that there are now. Read before the last word: whoever tells of them needs no look that could fail.
    pub(crate) services: Vec<Row>,
    /// The tokens that there are now.
    pub(crate) tokens: Vec<Token>,
}

impl Store {
    /// Puts all of a copy, which has this format and whose secrets are encrypted with this node's key, in the place of
    /// what is here. `None`: something is deployed here, and nothing was changed. With `replace` secrets that are here
    /// are no hindrance.
    pub(crate) async fn take_over(
        &self,
        copy: PathBuf,
        replace: bool,
    ) -> Result<Option<TakenOver>, StoreError> {
        self.call(move |db| with_other(db, &copy, |db| take_over(db, replace)))
            .await
    }

    /// Does all that [`Store::take_over`] does but for the last word, as if nothing were here: what would fail then fails
    /// now, and nothing is changed.
    pub(crate) async fn rehearse(&self, copy: PathBuf) -> Result<(), StoreError> {
        self.call(move |db| with_other(db, &copy, rehearse)).await
    }
}

/// Works with a copy beside the store, as `other`.
fn with_other<T>(
    db: &mut Connection,
    copy: &Path,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let detach = |db: &Connection| db.execute_batch("DETACH DATABASE other");
    // One that stayed from the last time; there is none, usually.
    let _ = detach(db);
    // Not possible within a transaction.
    db.execute("ATTACH DATABASE ?1 AS other", [copy.to_string_lossy()])?;
    let done = work(db);
    // What is done is done, whatever becomes of the copy.
    if let Err(error) = detach(db) {
        tracing::warn!(%error, "a copy of a store stays open");
    }
    done
}

fn take_over(db: &mut Connection, replace: bool) -> rusqlite::Result<Option<TakenOver>> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let here = content::read(&tx)?;
    let is_free = here.services.is_empty() && here.jobs.is_empty();
    if !is_free || (here.secrets > 0 && !replace) {
        return Ok(None);
    }
    let taken = fill(&tx)?;
    tx.commit()?;
    Ok(Some(taken))
}

fn rehearse(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    fill(&tx)?;
    if tx.prepare("PRAGMA main.foreign_key_check")?.exists([])? {
        // As the last word would say.
        let code = ffi::Error::new(ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
        return Err(rusqlite::Error::SqliteFailure(code, None));
    }
    // Onto the disk, which may be full.
    tx.cache_flush()?;
    tx.rollback()
}

/// Puts the rows of the copy in the place of those that are here.
fn fill(tx: &Transaction<'_>) -> rusqlite::Result<TakenOver> {
    // Rows come before those that they refer to.
    tx.pragma_update(None, "defer_foreign_keys", true)?;
    let tables: Vec<String> = tx
        .prepare("SELECT name FROM other.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let is_whole = |name: &&String| !OTHERWISE.contains(&name.as_str());
    // All go first: with a row go those that refer to it.
    for table in tables.iter().filter(is_whole) {
        tx.execute(&format!("DELETE FROM main.{table}"), [])?;
    }
    for table in tables.iter().filter(is_whole) {
        let columns = columns(tx, table)?;
        tx.execute(
            &format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM other.{table}"),
            [],
        )?;
    }
    tx.execute_batch(
        "INSERT OR REPLACE INTO main.master_key SELECT * FROM other.master_key;
         INSERT OR REPLACE INTO main.powers SELECT * FROM other.powers;",
    )?;
    let kept_tokens = tx
        .prepare(
            "SELECT own.name FROM main.tokens AS own JOIN other.tokens AS theirs USING (name)
             WHERE own.hash <> theirs.hash ORDER BY 1",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    tx.execute_batch(
        "INSERT INTO main.tokens SELECT * FROM other.tokens WHERE true ON CONFLICT DO NOTHING",
    )?;
    record(tx)?;
    meta(tx)?;
    // What is read again by whoever drives the jobs.
    jobs::shelves(tx)?;
    Ok(TakenOver {
        kept_tokens,
        replicas: replicas(tx)?,
        services: rows::services(tx)?,
        tokens: tokens::tokens(tx)?,
    })
}

/// What happened there comes before what happened here. What is known here already, of a node that gets back what was its
/// own, is not told twice.
fn record(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    // Whoever follows events counts upwards: what is told from now on has higher numbers still. By way of negative ones,
    // since no number may be there twice in between.
    tx.execute_batch(
        "UPDATE main.events SET id = -id - (SELECT coalesce(max(id), 0) FROM other.events);
         UPDATE main.events SET id = -id;
         INSERT INTO main.events (id, at_ms, kind, app, service, text, who)
             SELECT id, at_ms, kind, app, service, text, who FROM other.events
             WHERE (at_ms, kind, text) NOT IN (SELECT at_ms, kind, text FROM main.events);",
    )?;
    // Numbers of records here are known to who waits for their ends: they stay.
    let columns = columns(tx, "audit")?.replacen("id, ", "", 1);
    tx.execute(
        &format!(
            "INSERT INTO main.audit (id, {columns})
             SELECT id - (SELECT max(id) FROM other.audit) + (SELECT coalesce(min(id), 1) FROM main.audit) - 1, {columns}
             FROM other.audit
             WHERE (at_ms, who, verb, target) NOT IN (SELECT at_ms, who, verb, target FROM main.audit)"
        ),
        [],
    )
    .map(drop)
}

/// Numbers go on from the higher ones; all that came is newer than anything that the engine was ever told here.
fn meta(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(
        "UPDATE main.meta SET value = max(value, (SELECT value FROM other.meta AS theirs WHERE theirs.key = meta.key))
             WHERE key IN ('life', 'generation');
         UPDATE main.meta SET value = (SELECT value FROM other.meta WHERE key = 'address') WHERE key = 'address';",
    )?;
    let generation = next_generation(tx)?;
    tx.execute("UPDATE main.services SET generation = ?1", [generation])
        .map(drop)
}

fn replicas(tx: &Transaction<'_>) -> rusqlite::Result<Vec<ReplicaId>> {
    tx.prepare("SELECT replica FROM main.job_attempts")?
        .query_map([], |row| {
            let text: String = row.get(0)?;
            text.parse().map_err(unreadable)
        })?
        .collect()
}

/// The columns of a table, by name.
fn columns(tx: &Transaction<'_>, table: &str) -> rusqlite::Result<String> {
    let names: Vec<String> = tx
        .prepare(&format!("PRAGMA other.table_info({table})"))?
        .query_map([], |row| row.get(1))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;
    use tempfile::TempDir;

    use super::*;
    use crate::api::Who;
    use crate::api::types::EventKind;
    use crate::audit::Entry;
    use crate::events::NewEvent;
    use crate::store::{AuditQuery, EventQuery, snapshot};

    async fn lived(dir: &TempDir, name: &str, lives: u32) -> Store {
        let store = Store::open(&dir.path().join(name)).expect("a store");
        for _ in 0..lives {
            store.begin_life().await.expect("a life");
        }
        let told = NewEvent {
            at_ms: u64::from(lives),
            kind: EventKind::NodeStarted,
            app: None,
            service: None,
            text: name.to_owned(),
            who: None,
        };
        store.add_events(vec![told]).await.expect("to write");
        let (who, status) = (Who::root(), StatusCode::OK);
        let entry = Entry::new(&who, "up", name, status, Duration::ZERO);
        store
            .add_audit(vec![entry], Vec::new())
            .await
            .expect("to write");
        store
    }

    #[tokio::test]
    async fn a_copy_that_the_store_would_not_take_is_known_before_anything_is_changed() {
        let dir = TempDir::new().expect("a folder");
        let (lost, new) = (lived(&dir, "lost", 1).await, lived(&dir, "new", 1).await);
        drop(lost);
        let copy = dir.path().join("copy");
        snapshot::take(&dir.path().join("lost"), &copy).expect("a copy");
        let db = Connection::open(&copy).expect("a database");
        db.pragma_update(None, "foreign_keys", false)
            .expect("a setting");
        for bad in [
            "INSERT INTO tokens (name, hash, pull, push, repository, created_at) VALUES ('x', x'00', 1, 1, '*', 'once')",
            "DELETE FROM tokens; INSERT INTO revisions (app, service, revision, spec, created_at, deadline_ms, outcome)
                 VALUES ('shop', 'web', 1, '{}', '2026-11-29T02:42:26.9Z', 1, 'live')",
        ] {
            db.execute_batch(bad).expect("to write");
            assert!(new.rehearse(copy.clone()).await.is_err(), "{bad}");
        }
        assert_eq!(new.tokens().await.expect("tokens"), []);
        db.execute_batch("DELETE FROM revisions").expect("to write");
        drop(db);
        new.rehearse(copy).await.expect("it is right");
    }

    #[tokio::test]
    async fn a_record_comes_before_what_is_here_and_once_and_lives_are_counted_on() {
        let dir = TempDir::new().expect("a folder");
        let lost = lived(&dir, "lost", 7).await;
        let new = lived(&dir, "new", 2).await;
        drop(lost);
        let copy = dir.path().join("copy");
        snapshot::take(&dir.path().join("lost"), &copy).expect("a copy");
        snapshot::migrate(&copy).expect("of the newest format");
        new.rehearse(copy.clone()).await.expect("it would be taken");
        assert_eq!(
            new.newest_event().await.expect("events"),
            Some(1),
            "nothing is written"
        );
        for _ in 0..2 {
            let taken = new.take_over(copy.clone(), false).await.expect("to write");
            assert_eq!(taken, Some(TakenOver::default()));
            let query = EventQuery {
                limit: 10,
                ..EventQuery::default()
            };
            let events = new.events(query).await.expect("events");
            let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
            assert_eq!(texts, ["lost", "new"]);
            let query = AuditQuery {
                limit: 10,
                ..AuditQuery::default()
            };
            let audit = new.audit(query).await.expect("records");
            let targets: Vec<&str> = audit.iter().map(|(_, one)| one.target.as_str()).collect();
            assert_eq!(targets, ["new", "lost"], "the newest first");
        }
        assert_eq!(new.begin_life().await.expect("a life"), 8);
    }
}
