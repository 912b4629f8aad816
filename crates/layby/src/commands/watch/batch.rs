//! Changes that belong together: an editor that writes a file aside and renames it, or thousands of files of a `git checkout`,
//! are one batch.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

/// A batch is over when nothing has changed for so long.
const QUIET: Duration = Duration::from_millis(100);
/// It is over after so long in any case: some program may write without end.
const LONGEST: Duration = Duration::from_secs(2);
/// Of more paths than this it is no use to remember which.
const MAX_PATHS: usize = 10_000;

/// Where something may have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    /// Files and folders, each with all that is in it.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Anywhere.
    pub(super) all: bool,
}

/// What was heard since the last batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    dirty: Dirty,
    /// When the first and the last of it was.
    heard: Option<(Instant, Instant)>,
}

impl Batch {
    /// Something may have changed at `path`.
    pub(super) fn add(&mut self, path: PathBuf, now: Instant) {
        self.hear(now);
        if self.dirty.all {
            return;
        }
        self.dirty.paths.insert(path);
        if self.dirty.paths.len() > MAX_PATHS {
            self.add_all(now);
        }
    }

    /// Something may have changed anywhere.
    pub(super) fn add_all(&mut self, now: Instant) {
        self.hear(now);
        self.dirty.all = true;
        self.dirty.paths.clear();
    }

    /// When it is over; `None`: nothing was heard.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = self.heard?;
        Some((last + QUIET).min(first + LONGEST))
    }

    /// Takes it, for the next one to begin.
    pub(super) fn take(&mut self) -> Dirty {
        self.heard = None;
        std::mem::take(&mut self.dirty)
    }

    fn hear(&mut self, now: Instant) {
        let (_, last) = self.heard.get_or_insert((now, now));
        *last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_when_it_has_been_quiet_or_has_lasted_long() {
        let (mut batch, begin) = (Batch::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(batch.due(), None);
        batch.add("a".into(), at(0));
        assert_eq!(batch.due(), Some(at(100)));
        batch.add("b".into(), at(90));
        batch.add("a".into(), at(150));
        assert_eq!(batch.due(), Some(at(250)));
        for ms in (200..=1_990).step_by(10) {
            batch.add("log".into(), at(ms));
        }
        assert_eq!(batch.due(), Some(at(2_000)));
        let paths = ["a", "b", "log"].map(PathBuf::from).into();
        assert_eq!(batch.take(), Dirty { paths, all: false });
        assert_eq!((batch.due(), batch.take()), (None, Dirty::default()));
    }

    #[test]
    fn of_very_many_changes_only_that_they_were_is_remembered() {
        let (mut batch, now) = (Batch::default(), Instant::now());
        for n in 0..=MAX_PATHS + 5 {
            batch.add(format!("{n}").into(), now);
        }
        let dirty = batch.take();
        assert!(dirty.all && dirty.paths.is_empty());
        batch.add("a".into(), now);
        assert!(!batch.take().all, "the next one begins anew");
    }
}
