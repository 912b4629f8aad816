//! `layby watch` and `layby up --watch`: what is done for services when files of the developer change (Compose Develop
//! Specification). Copies and restarts are in place, in the replicas that there are; a rebuild is an `up` of the service.

mod batch;
mod copy;
mod folders;
mod held;
mod rules;
mod session;
mod tree;
mod work;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use layby_manifest::Manifest;
use layby_model::names::ServiceName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::cli::Canary;
use crate::client::Client;
use crate::commands::up::{self, How};
use crate::events::Style;
use crate::out::{say, tell};
use crate::parcel::{Manifests, Picked};
use batch::Batch;
use held::Held;
use rules::Watched;
use session::Session;
use tree::{Change, Tree};
use work::Work;

/// How long after a batch is due it is looked once more whether it can begin.
const AGAIN: Duration = Duration::from_millis(50);

/// Reads what is to be watched, to find out what is wrong with it.
///
/// # Errors
/// Something is, or nothing is to be watched.
pub(crate) fn rules(manifests: &mut Manifests, here: bool) -> Result<()> {
    let manifest = read(manifests, here)?;
    rules::watched(manifests, &manifest, here).map(drop)
}

/// Finds out whether the services and jobs that are to be watched are there.
///
/// # Errors
/// One of them is not.
pub(crate) async fn check_there(client: &Client, manifests: &mut Manifests) -> Result<()> {
    let manifest = read(manifests, client.elsewhere().is_none())?;
    let is_watched = |name: &ServiceName| manifest.watches.iter().any(|one| one.service == *name);
    let services = manifest.app.services.iter();
    for one in services.filter(|one| is_watched(&one.name)) {
        let kind = match one.job {
            Some(_) => "jobs",
            None => "services",
        };
        let path = format!("/v1/{kind}/{}/{}", manifest.app.name, one.name);
        client.get::<serde::de::IgnoredAny>(&path, &[]).await?;
    }
    Ok(())
}

/// The manifests as this program itself reads them: a node elsewhere has no say in which files are watched.
fn read(manifests: &mut Manifests, here: bool) -> Result<Manifest> {
    loop {
        let (files, mut options) = manifests.as_read();
        if here {
            options.folder_path = Some(manifests.folder.display().to_string());
        }
        let more = layby_manifest::needed(&files, &options);
        if !more.is_empty() {
            manifests.add(&more)?;
            continue;
        }
        return layby_manifest::read(&files, &options)
            .map_err(|faults| anyhow::anyhow!("{faults}"));
    }
}

/// Watches until it is ended by Ctrl-C. What fails is told, and does not end it.
///
/// # Errors
/// Files cannot be watched.
pub(crate) async fn watch(client: &Client, mut manifests: Manifests, quiet: bool) -> Result<()> {
    let here = client.elsewhere().is_none();
    let manifest = read(&mut manifests, here)?;
    let watched = Rc::new(rules::watched(&manifests, &manifest, here)?);
    let mut tree = Tree::new(Rc::clone(&watched))?;
    let mut held = Held::default();
    let mut sessions: Vec<Session<'_>> = Vec::new();
    for one in watched.iter() {
        sessions.push(Session::new(client, one, &tree, &mut held));
    }
    let (mut interrupted, mut terminated) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let mut ended = async || {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    if !quiet {
        say!("{}", begun(&watched));
    }
    let (bell, mut batch) = (held.bell(), Batch::default());
    loop {
        let due = batch.due();
        tokio::select! {
            heard = tree.hear(&mut batch) => {
                heard?;
                continue;
            }
            () = until(due) => {}
            () = bell.notified() => {}
            () = ended() => break,
        }
        let is_due = batch.due().is_some_and(|due| due <= Instant::now());
        let changes = match is_due {
            true => tree.changes(batch.take())?,
            false => Vec::new(),
        };
        let only_waits = Cell::new(false);
        let work = act(
            client,
            &manifests,
            &mut sessions,
            &changes,
            &only_waits,
            quiet,
        );
        tokio::pin!(work);
        // What changes meanwhile is the next batch. It may mend what a restart waits for.
        let mut earliest = Instant::now();
        let is_over = loop {
            let due = batch.due().map(|due| due.max(earliest));
            tokio::select! {
                () = &mut work => break false,
                heard = tree.hear(&mut batch) => heard?,
                () = until(due) => {
                    if only_waits.get() {
                        break false;
                    }
                    earliest = Instant::now() + AGAIN;
                }
                () = ended() => break true,
            }
        };
        if is_over {
            break;
        }
    }
    tell!("No longer watching; the services go on.");
    Ok(())
}

/// Does what the changes mean, service by service, and brings replicas up to date that have come. `only_waits` is set while it may
/// be left without anything being lost: nothing is to come then that the changes ask for.
async fn act(
    client: &Client,
    manifests: &Manifests,
    sessions: &mut [Session<'_>],
    changes: &[Change],
    only_waits: &Cell<bool>,
    quiet: bool,
) {
    let works = sessions.iter_mut().map(|session| {
        let work = Work::of(session.watched, changes).unwrap_or_default();
        (session, work)
    });
    let turns = Turns::of(works.collect(), |(_, work)| work);
    let Turns {
        copies,
        builds,
        mut restarts,
    } = turns;
    let is_last = builds.is_empty() && restarts.is_empty();
    let last = copies.iter().rposition(|(_, work)| !work.files.is_empty());
    for (n, (session, work)) in copies.into_iter().enumerate() {
        let may_leave = is_last && last.is_none_or(|last| n >= last);
        let only_waits = may_leave.then_some(only_waits);
        session.bring(client, work, only_waits, quiet).await;
    }
    if !builds.is_empty() {
        restarts.extend(build(client, manifests, builds, quiet).await);
    }
    let count = restarts.len();
    for (n, (session, work)) in restarts.into_iter().enumerate() {
        let only_waits = (n + 1 == count).then_some(only_waits);
        session.bring(client, work, only_waits, quiet).await;
    }
}

/// In which order services have their turn: copies are quick, and a restart may take long.
#[derive(Debug, PartialEq, Eq)]
struct Turns<T> {
    /// Those of which files are copied, or nothing is to be done but for replicas that have come.
    copies: Vec<T>,
    /// Those that are built anew.
    builds: Vec<T>,
    /// Those that are restarted, whose end is waited for.
    restarts: Vec<T>,
}

impl<T> Turns<T> {
    fn of(all: Vec<T>, work: impl Fn(&T) -> &Work) -> Self {
        let (builds, others): (Vec<T>, Vec<T>) = all.into_iter().partition(|one| work(one).rebuild);
        let (restarts, copies) = others.into_iter().partition(|one| work(one).restart);
        Self {
            copies,
            builds,
            restarts,
        }
    }
}

/// Builds services and says what came of it. Gives those of which something is to be done in place instead, since they could
/// not be built: what was live goes on, and has not got what was saved together with what cannot be built.
async fn build<'a, 's>(
    client: &Client,
    manifests: &Manifests,
    mut builds: Vec<(&'a mut Session<'s>, Work)>,
    quiet: bool,
) -> Vec<(&'a mut Session<'s>, Work)> {
    let begun = Instant::now();
    let mut names = Vec::new();
    for (session, _) in &mut builds {
        session.begin_build();
        names.push(session.watched.name.clone());
    }
    let done = rebuild(client, manifests, names, quiet).await;
    if let Err(error) = &done {
        tell_error(error);
    }
    builds.retain_mut(|(session, work)| {
        let what = work.what();
        match done {
            Ok(()) if quiet => {}
            Ok(()) => line(session.watched, &what, "built and live", begun),
            Err(_) => line(
                session.watched,
                &what,
                "not rebuilt: what was live goes on",
                begun,
            ),
        }
        work.rebuild = false;
        done.is_err() && work.is_in_place()
    });
    builds
}

/// Builds services and rolls them out, without what they depend on.
async fn rebuild(
    client: &Client,
    manifests: &Manifests,
    services: Vec<String>,
    quiet: bool,
) -> Result<()> {
    let mut manifests = manifests.clone();
    // By the name of the file, or by the one that it has here.
    let is_one = |name: &String| {
        services.contains(name)
            || layby_manifest::label_of(name).is_some_and(|label| services.contains(&label))
    };
    let scale = manifests
        .picked
        .scale
        .iter()
        .filter(|(name, _)| is_one(name))
        .cloned()
        .collect();
    manifests.picked = Picked {
        services,
        no_deps: true,
        scale,
    };
    let how = How {
        build: true,
        ..How::default()
    };
    let style = match quiet {
        true => Style::Quiet,
        false => Style::Brief,
    };
    up::deploy(client, &mut manifests, &how, &Canary::default(), style).await
}

/// What is said at the beginning.
fn begun(watched: &[Watched]) -> String {
    let all: Vec<&str> = watched.iter().map(|one| one.name.as_str()).collect();
    let held: Vec<&str> = watched
        .iter()
        .filter(|one| one.is_held())
        .map(|one| one.name.as_str())
        .collect();
    let awake = match held.is_empty() {
        true => String::new(),
        false => format!("; {} awake meanwhile", kept(&held)),
    };
    format!(
        "Watching the files of {}{awake}. Ctrl-C ends it, and the services go on.",
        all.join(", ")
    )
}

fn kept(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is kept"),
        several => format!("{} are kept", several.join(", ")),
    }
}

/// `12:03:44  web  src/app.py  copied to 2 replicas, 34 ms`.
fn line(watched: &Watched, what: &str, done: &str, begun: Instant) {
    let now = TimeZone::system().to_datetime(Timestamp::now());
    let now = now.strftime("%H:%M:%S");
    say!(
        "{now}  {}  {what}  {done}, {}",
        watched.name,
        took(begun.elapsed())
    );
}

fn took(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{} ms", took.as_millis()),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

/// An error whose text may have been said already.
fn tell_error(error: &anyhow::Error) {
    let text = format!("{error:#}");
    if !text.is_empty() {
        tell!("layby: {text}");
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_comes_before_a_build_and_a_restart_last() {
        let named = |name: &str, rebuild, restart| {
            let files = vec![name.to_owned()];
            Work {
                files,
                rebuild,
                restart,
                ..Work::default()
            }
        };
        let [a, b, c, d] = [
            named("a", false, true),
            named("b", true, true),
            Work::default(),
            named("d", false, false),
        ];
        let turns = Turns::of(vec![&a, &b, &c, &d], |one| *one);
        let expected = Turns {
            copies: vec![&c, &d],
            builds: vec![&b],
            restarts: vec![&a],
        };
        assert_eq!(turns, expected);
    }
}
