//! An app as a whole: what the manifest no longer names, and a deploy that is done wholly or not at all.

use std::sync::Arc;
use std::time::Duration;

use layby_manifest::Manifest;
use layby_model::engine::RunSpec;
use layby_model::{RevisionId, ServiceId};
use tokio::sync::{MutexGuard, mpsc};

use super::leave::{self, Leaving};
use super::outcome::{self, Done};
use super::{commit_in_turn, switch};
use crate::api::Who;
use crate::api::types::{Event, Outcome, Problem};
use crate::plane::Plane;
use crate::store::{NewRevision, Row};

/// How long drivers may take to let go of what their services claim, while nobody else deploys or is scaled.
const WITHDRAWAL: Duration = Duration::from_secs(5);

/// The services of an app that its manifest does not name (any more).
pub(super) fn orphans(rows: &[Row], manifest: &Manifest) -> Vec<ServiceId> {
    let left_out = rows.iter().filter(|row| {
        row.service.app == manifest.app.name
            && !row.removing
            && !manifest.names(&row.service.service)
    });
    left_out.map(|row| row.service.clone()).collect()
}

/// Begins to take services down, and waits until what they claim of the machine is free for others. Nobody else waits for that.
pub(super) async fn withdraw(
    plane: &Arc<Plane>,
    services: &[ServiceId],
    by: &str,
) -> Result<Vec<Leaving>, Problem> {
    if services.is_empty() {
        return Ok(Vec::new());
    }
    let mut leaving = leave::begin(plane, by, |row| services.contains(&row.service)).await?;
    until_withdrawn(&mut leaving, leave::STOP_SLACK).await;
    Ok(leaving)
}

/// The same for whoever has its turn already: others wait, and it takes no longer than they can.
pub(super) async fn withdraw_in_turn(
    plane: &Arc<Plane>,
    turn: &MutexGuard<'_, ()>,
    services: &[ServiceId],
    by: &str,
) -> Result<Vec<Leaving>, Problem> {
    if services.is_empty() {
        return Ok(Vec::new());
    }
    let mut leaving =
        leave::begin_in_turn(plane, turn, by, |row| services.contains(&row.service)).await?;
    until_withdrawn(&mut leaving, WITHDRAWAL).await;
    Ok(leaving)
}

async fn until_withdrawn(leaving: &mut [Leaving], most: Duration) {
    let all = async {
        for (_, status) in leaving {
            // Its driver shows it after it has published a table without its listeners.
            let withdrawn = status.wait_for(|status| status.row.removing || status.gone);
            let _ = withdrawn.await;
        }
    };
    let _ = tokio::time::timeout(most, all).await;
}

/// Waits until services are gone, and tells it.
pub(super) async fn until_gone(
    leaving: Vec<Leaving>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Problem> {
    for one in leaving {
        let view = one.1.borrow().detail.view.clone();
        leave::until_gone(vec![one]).await?;
        let event = Event::Service {
            service: view,
            outcome: Outcome::Removed,
            failure: None,
        };
        let _ = events.send(event).await;
    }
    Ok(())
}

/// Whether a deploy of which all or nothing was wanted has come to something in between.
pub(super) fn is_broken(done: &[Done]) -> bool {
    done.iter().any(|one| match one.outcome {
        Outcome::Failed
        | Outcome::Kept
        | Outcome::Pending
        | Outcome::Overtaken
        | Outcome::Aborted => true,
        Outcome::Live
        | Outcome::Canary
        | Outcome::Unchanged
        | Outcome::Disabled
        | Outcome::Scaled
        | Outcome::Restarted
        | Outcome::RolledBack
        | Outcome::Removed => false,
    })
}

/// `db, web failed`; `db did not go live`, where somebody has overtaken it or called it off.
fn what_broke(done: &[Done]) -> String {
    let broken = done
        .iter()
        .filter(|one| is_broken(std::slice::from_ref(*one)));
    let names: Vec<String> = broken
        .clone()
        .map(|one| one.service.service.to_string())
        .collect();
    let mut outcomes = broken.map(|one| one.outcome);
    let failed = match outcomes.any(|it| matches!(it, Outcome::Overtaken | Outcome::Aborted)) {
        true => "did not go live",
        false => "failed",
    };
    format!("{} {failed}", names.join(", "))
}

/// What is done with a service of a deploy that is taken back.
#[derive(Debug, PartialEq)]
enum Back {
    /// It is as it was.
    Nothing,
    /// A revision with the settings of the one that was live.
    To(RevisionId, Box<RunSpec>, bool),
    /// It was not there before.
    Away,
    /// It was there, and nothing of it served.
    Off,
}

/// How a service comes back to where it was `before` the deploy.
fn way_back(before: Option<&Row>, done: &Done) -> Back {
    let Some(before) = before else {
        return Back::Away;
    };
    let is_changed = done.revision.is_some();
    match (done.outcome, &before.live) {
        (Outcome::Live | Outcome::Canary | Outcome::Pending | Outcome::Disabled, Some(live))
            if is_changed =>
        {
            let spec = Box::new(RunSpec::clone(&live.spec));
            Back::To(live.id, spec, before.enabled)
        }
        (Outcome::Live | Outcome::Pending, None) => Back::Off,
        (
            Outcome::Live
            | Outcome::Canary
            | Outcome::Pending
            | Outcome::Disabled
            | Outcome::Unchanged
            | Outcome::Failed
            | Outcome::Kept
            | Outcome::Scaled
            | Outcome::Restarted
            | Outcome::RolledBack
            | Outcome::Removed
            | Outcome::Overtaken
            | Outcome::Aborted,
            _,
        ) => Back::Nothing,
    }
}

/// Whether a service is still as a deploy left it: then it can be taken back, and nobody else's work with it.
fn is_ours(row: &Row, done: &Done) -> bool {
    !row.removing && done.revision.is_none_or(|ours| row.target.id == ours)
}

/// How each service of a deploy comes back, and which do not, since what is there `now` is somebody else's.
fn ways_back<'a>(
    before: &[Row],
    done: &'a [Done],
    now: &[Row],
) -> (Vec<(ServiceId, Back)>, Vec<&'a ServiceId>) {
    let (mut ways, mut alone) = (Vec::new(), Vec::new());
    for one in done {
        let of = |rows: &'_ [Row]| rows.iter().position(|row| row.service == one.service);
        let way = way_back(of(before).map(|n| &before[n]), one);
        match of(now).is_some_and(|n| is_ours(&now[n], one)) {
            true => ways.push((one.service.clone(), way)),
            false if way == Back::Nothing => {}
            false => alone.push(&one.service),
        }
    }
    (ways, alone)
}

/// Brings all services of a deploy that failed in part back to where they were `before`, and gives the exit code. What
/// somebody else has deployed anew since is left alone.
pub(super) async fn undo(
    plane: &Arc<Plane>,
    before: &[Row],
    done: &[Done],
    who: &Who,
    events: &mpsc::Sender<Event>,
) -> Result<i32, Problem> {
    let broken = what_broke(done);
    let text = format!("{broken}: all goes back to where it was before");
    let _ = events.send(Event::Warning { text }).await;
    let turn = plane.deploys.lock().await;
    let now = plane.store.services().await?;
    let (ways, alone) = ways_back(before, done, &now);
    for id in alone {
        let text = format!("{id} was changed by somebody else meanwhile, and is left alone");
        let _ = events.send(Event::Warning { text }).await;
    }
    let (mut back, mut away, mut off) = (Vec::new(), Vec::new(), Vec::new());
    for (service, way) in ways {
        match way {
            Back::Nothing => {}
            Back::To(revision, spec, enables) => back.push(NewRevision {
                service,
                spec: *spec,
                cause: Some(format!(
                    "rolled back to revision {revision}: {broken}, and all or nothing was asked for"
                )),
                made_by: who.name.clone(),
                unscale: false,
                enables,
                anew: false,
                share: None,
            }),
            Back::Away => away.push(service),
            Back::Off => off.push(service),
        }
    }
    let goes = |row: &Row| away.contains(&row.service);
    let leaving = leave::begin_in_turn(plane, &turn, &who.name, goes).await?;
    let committed = commit_in_turn(plane, &turn, back).await?;
    for id in &off {
        switch::switch_in_turn(plane, &turn, id, false, who).await?;
    }
    drop(turn);
    // What becomes of them is told below, as what it is.
    let (quiet, _) = mpsc::channel(1);
    let returned = outcome::each(committed, false, &quiet).await;
    let mut whole = true;
    for one in returned {
        let is_back = matches!(one.outcome, Outcome::Live | Outcome::Unchanged);
        whole &= is_back;
        let event = Event::Service {
            service: one.status.borrow().detail.view.clone(),
            outcome: match is_back {
                true => Outcome::RolledBack,
                false => one.outcome,
            },
            failure: one.failure,
        };
        let _ = events.send(event).await;
    }
    for id in &off {
        switch::until_off(plane, id).await?;
    }
    until_gone(leaving, events).await?;
    let was_live = |one: &Done| {
        let row = before.iter().find(|row| row.service == one.service);
        row.is_some_and(|row| row.live.is_some())
    };
    // 3: what was live is kept.
    Ok(match whole && done.iter().any(was_live) {
        true => 3,
        false => 1,
    })
}
