//! What the repositories hold of the store's blobs: the garbage collection keeps it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::manifests;
use super::repository::{self, Repository};
use crate::{Error, Store, blob};

/// A blob that no manifest of its repository names stays for so long: its manifest may be on its way.
const UNNAMED: Duration = Duration::from_secs(24 * 3600);

/// The SHA-256 of everything that a repository holds. Blobs that no manifest named for a day are dropped on the way.
/// The caller keeps pushes out.
pub(crate) fn held(store: &Store) -> Result<BTreeSet<String>, Error> {
    let mut held = BTreeSet::new();
    for name in repository::all(store)? {
        let repository = Repository::new(store, &name);
        let mut named = BTreeSet::new();
        for digest in repository.manifests()? {
            let Some(record) = repository.manifest(&digest)? else {
                continue;
            };
            let bytes = blob::read_bounded(&store.blob_path(&record.sha256)?)?;
            held.insert(record.sha256);
            // One that cannot be read was never taken; were it there, its blobs would only live for a day.
            if let Ok(document) = manifests::parse(&bytes) {
                named.extend(document.blobs().map(str::to_owned));
            }
        }
        for digest in repository.blobs()? {
            let old = || {
                repository
                    .blob_age(&digest)
                    .is_some_and(|age| age > UNNAMED)
            };
            if !named.contains(digest.as_str()) && old() {
                repository.remove_blob(&digest)?;
            } else if let Some(sha256) = repository.blob(&digest)? {
                held.insert(sha256);
            }
        }
    }
    Ok(held)
}
