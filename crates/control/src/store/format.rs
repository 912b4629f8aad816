//! The format of the database: which this Layby knows, and whether a file is of one that it does not.
//!
//! Looking must not change anything: a newer Layby's data is refused before a byte of it, or of the files
//! beside it, is written.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::M;

use super::{StoreError, explain};

/// The migrations, oldest first; the store's `user_version` says how many were applied.
pub(super) const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("0001_services.sql")),
    M::up(include_str!("0002_registry.sql")),
    M::up(include_str!("0003_addresses.sql")),
    M::up(include_str!("0004_scale.sql")),
    M::up(include_str!("0005_history.sql")),
    M::up(include_str!("0006_events.sql")),
    M::up(include_str!("0007_jobs.sql")),
    M::up(include_str!("0008_access.sql")),
    M::up(include_str!("0009_rollouts.sql")),
    M::up(include_str!("0010_secrets.sql")),
    M::up(include_str!("0011_usage.sql")),
    M::up(include_str!("0012_answers.sql")),
    M::up(include_str!("0013_launched.sql")),
    M::up(include_str!("0014_asked.sql")),
    M::up(include_str!("0015_orders.sql")),
    M::up(include_str!("0016_record.sql")),
    M::up(include_str!("0017_networks.sql")),
    M::up(include_str!("0018_index.sql")),
];

/// Where `user_version` lies in the file: 4 bytes, big-endian (SQLite's "Database File Format", 1.3).
const USER_VERSION_AT: u64 = 60;

/// Refuses a database of a newer Layby, and leaves everything as it is. One that is not there, or empty, is fine.
///
/// # Errors
/// [`StoreError::Newer`]; and when the file is there and cannot be read.
pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
    // SQLite would make its `-wal` and `-shm` even for a reader. Without a log, the file itself says all.
    let found = match has_log(path) {
        true => by_sqlite(path).map_err(|source| explain(path, source))?,
        false => by_header(path).map_err(|source| StoreError::Unreadable {
            path: path.to_owned(),
            source,
        })?,
    };
    refuse_newer(path, found)
}

/// [`StoreError::Newer`] when `found` is a format that this Layby does not know.
pub(super) fn refuse_newer(path: &Path, found: u32) -> Result<(), StoreError> {
    let found = found as usize;
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: MIGRATIONS.len(),
        });
    }
    Ok(())
}

/// Whether a node that was killed left a log, in which the newest format may stand.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(PathBuf::from(log)).is_ok_and(|log| log.len() > 0)
}

fn by_sqlite(path: &Path) -> rusqlite::Result<u32> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn by_header(path: &Path) -> std::io::Result<u32> {
    let mut version = [0; 4];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(USER_VERSION_AT))?;
        file.read_exact(&mut version)
    });
    match read {
        Ok(()) => Ok(u32::from_be_bytes(version)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    /// Every file of a folder with what is in it; not SQLite's `-shm`, which is no data.
    fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(dir).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| !path.to_string_lossy().ends_with("-shm"))
            .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
            .collect()
    }

    fn write(path: &Path, version: u32) -> Connection {
        let db = Connection::open(path).expect("a database");
        db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        db.execute_batch("CREATE TABLE t (a)").expect("a table");
        db.pragma_update(None, "user_version", version)
            .expect("a version");
        db
    }

    #[test]
    fn what_is_not_there_or_known_is_fine() {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("layby.db");
        check(&path).expect("none is fine");
        assert_eq!(files(dir.path()).len(), 0);
        std::fs::write(&path, "").expect("a file");
        check(&path).expect("an empty one is fine");
        drop(write(&path, 1));
        check(&path).expect("this one is fine");
    }

    #[test]
    fn a_newer_one_is_refused_and_nothing_of_it_changes() {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("layby.db");
        drop(write(&path, 99));
        let before = files(dir.path());
        let refused = check(&path).expect_err("newer");
        assert!(
            matches!(refused, StoreError::Newer { found: 99, .. }),
            "{refused:?}"
        );
        assert_eq!(files(dir.path()), before);
    }

    #[test]
    fn a_newer_one_that_was_killed_is_known_by_its_log() {
        let dir = TempDir::new().expect("a folder");
        let killed = TempDir::new().expect("a folder");
        let open = write(&dir.path().join("layby.db"), 99);
        // What a kill leaves: the files as they are while it is open.
        for (path, bytes) in files(dir.path()) {
            let name = path.file_name().expect("a name");
            std::fs::write(killed.path().join(name), bytes).expect("a file");
        }
        drop(open);
        let path = killed.path().join("layby.db");
        assert!(has_log(&path));
        let before = files(killed.path());
        let refused = check(&path).expect_err("newer");
        assert!(
            matches!(refused, StoreError::Newer { found: 99, .. }),
            "{refused:?}"
        );
        assert_eq!(files(killed.path()), before);
    }
}
