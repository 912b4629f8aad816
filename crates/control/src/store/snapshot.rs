//! The whole store as a file of its own: taken from a node that may run, looked at, and put in the place of none.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::{Content, StoreError, connect, content, explain, format, secrets};
use crate::secrets::Key;

/// Copies a store as it is at one moment.
pub(crate) fn take(store: &Path, to: &Path) -> Result<(), StoreError> {
    format::check(store)?;
    let failed = |source| explain(store, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(store, flags).map_err(failed)?;
    db.busy_timeout(std::time::Duration::from_secs(10))
        .map_err(failed)?;
    let to = to.to_string_lossy().into_owned();
    db.execute("VACUUM INTO ?1", [to]).map(drop).map_err(failed)
}

/// Brings a copy to the newest format, as one file.
pub(crate) fn migrate(copy: &Path) -> Result<(), StoreError> {
    format::check(copy)?;
    let db = connect(copy)?;
    single(&db).map_err(|source| explain(copy, source))
}

/// Encrypts the secrets of a copy anew, if it has any; `keys` says with which key they are, and with which they are to be.
pub(crate) fn rekey<E: From<StoreError>>(
    copy: &Path,
    keys: impl FnOnce(&[u8]) -> Result<(Key, Key), E>,
) -> Result<(), E> {
    let failed = |source| E::from(explain(copy, source));
    let mut db = Connection::open(copy).map_err(failed)?;
    let has_table: bool = db
        .query_row(
            "SELECT count(*) > 0 FROM sqlite_master WHERE name = 'master_key'",
            [],
            |row| row.get(0),
        )
        .map_err(failed)?;
    if !has_table {
        return Ok(());
    }
    let proof: Option<Vec<u8>> = db
        .query_row("SELECT proof FROM master_key", [], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let Some(proof) = proof else {
        return Ok(());
    };
    let (old, new) = keys(&proof)?;
    let tx = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let whole = secrets::rekey(&tx, &old, &new).map_err(failed)?;
    if !whole {
        return Err(failed(rusqlite::Error::InvalidQuery));
    }
    tx.commit().map_err(failed)?;
    single(&db).map_err(failed)
}

/// Whether there is no store, or one that nothing was ever deployed to.
pub(crate) fn is_empty(store: &Path) -> Result<bool, StoreError> {
    if !store.exists() {
        return Ok(true);
    }
    format::check(store)?;
    let db = connect(store)?;
    db.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM services) AND NOT EXISTS (SELECT 1 FROM jobs)
            AND NOT EXISTS (SELECT 1 FROM tokens) AND NOT EXISTS (SELECT 1 FROM secrets WHERE sealed IS NOT NULL)",
        [],
        |row| row.get(0),
    )
    .map_err(|source| explain(store, source))
}

/// What is in a copy of the newest format.
pub(crate) fn content(copy: &Path) -> Result<Content, StoreError> {
    let failed = |source| explain(copy, source);
    let db = Connection::open(copy).map_err(failed)?;
    content::read(&db).map_err(failed)
}

/// Puts a copy in the place of an empty store.
pub(crate) fn put(copy: &Path, store: &Path) -> io::Result<()> {
    for end in ["-wal", "-shm"] {
        let mut beside = store.as_os_str().to_owned();
        beside.push(end);
        match fs::remove_file(PathBuf::from(beside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(copy)?.sync_all()?;
    fs::rename(copy, store)?;
    match store.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Leaves nothing in a log beside the file.
fn single(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "DELETE")
}
