//! Another revision of a service that is there: with other settings, with those of an earlier one, or with the same anew.

use std::sync::Arc;

use axum::http::StatusCode;
use layby_image::Reference;
use layby_model::engine::RunSpec;
use layby_model::route::Share;
use layby_model::secret;
use layby_model::spec::{PullPolicy, ServiceSpec};
use layby_model::{RevisionId, ServiceId};
use tokio::sync::mpsc;

use super::pulls::{self, Pull};
use super::{
    Committed, EVENTS, canary, commit, current, finish, images, outcome, privilege, revision,
    warn_of_unkept,
};
use crate::api::types::{DeployBody, Event, Problem, RevisionOutcome};
use crate::api::{Who, meant};
use crate::driver::rolling;
use crate::plane::Plane;
use crate::reach::Reach;
use crate::store::{NewRevision, Record, Row};

/// A revision to make.
struct Change {
    id: ServiceId,
    next: Next,
    cause: String,
    who: Who,
    /// Also where nothing differs.
    anew: bool,
    /// Tried out on this part of the requests.
    share: Option<Share>,
}

/// What it runs.
enum Next {
    /// Images by what their names mean once all are pulled.
    Named(ServiceSpec),
    /// Images by their digests.
    Fixed(RunSpec),
}

impl Next {
    fn service(&self) -> &ServiceSpec {
        match self {
            Self::Named(service) => service,
            Self::Fixed(spec) => &spec.service,
        }
    }
}

/// Deploys a service anew with another image or environment.
///
/// # Errors
/// There is no such service or image; it is no change that can be made.
pub(crate) async fn change(
    plane: Arc<Plane>,
    id: &ServiceId,
    body: DeployBody,
    share: Option<Share>,
    detach: bool,
    who: Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let row = find(&plane, id).await?;
    canary::refuse_on_top(&row, share.as_ref())?;
    if share.is_some() && row.live.is_none() {
        let text = format!("nothing of {id} is live: there is nothing to try a canary beside");
        return Err(Problem::conflict(text).hint("deploy it whole"));
    }
    let mut spec = current(&row).1.spec.service.clone();
    let cause = cause(&body);
    if let Some(container) = spec.containers.first_mut() {
        if let Some(image) = body.image {
            Reach::of(&plane, &who.rights).await?.use_image(&image)?;
            container.image = meant(&plane, &image).await?;
        }
        for name in &body.unset {
            if body.env.contains_key(name) {
                let text = format!("{name} cannot be both set and unset");
                return Err(Problem::bad_request(text));
            }
            if !container.unset_env(name) {
                let text = format!("{id} has no variable {name} of its own");
                let hint = "the image's own variables can be set to something else, not taken away";
                return Err(Problem::bad_request(text).hint(hint));
            }
        }
        for (name, value) in body.env {
            container.set_env(name, value);
        }
    }
    if let Some(retries) = body.retries {
        spec.retries = Some(super::checked_retries(retries)?);
    }
    // It is deployed with the secrets as they are now.
    secret::unpin(&mut spec, &|_| true);
    let pulls = pulls::wanted(&plane, &id.app, std::slice::from_ref(&spec), &[]).await?;
    let change = Change {
        id: id.clone(),
        next: Next::Named(spec),
        cause,
        who,
        anew: false,
        share,
    };
    roll(plane, change, pulls, detach).await
}

/// Makes a revision with the settings and images of an earlier one: `to`, or the one that was live before.
///
/// # Errors
/// There is no such service or revision; nothing to go back to; an image that is neither here nor to be had.
pub(crate) async fn rollback(
    plane: Arc<Plane>,
    id: &ServiceId,
    to: Option<RevisionId>,
    detach: bool,
    who: Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let row = find(&plane, id).await?;
    let records = plane.store.history(id).await?;
    let record = match to {
        Some(to) => named(id, to, &records)?,
        None => before(&row, &records)?,
    };
    let spec = RunSpec::clone(&record.spec);
    let pulls = missing(&plane, id, &spec).await?;
    let change = Change {
        id: id.clone(),
        next: Next::Fixed(spec),
        cause: format!("rolled back to revision {}", record.id),
        who,
        anew: false,
        share: None,
    };
    roll(plane, change, pulls, detach).await
}

/// Makes a revision with the settings of the newest one, whatever became of that. With `pull`, the names of its images are
/// asked for again; otherwise they stay the same.
///
/// # Errors
/// There is no such service; an image that is neither here nor to be had.
pub(crate) async fn redeploy(
    plane: Arc<Plane>,
    id: &ServiceId,
    pull: bool,
    detach: bool,
    who: Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let row = find(&plane, id).await?;
    canary::refuse_on_top(&row, None)?;
    let spec = RunSpec::clone(&row.target.spec);
    let pulls = match pull {
        true => anew(&plane, id, &spec.service).await?,
        false => missing(&plane, id, &spec).await?,
    };
    let change = Change {
        id: id.clone(),
        cause: match pull {
            true => format!(
                "revision {} redeployed, its images asked for anew",
                row.target.id
            ),
            false => format!("revision {} redeployed", row.target.id),
        },
        next: match pull {
            true => Next::Named(spec.service),
            false => Next::Fixed(spec),
        },
        who,
        anew: true,
        share: None,
    };
    roll(plane, change, pulls, detach).await
}

/// Pulls what is to be pulled, writes the revision, and tells what becomes of it.
async fn roll(
    plane: Arc<Plane>,
    change: Change,
    pulls: Vec<Pull>,
    detach: bool,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let service = (change.id.clone(), change.next.service());
    privilege::check(&plane.config, &change.who.rights, [service])?;
    let kept = plane.collector.keep().await;
    // With nothing to pull, all that can be refused is refused before the answer begins.
    let ready = match pulls.is_empty() {
        true => Some(write(&plane, &change).await?),
        false => None,
    };
    let (events, stream) = mpsc::channel(EVENTS);
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        let work = async {
            let committed = match ready {
                Some(committed) => committed,
                None => {
                    pulls::run(&plane, pulls, &events).await?;
                    write(&plane, &change).await?
                }
            };
            let services = std::slice::from_ref(change.next.service());
            warn_of_unkept(&plane, &change.id.app, services, &events).await;
            drop(kept);
            Ok(outcome::wait(committed, detach, &events).await)
        };
        let ended = work.await;
        finish(&events, ended).await;
    });
    Ok(stream)
}

/// Resolves the change and writes it.
async fn write(plane: &Arc<Plane>, change: &Change) -> Result<Vec<Committed>, Problem> {
    let (id, cause, made_by) = (&change.id, &change.cause, &change.who.name);
    let mut new = match &change.next {
        Next::Named(spec) => {
            let row = plane.store.service(id).await?;
            revision::resolve(plane, &id.app, spec, row.as_slice(), cause, made_by).await?
        }
        Next::Fixed(spec) => {
            if let Some((name, digest)) = absent(plane, spec).await?.first() {
                return Err(no_image(id, name, digest));
            }
            NewRevision {
                service: id.clone(),
                spec: spec.clone(),
                cause: Some(cause.clone()),
                made_by: made_by.clone(),
                unscale: false,
                enables: false,
                anew: false,
                share: None,
            }
        }
    };
    // Whoever names it wants it to run.
    new.enables = true;
    new.anew = change.anew;
    new.share.clone_from(&change.share);
    commit(plane, vec![new]).await
}

async fn find(plane: &Plane, id: &ServiceId) -> Result<Row, Problem> {
    let row = plane.store.service(id).await?;
    row.ok_or_else(|| Problem::no_service(id))
}

/// Why a revision is made that somebody asked for so. Values of variables are in no history.
fn cause(body: &DeployBody) -> String {
    let image = body.image.iter().map(|image| format!("image {image}"));
    let set = body.env.keys().map(|name| format!("{name} set"));
    let unset = body.unset.iter().map(|name| format!("{name} unset"));
    let retries = body.retries.iter().map(|n| format!("{n} retries"));
    let changes = image.chain(set).chain(unset).chain(retries);
    let changes: Vec<String> = changes.collect();
    match changes.is_empty() {
        true => "deployed with `layby deploy`".to_owned(),
        false => format!("deployed with `layby deploy`: {}", changes.join(", ")),
    }
}

/// The revision with this number.
fn named<'a>(id: &ServiceId, to: RevisionId, records: &'a [Record]) -> Result<&'a Record, Problem> {
    records.iter().find(|r| r.id == to).ok_or_else(|| {
        let text = format!("there is no revision {to} of {id}");
        Problem::new(StatusCode::NOT_FOUND, "not-found", text).hint(format!(
            "`layby history {id}` shows those that are kept, from {} on",
            records.last().map_or(to, |oldest| oldest.id)
        ))
    })
}

/// The revision that was live before: while another one rolls, that which is live still; otherwise the newest one that was,
/// with other settings than live's.
fn before<'a>(row: &Row, records: &'a [Record]) -> Result<&'a Record, Problem> {
    let id = &row.service;
    let live = row.live.as_ref();
    let found = match live {
        Some(live) if rolling(row) => records.iter().find(|r| r.id == live.id),
        Some(live) if row.target_failed => {
            let text = format!(
                "revision {} of {id} failed, and revision {} was kept: there is nothing to go back from",
                row.target.id, live.id
            );
            let hint = "go further back with --to N; `layby history` shows the numbers";
            return Err(Problem::conflict(text).hint(hint));
        }
        Some(live) => records
            .iter()
            .find(|r| r.id < live.id && r.outcome == RevisionOutcome::Live && r.spec != live.spec),
        None => None,
    };
    found.ok_or_else(|| {
        let text = match live {
            Some(_) => format!("no earlier revision of {id} with other settings was ever live"),
            None => format!("no revision of {id} was ever live"),
        };
        Problem::conflict(text).hint(format!(
            "`layby history {id}` shows what there is; any of it with --to N"
        ))
    })
}

/// The images of a revision that the store does not have (any more): their names and digests.
async fn absent(plane: &Plane, spec: &RunSpec) -> Result<Vec<(String, String)>, Problem> {
    let mut absent = Vec::new();
    for (container, digest) in spec.service.containers.iter().zip(&spec.images) {
        if images::resolve(plane, digest).await?.is_err() {
            absent.push((container.image.clone(), digest.clone()));
        }
    }
    Ok(absent)
}

/// The pulls, by digest, of images that are not here. What this node alone had can be had nowhere.
async fn missing(plane: &Plane, id: &ServiceId, spec: &RunSpec) -> Result<Vec<Pull>, Problem> {
    let mut pulls = Vec::new();
    for (name, digest) in absent(plane, spec).await? {
        // What is wrong with the others is said when the revision is written.
        if let Ok(mut reference) = name.parse::<Reference>()
            && !plane.registries.is_own(&reference)
            && name != built(id)
        {
            (reference.tag, reference.digest) = (None, Some(digest));
            pulls.push(Pull::by_digest(&spec.service.name, &reference));
        }
    }
    Ok(pulls)
}

/// What an image is called that a manifest only says how to build.
fn built(id: &ServiceId) -> String {
    format!("{}-{}", id.app, id.service)
}

/// The pulls of all images of a service, but those that are built here.
async fn anew(plane: &Plane, id: &ServiceId, service: &ServiceSpec) -> Result<Vec<Pull>, Problem> {
    let mut service = service.clone();
    let built = built(id);
    service
        .containers
        .retain(|container| container.image != built);
    for container in &mut service.containers {
        container.pull = PullPolicy::Always;
    }
    pulls::wanted(plane, &id.app, std::slice::from_ref(&service), &[]).await
}

fn no_image(id: &ServiceId, name: &str, digest: &str) -> Problem {
    let text = format!("the image {name} ({digest}) of {id} is no longer on this node");
    Problem::new(StatusCode::NOT_FOUND, "image-not-found", text)
        .hint("build or load it again, and deploy with `layby up` or `layby deploy --image`")
}
