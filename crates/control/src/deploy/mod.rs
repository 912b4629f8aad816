//! Deploying: manifest -> images -> revisions -> one write -> drivers -> outcome.

mod build;
mod canary;
mod change;
mod commit;
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
mod restart;
mod revision;
pub(crate) mod scale;
mod switch;
mod told;
mod up;
pub(crate) mod upload;
mod whole;

pub(crate) use canary::{abort, promote};
pub(crate) use change::{change, redeploy, rollback};
pub(crate) use commit::{Committed, commit_in_turn, tell_driver};
pub(crate) use leave::{down, remove};
pub(crate) use outcome::wait;
pub(crate) use restart::restart;
pub(crate) use switch::{disable, enable};
pub(crate) use up::up;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use layby_image::Reference;
use layby_manifest::{Diagnostic, Faults, Manifest, ReadOptions};
use layby_model::route::Share;
use layby_model::spec::{MAX_RETRIES, ServiceSpec};
use layby_model::{AppName, ServiceId};
use tokio::sync::mpsc;

use crate::agents::Link;
use crate::api::Who;
use crate::api::types::{BuildBody, Event, ManifestView, Problem};
use crate::capacity;
use crate::plane::Plane;
use crate::reach::{self, Reach};
use crate::store::Row;
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
    /// The files of variables, instead of `.env`.
    pub(crate) env_files: Vec<String>,
    /// The profiles that are switched on.
    pub(crate) profiles: Vec<String>,
    /// Only these services, and what they need. Empty: all.
    pub(crate) services: Vec<String>,
    /// Not what those need.
    pub(crate) no_deps: bool,
    /// So many replicas these get, whatever the manifest and `layby scale` say.
    pub(crate) scale: BTreeMap<String, u32>,
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
    /// The key of the connection that lends SSH agents to its builds.
    pub(crate) agents: Option<String>,
    /// So many more attempts failed rollouts get, whatever the manifest says.
    pub(crate) retries: Option<u32>,
}

/// Says what a manifest describes, and what has to be sent along to deploy it.
pub(crate) async fn describe(
    plane: &Arc<Plane>,
    upload: Upload,
    ask: &Ask,
    rights: &Rights,
) -> Result<ManifestView, Problem> {
    let more = needed(&upload, ask);
    if !more.is_empty() {
        return Ok(ManifestView {
            more,
            ..ManifestView::default()
        });
    }
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
        ssh: wanted.agents,
        files: manifest.named_files,
        more,
        warnings: manifest.warnings.iter().map(ToString::to_string).collect(),
    })
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
        ended_canary: None,
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
    who: &Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let reach = Reach::of(&plane, &who.rights).await?;
    let agents = lent(&plane, body.agents.as_deref(), who)?;
    let source = reach.builds_for(&body.tags)?;
    let (events, stream) = mpsc::channel(EVENTS);
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        let _kept = plane.collector.keep().await;
        let names = body.tags.clone();
        let order = build::Order {
            context: 0,
            service: BUILD,
            source,
            agents,
            body,
        };
        let built = build::run(&plane, Arc::new(upload), order, &reach, &events);
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

/// Who lends SSH agents, if somebody says to.
fn lent(plane: &Plane, key: Option<&str>, who: &Who) -> Result<Option<Link>, Problem> {
    key.map(|key| plane.agents.find(key, who)).transpose()
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
    let options = options(upload, ask, whole);
    let mut manifest = layby_manifest::read(&upload.files, &options).map_err(bad_manifest)?;
    let errors = bad_images(&manifest);
    if !errors.is_empty() {
        let warnings = manifest.warnings;
        return Err(bad_manifest(Faults { errors, warnings }));
    }
    if let Some(retries) = ask.retries {
        let retries = checked_retries(retries)?;
        let services = manifest.app.services.iter_mut();
        services.for_each(|service| service.retries = Some(retries));
    }
    Ok(manifest)
}

/// How the files of an upload are to be read. `whole`: all that they name was sent, as far as it exists.
pub(crate) fn options(upload: &Upload, ask: &Ask, whole: bool) -> ReadOptions {
    ReadOptions {
        files: ask.files.clone(),
        env_files: ask.env_files.clone(),
        absent: upload.absent.clone(),
        profiles: ask.profiles.clone(),
        services: ask.services.clone(),
        no_deps: ask.no_deps,
        scale: ask.scale.clone(),
        app: ask.app.clone(),
        folder: ask.folder.clone(),
        folder_path: ask.folder_path.clone(),
        env: upload.env.clone(),
        named_files: whole.then(|| upload.named_files.clone()),
        secrets_apart: false,
    }
}

/// The further files without which the manifest cannot be read.
pub(crate) fn needed(upload: &Upload, ask: &Ask) -> Vec<String> {
    layby_manifest::needed(&upload.files, &options(upload, ask, false))
}

/// All that is wrong with a manifest.
pub(crate) fn bad_manifest(faults: Faults) -> Problem {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Problem::new(status, "bad-manifest", faults.to_string())
}

/// Names of images that no registry could have, each as an error wherever it stands.
pub(crate) fn bad_images(manifest: &Manifest) -> Vec<Diagnostic> {
    let app = &manifest.app;
    let mut bad = Vec::new();
    for service in &app.services {
        for container in service.all_containers() {
            let name = images::name(&app.name, service, container);
            let Err(error) = name.parse::<Reference>() else {
                continue;
            };
            let written = manifest.images.iter().filter(|at| at.message == name);
            let before = bad.len();
            bad.extend(written.map(|at| {
                let file = at.file.as_str();
                Diagnostic::new(file, at.line, at.column, error.to_string())
            }));
            if bad.len() == before {
                let message = format!("service {:?}: {error}", service.name.as_str());
                bad.push(Diagnostic::new("", 0, 0, message));
            }
        }
    }
    bad.sort();
    bad.dedup();
    bad
}

/// A number of retries that somebody asked for.
fn checked_retries(retries: u32) -> Result<u32, Problem> {
    let few = (retries <= MAX_RETRIES).then_some(retries);
    let text = || format!("{retries} retries are more than {MAX_RETRIES}");
    few.ok_or_else(|| Problem::bad_request(text()))
}

/// Whether a manifest's revision takes back what `layby scale` said: only if its number of replicas is another one, or was
/// `asked` for.
fn unscales(rows: &[Row], id: &ServiceId, spec: &ServiceSpec, asked: bool) -> bool {
    let row = rows.iter().find(|row| row.service == *id);
    row.is_some_and(|row| {
        let other = row.target.spec.service.replicas != spec.replicas;
        row.scale.is_some() && (other || asked)
    })
}

/// Whether a number that was asked for differs from what `layby scale` said, though the settings may not.
fn rescales(rows: &[Row], id: &ServiceId, spec: &ServiceSpec) -> bool {
    let row = rows.iter().find(|row| row.service == *id);
    row.and_then(|row| row.scale)
        .is_some_and(|scale| scale != spec.replicas)
}

/// How many replicas a service of a manifest would have.
fn unscaled(rows: &[Row], id: &ServiceId, spec: &ServiceSpec, asked: bool) -> u32 {
    capacity::replicas(rows, id, spec, unscales(rows, id, spec, asked))
}

async fn warn(events: &mpsc::Sender<Event>, texts: Vec<String>) {
    for text in texts {
        let _ = events.send(Event::Warning { text }).await;
    }
}

/// Warns of what images keep nowhere, once they are there, and of those that are another app's.
async fn warn_of_images(
    reach: &Arc<Reach>,
    app: &AppName,
    services: &[ServiceSpec],
    events: &mpsc::Sender<Event>,
) {
    warn(events, images::unkept(reach, app, services).await).await;
    warn(events, images::borrowed(reach, app, services).await).await;
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
