//! Deploying: manifest -> images -> revisions -> one write -> drivers -> outcome.

mod build;
mod conflict;
mod dry_run;
mod images;
mod outcome;
mod privilege;
mod progress;
mod pulls;
pub(crate) mod push;
mod revision;
mod told;
pub(crate) mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use layby_manifest::{Manifest, ReadOptions};
use layby_model::spec::{AppSpec, ServiceSpec};
use layby_model::state::Showing;
use layby_model::{AppName, RevisionId, ServiceId};
use tokio::sync::{MutexGuard, mpsc, watch};

use crate::api::types::{BuildBody, DeployBody, Event, EventKind, ManifestView, Problem};
use crate::api::{Who, meant};
use crate::driver::{Request, Status, rolling};
use crate::plane::Plane;
use crate::store::{NewRevision, Row};
use upload::Upload;

/// So many events may wait for a slow reader; then the deploy waits for it, within [`outcome`]'s limits.
const EVENTS: usize = 256;

/// Beside the drain, taking a service down may take this long: its containers have to stop.
const DOWN_SLACK: Duration = Duration::from_secs(60);

/// What made a revision that nothing pushed made.
const BY_UP: &str = "deployed with `layby up`";
const BY_DEPLOY: &str = "deployed with `layby deploy`";

/// What the events of a build that is for no service call it.
const BUILD: &str = "build";

/// How a manifest is to be read and deployed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) app: Option<String>,
    pub(crate) folder: String,
    pub(crate) folder_path: Option<String>,
    pub(crate) files: Vec<String>,
    /// Build also what is there already.
    pub(crate) build: bool,
    /// Only say what would be done.
    pub(crate) dry_run: bool,
    /// Do not wait for the outcome.
    pub(crate) detach: bool,
}

/// A service whose revision is written, and where to see what becomes of it.
pub(crate) struct Committed {
    pub(crate) service: ServiceId,
    /// `None`: it was live already, just so.
    pub(crate) revision: Option<RevisionId>,
    pub(crate) status: watch::Receiver<Arc<Status>>,
}

/// Says what a manifest describes, and what has to be sent along to deploy it.
pub(crate) async fn describe(
    plane: &Plane,
    upload: Upload,
    ask: &Ask,
) -> Result<ManifestView, Problem> {
    let manifest = read(&upload, ask, false)?;
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
) -> Result<mpsc::Receiver<Event>, Problem> {
    let manifest = read(&upload, &ask, true)?;
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
    conflict::check(
        &plane.config,
        &rows,
        app.services.iter().map(|s| (id(s), s)),
    )?;
    privilege::check(&plane.config, app.services.iter().map(|s| (id(s), s)))?;
    // From the first look at an image until its revision is written.
    let kept = plane.collector.keep().await;
    let builds = images::builds(&plane, app, ask.build).await?.builds;
    let pulls = pulls::wanted(&plane, &app.name, &app.services, &builds).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    let warnings = warnings(&manifest, &rows);

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
            let ended = dry_run::run(&task_plane, &manifest.app, &builds, &pulls, &events).await;
            finish(&events, ended.map(|()| 0)).await;
        });
        return Ok(stream);
    }
    // With nothing to build or pull, all that can be refused is refused before the answer begins.
    let ready = match builds.is_empty() && pulls.is_empty() {
        true => Some(commit_app(&plane, app, &who).await?),
        false => None,
    };
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        warn(&events, warnings).await;
        let work = async {
            let committed = match ready {
                Some(committed) => committed,
                None => {
                    pulls::run(&plane, pulls, &events).await?;
                    images::run(&plane, Arc::new(upload), builds, &events).await?;
                    let committed = commit_app(&plane, &manifest.app, &who).await?;
                    // Other services may run what was built; this app's do already.
                    plane.desk.pushed();
                    committed
                }
            };
            warn_of_unkept(&plane, &manifest.app.name, &manifest.app.services, &events).await;
            drop(kept);
            Ok(outcome::wait(committed, ask.detach, &events).await)
        };
        let ended = work.await;
        finish(&events, ended).await;
    });
    Ok(stream)
}

/// Deploys a service anew with another image or environment.
pub(crate) async fn change(
    plane: Arc<Plane>,
    id: &ServiceId,
    body: DeployBody,
    detach: bool,
    who: Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let row = plane
        .store
        .service(id)
        .await?
        .ok_or_else(|| Problem::no_service(id))?;
    let mut spec = current(&row).1.spec.service.clone();
    if let Some(container) = spec.containers.first_mut() {
        if let Some(image) = body.image {
            container.image = meant(&plane, &image).await?;
        }
        container.env.extend(body.env);
    }
    privilege::check(&plane.config, [(id.clone(), &spec)])?;
    let kept = plane.collector.keep().await;
    let pulls = pulls::wanted(&plane, &id.app, std::slice::from_ref(&spec), &[]).await?;
    // With nothing to pull, all that can be refused is refused before the answer begins.
    let ready = match pulls.is_empty() {
        true => Some(commit_one(&plane, &id.app, &spec, &row, &who).await?),
        false => None,
    };
    let (events, stream) = mpsc::channel(EVENTS);
    let (task_plane, app) = (Arc::clone(&plane), id.app.clone());
    plane.spawn(async move {
        let plane = task_plane;
        let work = async {
            let committed = match ready {
                Some(committed) => committed,
                None => {
                    pulls::run(&plane, pulls, &events).await?;
                    commit_one(&plane, &app, &spec, &row, &who).await?
                }
            };
            warn_of_unkept(&plane, &app, std::slice::from_ref(&spec), &events).await;
            drop(kept);
            Ok(outcome::wait(committed, detach, &events).await)
        };
        let ended = work.await;
        finish(&events, ended).await;
    });
    Ok(stream)
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
) -> mpsc::Receiver<Event> {
    let (events, stream) = mpsc::channel(EVENTS);
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        let _kept = plane.collector.keep().await;
        let names = body.tags.clone();
        let built = build::run(&plane, Arc::new(upload), 0, BUILD, body, &events);
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
    stream
}

/// The revision that a service is to be at: the target, or what is left when that failed.
fn current(row: &Row) -> (bool, &crate::store::Revision) {
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
        app: ask.app.clone(),
        folder: ask.folder.clone(),
        folder_path: ask.folder_path.clone(),
        env: upload.env.clone(),
        named_files: whole.then(|| upload.named_files.clone()),
    };
    layby_manifest::read(&upload.files, &options).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-manifest",
            lines.join("\n"),
        )
    })
}

/// What the manifest does not say right, and which services it no longer names.
fn warnings(manifest: &Manifest, rows: &[Row]) -> Vec<String> {
    let app = &manifest.app;
    let left_out = rows.iter().filter(|row| {
        row.service.app == app.name
            && !row.removing
            && app.services.iter().all(|s| s.name != row.service.service)
    });
    let left_out = left_out.map(|row| {
        format!(
            "{} is not in the manifest (any more) and goes on as it is; `layby down {}` takes the whole app down",
            row.service, app.name
        )
    });
    manifest
        .warnings
        .iter()
        .map(ToString::to_string)
        .chain(left_out)
        .collect()
}

/// Resolves all services of an app and writes them.
async fn commit_app(
    plane: &Arc<Plane>,
    app: &AppSpec,
    who: &Who,
) -> Result<Vec<Committed>, Problem> {
    let rows = plane.store.services().await?;
    let mut revisions = Vec::new();
    for service in &app.services {
        let made = revision::resolve(plane, &app.name, service, &rows, BY_UP, &who.name);
        let mut new = made.await?;
        new.unscale = unscales(&rows, &new);
        revisions.push(new);
    }
    commit(plane, revisions).await
}

/// Whether a manifest's revision takes back what `layby scale` said: only if its number of replicas is another one.
fn unscales(rows: &[Row], new: &NewRevision) -> bool {
    let row = rows.iter().find(|row| row.service == new.service);
    row.is_some_and(|row| {
        row.scale.is_some() && row.target.spec.service.replicas != new.spec.service.replicas
    })
}

/// Resolves one service of an app and writes it.
async fn commit_one(
    plane: &Arc<Plane>,
    app: &AppName,
    spec: &ServiceSpec,
    row: &Row,
    who: &Who,
) -> Result<Vec<Committed>, Problem> {
    let rows = std::slice::from_ref(row);
    let new = revision::resolve(plane, app, spec, rows, BY_DEPLOY, &who.name).await?;
    commit(plane, vec![new]).await
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
async fn commit_in_turn(
    plane: &Arc<Plane>,
    _turn: &MutexGuard<'_, ()>,
    revisions: Vec<NewRevision>,
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
    let specs = || {
        let news = revisions.iter();
        news.map(|new| (new.service.clone(), &new.spec.service))
    };
    conflict::check(&plane.config, &rows, specs())?;
    // Also what a push deploys anew, from a revision of a time when the operator allowed more.
    privilege::check(&plane.config, specs())?;

    let services: Vec<ServiceId> = revisions.iter().map(|new| new.service.clone()).collect();
    let changed = revisions.into_iter().filter(|new| {
        row_of(&new.service).is_none_or(|row| {
            let (counts, current) = current(row);
            // What has ended for good is to run once more.
            !counts || *current.spec != new.spec || has_ended(plane, &new.service)
        })
    });
    let changed: Vec<NewRevision> = changed.collect();
    let makers: BTreeMap<ServiceId, String> = (changed.iter())
        .map(|new| (new.service.clone(), new.made_by.clone()))
        .collect();
    let written = match changed.is_empty() {
        true => Vec::new(),
        false => plane.store.deploy(changed).await?,
    };
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
        let loaded = plane.load(row.clone()).await;
        match plane.driver(&row.service) {
            // It has not ended: that it would do under the same lock, after the row was gone.
            Some(driver) => {
                let _ = driver
                    .requests
                    .send(Request::Reload(Box::new(loaded)))
                    .await;
            }
            None => plane.start_driver(loaded),
        }
    }

    let mut committed = Vec::new();
    for service in services {
        let Some(driver) = plane.driver(&service) else {
            return Err(Problem::failed(format!(
                "{service} has no driver: the node is ending"
            )));
        };
        let new = written.iter().find(|row| row.service == service);
        let rolls = row_of(&service).filter(|row| rolling(row));
        committed.push(Committed {
            revision: new.or(rolls).map(|row| row.target.id),
            service,
            status: driver.status,
        });
    }
    Ok(committed)
}

fn has_ended(plane: &Plane, service: &ServiceId) -> bool {
    plane.driver(service).is_some_and(|driver| {
        let showing = driver.status.borrow().detail.view.wakefulness;
        showing == Some(Showing::Ended)
    })
}

/// Takes an app down: each service is withdrawn, drained, stopped and forgotten.
pub(crate) async fn down(plane: &Arc<Plane>, app: &AppName) -> Result<Vec<ServiceId>, Problem> {
    let mut leaving = Vec::new();
    {
        let _turn = plane.deploys.lock().await;
        for row in plane
            .store
            .services()
            .await?
            .into_iter()
            .filter(|r| r.service.app == *app)
        {
            let Some(driver) = plane.driver(&row.service) else {
                continue;
            };
            if !row.removing
                && let Some(row) = plane.store.begin_removal(&row.service).await?
            {
                let loaded = plane.load(row).await;
                let _ = driver
                    .requests
                    .send(Request::Reload(Box::new(loaded)))
                    .await;
            }
            leaving.push((row.service, driver.status));
        }
    }
    if leaving.is_empty() {
        let text = format!("there is no app {app} on this node");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby ls` shows what there is"));
    }
    let mut removed = Vec::new();
    for (service, mut status) in leaving {
        let drain = Duration::from_millis(status.borrow().row.target.spec.service.drain_ms);
        let gone = status.wait_for(|status| status.gone);
        // An error of the inner kind means that the driver has ended: by then it is gone too.
        if tokio::time::timeout(drain + DOWN_SLACK, gone)
            .await
            .is_err()
        {
            return Err(
                Problem::timed_out(format!("{service} is still being taken down"))
                    .hint(format!("`layby status {service}` says what it waits for")),
            );
        }
        removed.push(service);
    }
    Ok(removed)
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
