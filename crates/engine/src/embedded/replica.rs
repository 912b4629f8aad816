//! One replica's task: carries out its orders, one after another, until it is gone.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use layby_image::Error as ImageError;
use layby_model::engine::RunSpec;
use layby_model::fail::{self, Point};
use layby_model::replica::Trouble;
use layby_model::{AppName, ReplicaId, RevisionId, ServiceId, error_chain};
use layby_net::Attachment;
use layby_runtime::{ContainerConfig, SandboxSpec, freezer, moving, sandbox};

use super::blocking::blocking;
use super::merge::{again, merge, startup};
use super::mounts::{self, Place};
use super::record::{HasEnded, Record};
use super::sandbox::{name_servers, sandbox as sandbox_of};
use super::shim::Shim;
use super::{Shared, containers, ended};
use crate::lifecycle::{Action, Actual};
use crate::roster::{Entry, Next};
use crate::slots::{self, Facts, Slots};

/// From one try to remove a replica to the next.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);
/// The grace of replicas whose settings are not known any more: those found at a restart. The shim knows the
/// true one; this only bounds the wait for it.
const GRACE: Duration = Duration::from_secs(600);
/// What is not bounded here: the rollout's deadline, or the job's, ends it.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Carries out the orders for one replica.
pub(super) async fn run(shared: Arc<Shared>, id: ReplicaId) {
    let mut written = None;
    let mut cleaned = false;
    loop {
        match shared.roster.next(id) {
            Next::Gone => return,
            Next::Wait(wake) => {
                if !cleaned && has_no_shim(&shared, id) {
                    cleaned = true;
                    clean(&shared, id).await;
                } else {
                    keep_record(&shared, id, &mut written).await;
                    wake.notified().await;
                }
            }
            Next::Do(Action::Remove) => match remove(&shared, id).await {
                Ok(()) => shared.roster.remove(id),
                Err(trouble) => {
                    shared.roster.done(id, Err(trouble));
                    tokio::time::sleep(REMOVE_AGAIN).await;
                }
            },
            Next::Do(Action::Thaw) => thaw(&shared, id),
            Next::Do(action) => {
                if action == Action::Start && written.as_ref().is_none_or(Written::says_ended) {
                    // Before: or a restart of the machine would find it ended that was just started again.
                    keep_record(&shared, id, &mut written).await;
                }
                let outcome = act(&shared, id, action).await;
                shared.roster.done(id, outcome);
                look(&shared, id);
            }
        }
    }
}

/// Thaws a replica of which [`Action::Thaw`] was claimed: one small write, short enough for an async thread.
pub(super) fn thaw(shared: &Shared, id: ReplicaId) {
    let outcome = match freezer::thaw(&shared.cgroup(id)) {
        Ok(()) => {
            fail::at(Point::AfterThaw);
            Ok(Actual::Running)
        }
        Err(error) => Err(from_runtime(&error)),
    };
    shared.roster.done(id, outcome);
    look(shared, id);
}

/// Connects a replica with its shim: what the shim says is written down from now on.
pub(super) async fn connect(shared: &Arc<Shared>, id: ReplicaId) -> Result<Arc<Shim>, Trouble> {
    // Not counted: the connection's task must not keep an engine alive that was dropped.
    let engine = Arc::downgrade(shared);
    let changed = move || {
        if let Some(shared) = engine.upgrade() {
            look(&shared, id);
        }
    };
    let shim = Shim::connect(&shared.socket(id), changed).await;
    let shim = Arc::new(shim.map_err(from_shim)?);
    shared.set_shim(id, Some(Arc::clone(&shim)));
    Ok(shim)
}

/// Takes over what the shim says. Safe to repeat: whoever comes last sees the latest.
pub(super) fn look(shared: &Shared, id: ReplicaId) {
    let Some(shim) = shared.shim(id) else {
        return;
    };
    shared.roster.change(id, |entry| match shim.state() {
        Some(state) => {
            entry.containers = containers(&state.containers);
            entry.init = containers(&state.init);
            let before = entry.has_ended();
            entry.ended = ended(&state);
            entry.ended_in_a_row = state.ended_in_a_row;
            if let Some(trouble) = state.trouble {
                entry.trouble = Some(from_shim(trouble));
            }
            match entry.doing() {
                // While an action is under way its end says what the replica is. A start is over when the shim says
                // so, a moment before its reply is read; until then its processes are not yet the container's.
                Some(Action::Start) if state.running => entry.actual = Actual::Running,
                Some(Action::Start) => hide_pids(entry),
                Some(_) => {}
                None if !state.running && runs(entry.actual) => entry.actual = Actual::Stopped,
                // A start that was asked for before a restart of the node, or that took longer than was waited for.
                None if state.running && entry.actual == Actual::Stopped => {
                    entry.actual = Actual::Running;
                }
                None => {}
            }
            if entry.has_ended() && !before {
                entry.wake(); // it is to be written down
            }
        }
        None if entry.retiring() => {}
        // It lies there all the same; without a shim it cannot be started again.
        None if entry.has_ended() => entry.wake(),
        None if entry.actual != Actual::Lost => {
            lose(entry, format!("the shim of replica {id} has ended"));
            entry.wake();
        }
        None => {}
    });
}

fn hide_pids(entry: &mut Entry) {
    for container in &mut entry.containers {
        container.pid = None;
    }
}

fn runs(actual: Actual) -> bool {
    matches!(actual, Actual::Running | Actual::Ready | Actual::Frozen)
}

/// Writes down that a replica cannot be used any more.
pub(super) fn lose(entry: &mut Entry, message: String) {
    entry.actual = Actual::Lost;
    hide_pids(entry);
    entry.trouble = Some(Trouble {
        fatal: false,
        message,
    });
}

/// Whether it is lost, or has ended and is without its shim.
fn has_no_shim(shared: &Shared, id: ReplicaId) -> bool {
    let gone = |shim: Option<Arc<Shim>>| shim.is_none_or(|shim| shim.state().is_none());
    let entry = shared.roster.get(id);
    entry.is_some_and(|entry| {
        entry.actual == Actual::Lost || entry.has_ended() && gone(shared.shim(id))
    })
}

/// Ends what a replica left whose shim is gone: its processes must not go on where nobody sees them. Its address stays
/// taken until it is retired; and its files and logs, if it had ended by itself.
async fn clean(shared: &Shared, id: ReplicaId) {
    shared.set_shim(id, None);
    let bundle = shared.bundle(id);
    let entry = shared.roster.get(id);
    let ended = entry.is_some_and(|entry| entry.has_ended());
    let cleared = blocking(move || match ended {
        true => sandbox::bury(&bundle),
        false => sandbox::destroy(&bundle),
    });
    if let Err(errors) = cleared.await {
        // Retiring it tries again, and tells then.
        tracing::warn!("after replica {id} was lost: {}", all(&errors));
    }
}

/// What was written down last of what changes.
#[derive(PartialEq)]
struct Written {
    generation: u64,
    ended: Option<HasEnded>,
}

impl Written {
    fn says_ended(&self) -> bool {
        self.ended.is_some()
    }
}

/// Brings the record up to date, when nothing else is to be done, or what is to be done changes what it says.
async fn keep_record(shared: &Shared, id: ReplicaId, written: &mut Option<Written>) {
    let Some(entry) = shared.roster.get(id) else {
        return;
    };
    let now = Written {
        generation: entry.generation,
        ended: HasEnded::of(&entry),
    };
    if entry.actual == Actual::Absent || written.as_ref() == Some(&now) {
        return;
    }
    let bundle = shared.bundle(id);
    let (result, now) = blocking(move || {
        let result = Record::bring_up_to_date(&bundle, now.generation, &now.ended);
        (result, now)
    })
    .await;
    if let Err(error) = result {
        tracing::warn!("cannot bring the record of replica {id} up to date: {error}");
    }
    *written = Some(now);
}

fn record(id: ReplicaId, entry: &Entry) -> Record {
    let service: ServiceId = entry.service.clone();
    let revision: RevisionId = entry.revision;
    let images = entry.spec.as_ref().map(|spec| spec.images.clone());
    let name_servers = entry.spec.as_deref().map(name_servers);
    let network = entry.spec.as_ref().map(|spec| spec.service.sandbox.network);
    Record {
        network: network.unwrap_or_default(),
        generation: entry.generation,
        images: images.unwrap_or_default(),
        volumes: entry.volumes.clone(),
        name_servers: name_servers.unwrap_or_default(),
        ..Record::new(id, service, revision)
    }
}

/// Does one thing, and says what the replica is then.
async fn act(shared: &Arc<Shared>, id: ReplicaId, action: Action) -> Result<Actual, Trouble> {
    match action {
        Action::Prepare => {
            let prepared = prepare(shared, id).await;
            if prepared.is_err() {
                undo(shared, id).await;
            }
            prepared.map(|()| Actual::Stopped)
        }
        Action::Start => {
            let Some(shim) = shared.shim(id) else {
                return Ok(Actual::Lost); // it had ended, and its shim is gone: another takes its place
            };
            start(shared, id, &shim).await
        }
        Action::Stop | Action::Remove => {
            let shim = shim(shared, id)?;
            hasten(); // the shim makes the next containers soon, or at once if they are asked for again
            shim.stop(grace(shared, id)).await.map_err(from_shim)?;
            fail::at(Point::AfterStop);
            Ok(Actual::Stopped)
        }
        Action::Freeze => {
            let cgroup = shared.cgroup(id);
            blocking(move || freezer::freeze(&cgroup))
                .await
                .map_err(|error| from_runtime(&error))?;
            fail::at(Point::AfterFreeze);
            Ok(Actual::Frozen)
        }
        Action::Thaw => {
            freezer::thaw(&shared.cgroup(id)).map_err(|error| from_runtime(&error))?;
            Ok(Actual::Running)
        }
    }
}

/// Starts a replica. Where containers run before its own, or hooks follow, that takes as long as they do, unless it is to
/// go on to something else meanwhile.
async fn start(shared: &Arc<Shared>, id: ReplicaId, shim: &Shim) -> Result<Actual, Trouble> {
    let entry = shared.roster.get(id);
    let wakes = entry.as_ref().map(Entry::wakes);
    let takes = match entry.and_then(|entry| entry.spec) {
        Some(spec) if takes_its_time(&spec) => FOR_EVER,
        // As well where it is not known: one that was found at a restart.
        None => FOR_EVER,
        Some(_) => Duration::ZERO,
    };
    let called_off = async {
        let Some(wakes) = wakes.filter(|_| takes > Duration::ZERO) else {
            return std::future::pending().await;
        };
        while !shared
            .roster
            .get(id)
            .is_none_or(|entry| entry.is_called_off())
        {
            wakes.notified().await;
        }
    };
    tokio::select! {
        biased;
        started = shim.start(takes) => {
            started.map_err(from_shim)?;
            fail::at(Point::AfterStart);
            Ok(Actual::Running)
        }
        () = called_off => {
            shim.stop(grace(shared, id)).await.map_err(from_shim)?;
            Ok(Actual::Stopped)
        }
    }
}

/// Whether a start is over only when something in the containers has ended, or says that it has started.
fn takes_its_time(spec: &RunSpec) -> bool {
    let mut containers = spec.service.containers.iter();
    !spec.service.init.is_empty()
        || containers.any(|one| !one.post_start.is_empty() || startup(one).is_some())
}

/// What comes until processes are moved into the replica's cgroup takes as long as the kernel wants to wait for that.
fn hasten() {
    // Nobody waits for it.
    drop(tokio::task::spawn_blocking(moving::hasten));
}

/// How long its containers may take to stop.
fn grace(shared: &Shared, id: ReplicaId) -> Duration {
    let spec = shared.roster.get(id).and_then(|entry| entry.spec);
    let containers = spec.iter().flat_map(|spec| spec.service.all_containers());
    let longest = containers.map(|container| container.stop_grace_ms).max();
    longest.map_or(GRACE, Duration::from_millis)
}

fn shim(shared: &Shared, id: ReplicaId) -> Result<Arc<Shim>, Trouble> {
    shared.shim(id).ok_or_else(|| Trouble {
        fatal: false,
        message: format!("replica {id} has no shim"),
    })
}

/// Makes all that a replica needs but its processes. What was made stays if it fails: the caller removes it.
async fn prepare(shared: &Arc<Shared>, id: ReplicaId) -> Result<(), Trouble> {
    let entry = shared.roster.get(id);
    let entry = entry.ok_or_else(|| failed(format!("replica {id} is gone")))?;
    let spec = entry.spec.clone();
    let spec = spec.ok_or_else(|| failed(format!("the settings of replica {id} are lost")))?;
    shared.gate.check(&spec.service)?;
    hasten();

    // First of all: what has no record is half made.
    let bundle = shared.bundle(id);
    let record = record(id, &entry);
    let written = {
        let bundle = bundle.clone();
        blocking(move || record.write(&bundle)).await
    };
    written.map_err(|error| failed(format!("cannot write to {}: {error}", bundle.display())))?;
    fail::at(Point::AfterRecord);

    let app = entry.service.app;
    // Of secrets, the bundle is to have numbers only.
    let known = slots::known(&shared.secrets, &app, &spec).await?;
    fail::at(Point::AfterReveal);
    let unpacked = {
        let (shared, app) = (Arc::clone(shared), app.clone());
        let (spec, bundle) = (Arc::clone(&spec), bundle.clone());
        blocking(move || {
            let ids = shared.ids.of(app.as_str()).map_err(failed)?;
            Ok((merge_all(&shared, &app, &spec, &bundle)?, ids))
        })
    };
    let name = id.to_string();
    let network = spec.service.networks.key(&app);
    let attached = async {
        if !spec.service.sandbox.network.is_own() {
            return Ok(unattached());
        }
        let attached = shared.network.attach(&name, Some(&network)).await;
        let network = &shared.network;
        network.set_name_servers(&name, name_servers(&spec));
        attached.map_err(|error| failed(error_chain(&error)))
    };
    // Both to their end: an attachment given up in the midst would leave devices that nobody knows of.
    let (unpacked, attached) = futures_util::future::join(unpacked, attached).await;
    let (((mut containers, slots), ids), attachment) = (unpacked?, attached?);
    fail::at(Point::AfterAttach);
    let address = IpAddr::V4(attachment.address);
    shared
        .roster
        .change(id, |entry| entry.address = Some(address));

    let facts = Facts {
        app: app.clone(),
        id,
        address: attachment.address,
        gateway: attachment.gateway,
    };
    let values = slots.fill(&known, &facts)?;
    drop(known);
    let mut sandbox = SandboxSpec {
        cgroup: shared.cgroup(id),
        socket: shared.socket(id),
        init: containers.split_off(spec.service.containers.len()),
        ..sandbox_of(ids, id, &app, &spec, attachment, containers)
    };
    if !shared.shifts_ids {
        sandbox.id_map = None;
    }
    let spawned = {
        let shared = Arc::clone(shared);
        blocking(move || layby_runtime::shim::spawn(&shared.program, &bundle, &sandbox, &values))
    };
    spawned.await.map_err(|error| from_runtime(&error))?;
    fail::at(Point::AfterSpawn);
    connect(shared, id).await?;
    Ok(())
}

/// The place of a replica that has no network of its own: its loopback, or the machine's.
fn unattached() -> Attachment {
    Attachment {
        netns: PathBuf::new(),
        address: Ipv4Addr::LOCALHOST,
        gateway: Ipv4Addr::LOCALHOST,
    }
}

/// Finds and unpacks every container's image, makes what it mounts, and merges its settings; those that run before the others
/// come last. Blocks.
fn merge_all(
    shared: &Shared,
    app: &AppName,
    spec: &RunSpec,
    bundle: &Path,
) -> Result<(Vec<ContainerConfig>, Slots), Trouble> {
    let mut slots = Slots::default();
    let place = Place {
        volumes: &shared.volumes,
        app,
        bundle,
        gate: &shared.gate,
        group: spec.service.sandbox.fs_group,
    };
    let mut all = Vec::new();
    for (n, container) in spec.service.all_containers().enumerate() {
        let digest = spec.images.get(n).map_or("", String::as_str);
        let explain = |error: ImageError| from_image(&container.image, &error);
        let image = shared.images.get(digest).map_err(explain)?;
        let lower = shared.images.layers(digest).map_err(explain)?;
        let mounts = mounts::resolve(&place, container, &image.config, &mut slots)?;
        let mut config = merge(container, &image.config, lower, mounts, &mut slots);
        if n < spec.service.containers.len() {
            config.again = again(&spec.service, container);
        }
        all.push(config);
    }
    Ok((all, slots))
}

/// Removes what a failed preparation left.
async fn undo(shared: &Shared, id: ReplicaId) {
    shared.set_shim(id, None);
    shared.roster.change(id, |entry| entry.address = None);
    if let Err(trouble) = take_down(shared, id, false).await {
        tracing::warn!(
            "after replica {id} could not be prepared: {}",
            trouble.message
        );
    }
}

/// Ends a replica and removes all that was made of it.
async fn remove(shared: &Shared, id: ReplicaId) -> Result<(), Trouble> {
    let mut has_quit = false;
    if let Some(shim) = shared.shim(id) {
        match shim.quit(grace(shared, id)).await {
            Ok(_) => has_quit = shim.has_ended().await,
            // What it could not do is done from outside.
            Err(trouble) => tracing::warn!("the shim of replica {id}: {}", trouble.message),
        }
    }
    shared.set_shim(id, None);
    fail::at(Point::BeforeRemove);
    take_down(shared, id, has_quit).await?;
    fail::at(Point::AfterRemove);
    Ok(())
}

/// Removes the shim, if it still lives (one that `has_quit` does not), the bundle and the place in the network; tries all of it.
async fn take_down(shared: &Shared, id: ReplicaId, has_quit: bool) -> Result<(), Trouble> {
    let bundle = shared.bundle(id);
    let destroyed = blocking(move || match has_quit {
        true => sandbox::clear(&bundle),
        false => sandbox::destroy(&bundle),
    });
    let destroyed = destroyed.await;
    let detached = shared.network.detach(&id.to_string()).await;
    let mut texts = Vec::new();
    texts.extend(destroyed.err().map(|errors| all(&errors)));
    texts.extend(detached.err().map(|error| error_chain(&error)));
    if texts.is_empty() {
        Ok(())
    } else {
        Err(failed(texts.join("; ")))
    }
}

fn failed(message: String) -> Trouble {
    Trouble {
        fatal: false,
        message,
    }
}

fn from_shim(trouble: layby_runtime::protocol::Trouble) -> Trouble {
    Trouble {
        fatal: trouble.fatal,
        message: trouble.message,
    }
}

fn from_runtime(error: &layby_runtime::Error) -> Trouble {
    Trouble {
        fatal: error.fatal(),
        message: error.sentence(),
    }
}

/// A full disk may be cleared; an image that is missing or broken stays so until it is loaded again.
fn from_image(reference: &str, error: &ImageError) -> Trouble {
    let fatal = match error {
        ImageError::NotFound { .. }
        | ImageError::BadReference { .. }
        | ImageError::Corrupt { .. }
        | ImageError::Malformed { .. }
        | ImageError::Layer { .. } => true,
        ImageError::DiskFull { .. } | ImageError::Io { .. } => false,
        // Of other work than running: loading, saving, building.
        ImageError::Archive(_)
        | ImageError::ArchiveRead(_)
        | ImageError::ArchiveWrite(_)
        | ImageError::Dockerfile { .. }
        | ImageError::Build(_)
        | ImageError::IndexFull
        | ImageError::Registry(_)
        | ImageError::Context(_)
        | ImageError::Changed { .. }
        | ImageError::Busy => false,
    };
    let message = match error {
        ImageError::NotFound { .. } => {
            format!("the image {reference} is not there: build or load it, then deploy again")
        }
        other => format!("the image {reference}: {}", error_chain(other)),
    };
    Trouble { fatal, message }
}

fn all(errors: &[layby_runtime::Error]) -> String {
    let texts: Vec<String> = errors.iter().map(layby_runtime::Error::sentence).collect();
    texts.join("; ")
}
