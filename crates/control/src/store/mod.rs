//! The store: what should be true, in SQLite, on a thread of its own.
//!
//! Callers queue closures and await their answers, so that no async task ever blocks on the disk. Only
//! the control plane writes here; what is observed is never stored.

mod answers;
mod audit;
mod canary;
mod content;
mod events;
pub(crate) mod format;
mod history;
mod jobs;
mod networks;
#[cfg(test)]
mod old;
mod operations;
mod rows;
mod secrets;
mod sizes;
pub(crate) mod snapshot;
mod takeover;
mod tokens;
mod usage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use layby_model::fail::{self, Point};
use rusqlite::Connection;
use rusqlite_migration::Migrations;
use tokio::sync::{mpsc, oneshot};

pub(crate) use answers::{Answer, AnswerKey, Asked};
pub(crate) use audit::AuditQuery;
pub(crate) use content::{Content, Need};
pub(crate) use events::EventQuery;
use format::MIGRATIONS;
pub(crate) use history::Record;
#[cfg(test)]
pub(crate) use jobs::AttemptRow;
pub(crate) use jobs::{Cause, EndRow, JobRow, NewRun, RunRow, Shelf};
pub(crate) use networks::Network;
pub(crate) use operations::OperationRow;
pub(crate) use rows::{Decision, NewRevision, Revision, Row, enabled_after};
pub(crate) use secrets::{SealedValue, ValueRow};
pub(crate) use takeover::TakenOver;
pub(crate) use tokens::Token;

/// So many closures may wait for the disk; a caller beyond that waits for a place.
const QUEUE: usize = 256;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was written by a newer Layby.
    #[error(
        "{path} was written by a newer Layby (its format is {found}, this Layby knows up to {known}): nothing was \
         touched; start the newer Layby, or name another data directory"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The format found.
        found: usize,
        /// The newest format known.
        known: usize,
    },
    /// The disk is full.
    #[error("the disk that holds {path} is full")]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The file could not even be looked at.
    #[error("{path} could not be read")]
    Unreadable {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite said no.
    #[error("{path} could not be read or written")]
    Sql {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The store's thread could not be started.
    #[error("the thread of the store could not be started")]
    Thread(#[source] std::io::Error),
    /// The node is ending.
    #[error("the store is closed: the node is ending")]
    Closed,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the store; clones lead to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
    path: PathBuf,
}

impl Store {
    /// Opens (or makes) the database at `path` and brings it to the newest format.
    ///
    /// # Errors
    /// [`StoreError::Newer`] before anything is touched; what SQLite says otherwise.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = connect(path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let mut connection = connection;
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(StoreError::Thread)?;
        Ok(Self {
            jobs,
            path: path.to_owned(),
        })
    }

    /// Runs `work` on the store's thread.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody may be waiting any more: the work is done all the same.
            fail::at(Point::BeforeStore);
            let done = work(connection);
            fail::at(Point::AfterStore);
            let _ = answer.send(done);
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered
            .await
            .map_err(|_| StoreError::Closed)?
            .map_err(|source| explain(&self.path, source))
    }
}

/// Opens the connection; the format is looked at first.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| explain(path, source);
    let mut connection = Connection::open(path).map_err(failed)?;
    connection
        .busy_timeout(Duration::from_secs(5))
        .map_err(failed)?;
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    format::refuse_newer(path, found)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(failed)?;
    // FULL, not NORMAL: a deploy that was reported live must outlive a power cut. It costs an fsync per
    // decision, and nobody waits for it: waking goes on while a write is under way.
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(failed)?;
    Migrations::from_slice(MIGRATIONS)
        .to_latest(&mut connection)
        .map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => failed(err),
            other => failed(rusqlite::Error::ToSqlConversionFailure(Box::new(other))),
        })?;
    Ok(connection)
}

/// Turns what SQLite says into what people can act on.
fn explain(path: &Path, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full {
            path: path.to_owned(),
        },
        _ => StoreError::Sql {
            path: path.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use layby_model::engine::RunSpec;
    use layby_model::spec::ServiceSpec;
    use layby_model::{RevisionId, ServiceId, ServiceName, Wakefulness};
    use tempfile::TempDir;

    use super::*;
    use crate::api::types::Failure;

    fn id() -> ServiceId {
        "shop/web".parse().expect("an id")
    }

    fn new(replicas: u32, alias: &str) -> NewRevision {
        NewRevision {
            service: id(),
            spec: RunSpec {
                service: ServiceSpec {
                    replicas,
                    port: Some(80),
                    aliases: vec![ServiceName::new(alias).expect("a label")],
                    progress_deadline_ms: Some(7),
                    drain_ms: 8,
                    ..ServiceSpec::new(ServiceName::new("web").expect("a label"))
                },
                images: vec!["sha256:0".into()],
            },
            cause: None,
            unscale: false,
            made_by: "root".into(),
            enables: true,
            anew: false,
            share: None,
        }
    }

    fn live(row: &Row) -> Decision {
        Decision::GoLive {
            revision: row.target.id,
            boot_ms: Some(5),
        }
    }

    fn open(dir: &TempDir) -> Store {
        Store::open(&dir.path().join("layby.db")).expect("a store")
    }

    async fn row(store: &Store) -> Row {
        store
            .service(&id())
            .await
            .expect("an answer")
            .expect("a row")
    }

    #[tokio::test]
    async fn what_was_deployed_is_read_again_whole() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        assert_eq!(store.begin_life().await.expect("a life"), 1);
        let written = store.deploy(vec![new(2, "x")]).await.expect("to write");
        drop(store);
        let store = open(&dir);
        assert_eq!(store.begin_life().await.expect("a life"), 2);
        assert_eq!(store.services().await.expect("rows"), written);
        let row = &written[0];
        assert_eq!(*row.target.spec, new(2, "x").spec);
        assert_eq!((row.target.id, row.target.deadline_ms), (RevisionId(1), 7));
        assert_eq!((row.live.as_ref(), row.replicas), (None, 2));
    }

    #[tokio::test]
    async fn old_revisions_are_forgotten_and_never_the_live_one_or_the_target() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        for n in 1..=5 {
            let mut revision = new(1, &format!("a{n}"));
            revision.spec.images = vec![format!("sha256:{n}")];
            let row = store
                .deploy(vec![revision])
                .await
                .expect("to write")
                .remove(0);
            if n == 2 {
                let goes_live = live(&row);
                assert!(
                    store
                        .decide(&id(), (row.generation, row.replicas), goes_live)
                        .await
                        .expect("an answer")
                );
            }
        }
        let long_ago = Some(jiff::Timestamp::UNIX_EPOCH);
        let later = Some(jiff::Timestamp::MAX);
        for (keep, before) in [(None, later), (Some(0), long_ago), (Some(3), later)] {
            let none = store.prune_revisions(keep, before, false).await;
            assert_eq!(none.expect("an answer").0, [] as [String; 0]);
        }
        let told = store
            .prune_revisions(Some(1), later, true)
            .await
            .expect("an answer");
        let done = store
            .prune_revisions(Some(1), later, false)
            .await
            .expect("an answer");
        assert_eq!(told, done, "it was only told the first time");
        assert_eq!(done.0, ["shop/web revision 1", "shop/web revision 3"]);
        let mut left = done.1;
        left.sort_unstable();
        assert_eq!(
            left,
            ["sha256:2", "sha256:4", "sha256:5"],
            "live, kept and target"
        );
        assert_eq!(
            row(&store).await.live.map(|live| live.id),
            Some(RevisionId(2))
        );
    }

    #[tokio::test]
    async fn a_decision_made_with_an_older_row_is_not_written() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        let old = store
            .deploy(vec![new(1, "x")])
            .await
            .expect("to write")
            .remove(0);
        let new = store
            .deploy(vec![new(1, "y")])
            .await
            .expect("to write")
            .remove(0);
        let goes_live = live(&old);
        assert!(
            !store
                .decide(&id(), (old.generation, old.replicas), goes_live)
                .await
                .expect("an answer")
        );
        assert_eq!(row(&store).await, new);
        // Nor one that was made when other replicas were enough.
        let scaled = store.set_replicas(&id(), new.generation, 2).await;
        assert!(scaled.expect("an answer"));
        let goes_live = live(&new);
        let made_with = (new.generation, new.replicas);
        let decided = store.decide(&id(), made_with, goes_live).await;
        assert!(!decided.expect("an answer"));
        assert_eq!(row(&store).await.generation, new.generation);
        let back = store
            .set_replicas(&id(), new.generation, new.replicas)
            .await;
        assert!(back.expect("an answer"));
        let early = store.set_replicas(&id(), old.generation, 9).await;
        assert!(!early.expect("an answer"), "another row counts by now");
        let goes_live = live(&new);
        assert!(
            store
                .decide(&id(), (new.generation, new.replicas), goes_live)
                .await
                .expect("an answer")
        );
        assert_eq!(row(&store).await.live, Some(new.target));
    }

    #[tokio::test]
    async fn what_went_live_meanwhile_is_neither_aborted_nor_promoted_nor_scaled() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        let written = store.deploy(vec![new(1, "x")]).await;
        let before = written.expect("to write").remove(0);
        let goes_live = live(&before);
        let decided = store
            .decide(&id(), (before.generation, before.replicas), goes_live)
            .await;
        assert!(decided.expect("an answer"));
        let failure = Failure {
            revision: 1,
            reason: "aborted".into(),
            last_probe: None,
            exit: None,
            log: Vec::new(),
            hint: None,
            attempt: 1,
            difference: Vec::new(),
            aborted_by: None,
        };
        let aborted = store.abort(&before, &failure).await.expect("an answer");
        let promoted = store.promote(&before).await.expect("an answer");
        let scaled = store.scale(&before, Some(3), 3).await.expect("an answer");
        assert_eq!((aborted, promoted, scaled), (None, None, None));
        let now = row(&store).await;
        assert_eq!(
            (now.target_failed, &now.live),
            (false, &Some(before.target))
        );
        assert_eq!(now.generation, before.generation);
        let scaled = store.scale(&now, Some(3), 3).await.expect("an answer");
        assert_eq!(scaled.map(|row| row.replicas), Some(3));
    }

    #[tokio::test]
    async fn a_failure_and_the_wakefulness_are_kept_and_a_success_clears_the_failure() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        let first = store
            .deploy(vec![new(1, "x")])
            .await
            .expect("to write")
            .remove(0);
        let failure = Failure {
            revision: 1,
            reason: "no".into(),
            last_probe: None,
            exit: None,
            log: vec!["line".into()],
            hint: None,
            attempt: 2,
            difference: Vec::new(),
            aborted_by: None,
        };
        let fail = Decision::Fail {
            revision: RevisionId(1),
            failure: Box::new(failure.clone()),
            replicas: 1,
        };
        assert!(
            store
                .decide(&id(), (first.generation, first.replicas), fail)
                .await
                .expect("an answer")
        );
        let doze = Decision::Wakefulness(Wakefulness::Dozing);
        assert!(
            store
                .decide(&id(), (first.generation, first.replicas), doze)
                .await
                .expect("an answer")
        );
        let read = row(&store).await;
        assert_eq!(
            (read.target_failed, read.wanted),
            (true, Wakefulness::Dozing)
        );
        assert_eq!(read.last_failure, Some(failure));
        let next = store
            .deploy(vec![new(1, "y")])
            .await
            .expect("to write")
            .remove(0);
        assert!(!next.target_failed && next.last_failure.is_some());
        let goes_live = live(&next);
        assert!(
            store
                .decide(&id(), (next.generation, next.replicas), goes_live)
                .await
                .expect("an answer")
        );
        let read = row(&store).await;
        assert_eq!((read.last_failure, read.wanted), (None, Wakefulness::Awake));
    }

    #[tokio::test]
    async fn a_service_made_anew_has_a_newer_generation() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        let old = store
            .deploy(vec![new(1, "x")])
            .await
            .expect("to write")
            .remove(0);
        let leaving = store
            .begin_removal(&id(), "ann")
            .await
            .expect("to write")
            .expect("a row");
        assert!(leaving.removing && !leaving.enabled && leaving.generation > old.generation);
        store.remove(&id()).await.expect("to write");
        assert_eq!(store.services().await.expect("rows"), []);
        let again = store
            .deploy(vec![new(1, "x")])
            .await
            .expect("to write")
            .remove(0);
        assert_eq!(again.target.id, RevisionId(1));
        assert!(again.generation > leaving.generation);
    }

    #[tokio::test]
    async fn only_so_many_revisions_are_kept_and_live_among_them() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        let first = store
            .deploy(vec![new(1, "x")])
            .await
            .expect("to write")
            .remove(0);
        let goes_live = live(&first);
        assert!(
            store
                .decide(&id(), (first.generation, first.replicas), goes_live)
                .await
                .expect("an answer")
        );
        for _ in 0..60 {
            store.deploy(vec![new(1, "x")]).await.expect("to write");
        }
        let kept: u32 = store
            .call(|db| db.query_row("SELECT count(*) FROM revisions", [], |row| row.get(0)))
            .await
            .expect("a count");
        assert_eq!(kept, 52);
        assert_eq!(
            row(&store).await.live.map(|live| live.id),
            Some(RevisionId(1))
        );
    }

    #[tokio::test]
    async fn a_full_disk_is_told_as_such_and_what_was_written_stays() {
        let dir = TempDir::new().expect("a folder");
        let store = open(&dir);
        store.deploy(vec![new(1, "x")]).await.expect("to write");
        let pages = |n: u32| format!("PRAGMA max_page_count = {n}");
        let limit = pages(1); // SQLite takes it as: no more than there are
        store
            .call(move |db| db.query_row(&limit, [], |_| Ok(())))
            .await
            .expect("a limit");
        let mut big = new(1, "y");
        big.spec.images = vec!["x".repeat(1 << 20)];
        let full = store.deploy(vec![big.clone()]).await.expect_err("no room");
        assert!(matches!(full, StoreError::Full { .. }), "{full:?}");
        assert_eq!(row(&store).await.target.id, RevisionId(1));
        let limit = pages(1 << 20);
        store
            .call(move |db| db.query_row(&limit, [], |_| Ok(())))
            .await
            .expect("a limit");
        store.deploy(vec![big]).await.expect("room again");
    }
}
