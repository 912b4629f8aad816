//! What is to be done for the files that have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use layby_manifest::WatchAction;

use super::copy;
use super::rules::{Rule, Watched};
use super::tree::{Change, How};

/// What is to be done for one service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// The files for which it is done, for people.
    pub(super) files: Vec<String>,
    /// How many of them are copied, and how.
    pub(super) counts: Counts,
    /// Its image is built and rolled out; all else comes with that.
    pub(super) rebuild: bool,
    /// Files to copy or to take away, by the number of their rule.
    pub(super) copies: BTreeSet<(usize, PathBuf)>,
    /// Those of all files that were not there before.
    pub(super) came: BTreeSet<PathBuf>,
    /// Those that are there no longer.
    pub(super) went: BTreeSet<PathBuf>,
    /// The rules whose commands are run then.
    pub(super) execs: BTreeSet<usize>,
    /// The containers are restarted then.
    pub(super) restart: bool,
}

/// What becomes of files in the replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// So many are as they are here.
    pub(super) copied: usize,
    /// So many are gone here, and there.
    pub(super) removed: usize,
    /// So many are no files, folders or links, and not there.
    pub(super) left_out: usize,
}

impl Work {
    /// What the changes mean for a service; `None`: nothing.
    pub(super) fn of(watched: &Watched, changes: &[Change]) -> Option<Self> {
        let mut work = Self::default();
        for change in changes {
            let mut means = false;
            for (number, rule) in watched.rules.iter().enumerate() {
                if rule.means(&change.path) {
                    means |= work.take(number, rule, &change.path);
                }
            }
            if means {
                work.files.push(shown(watched, &change.path));
                match change.how {
                    How::Came => drop(work.came.insert(change.path.clone())),
                    How::Changed => {}
                    How::Went => drop(work.went.insert(change.path.clone())),
                }
                work.count(watched, change);
            }
        }
        (!work.files.is_empty()).then_some(work)
    }

    /// Counts what becomes of a file, if it is copied.
    fn count(&mut self, watched: &Watched, change: &Change) {
        let mut rules = watched.rules.iter();
        if !rules.any(|rule| rule.action.copies() && rule.means(&change.path)) {
            return;
        }
        let found = change.path.symlink_metadata().ok();
        let counts = &mut self.counts;
        match found.filter(|_| change.how != How::Went) {
            Some(found) if !copy::is_copied(&found) => counts.left_out += 1,
            Some(_) => counts.copied += 1,
            None => counts.removed += 1,
        }
    }

    /// Takes up a file that a rule means. `false`: there is nothing to do for it.
    pub(super) fn take(&mut self, number: usize, rule: &Rule, path: &Path) -> bool {
        let (copies, restarts) = match &rule.action {
            WatchAction::Rebuild => (false, false),
            WatchAction::Restart => (false, true),
            WatchAction::Sync | WatchAction::SyncExec(_) => (true, false),
            WatchAction::SyncRestart => (true, true),
        };
        // Only a copy has a use for folders.
        let is_dir = || path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if !copies && is_dir() {
            return false;
        }
        if copies {
            self.copies.insert((number, path.to_owned()));
        }
        self.rebuild |= rule.action == WatchAction::Rebuild;
        self.restart |= restarts;
        if matches!(rule.action, WatchAction::SyncExec(_)) {
            self.execs.insert(number);
        }
        true
    }

    /// Whether anything of it is done in the replicas that there are.
    pub(super) fn is_in_place(&self) -> bool {
        self.restart || !self.copies.is_empty()
    }

    /// `src/app.py`, or `3 files (src/a.py, ...)`.
    pub(super) fn what(&self) -> String {
        match &self.files[..] {
            [] => "all that is watched".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        }
    }
}

/// A path as people know it: by its way from the root of the first rule that means it.
fn shown(watched: &Watched, path: &Path) -> String {
    let rule = watched.rules.iter().find(|rule| rule.means(path));
    let parent = rule.and_then(|rule| rule.root.parent());
    let short = parent.and_then(|parent| path.strip_prefix(parent).ok());
    short.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use layby_manifest::WatchExec;

    use super::super::rules::tests::rule;
    use super::*;

    fn changed(paths: &[&str]) -> Vec<Change> {
        let change = |path: &&str| Change {
            path: path.into(),
            how: How::Changed,
        };
        paths.iter().map(change).collect()
    }

    #[test]
    fn every_rule_that_means_a_file_has_its_say() {
        let exec = WatchAction::SyncExec(WatchExec::default());
        let web = Watched {
            id: "shop/web".into(),
            name: "web".into(),
            rules: vec![
                rule("/w/src", WatchAction::Sync, &["gen"], &[]),
                rule("/w/src/gen", exec, &[], &[]),
                rule("/w/conf.ini", WatchAction::SyncRestart, &[], &[]),
                rule("/w/Dockerfile.dev", WatchAction::Rebuild, &[], &[]),
                rule("/w/flags", WatchAction::Restart, &[], &[]),
            ],
        };
        assert_eq!(Work::of(&web, &changed(&["/w/other", "/x"])), None);
        let work = Work::of(&web, &changed(&["/w/src/a", "/w/src/gen/b"])).expect("work");
        let copies = [(0, "/w/src/a".into()), (1, "/w/src/gen/b".into())];
        let expected = Work {
            files: vec!["src/a".into(), "gen/b".into()],
            counts: Counts {
                removed: 2,
                ..Counts::default()
            },
            copies: copies.into(),
            execs: [1].into(),
            ..Work::default()
        };
        assert_eq!(work, expected);
        assert_eq!(work.what(), "src/a and 1 more");
        let work = Work::of(&web, &changed(&["/w/conf.ini"])).expect("work");
        assert!(work.restart && !work.rebuild && work.copies.len() == 1);
        let work = Work::of(&web, &changed(&["/w/flags/x"])).expect("work");
        assert!(work.restart && work.copies.is_empty());
        let work = Work::of(&web, &changed(&["/w/Dockerfile.dev"])).expect("work");
        assert!(work.rebuild && !work.is_in_place());
        let work = Work::of(&web, &changed(&["/w/Dockerfile.dev", "/w/src/a"])).expect("work");
        assert!(work.rebuild && work.is_in_place());
    }

    #[test]
    fn what_becomes_of_a_file_is_told_by_what_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "").expect("a file");
        std::os::unix::fs::symlink("nowhere", at("link")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        let mut rule = rule(
            &dir.path().display().to_string(),
            WatchAction::Sync,
            &[],
            &[],
        );
        rule.is_file = false;
        let web = Watched {
            id: "shop/web".into(),
            name: "web".into(),
            rules: vec![rule],
        };
        let change = |(name, how)| Change {
            path: at(name),
            how,
        };
        let all = [
            ("file", How::Came),
            ("link", How::Changed),
            ("socket", How::Came),
            ("old", How::Went),
        ];
        let work = Work::of(&web, &all.map(change)).expect("work");
        let expected = Counts {
            copied: 2,
            removed: 1,
            left_out: 1,
        };
        assert_eq!(work.counts, expected);
    }

    #[test]
    fn a_link_to_a_folder_is_no_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().display().to_string();
        std::fs::create_dir(dir.path().join("v2")).expect("a folder");
        std::os::unix::fs::symlink("v2", dir.path().join("current")).expect("a link");
        let mut rule = rule(&root, WatchAction::Restart, &[], &[]);
        rule.is_file = false;
        let takes = |name: &str| Work::default().take(0, &rule, &dir.path().join(name));
        assert!(takes("current") && !takes("v2"));
    }
}
