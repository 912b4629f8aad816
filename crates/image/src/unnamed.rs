//! Images that were built without a name: kept for a day, so that who built one has the time to use its digest.
//!
//! Each is a file named after the digest, and its time says since when.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::error::io_error;
use crate::{Error, Store, digest};

/// How long one is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Notes that an image was built just now.
pub(crate) fn note(store: &Store, digest: &str) -> Result<(), Error> {
    let path = store
        .unnamed_dir()
        .join(digest::hex_of(digest).unwrap_or_default());
    let noted = File::create(&path).and_then(|file| file.set_modified(SystemTime::now()));
    noted.map_err(io_error("make", &path))
}

/// The digests of those that are kept.
pub(crate) fn kept(store: &Store) -> Result<Vec<String>, Error> {
    let all = all(store)?.into_iter();
    let kept = all.filter(|(_, since)| since.elapsed().map_or(true, |age| age < KEPT));
    Ok(kept.map(|(digest, _)| digest).collect())
}

/// Forgets those that were built before `until`.
pub(crate) fn forget(store: &Store, until: SystemTime) -> Result<(), Error> {
    for (digest, since) in all(store)? {
        let path = store
            .unnamed_dir()
            .join(digest::hex_of(&digest).unwrap_or_default());
        if since <= until {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Forgets those whose time is over.
pub(crate) fn forget_old(store: &Store) -> Result<(), Error> {
    match SystemTime::now().checked_sub(KEPT) {
        Some(until) => forget(store, until),
        None => Ok(()),
    }
}

fn all(store: &Store) -> Result<Vec<(String, SystemTime)>, Error> {
    let dir = store.unnamed_dir();
    let mut all = Vec::new();
    for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
        let entry = entry.map_err(io_error("list", &dir))?;
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
        let since = entry.metadata().and_then(|found| found.modified());
        if digest::hex_of(&digest).is_some() {
            all.push((digest, since.unwrap_or(SystemTime::UNIX_EPOCH)));
        }
    }
    Ok(all)
}
