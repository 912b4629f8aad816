//! What the repositories hold of the store's blobs: the garbage collection keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::digest::Digest;
use super::manifests::{self, Document};
use super::repository::{self, Record, Repository};
use super::route::Name;
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
        let known = read(store, &repository)?;
        // What it named nobody knows any more: better a full disk than a blob too few.
        let all_read = known.values().all(|(_, document)| document.is_some());
        for (record, document) in known.into_values() {
            held.insert(record.sha256);
            named.extend(document.iter().flat_map(Document::blobs).map(str::to_owned));
        }
        for digest in repository.blobs()? {
            let old = || {
                repository
                    .blob_age(&digest)
                    .is_some_and(|age| age > UNNAMED)
            };
            if all_read && !named.contains(digest.as_str()) && old() {
                repository.remove_blob(&digest)?;
            } else if let Some(sha256) = repository.blob(&digest)? {
                held.insert(sha256);
            }
        }
    }
    Ok(held)
}

/// What one manifest of a repository holds; or what its repository holds that no manifest names yet.
pub(crate) struct Holding {
    /// The SHA-256 of the manifest; empty for the rest of a repository.
    pub(crate) sha256: String,
    /// Repository and digest of a manifest that no tag leads to.
    pub(crate) untagged: Option<(String, String)>,
    pub(crate) pushed_at: SystemTime,
    /// The SHA-256 of each blob, the manifest among them.
    pub(crate) blobs: BTreeSet<String>,
}

/// What all repositories hold, manifest by manifest.
pub(crate) fn holdings(store: &Store) -> Result<Vec<Holding>, Error> {
    let mut all = Vec::new();
    for name in repository::all(store)? {
        let repository = Repository::new(store, &name);
        let known = read(store, &repository)?;
        let tagged = tagged(&repository, &known)?;
        let all_read = known.values().all(|(_, document)| document.is_some());
        let mut rest: BTreeSet<Digest> = repository.blobs()?.into_iter().collect();
        for (digest, (record, document)) in &known {
            let mut blobs = BTreeSet::from([record.sha256.clone()]);
            for blob in document.iter().flat_map(Document::blobs) {
                if let Some(blob) = Digest::parse(blob)
                    && let Some(sha256) = repository.blob(&blob)?
                {
                    blobs.insert(sha256);
                    rest.remove(&blob);
                }
            }
            // One that cannot be read may be an index, and lead to any.
            let untagged = all_read && !tagged.contains(digest);
            all.push(Holding {
                sha256: record.sha256.clone(),
                untagged: untagged.then(|| (name.as_str().to_owned(), digest.to_string())),
                pushed_at: repository.pushed_at(digest),
                blobs,
            });
        }
        let mut blobs = BTreeSet::new();
        for digest in rest {
            blobs.extend(repository.blob(&digest)?);
        }
        all.push(Holding {
            sha256: String::new(),
            untagged: None,
            pushed_at: SystemTime::now(),
            blobs,
        });
    }
    Ok(all)
}

/// Takes an untagged manifest from its repository; its blobs follow when no other names them for a day. `false`: it is
/// gone, or a tag leads to it meanwhile.
pub(crate) fn forget(store: &Store, repository: &str, digest: &str) -> Result<bool, Error> {
    let (Ok(name), Some(digest)) = (Name::parse(repository), Digest::parse(digest)) else {
        return Ok(false);
    };
    let repository = Repository::new(store, &name);
    let known = read(store, &repository)?;
    let all_read = known.values().all(|(_, document)| document.is_some());
    let is_tagged = tagged(&repository, &known)?.contains(&digest);
    if is_tagged || !all_read || !known.contains_key(&digest) {
        return Ok(false);
    }
    repository.remove_manifest(&digest)
}

/// The manifests of a repository; those without a document cannot be read.
type Known = BTreeMap<Digest, (Record, Option<Document>)>;

fn read(store: &Store, repository: &Repository<'_>) -> Result<Known, Error> {
    let mut known = BTreeMap::new();
    for digest in repository.manifests()? {
        let Some(record) = repository.manifest(&digest)? else {
            continue;
        };
        let bytes = blob::read_bounded(&store.blob_path(&record.sha256)?);
        let document = match &bytes {
            Ok(bytes) => manifests::parse(bytes).ok(),
            Err(_) => None,
        };
        if document.is_none() {
            tracing::warn!(
                digest = digest.as_str(),
                "a manifest of the registry cannot be read, and what it may need is kept: push it again or delete it"
            );
        }
        known.insert(digest, (record, document));
    }
    Ok(known)
}

/// The manifests that tags lead to: by themselves, as parts of an index, or as what says something about one of these.
fn tagged(repository: &Repository<'_>, known: &Known) -> Result<BTreeSet<Digest>, Error> {
    let mut reached = BTreeSet::new();
    let mut next = Vec::new();
    for tag in repository.tags()? {
        let to = repository.tag(&tag)?;
        next.extend(to.and_then(|to| Digest::parse(&to.digest)));
    }
    while let Some(digest) = next.pop() {
        if !reached.insert(digest.clone()) {
            continue;
        }
        if let Some((_, Some(document))) = known.get(&digest) {
            let parts = document.manifests.iter().flatten();
            next.extend(parts.filter_map(|part| Digest::parse(&part.digest)));
        }
        next.extend(repository.referrers(&digest)?);
    }
    Ok(reached)
}
