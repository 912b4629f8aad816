//! Deploying: manifest -> images -> revisions -> one write -> drivers -> outcome.

mod build;
mod canary;
mod change;
mod conflict;
mod dry_run;
pub(crate) mod images;
mod leave;
mod needs;
mod outcome;
pub(crate) mod power;
pub(crate) mod privilege;
mod progress;
mod pulls;
pub(crate) mod push;
mod revision;
pub(crate) mod scale;
mod switch;
mod told;
pub(crate) mod upload;
mod whole;

pub(crate) use canary::{abort, promote};
pub(crate) use change::{change, redeploy, rollback};
pub(crate) use leave::{down, remove};
pub(crate) use outcome::wait;
pub(crate) use switch::{disable, enable};

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use layby_manifest::{Manifest, ReadOptions};
use layby_model::route::Share;
use layby_model::spec::{AppSpec, MAX_RETRIES, ServiceSpec};
use layby_model::state::Showing;
use layby_model::{AppName, RevisionId, ServiceId};
use tokio::sync::{MutexGuard, mpsc, watch};

use crate::api::Who;
use crate::api::types::{BuildBody, Event, EventKind, ManifestView, Problem};
use crate::capacity;
use crate::driver::{Request, Status, rolling};
use crate::jobs;
use crate::plane::Plane;
use crate::reach::{self, Reach};
use crate::secrets::{self, NewValue};
use crate::store::{NewRevision, Row};
use crate::tokens::Rights;
use upload::Upload;

/// So many events may wait for a slow reader; then the deploy waits for it, within [`outcome`]'s limits.
const EVENTS: usize = 256;

/// What made a revision that nothing pushed made.
const BY_UP: &str = "deployed with `layby up`";

/// What the events of a build that is for no service call it.
const BUILD: &str = "build";

/// How a manifest is to be read and deployed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) app: Option<String>,
    pub(crate) folder: String,
    pub(crate) folder_path: Option<String>,
    pub(crate) files: Vec<String>,
    /// The profiles that are switched on.
    pub(crate) profiles: Vec<String>,
    /// Build also what is there already.
    pub(crate) build: bool,
    /// Only say what would be done.
    pub(crate) dry_run: bool,
    /// Do not wait for the outcome.
    pub(crate) detach: bool,
    /// If one service fails, the others go back to where they were.
    pub(crate) atomic: bool,
    /// Remove the app's services that the manifest does not name.
    pub(crate) remove_orphans: bool,
    /// Try what changes out on this part of the requests.
    pub(crate) share: Option<Share>,
    /// So many more attempts failed rollouts get, whatever the manifest says.
    pub(crate) retries: Option<u32>,
}

/// A service whose revision is written, and where to see what becomes of it.
pub(crate) struct Committed {
    pub(crate) service: ServiceId,
    /// `None`: it was live already, just so.
    pub(crate) revision: Option<RevisionId>,
    /// It is disabled: nothing of it runs.
    pub(crate) is_disabled: bool,
    /// It was disabled, and comes back as it is.
    pub(crate) comes_back: bool,
    /// The row's: what a driver shows of an older one says nothing of this.
    pub(crate) generation: u64,
    pub(crate) status: watch::Receiver<Arc<Status>>,
}

/// Says what a manifest describes, and what has to be sent along to deploy it.
pub(crate) async fn describe(
    plane: &Plane,
    upload: Upload,
    ask: &Ask,
    rights: &Rights,
) -> Result<ManifestView, Problem> {
    let manifest = read(&upload, ask, false)?;
    reach::deploy(plane, rights, &manifest.app).await?;
    let wanted = images::builds(plane, &manifest.app, ask.build).await?;
    Ok(ManifestView {
        app: manifest.app.name.to_string(),
        services: manifest
            .app
            .services
            .iter()
            .map(|s| s.name.to_string())
            .collect(),
        contexts: wanted.contexts,
        secrets: wanted.secrets,
        files: manifest.named_files,
        warnings: manifest.warnings.iter().map(ToString::to_string).collect(),
    })
}

/// Deploys a manifest. Problems that show before anything is built come as such; later ones as events.
pub(crate) async fn up(
    plane: Arc<Plane>,
    upload: Upload,
    ask: Ask,
    who: Who,
) -> Result<(AppName, mpsc::Receiver<Event>), Problem> {
    let manifest = read(&upload, &ask, true)?;
    reach::deploy(&plane, &who.rights, &manifest.app).await?;
    let rows = plane.store.services().await?;
    let app = &manifest.app;
    if app.name.as_str() == crate::registry::OWN_APP {
        let text = format!(
            "no app can be called {}: the node's own services are",
            app.name
        );
        return Err(Problem::conflict(text).hint("give it another name with --app"));
    }
    let id = |service: &layby_model::spec::ServiceSpec| {
        ServiceId::new(app.name.clone(), service.name.clone())
    };
    if ask.atomic && ask.detach {
        let text =
            "who does not wait for the outcome cannot have all or nothing: leave out one of both";
        return Err(Problem::bad_request(text));
    }
    let orphans = match ask.remove_orphans {
        true => whole::orphans(&rows, app),
        false => Vec::new(),
    };
    // All or nothing: they go when all is well, and claim what they claim until then.
    let (first, last) = match ask.atomic {
        true => (Vec::new(), orphans),
        false => (orphans, Vec::new()),
    };
    let staying: Vec<Row> = (rows.iter())
        .filter(|row| !first.contains(&row.service))
        .cloned()
        .collect();
    conflict::check(
        &plane.config,
        &staying,
        app.services.iter().map(|s| (id(s), s)),
    )?;
    let specs = app.services.iter().map(|s| (id(s), s));
    privilege::check(&plane.config, &who.rights, specs)?;
    let name = app.name.clone();
    let (settled, sizes) = power::settle(&plane, &rows, app).await?;
    // A job is there for a while only.
    let asked = settled.services.iter();
    let asked = asked.filter(|s| s.replicas > 0 && s.job.is_none());
    capacity::check(
        &plane.config,
        &rows,
        asked.map(|s| (id(s), s, unscaled(&rows, &id(s), s))),
    )?;
    let brought = brought(&manifest);
    secrets::check(&plane, &app.name, &app.services, &brought).await?;
    jobs::check_names(&plane, &rows, app.services.iter().map(|s| (id(s), s)))?;
    for service in &app.services {
        jobs::check_schedule(&id(service), service)?;
    }
    let jobs_before = plane.jobs.shown();
    // From the first look at an image until its revision is written.
    let kept = plane.collector.keep().await;
    let builds = images::builds(&plane, app, ask.build).await?.builds;
    let pulls = pulls::wanted(&plane, &app.name, &app.services, &builds).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    let mut warnings = match ask.remove_orphans {
        true => warnings(&manifest, &[]),
        false => warnings(&manifest, &rows),
    };
    warnings.extend(sizes);
    let lost_jobs = jobs::orphans(&plane, app);
    if !ask.remove_orphans {
        warnings.extend(lost_jobs.iter().map(jobs::left_out));
    }

    if ask.dry_run {
        let task_plane = Arc::clone(&plane);
        plane.spawn(async move {
            warn(&events, warnings).await;
            warn_of_unkept(
                &task_plane,
                &manifest.app.name,
                &manifest.app.services,
                &events,
            )
            .await;
            for orphan in first.iter().chain(&last) {
                let event = Event::Step {
                    service: orphan.to_string(),
                    text: "take it down: it is not in the manifest (any more)".into(),
                };
                let _ = events.send(event).await;
            }
            let ended = dry_run::run(&task_plane, &manifest.app, &builds, &pulls, &events).await;
            finish(&events, ended.map(|()| 0)).await;
        });
        return Ok((name, stream));
    }
    // With nothing to build or pull, all that can be refused is refused before the answer begins.
    let ready = match builds.is_empty() && pulls.is_empty() {
        true => Some(commit_app(&plane, app, brought.clone(), &first, &who, &ask.share).await?),
        false => None,
    };
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        warn(&events, warnings).await;
        let work = async {
            let (before, committed, mut leaving) = match ready {
                Some(begun) => begun,
                None => {
                    pulls::run(&plane, pulls, &events).await?;
                    images::run(&plane, Arc::new(upload), builds, &who.rights, &events).await?;
                    let (app, share) = (&manifest.app, &ask.share);
                    let begun = commit_app(&plane, app, brought, &first, &who, share).await?;
                    // Other services may run what was built; this app's do already.
                    plane.desk.pushed();
                    begun
                }
            };
            warn_of_unkept(&plane, &manifest.app.name, &manifest.app.services, &events).await;
            drop(kept);
            jobs::tell(&plane, &jobs_before, &manifest.app, &events).await;
            let done = outcome::each(committed, ask.detach, &events).await;
            if ask.atomic && whole::is_broken(&done) {
                return whole::undo(&plane, &before, &done, &who, &events).await;
            }
            if ask.remove_orphans {
                jobs::remove_orphans(&plane, lost_jobs, &events).await?;
            }
            leaving.extend(whole::withdraw(&plane, &last).await?);
            if !ask.detach {
                whole::until_gone(leaving, &events).await?;
            }
            Ok(outcome::code(&done, ask.detach))
        };
        let ended = work.await;
        finish(&events, ended).await;
    });
    Ok((name, stream))
}

/// Tells how the newest revision of a service fares, from wherever its rollout is.
///
/// # Errors
/// There is no such service.
pub(crate) async fn follow(
    plane: Arc<Plane>,
    id: &ServiceId,
) -> Result<mpsc::Receiver<Event>, Problem> {
    // Whoever pushed just now asks for what that has set off.
    push::settled(&plane).await;
    let (row, driver) = (plane.store.service(id).await?, plane.driver(id));
    let (Some(row), Some(driver)) = (row, driver) else {
        return Err(Problem::no_service(id));
    };
    let committed = Committed {
        service: id.clone(),
        revision: Some(row.target.id),
        is_disabled: !row.enabled,
        comes_back: false,
        generation: row.generation,
        status: driver.status,
    };
    let (events, stream) = mpsc::channel(EVENTS);
    plane.spawn(async move {
        if let Some(cause) = row.target.cause {
            let state = committed.status.borrow().detail.view.state;
            let progress = Event::Progress {
                service: committed.service.to_string(),
                state,
                text: format!("revision {}: {cause}", row.target.id),
            };
            let _ = events.send(progress).await;
        }
        let code = outcome::wait(vec![committed], false, &events).await;
        finish(&events, Ok(code)).await;
    });
    Ok(stream)
}

/// Builds an image, and gives it its names. It is given up when nobody listens any more.
pub(crate) async fn build(
    plane: Arc<Plane>,
    upload: Upload,
    body: BuildBody,
    rights: &Rights,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let reach = Reach::of(&plane, rights).await?;
    body.tags.iter().try_for_each(|tag| reach.name(tag))?;
    let (events, stream) = mpsc::channel(EVENTS);
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        let _kept = plane.collector.keep().await;
        let names = body.tags.clone();
        let built = build::run(&plane, Arc::new(upload), 0, BUILD, body, &reach, &events);
        let built = tokio::select! {
            built = built => built,
            () = events.closed() => return,
        };
        let ended = match built {
            Ok(image) => {
                let pushed = images::push_own(&plane, &image.digest, &names).await;
                plane.desk.pushed();
                pushed.map(|()| image)
            }
            Err(problem) => Err(problem),
        };
        let ended = match ended {
            Ok(image) => {
                let _ = events
                    .send(Event::Built {
                        names,
                        digest: image.digest,
                        size_bytes: image.size_bytes,
                    })
                    .await;
                Ok(0)
            }
            Err(problem) => Err(problem),
        };
        finish(&events, ended).await;
    });
    Ok(stream)
}

/// The revision that a service is to be at: the target, or what is left when that failed.
pub(crate) fn current(row: &Row) -> (bool, &crate::store::Revision) {
    match (&row.live, row.target_failed) {
        (Some(live), true) => (true, live),
        (None, true) => (false, &row.target),
        (_, false) => (true, &row.target),
    }
}

/// Reads the manifest; what is wrong with it is told all at once. `whole`: the files that it names were sent, too.
fn read(upload: &Upload, ask: &Ask, whole: bool) -> Result<Manifest, Problem> {
    let options = ReadOptions {
        files: ask.files.clone(),
        profiles: ask.profiles.clone(),
        app: ask.app.clone(),
        folder: ask.folder.clone(),
        folder_path: ask.folder_path.clone(),
        env: upload.env.clone(),
        named_files: whole.then(|| upload.named_files.clone()),
    };
    let mut manifest = layby_manifest::read(&upload.files, &options).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-manifest",
            lines.join("\n"),
        )
    })?;
    if let Some(retries) = ask.retries {
        let retries = checked_retries(retries)?;
        let services = manifest.app.services.iter_mut();
        services.for_each(|service| service.retries = Some(retries));
    }
    Ok(manifest)
}

/// A number of retries that somebody asked for.
fn checked_retries(retries: u32) -> Result<u32, Problem> {
    let few = (retries <= MAX_RETRIES).then_some(retries);
    let text = || format!("{retries} retries are more than {MAX_RETRIES}");
    few.ok_or_else(|| Problem::bad_request(text()))
}

/// What the manifest does not say right, and which services it no longer names.
fn warnings(manifest: &Manifest, rows: &[Row]) -> Vec<String> {
    let app = &manifest.app;
    let left_out = whole::orphans(rows, app).into_iter();
    let left_out = left_out.map(|id| {
        format!(
            "{id} is not in the manifest (any more) and goes on as it is: `layby up --remove-orphans` takes such services down"
        )
    });
    manifest
        .warnings
        .iter()
        .map(ToString::to_string)
        .chain(left_out)
        .collect()
}

/// The secrets and configs that a manifest brings, as they are kept.
fn brought(manifest: &Manifest) -> Vec<NewValue> {
    let values = manifest.values.iter();
    let value = |value: &layby_manifest::DeclaredValue| NewValue {
        app: Some(manifest.app.name.clone()),
        kind: value.kind,
        name: value.name.clone(),
        value: value.value.clone(),
        declared: true,
    };
    values.map(value).collect()
}

/// Keeps what an app's manifest brings, resolves all its services, withdraws those that it has too many, and writes them.
/// Gives the rows of before, too.
async fn commit_app(
    plane: &Arc<Plane>,
    app: &AppSpec,
    brought: Vec<NewValue>,
    orphans: &[ServiceId],
    who: &Who,
    share: &Option<Share>,
) -> Result<(Vec<Row>, Vec<Committed>, Vec<leave::Leaving>), Problem> {
    plane.vault.keep(brought, &who.name).await?;
    let rows = plane.store.services().await?;
    let (app, _) = power::settle(plane, &rows, app).await?;
    let mut revisions = Vec::new();
    for service in &app.services {
        let made = revision::resolve(plane, &app.name, service, &rows, BY_UP, &who.name);
        let mut new = made.await?;
        new.unscale = unscales(&rows, &new.service, &new.spec.service);
        new.share.clone_from(share);
        revisions.push(new);
    }
    let leaving = whole::withdraw(plane, orphans).await?;
    Ok((rows, commit(plane, revisions).await?, leaving))
}

/// Whether a manifest's revision takes back what `layby scale` said: only if its number of replicas is another one.
fn unscales(rows: &[Row], id: &ServiceId, spec: &ServiceSpec) -> bool {
    let row = rows.iter().find(|row| row.service == *id);
    row.is_some_and(|row| row.scale.is_some() && row.target.spec.service.replicas != spec.replicas)
}

/// How many replicas a service of a manifest would have.
fn unscaled(rows: &[Row], id: &ServiceId, spec: &ServiceSpec) -> u32 {
    capacity::replicas(rows, id, spec, unscales(rows, id, spec))
}

/// Writes those revisions that change something, all or none, and tells their drivers.
async fn commit(
    plane: &Arc<Plane>,
    revisions: Vec<NewRevision>,
) -> Result<Vec<Committed>, Problem> {
    let turn = plane.deploys.lock().await;
    commit_in_turn(plane, &turn, revisions).await
}

/// The same for whoever has its turn already: what it has read since then is still so.
pub(crate) async fn commit_in_turn(
    plane: &Arc<Plane>,
    _turn: &MutexGuard<'_, ()>,
    mut revisions: Vec<NewRevision>,
) -> Result<Vec<Committed>, Problem> {
    let rows = plane.store.services().await?;
    let row_of = |id: &ServiceId| rows.iter().find(|row| row.service == *id);
    for new in &revisions {
        if row_of(&new.service).is_some_and(|row| row.removing) {
            return Err(
                Problem::conflict(format!("{} is being taken down", new.service))
                    .hint("wait until `layby ls` no longer shows it, then run it again"),
            );
        }
    }
    needs::check(&rows, &revisions)?;
    // Each run of a job takes what is newest then: what its secrets say now is not what makes a job another one.
    let services = revisions.iter_mut();
    let services = services.filter(|new| new.spec.service.job.is_none());
    let services = services.map(|new| (&new.service.app, &mut new.spec.service));
    secrets::pin(plane, services).await?;
    let specs = || {
        let news = revisions.iter();
        news.map(|new| (new.service.clone(), &new.spec.service))
    };
    conflict::check(&plane.config, &rows, specs())?;
    // Also what a push deploys anew, from a revision of a time when the operator allowed more.
    privilege::check(&plane.config, &Rights::all(), specs())?;
    let asked = revisions.iter().filter(|new| {
        let enabled = row_of(&new.service).is_none_or(|row| row.enabled);
        enabled || new.enables
    });
    let asked = asked.filter(|new| new.spec.service.replicas > 0 && new.spec.service.job.is_none());
    let asked = asked.map(|new| {
        let (id, spec) = (&new.service, &new.spec.service);
        let replicas = capacity::replicas(&rows, id, spec, new.unscale);
        (id.clone(), spec, replicas)
    });
    capacity::check(&plane.config, &rows, asked)?;
    jobs::check_names(plane, &rows, specs())?;

    let is_service = |new: &&NewRevision| new.spec.service.job.is_none();
    let services = revisions.iter().filter(is_service);
    let services: Vec<ServiceId> = services.map(|new| new.service.clone()).collect();
    let has_jobs = services.len() < revisions.len();
    let jobs = plane.store.jobs().await?;
    let (mut changed, mut same): (Vec<_>, Vec<_>) = revisions.into_iter().partition(|new| {
        if new.spec.service.job.is_some() {
            let job = jobs.get(&new.service);
            return job.is_none_or(|job| *job.spec != new.spec);
        }
        row_of(&new.service).is_none_or(|row| {
            let (counts, current) = current(row);
            // What has ended for good is to run once more.
            new.anew || !counts || *current.spec != new.spec || has_ended(plane, &new.service)
        })
    });
    needs::follow(&mut changed, &mut same);
    for new in &mut changed {
        let row = row_of(&new.service);
        canary::settle(row, new)?;
    }
    let makers: BTreeMap<ServiceId, String> = (changed.iter())
        .map(|new| (new.service.clone(), new.made_by.clone()))
        .collect();
    let written = match changed.is_empty() {
        true => Vec::new(),
        false => plane.store.deploy(changed).await?,
    };
    let back = same.into_iter();
    let back = back.filter(|new| new.enables && new.spec.service.job.is_none());
    let back: Vec<ServiceId> = back.map(|new| new.service).collect();
    let back = match back.is_empty() {
        true => Vec::new(),
        false => plane.store.switch(back, true).await?,
    };
    if has_jobs {
        plane.jobs.reload().await;
    }
    let (images, used) = (Arc::clone(&plane.images), written.clone());
    // Nobody waits for it.
    tokio::task::spawn_blocking(move || {
        for digest in used.iter().flat_map(|row| &row.target.spec.images) {
            // It only looks less used than it is where this fails.
            let _ = images.touch(digest);
        }
    });
    for row in &written {
        let target = &row.target;
        let why = target.cause.as_deref().unwrap_or("for no known reason");
        let text = format!("revision {} is to be live: {why}", target.id);
        let who = makers.get(&row.service).map(String::as_str);
        plane
            .events
            .of(&row.service, EventKind::Deployed, text, who);
    }
    for row in written.iter().chain(&back) {
        tell_driver(plane, row.clone()).await;
    }

    let mut committed = Vec::new();
    for service in services {
        let Some(driver) = plane.driver(&service) else {
            return Err(Problem::failed(format!(
                "{service} has no driver: the node is ending"
            )));
        };
        let of = |rows: &[Row]| rows.iter().find(|row| row.service == service).cloned();
        let (new, came_back) = (of(&written), of(&back));
        let comes_back = came_back.is_some();
        let row = new.clone().or(came_back).or(row_of(&service).cloned());
        let rolls = row.as_ref().filter(|row| rolling(row));
        committed.push(Committed {
            revision: new.as_ref().or(rolls).map(|row| row.target.id),
            is_disabled: row.as_ref().is_some_and(|row| !row.enabled),
            generation: row.as_ref().map_or(0, |row| row.generation),
            comes_back,
            service,
            status: driver.status,
        });
    }
    Ok(committed)
}

/// Hands a row that was written to the driver of its service, which is started if there is none.
async fn tell_driver(plane: &Arc<Plane>, row: Row) {
    let service = row.service.clone();
    let loaded = plane.load(row).await;
    match plane.driver(&service) {
        // It has not ended: that it would do in a turn of its own, after the row was gone.
        Some(driver) => {
            let reload = Request::Reload(Box::new(loaded));
            let _ = driver.requests.send(reload).await;
        }
        None => plane.start_driver(loaded),
    }
}

fn has_ended(plane: &Plane, service: &ServiceId) -> bool {
    plane.driver(service).is_some_and(|driver| {
        let showing = driver.status.borrow().detail.view.wakefulness;
        showing == Some(Showing::Ended)
    })
}

async fn warn(events: &mpsc::Sender<Event>, texts: Vec<String>) {
    for text in texts {
        let _ = events.send(Event::Warning { text }).await;
    }
}

/// Warns of what images keep nowhere, once they are there.
async fn warn_of_unkept(
    plane: &Plane,
    app: &AppName,
    services: &[ServiceSpec],
    events: &mpsc::Sender<Event>,
) {
    warn(events, images::unkept(plane, app, services).await).await;
}

/// The last events. Whoever asked may have gone; the deploy was done all the same.
async fn finish(events: &mpsc::Sender<Event>, ended: Result<i32, Problem>) {
    let code = match ended {
        Ok(code) => code,
        Err(problem) => {
            let code = match problem.status {
                404 => 4,
                _ => 1,
            };
            let _ = events.send(Event::Error { problem }).await;
            code
        }
    };
    let _ = events.send(Event::Done { code }).await;
}

/// Runs work that tells how it goes, to its end, whether anybody listens or not.
pub(crate) fn stream<W>(
    plane: &Plane,
    work: impl FnOnce(mpsc::Sender<Event>) -> W + Send + 'static,
) -> mpsc::Receiver<Event>
where
    W: Future<Output = Result<i32, Problem>> + Send,
{
    let (events, stream) = mpsc::channel(EVENTS);
    plane.spawn(async move {
        let ended = work(events.clone()).await;
        finish(&events, ended).await;
    });
    stream
}
