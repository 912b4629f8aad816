//! Writing revisions, and telling the drivers: all in one turn, and to its end once it has begun.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use layby_model::fail::{self, Point};
use layby_model::names::ServiceName;
use layby_model::route::Share;
use layby_model::spec::{AppSpec, ServiceSpec};
use layby_model::state::Showing;
use layby_model::{RevisionId, ServiceId};
use tokio::sync::{MutexGuard, watch};

use super::leave::Leaving;
use super::{
    BY_UP, canary, conflict, current, needs, power, privilege, rescales, revision, unscales, whole,
};
use crate::api::types::{EventKind, Problem};
use crate::capacity;
use crate::driver::{Request, Status, rolling};
use crate::jobs;
use crate::networks;
use crate::plane::Plane;
use crate::prune;
use crate::reach::Reach;
use crate::scaling;
use crate::secrets::{self, NewValue};
use crate::store::{NewRevision, Row};
use crate::tokens::Rights;
use crate::volumes;

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
    /// What is told of the canary whose place this takes.
    pub(crate) ended_canary: Option<String>,
    pub(crate) status: watch::Receiver<Arc<Status>>,
}

impl Committed {
    /// A service that was disabled and comes back as its `row` is.
    pub(super) fn back(row: &Row, status: watch::Receiver<Arc<Status>>) -> Self {
        Self {
            service: row.service.clone(),
            revision: rolling(row).then_some(row.target.id),
            is_disabled: false,
            comes_back: true,
            generation: row.generation,
            ended_canary: None,
            status,
        }
    }
}

/// An app that is to be deployed.
pub(super) struct App {
    pub(super) spec: AppSpec,
    /// Those of its services whose number of replicas was asked for.
    pub(super) scaled: BTreeSet<ServiceName>,
    /// What its manifest brings.
    pub(super) brought: Vec<NewValue>,
    /// Its services that go as these come.
    pub(super) orphans: Vec<ServiceId>,
    pub(super) made_by: String,
    /// What whoever makes it may do.
    pub(super) rights: Rights,
    pub(super) share: Option<Share>,
}

/// What became of it.
pub(super) struct Begun {
    /// The rows of before.
    pub(super) before: Vec<Row>,
    pub(super) committed: Vec<Committed>,
    pub(super) leaving: Vec<Leaving>,
}

/// Keeps what an app's manifest brings, resolves all its services, and writes them in place of those that it has too many.
pub(super) async fn app(
    plane: &Arc<Plane>,
    app: App,
    reach: &Arc<Reach>,
) -> Result<Begun, Problem> {
    plane.vault.keep(app.brought, &app.made_by).await?;
    let before = plane.store.services().await?;
    let (spec, _) = power::settle(plane, &before, &app.spec).await?;
    let mut revisions = Vec::new();
    for service in &spec.services {
        let made = revision::resolve(reach, &spec.name, service, &before, BY_UP, &app.made_by);
        let mut new = made.await?;
        let asked = app.scaled.contains(&service.name);
        new.unscale = unscales(&before, &new.service, &new.spec.service, asked);
        new.anew = asked && rescales(&before, &new.service, &new.spec.service);
        new.share.clone_from(&app.share);
        revisions.push(new);
    }
    let turn = plane.deploys.lock().await;
    may_reach(plane, &app.rights, &revisions, &app.orphans).await?;
    let orphans = (&app.orphans[..], app.made_by.as_str());
    let (committed, leaving) = replace(plane, &turn, revisions, orphans).await?;
    Ok(Begun {
        before,
        committed,
        leaving,
    })
}

/// Refuses what apps have that whoever makes these revisions has nothing to do with, without saying whose it is: host names, ports,
/// and networks in which these are. What the `orphans` have is free. In turn.
pub(super) async fn may_reach(
    plane: &Plane,
    rights: &Rights,
    revisions: &[NewRevision],
    orphans: &[ServiceId],
) -> Result<(), Problem> {
    if rights.is_whole() {
        return Ok(());
    }
    let mut rows = plane.store.services().await?;
    let known = plane.store.networks().await?;
    let specs = revisions.iter();
    let specs = specs.map(|new| (new.service.clone(), &new.spec.service));
    networks::may_join(&known, rights, &rows, specs.clone())?;
    conflict::check_hosts(rights, &rows, specs.clone())?;
    rows.retain(|row| !orphans.contains(&row.service));
    conflict::check(&plane.config, rights, &rows, specs)
}

/// Writes those revisions that change something, all or none, and tells their drivers. For whoever has its turn: what it
/// has read since then is still so. Whoever may be dropped in the midst of it has it carried out by [`Plane::carry_out`].
pub(crate) async fn commit_in_turn(
    plane: &Arc<Plane>,
    turn: &MutexGuard<'_, ()>,
    revisions: Vec<NewRevision>,
) -> Result<Vec<Committed>, Problem> {
    let (committed, _) = replace(plane, turn, revisions, (&[], "")).await?;
    Ok(committed)
}

/// The same, in place of services that then go by somebody's word. Where it is refused, these stay.
async fn replace(
    plane: &Arc<Plane>,
    turn: &MutexGuard<'_, ()>,
    mut revisions: Vec<NewRevision>,
    (orphans, by): (&[ServiceId], &str),
) -> Result<(Vec<Committed>, Vec<Leaving>), Problem> {
    let mut rows = plane.store.services().await?;
    // Nothing that they claim is in the way.
    rows.retain(|row| !orphans.contains(&row.service));
    check(plane, &rows, &mut revisions).await?;
    let is_service = |new: &&NewRevision| new.spec.service.job.is_none();
    let services = revisions.iter().filter(is_service);
    let services: Vec<ServiceId> = services.map(|new| new.service.clone()).collect();
    let has_jobs = services.len() < revisions.len();
    let (changed, same) = sort(plane, &rows, revisions).await?;
    capacity::check_rollouts(plane, &rows, &changed)?;
    let makers = changed.iter().filter(is_service);
    let makers: Vec<String> = makers.map(|new| new.made_by.clone()).collect();

    let written = match changed.is_empty() {
        true => Vec::new(),
        false => plane.store.deploy(changed).await?,
    };
    // From here on what is written is told, whatever else goes wrong.
    let back = enable(plane, &rows, same).await;
    let leaving = whole::withdraw_in_turn(plane, turn, orphans, by).await;
    if has_jobs {
        plane.jobs.reload().await;
    }
    touch(plane, &written);
    if !written.is_empty() {
        prune::revisions(plane);
    }
    note(plane, &written, &makers);
    let (back, failed) = match back {
        Ok(back) => (back, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    // All of them before any is told: one that depends on another is not to take that for what it was.
    for row in written.iter().chain(&back) {
        if let Some(driver) = plane.driver(&row.service) {
            driver.note_written(row.generation);
        }
    }
    for row in written.iter().chain(&back) {
        tell_driver(plane, row.clone()).await;
    }
    if let Some(problem) = failed {
        return Err(problem);
    }
    let committed = services.into_iter();
    let committed = committed.map(|service| shown(plane, service, &rows, &written, &back));
    Ok((committed.collect::<Result<_, _>>()?, leaving?))
}

/// Refuses what cannot be deployed on top of these rows, and pins the secrets of the rest.
async fn check(plane: &Plane, rows: &[Row], revisions: &mut [NewRevision]) -> Result<(), Problem> {
    if plane.replacing.load(Ordering::Acquire) {
        let text = "the state of another node is being put in the place of all that is here";
        return Err(Problem::conflict(text).hint("wait until that is done"));
    }
    let row_of = |id: &ServiceId| rows.iter().find(|row| row.service == *id);
    for new in revisions.iter() {
        if row_of(&new.service).is_some_and(|row| row.removing) {
            return Err(
                Problem::conflict(format!("{} is being taken down", new.service))
                    .hint("wait until `layby ls` no longer shows it, then run it again"),
            );
        }
    }
    needs::check(rows, revisions)?;
    // Each run of a job takes what is newest then: what its secrets say now is not what makes a job another one.
    let services = revisions.iter_mut();
    let services = services.filter(|new| new.spec.service.job.is_none());
    let services = services.map(|new| (&new.service.app, &mut new.spec.service));
    secrets::pin(plane, services).await?;
    fail::at(Point::AfterPin);
    let specs = || {
        let news = revisions.iter();
        news.map(|new| (new.service.clone(), &new.spec.service))
    };
    conflict::check(&plane.config, &Rights::all(), rows, specs())?;
    networks::check(&plane.store.networks().await?, specs())?;
    // What has named it before is told by its own rollout: it holds up nothing else that is written with it.
    let is_new = |id: &ServiceId, spec: &ServiceSpec| {
        let row = row_of(id);
        row.is_none_or(|row| volumes::external(spec).any(|name| !volumes::names(row, name)))
    };
    let news = specs().filter(|(id, spec)| is_new(id, spec));
    volumes::check(plane, news).await?;
    // Also what a push deploys anew, from a revision of a time when the operator allowed more.
    privilege::check(&plane.config, &Rights::all(), specs())?;
    let asked = revisions.iter().filter(|new| {
        let enabled = row_of(&new.service).is_none_or(|row| row.enabled);
        enabled || new.enables
    });
    let asked = asked.filter(|new| new.spec.service.replicas > 0 && new.spec.service.job.is_none());
    let asked = asked.map(|new| {
        let (id, spec) = (&new.service, &new.spec.service);
        let replicas = capacity::replicas(rows, id, spec, new.unscale);
        (id.clone(), spec, replicas)
    });
    capacity::check_jobs(&plane.config, specs())?;
    capacity::check(plane, rows, asked)?;
    jobs::check_names(plane, rows, specs())
}

/// Those revisions that change something, and those that do not.
async fn sort(
    plane: &Plane,
    rows: &[Row],
    revisions: Vec<NewRevision>,
) -> Result<(Vec<NewRevision>, Vec<NewRevision>), Problem> {
    let row_of = |id: &ServiceId| rows.iter().find(|row| row.service == *id);
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
    Ok((changed, same))
}

pub(super) fn has_ended(plane: &Plane, service: &ServiceId) -> bool {
    plane.driver(service).is_some_and(|driver| {
        let showing = driver.status.borrow().detail.view.wakefulness;
        showing == Some(Showing::Ended)
    })
}

/// Switches those on of what does not change that are to run; gives the rows of those that were off.
async fn enable(plane: &Plane, rows: &[Row], same: Vec<NewRevision>) -> Result<Vec<Row>, Problem> {
    let back = same.into_iter();
    let back = back.filter(|new| new.enables && new.spec.service.job.is_none());
    let back = back.map(|new| {
        let row = rows.iter().find(|row| row.service == new.service);
        (new.service, row.and_then(scaling::anew))
    });
    let back: Vec<_> = back.collect();
    match back.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(plane.store.switch(back, true).await?),
    }
}

/// Marks images as used just now. Nobody waits for it.
fn touch(plane: &Plane, written: &[Row]) {
    let images = Arc::clone(&plane.images);
    let used = written.iter().flat_map(|row| &row.target.spec.images);
    let used: Vec<String> = used.cloned().collect();
    tokio::task::spawn_blocking(move || {
        for digest in &used {
            // It only looks less used than it is where this fails.
            let _ = images.touch(digest);
        }
    });
}

/// Tells those who listen what is to be live, and who made it: as many as there are rows, in their order.
fn note(plane: &Plane, written: &[Row], makers: &[String]) {
    for (row, who) in written.iter().zip(makers) {
        let target = &row.target;
        let why = target.cause.as_deref().unwrap_or("for no known reason");
        let text = format!("revision {} is to be live: {why}", target.id);
        let (id, kind) = (&row.service, EventKind::Deployed);
        plane.events.of(id, kind, text, Some(who));
    }
}

/// Where to see what becomes of a service that is `written`, is `back`, or has stayed as it was in `rows`.
fn shown(
    plane: &Plane,
    service: ServiceId,
    rows: &[Row],
    written: &[Row],
    back: &[Row],
) -> Result<Committed, Problem> {
    let Some(driver) = plane.driver(&service) else {
        let text = format!("{service} has no driver: the node is ending");
        return Err(Problem::failed(text));
    };
    let of = |rows: &[Row]| rows.iter().find(|row| row.service == service).cloned();
    let (new, came_back) = (of(written), of(back));
    let comes_back = came_back.is_some();
    let row = new.clone().or(came_back).or_else(|| of(rows));
    let rolls = row.as_ref().filter(|row| rolling(row));
    let before = of(rows).filter(|_| new.is_some());
    Ok(Committed {
        ended_canary: before.as_ref().and_then(canary::ends),
        revision: new.as_ref().or(rolls).map(|row| row.target.id),
        is_disabled: row.as_ref().is_some_and(|row| !row.enabled),
        generation: row.as_ref().map_or(0, |row| row.generation),
        comes_back,
        service,
        status: driver.status,
    })
}

/// Hands a row that was written to the driver of its service, which is started if there is none.
pub(crate) async fn tell_driver(plane: &Arc<Plane>, row: Row) {
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
