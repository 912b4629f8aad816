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
mod revision;
pub(crate) mod scale;
mod switch;
mod told;
pub(crate) mod upload;
mod whole;

pub(crate) use canary::{abort, promote};
pub(crate) use change::{change, redeploy, rollback};
pub(crate) use commit::{Committed, commit_in_turn};
pub(crate) use leave::{down, remove};
pub(crate) use outcome::wait;
pub(crate) use switch::{disable, enable};

use std::sync::Arc;

use axum::http::StatusCode;
use layby_image::Source;
use layby_manifest::{Diagnostic, Manifest, ReadOptions};
use layby_model::route::Share;
use layby_model::spec::{AppSpec, MAX_RETRIES, ServiceSpec};
use layby_model::{AppName, ServiceId};
use tokio::sync::mpsc;

use crate::api::Who;
use crate::api::types::{BuildBody, Event, ManifestView, Problem};
use crate::capacity;
use crate::jobs;
use crate::plane::Plane;
use crate::reach::{self, Reach};
use crate::secrets::{self, NewValue};
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
        files: manifest.named_files,
        more,
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
    let rows = plane.store.services().await?;
    let app = &manifest.app;
    let name = app.name.clone();
    let orphans = match ask.remove_orphans {
        true => whole::orphans(&rows, app),
        false => Vec::new(),
    };
    // All or nothing: they go when all is well, and claim what they claim until then.
    let (first, last) = match ask.atomic {
        true => (Vec::new(), orphans),
        false => (orphans, Vec::new()),
    };
    let brought = brought(&manifest);
    let sizes = check(&plane, &ask, &who, &rows, &first, app, &brought).await?;
    let jobs_before = plane.jobs.shown();
    // From the first look at an image until its revision is written.
    let kept = plane.collector.keep().await;
    let builds = images::builds(&plane, app, ask.build).await?.builds;
    let pulls = pulls::wanted(&plane, &app.name, &app.services, &builds).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    let lost_jobs = jobs::orphans(&plane, app);
    let mut warnings = warnings(&manifest, &ask, &rows, &lost_jobs);
    warnings.extend(sizes);
    if ask.dry_run {
        let task_plane = Arc::clone(&plane);
        plane.spawn(async move {
            warn(&events, warnings).await;
            let app = &manifest.app;
            warn_of_unkept(&task_plane, &app.name, &app.services, &events).await;
            tell_orphans(first.iter().chain(&last), &events).await;
            let ended = dry_run::run(&task_plane, app, &builds, &pulls, &events).await;
            finish(&events, ended.map(|()| 0)).await;
        });
        return Ok((name, stream));
    }
    let to_commit = commit::App {
        spec: app.clone(),
        brought,
        orphans: first,
        made_by: who.name.clone(),
        share: ask.share.clone(),
    };
    // With nothing to build or pull, all that can be refused is refused before the answer begins.
    let ready = match builds.is_empty() && pulls.is_empty() {
        true => Ready::Begun(begin(&plane, to_commit).await?),
        false => Ready::Waits(to_commit),
    };
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        warn(&events, warnings).await;
        let work = async {
            let begun = match ready {
                Ready::Begun(begun) => begun,
                Ready::Waits(to_commit) => {
                    pulls::run(&plane, pulls, &events).await?;
                    let (sent, app) = (Arc::new(upload), &manifest.app);
                    images::run(&plane, sent, &app.name, builds, &who.rights, &events).await?;
                    // Somebody else may have got a name meanwhile that was free before.
                    reach::images_of(&plane, &who.rights, app).await?;
                    let begun = commit::app(&plane, to_commit).await?;
                    // Other services may run what was built; this app's do already.
                    plane.desk.pushed();
                    begun
                }
            };
            let app = &manifest.app;
            warn_of_unkept(&plane, &app.name, &app.services, &events).await;
            drop(kept);
            jobs::tell(&plane, &jobs_before, app, &events).await;
            see_through(&plane, begun, &ask, &who, (lost_jobs, last), &events).await
        };
        let ended = work.await;
        finish(&events, ended).await;
    });
    Ok((name, stream))
}

/// Whether an app's revisions are written already.
enum Ready {
    Begun(commit::Begun),
    Waits(commit::App),
}

/// Writes an app, also when whoever asked for it goes meanwhile.
async fn begin(plane: &Arc<Plane>, app: commit::App) -> Result<commit::Begun, Problem> {
    let task_plane = Arc::clone(plane);
    let work = async move { commit::app(&task_plane, app).await };
    plane.carry_out(work).await
}

/// Refuses a manifest that cannot be deployed beside what is there but for those that go `first`. Gives what is to be
/// told of its sizes.
async fn check(
    plane: &Arc<Plane>,
    ask: &Ask,
    who: &Who,
    rows: &[Row],
    first: &[ServiceId],
    app: &AppSpec,
    brought: &[NewValue],
) -> Result<Vec<String>, Problem> {
    reach::deploy(plane, &who.rights, app).await?;
    if app.name.as_str() == crate::registry::OWN_APP {
        let text = format!(
            "no app can be called {}: the node's own services are",
            app.name
        );
        return Err(Problem::conflict(text).hint("give it another name with --app"));
    }
    if ask.atomic && ask.detach {
        let text =
            "who does not wait for the outcome cannot have all or nothing: leave out one of both";
        return Err(Problem::bad_request(text));
    }
    let id = |service: &ServiceSpec| ServiceId::new(app.name.clone(), service.name.clone());
    let specs = || app.services.iter().map(|s| (id(s), s));
    let staying = rows.iter().filter(|row| !first.contains(&row.service));
    let staying: Vec<Row> = staying.cloned().collect();
    conflict::check(&plane.config, &staying, specs())?;
    privilege::check(&plane.config, &who.rights, specs())?;
    let (settled, sizes) = power::settle(plane, rows, app).await?;
    // A job is there for a while only.
    let asked = settled.services.iter();
    let asked = asked.filter(|s| s.replicas > 0 && s.job.is_none());
    capacity::check(
        &plane.config,
        rows,
        asked.map(|s| (id(s), s, unscaled(rows, &id(s), s))),
    )?;
    secrets::check(plane, &app.name, &app.services, brought).await?;
    jobs::check_names(plane, rows, specs())?;
    for service in &app.services {
        jobs::check_schedule(&id(service), service)?;
    }
    Ok(sizes)
}

/// Tells which services a dry run would take down.
async fn tell_orphans<'a>(
    orphans: impl Iterator<Item = &'a ServiceId>,
    events: &mpsc::Sender<Event>,
) {
    for orphan in orphans {
        let event = Event::Step {
            service: orphan.to_string(),
            text: "take it down: it is not in the manifest (any more)".into(),
        };
        let _ = events.send(event).await;
    }
}

/// Waits for what becomes of an app that is written, then takes away the jobs and services that its manifest no longer
/// names, or takes all back; gives the exit code.
async fn see_through(
    plane: &Arc<Plane>,
    begun: commit::Begun,
    ask: &Ask,
    who: &Who,
    (lost_jobs, last): (Vec<ServiceId>, Vec<ServiceId>),
    events: &mpsc::Sender<Event>,
) -> Result<i32, Problem> {
    let done = outcome::each(begun.committed, ask.detach, events).await;
    if ask.atomic && whole::is_broken(&done) {
        return whole::undo(plane, &begun.before, &done, who, events).await;
    }
    if ask.remove_orphans {
        jobs::remove_orphans(plane, lost_jobs, events).await?;
    }
    let mut leaving = begun.leaving;
    leaving.extend(whole::withdraw(plane, &last).await?);
    if !ask.detach {
        whole::until_gone(leaving, events).await?;
    }
    Ok(outcome::code(&done, ask.detach))
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
        let order = build::Order {
            context: 0,
            service: BUILD,
            source: Source::Here,
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
        app: ask.app.clone(),
        folder: ask.folder.clone(),
        folder_path: ask.folder_path.clone(),
        env: upload.env.clone(),
        named_files: whole.then(|| upload.named_files.clone()),
    }
}

/// The further files without which the manifest cannot be read.
pub(crate) fn needed(upload: &Upload, ask: &Ask) -> Vec<String> {
    layby_manifest::needed(&upload.files, &options(upload, ask, false))
}

/// All that is wrong with a manifest.
pub(crate) fn bad_manifest(errors: Vec<Diagnostic>) -> Problem {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Problem::new(status, "bad-manifest", lines.join("\n"))
}

/// A number of retries that somebody asked for.
fn checked_retries(retries: u32) -> Result<u32, Problem> {
    let few = (retries <= MAX_RETRIES).then_some(retries);
    let text = || format!("{retries} retries are more than {MAX_RETRIES}");
    few.ok_or_else(|| Problem::bad_request(text()))
}

/// What the manifest does not say right, and which services and jobs it no longer names that stay.
fn warnings(manifest: &Manifest, ask: &Ask, rows: &[Row], lost_jobs: &[ServiceId]) -> Vec<String> {
    let said = manifest.warnings.iter().map(ToString::to_string);
    if ask.remove_orphans {
        return said.collect();
    }
    let left_out = whole::orphans(rows, &manifest.app).into_iter();
    let left_out = left_out.map(|id| {
        format!(
            "{id} is not in the manifest (any more) and goes on as it is: `layby up --remove-orphans` takes such services down"
        )
    });
    let jobs = lost_jobs.iter().map(jobs::left_out);
    said.chain(left_out).chain(jobs).collect()
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

/// Whether a manifest's revision takes back what `layby scale` said: only if its number of replicas is another one.
fn unscales(rows: &[Row], id: &ServiceId, spec: &ServiceSpec) -> bool {
    let row = rows.iter().find(|row| row.service == *id);
    row.is_some_and(|row| row.scale.is_some() && row.target.spec.service.replicas != spec.replicas)
}

/// How many replicas a service of a manifest would have.
fn unscaled(rows: &[Row], id: &ServiceId, spec: &ServiceSpec) -> u32 {
    capacity::replicas(rows, id, spec, unscales(rows, id, spec))
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
