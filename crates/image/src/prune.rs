//! Pruning: letting go of names and caches that nobody uses, so that the garbage collection may remove their content.
//!
//! What holds content is a *root*: a name, a digest in use, a repository of the registry, an entry or a folder of the build
//! cache. Pruning picks roots and takes them away; content then goes as ever, when no root is left that holds it. A crash
//! at any point leaves fewer roots and nothing broken.

mod roots;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

use crate::error::io_error;
use crate::{Error, Store, contexts, gc, lock, registry, unnamed};
use roots::{Content, Root, What};

/// What is to be let go. The default lets go of nothing: only what nobody holds is removed.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// The manifest digests of what runs or may be gone back to: held, whatever else is said.
    pub in_use: Vec<String>,
    /// The host name of the node's own registry: names that begin with it come from its tags, and stay.
    pub registry: String,
    /// Names of images that are not in use, and build contexts.
    pub all: bool,
    /// Entries and folders of the build cache.
    pub cache: bool,
    /// Manifests of the registry that no tag leads to, by way of indexes and subjects neither.
    pub untagged: bool,
    /// When it was asked for: what was made or named since then stays. `None`: now.
    pub asked_at: Option<SystemTime>,
    /// Only what was not used for so long.
    pub unused_for: Duration,
    /// With more content than this, names and build caches go, the one first that was not used for the longest time.
    pub budget: Option<Budget>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// Marks of a disk budget, in bytes of blobs, unpacked layers, build caches and build contexts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Up to here, nothing is let go for it.
    pub high_bytes: u64,
    /// Beyond it, so much is let go that no more than this is left, if that can be.
    pub low_bytes: u64,
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names of images, in short form.
    pub names: Vec<String>,
    /// Untagged manifests of the registry, as `<repository>@<digest>`.
    pub untagged: Vec<String>,
    /// Entries and folders of the build cache, and build contexts.
    pub build_cache: usize,
    /// The bytes of the content that went.
    pub freed_bytes: u64,
    /// The bytes of the content that is left.
    pub left_bytes: u64,
    /// Those among them that are left for builds alone: no image needs them.
    pub left_cache_bytes: u64,
}

/// The sizes of all content, from before anything was let go.
#[derive(Debug, Clone)]
pub struct Measured(BTreeMap<Content, u64>);

/// Measures all content.
pub(crate) fn measure(store: &Store) -> Result<Measured, Error> {
    Ok(Measured(roots::sizes(store, &BTreeMap::new())?))
}

/// Lets go of what the options say, and collects; `moved` is called when only deleting is left.
pub(crate) fn prune(
    store: &Store,
    options: &PruneOptions,
    measured: Measured,
    moved: impl FnOnce(),
) -> Result<Pruned, Error> {
    let sizes = roots::sizes(store, &measured.0)?;
    let now = SystemTime::now();
    let asked_at = options.asked_at.unwrap_or(now);
    if options.all && !options.dry_run {
        unnamed::forget(store, asked_at)?;
    }
    let mut all = roots::find(store, options)?;
    let unused = |root: &Root| {
        root.may_go
            && root.last_used <= asked_at
            && now
                .duration_since(root.last_used)
                .is_ok_and(|age| age >= options.unused_for)
    };
    // What is asked for goes before what the budget needs.
    let asked = |root: &Root| match root.what {
        What::Name { .. } | What::Context(_) => options.all && unused(root),
        What::Untagged { .. } => options.untagged && unused(root),
        What::Entry(_) | What::Folder(_) => options.cache && unused(root),
        What::Pinned => false,
    };
    let (mut gone, mut kept): (Vec<Root>, Vec<Root>) = all.drain(..).partition(asked);
    let mut left = holders(&kept);
    if let Some(budget) = options.budget
        && total(&left, &sizes) > budget.high_bytes
    {
        kept.sort_by_key(|root| root.last_used);
        let mut bytes = total(&left, &sizes);
        let mut stay = Vec::new();
        for root in kept {
            let spendable = unused(&root) && !matches!(root.what, What::Untagged { .. });
            if bytes <= budget.low_bytes || !spendable {
                stay.push(root);
                continue;
            }
            bytes -= release(&root, &mut left, &sizes);
            gone.push(root);
        }
        kept = stay;
    }
    let mut pruned = Pruned {
        left_bytes: total(&holders(&kept), &sizes),
        ..Pruned::default()
    };
    pruned.freed_bytes = sizes
        .values()
        .sum::<u64>()
        .saturating_sub(pruned.left_bytes);
    kept.retain(|root| !root.is_for_builds());
    let of_images = holders(&kept);
    pruned.left_cache_bytes = pruned.left_bytes - total(&of_images, &sizes);
    // Whoever uses a build context keeps it by itself: they go when nobody is kept away any more.
    let is_context = |root: &Root| matches!(root.what, What::Context(_));
    let (contexts, gone): (Vec<Root>, Vec<Root>) = gone.into_iter().partition(is_context);
    let mut go = |roots: Vec<Root>| {
        for root in roots {
            if options.dry_run || take(store, &root.what)? {
                note(&mut pruned, root.what);
            }
        }
        Ok::<_, Error>(())
    };
    go(gone)?;
    if !options.dry_run {
        gc::collect(store, &options.in_use, moved)?;
    }
    go(contexts)?;
    pruned.names.sort_unstable();
    pruned.untagged.sort_unstable();
    if !options.dry_run {
        // Not all goes at once: blobs of the registry that no manifest names any more stay for a day.
        pruned.left_bytes = roots::sizes(store, &sizes)?.values().sum();
        let before: u64 = sizes.values().sum();
        pruned.freed_bytes = before.saturating_sub(pruned.left_bytes);
        pruned.left_cache_bytes = pruned.left_cache_bytes.min(pruned.left_bytes);
    }
    Ok(pruned)
}

/// How many roots hold each content.
fn holders(roots: &[Root]) -> BTreeMap<Content, usize> {
    let mut holders = BTreeMap::new();
    for content in roots.iter().flat_map(|root| &root.holds) {
        *holders.entry(content.clone()).or_insert(0) += 1;
    }
    holders
}

fn total(held: &BTreeMap<Content, usize>, sizes: &BTreeMap<Content, u64>) -> u64 {
    let counted = held.iter().filter(|(_, count)| **count > 0);
    counted.filter_map(|(content, _)| sizes.get(content)).sum()
}

/// Takes a root away, and gives the bytes that nobody holds any more.
fn release(
    root: &Root,
    held: &mut BTreeMap<Content, usize>,
    sizes: &BTreeMap<Content, u64>,
) -> u64 {
    let mut freed = 0;
    for content in &root.holds {
        if let Some(count) = held.get_mut(content) {
            *count -= 1;
            if *count == 0 {
                freed += sizes.get(content).copied().unwrap_or(0);
            }
        }
    }
    freed
}

/// Takes one away from the disk. `false`: it is not what it was when it was picked.
fn take(store: &Store, what: &What) -> Result<bool, Error> {
    match what {
        What::Pinned => Ok(false),
        What::Name { name, digest } => {
            let _adding = store.adding()?;
            store.forget_name(name, digest)
        }
        What::Untagged { repository, digest } => {
            // Pushes stay out: one may be about to let a tag lead there.
            let alone = lock::exclusive_within(&store.locks_dir(), lock::CONTENT, gc::PATIENCE)?;
            let _alone = alone.ok_or(Error::Busy)?;
            registry::forget(store, repository, digest)
        }
        What::Entry(name) => {
            let path = store.cache_dir().join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(io_error("remove", &path)(error))
                }
                gone => Ok(gone.is_ok()),
            }
        }
        What::Context(name) => contexts::forget(store, name),
        What::Folder(name) => {
            let path = store.cache_mounts_dir().join(name);
            // A build that uses it holds its lock.
            let Some(_locked) = lock::try_exclusive(&path, "lock")? else {
                return Ok(false);
            };
            // It is deleted with the rest.
            gc::Trash::open(store)?.take(&path)?;
            Ok(true)
        }
    }
}

fn note(pruned: &mut Pruned, what: What) {
    match what {
        What::Pinned => {}
        What::Name { name, .. } => {
            let short = name
                .parse()
                .map(|reference: crate::Reference| reference.short());
            pruned.names.push(short.unwrap_or(name));
        }
        What::Untagged { repository, digest } => {
            pruned.untagged.push(format!("{repository}@{digest}"));
        }
        What::Entry(_) | What::Folder(_) | What::Context(_) => pruned.build_cache += 1,
    }
}

/// The distinct members of lists.
fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str, holds: &[&str]) -> Root {
        Root {
            what: What::Entry(name.to_owned()),
            last_used: SystemTime::UNIX_EPOCH,
            may_go: true,
            holds: set(holds.iter().map(|blob| Content::Blob((*blob).to_owned()))),
        }
    }

    #[test]
    fn content_goes_with_the_last_root_that_holds_it() {
        let sizes = BTreeMap::from([
            (Content::Blob("shared".into()), 100),
            (Content::Blob("own".into()), 7),
        ]);
        let roots = [root("a", &["shared", "own"]), root("b", &["shared"])];
        let mut held = holders(&roots);
        assert_eq!(total(&held, &sizes), 107);
        assert_eq!(release(&roots[0], &mut held, &sizes), 7);
        assert_eq!(total(&held, &sizes), 100);
        assert_eq!(release(&roots[1], &mut held, &sizes), 100);
        assert_eq!(total(&held, &sizes), 0);
    }
}
