//! The files that rules mean, as they were when they were looked at last: what has changed is found by looking again.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::batch::{Batch, Dirty};
use super::folders::{Folders, Heard};
use super::rules::Watched;
use crate::out::tell;

/// So many files are watched at most.
const MAX_FILES: usize = 500_000;

/// A file or folder that has changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    pub(super) path: PathBuf,
    pub(super) how: How,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// It was not there before.
    Came,
    Changed,
    /// It is there no longer.
    Went,
}

/// What tells that a file has changed. A folder is there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    Folder,
    /// Inode, length, and the time of its last change in nanoseconds.
    File(u64, u64, i128),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        if metadata.is_dir() {
            return Self::Folder;
        }
        let seconds = i128::from(metadata.ctime()) * 1_000_000_000;
        let ctime = seconds + i128::from(metadata.ctime_nsec());
        Self::File(metadata.ino(), metadata.len(), ctime)
    }
}

/// All that is watched.
pub(super) struct Tree {
    watched: Rc<Vec<Watched>>,
    folders: Folders,
    seen: BTreeMap<PathBuf, Stamp>,
    /// It was said that some folder cannot be watched.
    told: bool,
}

impl Tree {
    /// Looks at all that the rules mean, and begins to listen.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn new(watched: Rc<Vec<Watched>>) -> Result<Self> {
        let mut tree = Self {
            watched,
            folders: Folders::new()?,
            seen: BTreeMap::new(),
            told: false,
        };
        for root in tree.roots() {
            // A file is replaced, and a folder made anew, in the folder that it is in.
            if let Some(parent) = root.parent() {
                tree.folders.watch(parent)?;
            }
            let found = tree.look(&root)?;
            tree.seen.extend(found);
        }
        Ok(tree)
    }

    /// Waits until something is heard, and puts it into the batch.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) async fn hear(&mut self, batch: &mut Batch) -> Result<()> {
        let heard = self.folders.hear().await?;
        let now = Instant::now();
        for heard in heard {
            match heard {
                Heard::Lost => batch.add_all(now),
                Heard::Path(path, is_new_folder) => {
                    if is_new_folder && let Err(error) = self.listen(&path) {
                        self.tell(&error);
                    }
                    if self.concerns(&path) {
                        batch.add(path, now);
                    }
                }
            }
        }
        Ok(())
    }

    /// What has changed where something may have.
    ///
    /// # Errors
    /// There are too many files.
    pub(super) fn changes(&mut self, dirty: Dirty) -> Result<Vec<Change>> {
        let paths: Vec<PathBuf> = match dirty.all {
            true => self.roots(),
            false => dirty.paths.into_iter().collect(),
        };
        let mut changes = Vec::new();
        for path in paths {
            let found = self.look(&path)?;
            let before = self.seen.range(path.clone()..);
            let before = before.take_while(|(known, _)| known.starts_with(&path));
            let gone = before.filter(|(known, _)| !found.contains_key(*known));
            let gone: Vec<PathBuf> = gone.map(|(known, _)| known.clone()).collect();
            for path in gone {
                self.seen.remove(&path);
                let how = How::Went;
                changes.push(Change { path, how });
            }
            for (path, stamp) in found {
                let how = match self.seen.insert(path.clone(), stamp) {
                    None => How::Came,
                    Some(before) if before != stamp => How::Changed,
                    Some(_) => continue,
                };
                changes.push(Change { path, how });
            }
            if self.seen.len() > MAX_FILES {
                bail!(
                    "more than {MAX_FILES} files would be watched: let rules `ignore` folders that need not be"
                );
            }
        }
        changes.sort();
        Ok(changes)
    }

    /// All files that a rule means now.
    pub(super) fn files(&self, means: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let files = self.seen.keys().filter(|path| means(path));
        files.cloned().collect()
    }

    fn roots(&self) -> Vec<PathBuf> {
        let rules = self.watched.iter().flat_map(|one| &one.rules);
        let mut roots: Vec<PathBuf> = rules.map(|rule| rule.root.clone()).collect();
        roots.sort();
        roots.dedup();
        roots
    }

    fn any(&self, is_it: impl Fn(&super::rules::Rule) -> bool) -> bool {
        self.watched.iter().flat_map(|one| &one.rules).any(is_it)
    }

    /// Whether something at this path, or in it, is meant by a rule.
    fn concerns(&self, path: &Path) -> bool {
        self.any(|rule| rule.means(path) || rule.enters(path))
            || (self.seen.range(path.to_owned()..).next())
                .is_some_and(|(known, _)| known.starts_with(path))
    }

    /// Listens to a folder that has come, and to those in it. What is in them already is found by the look that follows.
    fn listen(&mut self, folder: &Path) -> Result<()> {
        let mut waiting = vec![folder.to_owned()];
        while let Some(folder) = waiting.pop() {
            if !self.any(|rule| rule.enters(&folder)) {
                continue;
            }
            self.folders.watch(&folder)?;
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            waiting.extend(folders.map(|entry| entry.path()));
        }
        Ok(())
    }

    /// All that rules mean at a path and below it, as it is now; and listens to its folders.
    fn look(&mut self, path: &Path) -> Result<BTreeMap<PathBuf, Stamp>> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            // What goes meanwhile is not there.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if self.any(|rule| rule.means(&path)) {
                found.insert(path.clone(), Stamp::of(&metadata));
            }
            if metadata.is_dir() && self.any(|rule| rule.enters(&path)) {
                match self.folders.watch(&path) {
                    Err(error) if self.seen.is_empty() => return Err(error),
                    Err(error) => self.tell(&error),
                    Ok(()) => {}
                }
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                waiting.extend(entries.map(|entry| entry.path()));
            }
            if found.len() > MAX_FILES {
                bail!(
                    "more than {MAX_FILES} files are in {}: let rules `ignore` folders that need not be watched",
                    path.display()
                );
            }
        }
        Ok(found)
    }

    /// Says once why something is not watched; all else is.
    fn tell(&mut self, error: &anyhow::Error) {
        if !std::mem::replace(&mut self.told, true) {
            tell!("layby: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use layby_manifest::WatchAction;

    use super::super::rules::tests::rule;
    use super::*;

    fn tree(root: &Path, ignore: &[&str]) -> Tree {
        let rule = rule(
            root.to_str().expect("UTF-8"),
            WatchAction::Sync,
            ignore,
            &[],
        );
        let watched = Watched {
            id: "app/web".into(),
            name: "web".into(),
            rules: vec![rule],
        };
        Tree::new(Rc::new(vec![watched])).expect("watched")
    }

    /// What is heard within a moment, as one batch.
    async fn changes(tree: &mut Tree) -> Vec<(String, bool)> {
        let mut batch = Batch::default();
        let moment = Duration::from_millis(40);
        while let Ok(heard) = tokio::time::timeout(moment, tree.hear(&mut batch)).await {
            heard.expect("heard");
        }
        let changes = tree.changes(batch.take()).expect("looked");
        let root = tree.roots().remove(0);
        let named = changes.into_iter().map(|change| {
            let path = change.path.strip_prefix(&root).expect("below");
            (path.display().to_string(), change.how == How::Went)
        });
        named.collect()
    }

    fn there(paths: &[&str]) -> Vec<(String, bool)> {
        paths
            .iter()
            .map(|path| ((*path).to_owned(), false))
            .collect()
    }

    /// A folder whose name has no point in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::Builder::new()
            .prefix("watched")
            .tempdir()
            .expect("a folder");
        let root = dir.path().canonicalize().expect("its path").join("src");
        fs::create_dir(&root).expect("a folder");
        (dir, root)
    }

    #[tokio::test]
    async fn files_that_are_written_replaced_moved_and_removed_are_heard_of() {
        let (_dir, root) = folder();
        fs::write(root.join("a"), "1").expect("a file");
        let mut tree = tree(&root, &["out"]);
        assert_eq!(changes(&mut tree).await, []);
        fs::write(root.join("a"), "2").expect("a file");
        assert_eq!(changes(&mut tree).await, there(&["a"]));
        // As editors do it: another file takes the place, and what was beside it is gone by then.
        fs::write(root.join("a.tmp"), "3").expect("a file");
        fs::rename(root.join("a.tmp"), root.join("a")).expect("replaced");
        assert_eq!(changes(&mut tree).await, there(&["a"]));
        fs::create_dir_all(root.join("new/deep")).expect("folders");
        fs::write(root.join("new/deep/b"), "").expect("a file");
        fs::create_dir(root.join("out")).expect("a folder");
        fs::write(root.join("out/c"), "").expect("a file");
        assert_eq!(
            changes(&mut tree).await,
            there(&["new", "new/deep", "new/deep/b"])
        );
        fs::write(root.join("new/deep/b"), "x").expect("a file");
        assert_eq!(changes(&mut tree).await, there(&["new/deep/b"]));
        fs::rename(root.join("new"), root.join("old")).expect("moved");
        fs::write(root.join("old/deep/b"), "y").expect("a file");
        let mut moved = there(&["old", "old/deep", "old/deep/b"]);
        moved.extend(["new", "new/deep", "new/deep/b"].map(|path| (path.to_owned(), true)));
        moved.sort();
        assert_eq!(changes(&mut tree).await, moved);
        fs::write(root.join("old/deep/b"), "z").expect("a file");
        assert_eq!(changes(&mut tree).await, there(&["old/deep/b"]));
        fs::remove_file(root.join("a")).expect("removed");
        assert_eq!(changes(&mut tree).await, [("a".to_owned(), true)]);
    }

    #[tokio::test]
    async fn a_thousand_files_are_one_batch_and_a_lost_event_is_found_by_looking() {
        let (_dir, root) = folder();
        let mut tree = tree(&root, &[]);
        for n in 0..1_000 {
            fs::write(root.join(format!("{n}")), "").expect("a file");
        }
        assert_eq!(changes(&mut tree).await.len(), 1_000);
        fs::write(root.join("7"), "x").expect("a file");
        fs::remove_file(root.join("8")).expect("removed");
        let dirty = Dirty {
            all: true,
            ..Dirty::default()
        };
        let found = tree.changes(dirty).expect("looked");
        let named = |name: &str, how| Change {
            path: root.join(name),
            how,
        };
        assert_eq!(found, [named("7", How::Changed), named("8", How::Went)]);
    }

    #[tokio::test]
    async fn a_folder_that_is_made_anew_is_watched_on() {
        let (_dir, root) = folder();
        fs::write(root.join("a"), "").expect("a file");
        let mut tree = tree(&root, &[]);
        fs::remove_dir_all(&root).expect("removed");
        assert_eq!(changes(&mut tree).await, [("a".to_owned(), true)]);
        fs::create_dir(&root).expect("a folder");
        fs::write(root.join("b"), "").expect("a file");
        assert_eq!(changes(&mut tree).await, there(&["b"]));
        fs::write(root.join("b"), "x").expect("a file");
        assert_eq!(changes(&mut tree).await, there(&["b"]));
    }
}
