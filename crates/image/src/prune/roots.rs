//! What holds content in the store, since when nobody used it, and how large each content is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::{PruneOptions, set};
use crate::build::cache;
use crate::error::io_error;
use crate::{Error, Store, contexts, registry, unnamed};

/// A piece of content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// A blob, by its digest.
    Blob(String),
    /// An unpacked layer, by its diff id.
    Layer(String),
    /// A folder that `RUN --mount=type=cache` keeps, by its name.
    Folder(String),
    /// A build context, by its name.
    Context(String),
}

/// What holds content.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) what: What,
    pub(super) last_used: SystemTime,
    /// It may be let go.
    pub(super) may_go: bool,
    pub(super) holds: BTreeSet<Content>,
}

impl Root {
    /// Whether it is of use to builds only.
    pub(super) fn is_for_builds(&self) -> bool {
        match self.what {
            What::Entry(_) | What::Folder(_) | What::Context(_) => true,
            What::Pinned | What::Name { .. } | What::Untagged { .. } => false,
        }
    }
}

/// Which kind of root, and which one.
#[derive(Debug)]
pub(super) enum What {
    /// What is in use, or a tag's.
    Pinned,
    /// A name in the index, and the image that it named when it was looked at.
    Name { name: String, digest: String },
    /// A manifest of the registry that no tag leads to.
    Untagged { repository: String, digest: String },
    /// An entry of the build cache.
    Entry(String),
    /// A folder of the build cache.
    Folder(String),
    /// A build context that is kept.
    Context(String),
}

/// All roots.
pub(super) fn find(store: &Store, options: &PruneOptions) -> Result<Vec<Root>, Error> {
    let in_use = set(&options.in_use);
    let own = format!("{}/", options.registry);
    let mut roots = Vec::new();
    for digest in &options.in_use {
        roots.push(pinned(image(store, digest)?));
    }
    // Those that go by `all` are forgotten already, unless it is only to be said what would go.
    if !(options.all && options.dry_run) {
        for digest in unnamed::kept(store)? {
            roots.push(pinned(image(store, &digest)?));
        }
    }
    for entry in store.index()?.manifests {
        let name = entry.ref_name().unwrap_or_default().to_owned();
        roots.push(Root {
            may_go: !in_use.contains(&entry.digest) && !name.starts_with(&own),
            last_used: time(&store.blob_path(&entry.digest)?),
            holds: image(store, &entry.digest)?,
            what: What::Name {
                name,
                digest: entry.digest,
            },
        });
    }
    for held in registry::holdings(store)? {
        let holds = held.blobs.into_iter().map(Content::Blob).collect();
        match held.untagged {
            None => roots.push(pinned(holds)),
            Some((repository, digest)) => roots.push(Root {
                may_go: !in_use.contains(&held.sha256),
                last_used: held.pushed_at,
                what: What::Untagged { repository, digest },
                holds,
            }),
        }
    }
    for entry in cache::young(store)? {
        let layer = entry.layer.map(|layer| {
            [
                Content::Blob(layer.descriptor.digest),
                Content::Layer(layer.diff_id),
            ]
        });
        roots.push(Root {
            what: What::Entry(entry.name),
            last_used: entry.last_used,
            may_go: true,
            holds: layer.into_iter().flatten().collect(),
        });
    }
    for name in folders(&store.cache_mounts_dir())? {
        roots.push(Root {
            last_used: time(&store.cache_mounts_dir().join(&name)),
            may_go: true,
            holds: set([Content::Folder(name.clone())]),
            what: What::Folder(name),
        });
    }
    for found in contexts::all(store)? {
        roots.push(Root {
            last_used: found.last_used,
            may_go: true,
            holds: set([Content::Context(found.name.clone())]),
            what: What::Context(found.name),
        });
    }
    Ok(roots)
}

/// The size of every content that is there, held or not, in bytes; of what is `known` it is taken from there, since it takes
/// long to look at every file of a layer.
pub(super) fn sizes(
    store: &Store,
    known: &BTreeMap<Content, u64>,
) -> Result<BTreeMap<Content, u64>, Error> {
    let mut sizes = BTreeMap::new();
    let size = |content: &Content, dir: &Path| match known.get(content) {
        Some(size) => *size,
        None => below(dir),
    };
    for name in folders(&store.blobs_dir())? {
        let length = fs::metadata(store.blobs_dir().join(&name)).map_or(0, |found| found.len());
        sizes.insert(Content::Blob(format!("sha256:{name}")), length);
    }
    for name in folders(&store.layers_dir())? {
        let content = Content::Layer(format!("sha256:{name}"));
        let size = size(&content, &store.layers_dir().join(&name));
        sizes.insert(content, size);
    }
    for name in folders(&store.cache_mounts_dir())? {
        let dir = store.cache_mounts_dir().join(&name);
        let content = Content::Folder(name);
        let size = size(&content, &dir);
        sizes.insert(content, size);
    }
    for found in contexts::all(store)? {
        sizes.insert(Content::Context(found.name), found.bytes);
    }
    Ok(sizes)
}

fn pinned(holds: BTreeSet<Content>) -> Root {
    Root {
        what: What::Pinned,
        last_used: SystemTime::now(),
        may_go: false,
        holds,
    }
}

/// What an image consists of; nothing if it is not there.
fn image(store: &Store, digest: &str) -> Result<BTreeSet<Content>, Error> {
    let (manifest, _) = match store.read_manifest(digest) {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let diff_ids = store.read_config(&manifest)?.diff_ids.into_iter();
    let blobs = manifest.layers.into_iter().map(|layer| layer.digest);
    let blobs = blobs.chain([digest.to_owned(), manifest.config.digest]);
    Ok(blobs
        .map(Content::Blob)
        .chain(diff_ids.map(Content::Layer))
        .collect())
}

/// When it was last changed, which is when it was last used; something that cannot be looked at is as good as new.
fn time(path: &Path) -> SystemTime {
    let found = fs::metadata(path).and_then(|found| found.modified());
    found.unwrap_or_else(|_| SystemTime::now())
}

fn folders(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// What a folder takes on the disk. What goes while it is looked at counts for nothing.
fn below(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    bytes
}
