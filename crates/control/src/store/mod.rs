//! The store: what should be true, in SQLite, on a thread of its own.
//!
//! Callers queue closures and await their answers, so that no async task ever blocks on the disk. Only
//! the control plane writes here; what is observed is never stored.

mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};
use tokio::sync::{mpsc, oneshot};

pub(crate) use rows::{Decision, NewRevision, Revision, Row};

/// So many closures may wait for the disk; a caller beyond that waits for a place.
const QUEUE: usize = 256;

/// The migrations, oldest first; the store's `user_version` says how many were applied.
const MIGRATIONS: &[M<'static>] = &[M::up(include_str!("0001_services.sql"))];

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
    #[error("the disk that holds {path} is full: free some space and try again; what runs goes on")]
    Full {
        /// The database file.
        path: PathBuf,
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
            let _ = answer.send(work(connection));
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
    let found = found as usize;
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: MIGRATIONS.len(),
        });
    }
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
