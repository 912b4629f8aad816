//! `layby up`: a manifest is checked, its images are made, its revisions are written, and what becomes of them is told.

use std::sync::Arc;

use layby_manifest::Manifest;
use layby_model::spec::ServiceSpec;
use layby_model::{AppName, ServiceId};
use tokio::sync::mpsc;

use super::images::Build;
use super::pulls::{self, Pull};
use super::upload::Upload;
use super::{
    Ask, EVENTS, commit, conflict, dry_run, finish, images, lent, needs, outcome, power, privilege,
    read, unscaled, warn, warn_of_images, whole,
};
use crate::agents::Link;
use crate::api::Who;
use crate::api::types::{Event, Problem};
use crate::capacity;
use crate::collect::Kept;
use crate::jobs::{self, Shown};
use crate::networks;
use crate::plane::Plane;
use crate::reach::{self, Reach};
use crate::secrets::{self, NewValue};
use crate::store::Row;
use crate::volumes;

/// Deploys a manifest. Problems that show before anything is built come as such; later ones as events.
pub(crate) async fn up(
    plane: Arc<Plane>,
    upload: Upload,
    ask: Ask,
    who: Who,
) -> Result<(AppName, mpsc::Receiver<Event>), Problem> {
    let link = lent(&plane, ask.agents.as_deref(), &who)?;
    let (manifest, leaving, mut warnings) = prepare(&plane, &upload, &ask, &who).await?;
    let app = &manifest.app;
    let name = app.name.clone();
    let jobs_before = plane.jobs.shown();
    // From the first look at an image until its revision is written.
    let kept = plane.collector.keep().await;
    let builds = images::builds(&plane, app, ask.build).await?.builds;
    let reach = Reach::of(&plane, &who.rights).await?;
    let pulls = pulls::wanted(&reach, &app.name, &app.services, &builds).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    if ask.dry_run {
        plane.spawn(async move {
            warn(&events, warnings).await;
            show_steps(&reach, &manifest, (&builds, &pulls), &leaving, &events).await;
        });
        return Ok((name, stream));
    }
    let to_commit = commit::App {
        spec: app.clone(),
        scaled: manifest.scaled.clone(),
        brought: brought(&manifest),
        orphans: leaving.first.clone(),
        made_by: who.name.clone(),
        rights: who.rights.clone(),
        share: ask.share.clone(),
    };
    // With nothing to build or pull, all that can be refused is refused before the answer begins.
    let ready = match builds.is_empty() && pulls.is_empty() {
        true => Ready::Begun(begin(&plane, to_commit, &reach).await?),
        false => Ready::Waits(to_commit),
    };
    let making = Making {
        manifest,
        upload,
        builds,
        link,
        pulls,
        reach,
        kept,
        ready,
        leaving,
        jobs_before,
    };
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        warn(&events, std::mem::take(&mut warnings)).await;
        let ended = make(&task_plane, making, &ask, &who, &events).await;
        finish(&events, ended).await;
    });
    Ok((name, stream))
}

/// What goes since the manifest does not name it (any more).
#[derive(Debug, Clone, Default)]
struct Gone {
    /// Services, as the others come.
    first: Vec<ServiceId>,
    /// Services, when all else is well: they claim what they claim until then.
    last: Vec<ServiceId>,
    /// Jobs, when all else is well.
    jobs: Vec<ServiceId>,
}

/// Reads and checks a manifest. Gives it, what goes with it, and what is to be warned of.
async fn prepare(
    plane: &Arc<Plane>,
    upload: &Upload,
    ask: &Ask,
    who: &Who,
) -> Result<(Manifest, Gone, Vec<String>), Problem> {
    let mut manifest = read(upload, ask, true)?;
    let rows = plane.store.services().await?;
    let alone = match ask.no_deps {
        true => needs::cut(&rows, &mut manifest.app),
        false => Vec::new(),
    };
    let orphans = match ask.remove_orphans {
        true => whole::orphans(&rows, &manifest),
        false => Vec::new(),
    };
    let (first, last) = match ask.atomic {
        true => (Vec::new(), orphans),
        false => (orphans, Vec::new()),
    };
    let sizes = check(plane, ask, who, &rows, &first, &manifest).await?;
    let leaving = Gone {
        first,
        last,
        jobs: jobs::orphans(plane, &manifest),
    };
    let mut warnings = warnings(&manifest, ask, &rows, &leaving.jobs);
    warnings.extend(alone);
    warnings.extend(sizes);
    Ok((manifest, leaving, warnings))
}

/// What an app is made of, from its images to its revisions.
struct Making {
    manifest: Manifest,
    upload: Upload,
    builds: Vec<Build>,
    /// Who lends them SSH agents.
    link: Option<Link>,
    pulls: Vec<Pull>,
    reach: Arc<Reach>,
    kept: Kept,
    ready: Ready,
    leaving: Gone,
    /// The jobs as they were before.
    jobs_before: Arc<Shown>,
}

/// Pulls and builds the images, writes the revisions unless they are written, and sees the app through; gives the exit code.
async fn make(
    plane: &Arc<Plane>,
    making: Making,
    ask: &Ask,
    who: &Who,
    events: &mpsc::Sender<Event>,
) -> Result<i32, Problem> {
    let Making {
        manifest,
        upload,
        builds,
        link,
        pulls,
        mut reach,
        kept,
        ready,
        leaving,
        jobs_before,
    } = making;
    let begun = match ready {
        Ready::Begun(begun) => {
            // What it keeps of contexts is for others.
            drop(upload);
            begun
        }
        Ready::Waits(to_commit) => {
            pulls::run(&reach, pulls, events).await?;
            let (sent, app) = (Arc::new(upload), &manifest.app);
            let link = link.as_ref();
            images::run(plane, sent, &app.name, builds, link, &reach, events).await?;
            // Somebody else may have got a name meanwhile that was free before.
            reach = reach.renewed().await?;
            reach::images_of(&reach, app)?;
            let begun = commit::app(plane, to_commit, &reach).await?;
            // Other services may run what was built; this app's do already.
            plane.desk.pushed();
            begun
        }
    };
    let app = &manifest.app;
    warn_of_images(&reach, &app.name, &app.services, events).await;
    drop(kept);
    // It is written: the rest goes on where this cannot be looked at.
    let doubled = networks::warnings(plane, &who.rights, app).await;
    warn(events, doubled.unwrap_or_default()).await;
    jobs::tell(plane, &jobs_before, app, events).await;
    see_through(plane, begun, ask, who, leaving, events).await
}

/// Tells the steps of a deploy, without doing any.
async fn show_steps(
    reach: &Arc<Reach>,
    manifest: &Manifest,
    (builds, pulls): (&[Build], &[Pull]),
    leaving: &Gone,
    events: &mpsc::Sender<Event>,
) {
    let app = &manifest.app;
    warn_of_images(reach, &app.name, &app.services, events).await;
    tell_orphans(leaving.first.iter().chain(&leaving.last), events).await;
    let ended = dry_run::run(reach, app, &manifest.scaled, builds, pulls, events).await;
    finish(events, ended.map(|()| 0)).await;
}

/// Whether an app's revisions are written already.
enum Ready {
    Begun(commit::Begun),
    Waits(commit::App),
}

/// Writes an app, also when whoever asked for it goes meanwhile.
async fn begin(
    plane: &Arc<Plane>,
    app: commit::App,
    reach: &Arc<Reach>,
) -> Result<commit::Begun, Problem> {
    let (task_plane, reach) = (Arc::clone(plane), Arc::clone(reach));
    let work = async move { commit::app(&task_plane, app, &reach).await };
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
    manifest: &Manifest,
) -> Result<Vec<String>, Problem> {
    let app = &manifest.app;
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
    // First, and alone: it does not say whose a host is.
    conflict::check_hosts(&who.rights, &staying, specs())?;
    let known = plane.store.networks().await?;
    // Nor does this say which networks are there.
    if !who.rights.is_whole() {
        networks::may_join(&known, &who.rights, rows, specs())?;
    }
    let (settled, sizes) = power::settle(plane, rows, app).await?;
    // A job is there for a while only.
    let asked = settled.services.iter();
    let asked = asked.filter(|s| s.replicas > 0 && s.job.is_none());
    let asked = asked.map(|s| {
        let scaled = manifest.scaled.contains(&s.name);
        (id(s), s, unscaled(rows, &id(s), s, scaled))
    });
    let brought = brought(manifest);
    // None of these needs another one to have passed: all is told at once.
    let checks = [
        conflict::check(&plane.config, &who.rights, &staying, specs()),
        networks::check(&known, specs()),
        volumes::check(plane, specs()).await,
        privilege::check(&plane.config, &who.rights, specs()),
        capacity::check_jobs(&plane.config, specs()),
        capacity::check(plane, rows, asked),
        secrets::check(plane, &app.name, &app.services, &brought).await,
        jobs::check_names(plane, rows, specs()),
    ];
    let schedules = app.services.iter();
    let schedules = schedules.map(|service| jobs::check_schedule(&id(service), service));
    let problems = checks.into_iter().chain(schedules);
    match Problem::all(problems.filter_map(Result::err).collect()) {
        Some(problem) => Err(problem),
        None => Ok(sizes),
    }
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
    gone: Gone,
    events: &mpsc::Sender<Event>,
) -> Result<i32, Problem> {
    let done = outcome::each(begun.committed, ask.detach, events).await;
    if ask.atomic && whole::is_broken(&done) {
        return whole::undo(plane, &begun.before, &done, who, events).await;
    }
    if ask.remove_orphans {
        jobs::remove_orphans(plane, gone.jobs, &who.name, events).await?;
    }
    let mut leaving = begun.leaving;
    leaving.extend(whole::withdraw(plane, &gone.last, &who.name).await?);
    if !ask.detach {
        whole::until_gone(leaving, events).await?;
    }
    Ok(outcome::code(&done, ask.detach))
}

/// What the manifest does not say right, and which services and jobs it no longer names that stay.
fn warnings(manifest: &Manifest, ask: &Ask, rows: &[Row], lost_jobs: &[ServiceId]) -> Vec<String> {
    let said = manifest.warnings.iter().map(ToString::to_string);
    if ask.remove_orphans {
        return said.collect();
    }
    let left_out = whole::orphans(rows, manifest).into_iter();
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
