//! One service while it is watched: which files its replicas are to have beside their image, and which of them have these.
//!
//! What is copied stays through restarts and sleep, since a replica keeps what was written in it. A replica that comes later gets
//! all that was copied since the revision went live; a new revision begins with its image, with what `initial_sync` says, and with
//! what was copied while its image was built here.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use layby_manifest::{WatchAction, WatchExec};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::copy::{self, Pair};
use super::held::{Held, Running};
use super::rules::Watched;
use super::tree::Tree;
use super::work::{Counts, Work};
use super::{line, tell_error};
use crate::client::Client;
use crate::commands::exec;
use crate::events::{self, Style};
use crate::out::{say, tell};

/// After so long it is said that a command still runs.
const LONG: Duration = Duration::from_secs(10);
/// For so long it is waited for.
const LONGEST: Duration = Duration::from_mins(10);

/// A file and the number of the rule by which it is copied.
type Copied = BTreeSet<(usize, PathBuf)>;

/// A service that is watched.
pub(super) struct Session<'a> {
    pub(super) watched: &'a Watched,
    /// Its path in the API.
    path: String,
    /// What runs of it; `None`: nothing is done in its replicas.
    running: Option<watch::Receiver<Running>>,
    /// The revision that what follows is of.
    revision: u32,
    /// What every revision is to have.
    initial: Copied,
    /// What its replicas are to have.
    copied: Copied,
    /// What was copied since its image began to be built: it may have come too late for the revision that is to come.
    since: Option<Copied>,
    /// Files that came when no image was built: none has them, so that they may be forgotten when they are gone.
    came: BTreeSet<PathBuf>,
    /// Those of them that are gone, and not forgotten yet.
    gone: BTreeSet<PathBuf>,
    /// The replicas that have all of it.
    in_step: BTreeSet<String>,
    /// Those that have a part of it, and may come back.
    behind: BTreeSet<String>,
}

/// What came of it.
#[derive(Default)]
struct Done {
    replicas: usize,
    counts: Counts,
    ran: bool,
    restarted: bool,
}

impl<'a> Session<'a> {
    /// Begins to hold a service, where something is done in its replicas.
    pub(super) fn new(client: &Client, watched: &'a Watched, tree: &Tree, held: &mut Held) -> Self {
        let path = format!("/v1/services/{}", watched.id);
        let mut initial = Copied::new();
        for (number, rule) in watched.rules.iter().enumerate() {
            if rule.initial_sync && rule.action.copies() {
                let files = tree.files(|path| rule.means(path)).into_iter();
                initial.extend(files.map(|file| (number, file)));
            }
        }
        Self {
            running: watched.is_held().then(|| held.hold(client, &path)),
            path,
            watched,
            revision: 0,
            copied: initial.clone(),
            since: None,
            initial,
            came: BTreeSet::new(),
            gone: BTreeSet::new(),
            in_step: BTreeSet::new(),
            behind: BTreeSet::new(),
        }
    }

    /// Its image begins to be built. Where no revision comes of it, the next one begins with what was copied since, too.
    pub(super) fn begin_build(&mut self) {
        self.since = Some(Copied::new());
        self.came.clear();
        self.gone.clear();
    }

    /// Does what a batch asks for, and brings replicas up to date that have come. What fails is told. `only_waits` is set while
    /// nothing is left but to wait for the end of a restart.
    pub(super) async fn bring(
        &mut self,
        client: &Client,
        work: Work,
        only_waits: Option<&Cell<bool>>,
        quiet: bool,
    ) {
        let begun = Instant::now();
        let what = match (work.files.is_empty(), self.copied.len()) {
            (true, 1) => "1 file".to_owned(),
            (true, n) => format!("{n} files"),
            (false, _) => work.what(),
        };
        let mut done = Done::default();
        match self
            .do_all(client, work, &mut done, only_waits, quiet)
            .await
        {
            Ok(()) => {
                if let Some(done) = done.said().filter(|_| !quiet) {
                    line(self.watched, &what, &done, begun);
                }
            }
            Err(error) => {
                tell_error(&error);
                line(self.watched, &what, "failed", begun);
            }
        }
    }

    async fn do_all(
        &mut self,
        client: &Client,
        mut work: Work,
        done: &mut Done,
        only_waits: Option<&Cell<bool>>,
        quiet: bool,
    ) -> Result<()> {
        let Some(running) = self
            .running
            .as_ref()
            .map(|running| running.borrow().clone())
        else {
            return Ok(());
        };
        self.note(&running, &mut work);
        done.counts = work.counts;
        if running.replicas.is_empty() && !work.files.is_empty() {
            bail!(
                "no replica of {} runs: `layby status {}` says why; what has changed is copied when one does",
                self.watched.name,
                self.watched.id
            );
        }
        let mut failed = None;
        for id in &running.replicas {
            // Where one fails, the others get theirs all the same: later they are only told of what is new then.
            match self.catch_up(client, id, &work.copies).await {
                Ok(any) => done.replicas += usize::from(any),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.forget();
        for number in &work.execs {
            if let WatchAction::SyncExec(exec) = &self.watched.rules[*number].action {
                for id in &running.replicas {
                    self.run(client, id, exec, quiet).await?;
                }
                done.ran = true;
            }
        }
        if work.restart {
            let path = format!("{}/restart", self.path);
            let lines = client.post_lines(&path, &[]).await?;
            let waits = |waits| only_waits.into_iter().for_each(|only| only.set(waits));
            waits(true);
            let shown = events::show(client, lines, Style::Brief).await;
            waits(false);
            shown?;
            done.restarted = true;
        }
        Ok(())
    }

    /// Takes up which revision and replicas there are, and what they are to have now. For those that have come since, all is
    /// done that was done before.
    fn note(&mut self, running: &Running, work: &mut Work) {
        if running.revision != self.revision {
            self.revision = running.revision;
            self.copied.clone_from(&self.initial);
            // What is packed is as it is then: what the image has already comes to no harm.
            self.copied.extend(self.since.take().into_iter().flatten());
            self.came.clear();
            self.gone.clear();
            self.in_step.clear();
            self.behind.clear();
        }
        if !work.copies.is_empty() {
            // One that does not run now, since it is restarted, lacks this when it is back.
            let is_away = |id: &String| !running.replicas.contains(id);
            self.behind.extend(self.in_step.extract_if(.., is_away));
        }
        if !running.replicas.is_empty() {
            // Of a node that has begun anew nothing is known yet.
            self.behind.retain(|id| running.known.contains(id));
        }
        for file in &work.came {
            // What went before may be in the image, unless it had come like this.
            let is_new = !self.copies_of(file).any(|copy| self.copied.contains(&copy));
            if self.gone.remove(file) || (is_new && self.since.is_none()) {
                self.came.insert(file.clone());
            }
        }
        for file in &work.went {
            self.gone.extend(self.came.take(file));
        }
        for (number, file) in &work.copies {
            if self.watched.rules[*number].initial_sync {
                self.initial.insert((*number, file.clone()));
            }
            if let Some(since) = &mut self.since {
                since.insert((*number, file.clone()));
            }
            self.copied.insert((*number, file.clone()));
        }
        if running.replicas.is_subset(&self.in_step) {
            return;
        }
        for (number, _) in &self.copied {
            match self.watched.rules[*number].action {
                // A program that has begun without it begins anew.
                WatchAction::SyncRestart => work.restart = true,
                WatchAction::SyncExec(_) => drop(work.execs.insert(*number)),
                WatchAction::Rebuild | WatchAction::Restart | WatchAction::Sync => {}
            }
        }
    }

    /// Copies into a replica what it lacks: the `new` files, or all where it has come since. Gives whether anything was.
    async fn catch_up(&mut self, client: &Client, replica: &str, new: &Copied) -> Result<bool> {
        let files = match self.in_step.remove(replica) {
            true => new,
            false => &self.copied,
        };
        // Until all of it is there.
        self.behind.insert(replica.to_owned());
        let copied = self.copy(client, replica, files).await;
        copied.with_context(|| format!("cannot copy into replica {replica}"))?;
        let any = !files.is_empty();
        self.behind.remove(replica);
        self.in_step.insert(replica.to_owned());
        Ok(any)
    }

    /// Forgets files that are gone, where no image has them and no replica any more: else each replica that comes would be told
    /// of all that a bundler ever wrote.
    fn forget(&mut self) {
        if !self.behind.is_empty() {
            return;
        }
        for file in std::mem::take(&mut self.gone) {
            for copy in self.copies_of(&file) {
                self.copied.remove(&copy);
                self.initial.remove(&copy);
            }
        }
    }

    /// A file by each of the rules.
    fn copies_of(&self, file: &Path) -> impl Iterator<Item = (usize, PathBuf)> + use<> {
        let file = file.to_owned();
        (0..self.watched.rules.len()).map(move |number| (number, file.clone()))
    }

    /// Copies files into a replica, rule by rule.
    async fn copy(&self, client: &Client, replica: &str, files: &Copied) -> Result<()> {
        let mut by_rule: BTreeMap<usize, Vec<Pair>> = BTreeMap::new();
        for (number, file) in files {
            let rule = &self.watched.rules[*number];
            if let (Some(target), Ok(below)) =
                (rule.target_of(file), file.strip_prefix(rule.folder()))
            {
                let pairs = by_rule.entry(*number).or_default();
                pairs.push((below.to_owned(), target));
            }
        }
        for (number, pairs) in by_rule {
            let rule = &self.watched.rules[number];
            let target = rule.target_of(&rule.root).unwrap_or_default();
            let target: &Path = match rule.is_file {
                true => target.parent().unwrap_or(Path::new("")),
                false => &target,
            };
            let root = rule.folder().to_owned();
            copy::copy(client, &self.path, replica, root, target, pairs).await?;
        }
        Ok(())
    }

    /// Runs a rule's command in a replica.
    async fn run(
        &self,
        client: &Client,
        replica: &str,
        rule: &WatchExec,
        quiet: bool,
    ) -> Result<()> {
        let env = rule.env.iter();
        let env: Vec<(String, Option<String>)> = env
            .map(|(name, value)| (name.clone(), Some(value.clone())))
            .collect();
        let mut query = exec::words(&rule.command, &env);
        query.extend(rule.working_dir.clone().map(|dir| ("workdir", dir)));
        query.extend(rule.user.clone().map(|user| ("user", user)));
        query.push(("replica", replica.to_owned()));
        let command = rule.command.join(" ");
        let path = format!("{}/exec", self.path);
        let ran = exec::gather(client, &path, query);
        tokio::pin!(ran);
        let ran = match timeout(LONG, &mut ran).await {
            Ok(ran) => ran,
            Err(_) => {
                let name = &self.watched.name;
                tell!("  {name}  {command}  still runs: what changes meanwhile waits for it");
                match timeout(LONGEST - LONG, &mut ran).await {
                    Ok(ran) => ran,
                    Err(_) => bail!(
                        "{command:?} has run for {} minutes in replica {replica}, and is not waited for any longer: the command of \
                         a `sync+exec` is one that ends",
                        LONGEST.as_secs() / 60
                    ),
                }
            }
        };
        let (code, output) = ran.with_context(|| format!("cannot run {command:?}"))?;
        if !quiet || code != 0 {
            output
                .lines()
                .for_each(|text| say!("  {}  {text}", self.watched.name));
        }
        match code {
            0 => Ok(()),
            code => bail!("{command:?} ended with exit code {code} in replica {replica}"),
        }
    }
}

impl Done {
    /// `copied to 2 replicas, 1 removed, restarted`; `None`: nothing was done.
    fn said(&self) -> Option<String> {
        let Counts {
            copied,
            removed,
            left_out,
        } = self.counts;
        let in_replicas = |what: &str, way: &str| match self.replicas {
            0 => None,
            1 => Some(what.to_owned()),
            n => Some(format!("{what} {way} {n} replicas")),
        };
        let copies = match (copied, removed, left_out) {
            (0, 0, 1..) => None,
            (0, 1.., _) => in_replicas("removed", "from"),
            // All that was copied before, into a replica that has come.
            (0, 0, 0) | (1.., _, _) => in_replicas("copied", "to"),
        };
        let some = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        let left_out = match (copied + removed, left_out) {
            (0, 1..) => Some("left out: no file, folder or link".to_owned()),
            (_, left_out) => some(left_out, "left out (no file, folder or link)"),
        };
        let ran = self.ran.then(|| "its command run".to_owned());
        let restarted = self.restarted.then(|| "restarted".to_owned());
        let all = [
            copies,
            some(removed, "removed").filter(|_| copied > 0),
            left_out,
            ran,
            restarted,
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::tests::rule;
    use super::*;

    fn running(revision: u32, replica: &str) -> Running {
        Running {
            revision,
            replicas: [replica.to_owned()].into(),
            known: [replica.to_owned()].into(),
        }
    }

    fn copying(file: &str) -> Work {
        Work {
            copies: [(0, file.into())].into(),
            ..Work::default()
        }
    }

    #[test]
    fn what_was_done_is_said_as_it_is() {
        let table = [
            ((1, 0, 0), 1, Some("copied")),
            ((0, 0, 0), 2, Some("copied to 2 replicas")),
            ((0, 3, 0), 2, Some("removed from 2 replicas")),
            ((2, 1, 0), 2, Some("copied to 2 replicas, 1 removed")),
            ((0, 0, 1), 2, Some("left out: no file, folder or link")),
            (
                (1, 0, 1),
                1,
                Some("copied, 1 left out (no file, folder or link)"),
            ),
            ((0, 0, 0), 0, None),
        ];
        for ((copied, removed, left_out), replicas, said) in table {
            let counts = Counts {
                copied,
                removed,
                left_out,
            };
            let done = Done {
                replicas,
                counts,
                ..Done::default()
            };
            assert_eq!(done.said().as_deref(), said);
        }
    }

    fn web() -> Watched {
        Watched {
            id: "shop/web".into(),
            name: "web".into(),
            rules: vec![rule("/w/src", WatchAction::Sync, &[], &[])],
        }
    }

    fn session(watched: &Watched) -> Session<'_> {
        Session {
            watched,
            path: String::new(),
            running: None,
            revision: 0,
            initial: Copied::new(),
            copied: Copied::new(),
            since: None,
            came: BTreeSet::new(),
            gone: BTreeSet::new(),
            in_step: BTreeSet::new(),
            behind: BTreeSet::new(),
        }
    }

    fn has(session: &Session<'_>, files: &[&str]) {
        let files: Copied = files.iter().map(|file| (0, file.into())).collect();
        assert_eq!(session.copied, files);
    }

    #[test]
    fn what_is_copied_while_an_image_is_built_is_in_its_revision_too() {
        let watched = web();
        let mut session = session(&watched);
        session.note(&running(1, "a"), &mut copying("/w/src/before"));
        has(&session, &["/w/src/before"]);
        session.begin_build();
        // It is live, and that is not heard of yet: the file goes to the replica that is drained, and not to it alone.
        session.note(&running(1, "a"), &mut copying("/w/src/meanwhile"));
        has(&session, &["/w/src/before", "/w/src/meanwhile"]);
        session.note(&running(2, "b"), &mut Work::default());
        has(&session, &["/w/src/meanwhile"]);
        // A revision that was not built here begins with its image.
        session.note(&running(3, "c"), &mut Work::default());
        has(&session, &[]);
    }

    /// Copies what came, changed or went into the replica `a`, as far as that runs.
    fn copy(session: &mut Session<'_>, runs: bool, mut work: Work) {
        let mut now = running(1, "a");
        now.replicas.retain(|_| runs);
        session.note(&now, &mut work);
        if runs {
            session.behind.remove("a");
            session.in_step.insert("a".into());
        }
        session.forget();
    }

    fn came(file: &str) -> Work {
        Work {
            came: [file.into()].into(),
            ..copying(file)
        }
    }

    fn went(file: &str) -> Work {
        Work {
            went: [file.into()].into(),
            ..copying(file)
        }
    }

    #[test]
    fn what_came_and_went_is_forgotten_unless_an_image_or_a_replica_may_have_it() {
        let watched = web();
        let mut session = session(&watched);
        copy(&mut session, true, came("/w/src/app.1.js"));
        copy(&mut session, true, copying("/w/src/app.1.js"));
        has(&session, &["/w/src/app.1.js"]);
        copy(&mut session, true, went("/w/src/app.1.js"));
        has(&session, &[]);
        // In the image from the beginning, also where it comes back.
        copy(&mut session, true, went("/w/src/old"));
        copy(&mut session, true, came("/w/src/old"));
        copy(&mut session, true, went("/w/src/old"));
        has(&session, &["/w/src/old"]);
        // The replica is restarted meanwhile: it has all to hear when it is back.
        copy(&mut session, true, came("/w/src/app.2.js"));
        copy(&mut session, false, went("/w/src/app.2.js"));
        assert!(session.in_step.is_empty());
        has(&session, &["/w/src/app.2.js", "/w/src/old"]);
        copy(&mut session, true, Work::default());
        has(&session, &["/w/src/old"]);
        // It comes back before all have heard that it went.
        copy(&mut session, true, came("/w/src/app.2.js"));
        copy(&mut session, false, went("/w/src/app.2.js"));
        copy(&mut session, true, came("/w/src/app.2.js"));
        has(&session, &["/w/src/app.2.js", "/w/src/old"]);
        // A replica that had it was scaled away, and never hears of it.
        session.in_step.insert("b".into());
        copy(&mut session, true, went("/w/src/app.2.js"));
        has(&session, &["/w/src/old"]);
        // An image that is built now may have what is there now.
        copy(&mut session, true, came("/w/src/app.3.js"));
        session.begin_build();
        copy(&mut session, true, came("/w/src/app.4.js"));
        for gone in ["/w/src/app.3.js", "/w/src/app.4.js"] {
            copy(&mut session, true, went(gone));
        }
        session.note(&running(2, "b"), &mut Work::default());
        has(&session, &["/w/src/app.3.js", "/w/src/app.4.js"]);
    }
}
