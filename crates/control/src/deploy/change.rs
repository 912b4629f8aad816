//! Another revision of a service that is there: with other settings, with those of an earlier one, or with the same anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::StatusCode;
use layby_image::Reference;
use layby_model::engine::RunSpec;
use layby_model::route::Share;
use layby_model::secret;
use layby_model::spec::{PullPolicy, ServiceSpec};
use layby_model::{RevisionId, ServiceId};
use tokio::sync::mpsc;

use super::commit::may_reach;
use super::pulls::{self, Pull};
use super::{
    Committed, EVENTS, canary, commit_in_turn, current, finish, images, outcome, privilege,
    revision, warn, warn_of_images,
};
use crate::api::Who;
use crate::api::types::{DeployBody, Event, Problem, RevisionOutcome};
use crate::driver::rolling;
use crate::plane::Plane;
use crate::reach::Reach;
use crate::store::{NewRevision, Record, Row};

/// A revision to make: what is to be other than it is, for that is looked at once more when it is written.
struct Change {
    id: ServiceId,
    next: Next,
    who: Who,
    /// Tried out on this part of the requests.
    share: Option<Share>,
    /// What whoever makes it is to be told.
    warning: Option<String>,
}

/// What it runs.
enum Next {
    /// What is there, with other settings: its images by their digests where only variables are others, else by what their
    /// names mean once all are pulled.
    Edited(DeployBody),
    /// What is the newest, once more. `true`: with images by what their names mean once all are pulled.
    Again(bool),
    /// What an earlier one ran, images by their digests. With a target, only as long as that is the newest.
    Earlier {
        spec: Box<RunSpec>,
        id: RevisionId,
        on_top_of: Option<RevisionId>,
    },
}

/// What a change makes of a row.
enum Made {
    /// Images by their names.
    Named(ServiceSpec),
    /// Images by their digests.
    Fixed(RunSpec),
}

impl Change {
    /// What the change makes of a row, and why.
    ///
    /// # Errors
    /// It is no change that can be made to that.
    fn make(&self, row: &Row) -> Result<(Made, String), Problem> {
        match &self.next {
            Next::Edited(body) => {
                let service = edited(row, body, self.share.as_ref())?;
                let made = match keeps_images(body) {
                    true => Made::Fixed(RunSpec {
                        service,
                        images: current(row).1.spec.images.clone(),
                    }),
                    false => Made::Named(service),
                };
                Ok((made, cause(body)))
            }
            Next::Again(pulls) => {
                canary::refuse_on_top(row, None)?;
                let target = &row.target;
                let text = format!("revision {} redeployed", target.id);
                Ok(match pulls {
                    true => (
                        Made::Named(target.spec.service.clone()),
                        format!("{text}, its images asked for anew"),
                    ),
                    false => (Made::Fixed(RunSpec::clone(&target.spec)), text),
                })
            }
            Next::Earlier { on_top_of, .. } if on_top_of.is_some_and(|id| id != row.target.id) => {
                Err(Problem::changed_meanwhile(&self.id))
            }
            Next::Earlier { spec, id, .. } => Ok((
                Made::Fixed(RunSpec::clone(spec)),
                format!("rolled back to revision {id}"),
            )),
        }
    }
}

impl Made {
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
    let mut body = body;
    if let Some(image) = &body.image {
        let reach = Reach::of(&plane, &who.rights).await?;
        let image = reach.meant(image).await?;
        reach.use_image(&image)?;
        body.image = Some(image);
    }
    let change = Change {
        id: id.clone(),
        next: Next::Edited(body),
        who,
        share,
        warning: None,
    };
    roll(plane, change, detach).await
}

/// What is there of a service, with other settings.
fn edited(row: &Row, body: &DeployBody, share: Option<&Share>) -> Result<ServiceSpec, Problem> {
    let id = &row.service;
    canary::refuse_on_top(row, share)?;
    if share.is_some() && row.live.is_none() {
        let text = format!("nothing of {id} is live: there is nothing to try a canary beside");
        return Err(Problem::conflict(text).hint("deploy it whole"));
    }
    let mut spec = current(row).1.spec.service.clone();
    if let Some(container) = spec.containers.first_mut() {
        if let Some(image) = &body.image {
            container.image.clone_from(image);
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
        for (name, value) in &body.env {
            container.set_env(name.clone(), value.clone());
        }
    }
    if let Some(retries) = body.retries {
        spec.retries = Some(super::checked_retries(retries)?);
    }
    // It is deployed with the secrets as they are now.
    secret::unpin(&mut spec, &|_| true);
    Ok(spec)
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
    let change = Change {
        id: id.clone(),
        next: Next::Earlier {
            spec: Box::new(RunSpec::clone(&record.spec)),
            id: record.id,
            on_top_of: to.is_none().then_some(row.target.id),
        },
        who,
        share: None,
        warning: never_live(record),
    };
    roll(plane, change, detach).await
}

/// What is to be said of going back to a revision that was never live.
fn never_live(record: &Record) -> Option<String> {
    let why = match (record.outcome, &record.failure) {
        (RevisionOutcome::Live | RevisionOutcome::Rolling, _) => return None,
        (RevisionOutcome::Failed, Some(failure)) => format!("it failed ({})", failure.reason),
        (RevisionOutcome::Failed, None) => "it failed".to_owned(),
        (RevisionOutcome::Aborted, _) => "it was aborted".to_owned(),
        (RevisionOutcome::Superseded, _) => {
            "a newer one took its place before it was ready".to_owned()
        }
    };
    Some(format!("revision {} was never live: {why}", record.id))
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
    let change = Change {
        id: id.clone(),
        next: Next::Again(pull),
        who,
        share: None,
        warning: None,
    };
    roll(plane, change, detach).await
}

/// Pulls what is to be pulled, writes the revision, and tells what becomes of it.
async fn roll(
    plane: Arc<Plane>,
    change: Change,
    detach: bool,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let (made, _) = change.make(&find(&plane, &change.id).await?)?;
    let service = (change.id.clone(), made.service());
    privilege::check(&plane.config, &change.who.rights, [service])?;
    let reach = Reach::of(&plane, &change.who.rights).await?;
    let pulls = wanted(&reach, &change, &made).await?;
    let kept = plane.collector.keep().await;
    // With nothing to pull, all that can be refused is refused before the answer begins.
    let change = Arc::new(change);
    let ready = match pulls.is_empty() {
        true => {
            let (task_plane, change) = (Arc::clone(&plane), Arc::clone(&change));
            let reach = Arc::clone(&reach);
            let work = async move { write(&task_plane, &change, &reach).await };
            Some(plane.carry_out(work).await?)
        }
        false => None,
    };
    let (events, stream) = mpsc::channel(EVENTS);
    let task_plane = Arc::clone(&plane);
    plane.spawn(async move {
        let plane = task_plane;
        let work = async {
            warn(&events, change.warning.clone().into_iter().collect()).await;
            let (service, committed) = match ready {
                Some(written) => written,
                None => {
                    pulls::run(&reach, pulls, &events).await?;
                    write(&plane, &change, &reach.renewed().await?).await?
                }
            };
            let services = std::slice::from_ref(&service);
            warn_of_images(&reach, &change.id.app, services, &events).await;
            drop(kept);
            Ok(outcome::wait(committed, detach, &events).await)
        };
        let ended = work.await;
        finish(&events, ended).await;
    });
    Ok(stream)
}

/// What has to be pulled before a change can be written.
async fn wanted(reach: &Arc<Reach>, change: &Change, made: &Made) -> Result<Vec<Pull>, Problem> {
    let id = &change.id;
    match (made, &change.next) {
        (Made::Named(service), Next::Again(_)) => anew(reach, id, service).await,
        (Made::Named(service), Next::Edited(_) | Next::Earlier { .. }) => {
            pulls::wanted(reach, &id.app, std::slice::from_ref(service), &[]).await
        }
        (Made::Fixed(spec), _) => missing(reach.plane(), id, spec).await,
    }
}

/// Makes the change to what is there now, whatever was deployed while its images were pulled, and writes it.
async fn write(
    plane: &Arc<Plane>,
    change: &Change,
    reach: &Arc<Reach>,
) -> Result<(ServiceSpec, Vec<Committed>), Problem> {
    let turn = plane.deploys.lock().await;
    let (id, made_by) = (&change.id, &change.who.name);
    let row = find(plane, id).await?;
    let (made, cause) = change.make(&row)?;
    privilege::check(
        &plane.config,
        &change.who.rights,
        [(id.clone(), made.service())],
    )?;
    let service = made.service().clone();
    let mut new = match made {
        Made::Named(spec) => {
            let rows = std::slice::from_ref(&row);
            let mut new = revision::resolve(reach, &id.app, &spec, rows, &cause, made_by).await?;
            let texts = [cause]
                .into_iter()
                .chain(moved(&current(&row).1.spec, &new.spec));
            new.cause = Some(texts.collect::<Vec<_>>().join(", "));
            new
        }
        Made::Fixed(spec) => {
            if let Some((name, digest)) = absent(plane, &spec).await?.first() {
                return Err(no_image(id, name, digest));
            }
            NewRevision {
                service: id.clone(),
                spec,
                cause: Some(cause),
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
    new.anew = matches!(change.next, Next::Again(_));
    new.share.clone_from(&change.share);
    let news = vec![new];
    may_reach(plane, &change.who.rights, &news, &[]).await?;
    Ok((service, commit_in_turn(plane, &turn, news).await?))
}

async fn find(plane: &Plane, id: &ServiceId) -> Result<Row, Problem> {
    let row = plane.store.service(id).await?;
    row.ok_or_else(|| Problem::no_service(id))
}

/// Whether the images stay the very same: a variable is no reason to run what a tag has come to mean since.
fn keeps_images(body: &DeployBody) -> bool {
    body.image.is_none() && !(body.env.is_empty() && body.unset.is_empty())
}

/// What is to be said of names that stay and have come to mean other images.
fn moved(before: &RunSpec, now: &RunSpec) -> BTreeSet<String> {
    let of = |spec: &RunSpec| -> Vec<(String, String)> {
        let containers = spec.service.all_containers();
        let names = containers.map(|container| container.image.clone());
        names.zip(spec.images.iter().cloned()).collect()
    };
    let before = of(before);
    let others = |(name, digest): &(String, String)| {
        let mut same = before.iter().filter(|(known, _)| known == name);
        let was = same.next().map(|(_, digest)| digest);
        was.is_some_and(|was| was != digest)
    };
    let moved = of(now).into_iter().filter(others);
    let text = |(name, digest): (String, String)| {
        let digits = digest.rsplit(':').next().unwrap_or_default();
        format!("{name} moved to {}", digits.get(..12).unwrap_or(digits))
    };
    moved.map(text).collect()
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
                "revision {} of {id} {}, and revision {} was kept: there is nothing to go back from",
                row.target.id,
                match row.aborted_by() {
                    Some(who) => format!("was aborted by {who}"),
                    None => "failed".to_owned(),
                },
                live.id
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
    for (container, digest) in spec.service.all_containers().zip(&spec.images) {
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
async fn anew(
    reach: &Arc<Reach>,
    id: &ServiceId,
    service: &ServiceSpec,
) -> Result<Vec<Pull>, Problem> {
    let mut service = service.clone();
    let built = built(id);
    service
        .containers
        .retain(|container| container.image != built);
    for container in service.all_containers_mut() {
        container.pull = PullPolicy::Always;
    }
    pulls::wanted(reach, &id.app, std::slice::from_ref(&service), &[]).await
}

fn no_image(id: &ServiceId, name: &str, digest: &str) -> Problem {
    let text = format!("the image {name} ({digest}) of {id} is no longer on this node");
    Problem::new(StatusCode::NOT_FOUND, "image-not-found", text)
        .hint("build or load it again, and deploy with `layby up` or `layby deploy --image`")
}
