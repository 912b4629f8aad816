//! Jobs of a manifest: what is refused, and what is told of those that were deployed.

use layby_manifest::Manifest;
use layby_model::spec::{AppSpec, ServiceSpec};
use layby_model::{ServiceId, job};
use tokio::sync::mpsc;

use super::timetable::Timetable;
use super::{Shown, show};
use crate::api::types::{Event, Problem};
use crate::plane::Plane;
use crate::store::Row;

/// Refuses names that are taken: a job and a service cannot share one, and those of runs are the node's.
///
/// # Errors
/// 409, naming both.
pub(crate) fn check_names<'a>(
    plane: &Plane,
    rows: &[Row],
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    let shown = plane.jobs.shown();
    for (id, spec) in services {
        if job::is_reserved(&id.service) {
            let text = format!("{id}: names that end like this are for the runs of services");
            return Err(Problem::conflict(text).hint("give it another name"));
        }
        let is_service = rows.iter().any(|row| row.service == id);
        let job = shown.shelves.get(&id).and_then(|shelf| shelf.job.as_ref());
        match (&spec.job, is_service, job) {
            (Some(_), true, _) => {
                let text = format!("{id} is a service, and cannot become a job as it is");
                return Err(Problem::conflict(text).hint(format!(
                    "take it away first, or give the job another name: `layby down {}`",
                    id.app
                )));
            }
            (None, _, Some(_)) => {
                let text = format!("{id} is a job, and cannot become a service as it is");
                return Err(Problem::conflict(text).hint(format!("`layby job rm {id}` first")));
            }
            (Some(_), _, Some(job)) if job.removing => {
                return Err(Problem::conflict(format!("{id} is being taken down"))
                    .hint("wait until `layby job ls` no longer shows it, then run it again"));
            }
            (Some(_) | None, _, _) => {}
        }
    }
    Ok(())
}

/// Refuses a schedule that this machine does not understand.
///
/// # Errors
/// 422, in one sentence.
pub(crate) fn check_schedule(id: &ServiceId, spec: &ServiceSpec) -> Result<(), Problem> {
    let schedule = spec.job.as_ref().and_then(|job| job.schedule.as_ref());
    let Some(schedule) = schedule else {
        return Ok(());
    };
    let wrong = |why: String| {
        let status = axum::http::StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "bad-manifest", format!("{id}: {why}"))
    };
    let table = Timetable::new(schedule).map_err(wrong)?;
    match table.next(crate::clock::wall_ms()) {
        Some(_) => Ok(()),
        None => Err(wrong(format!(
            "the schedule {:?} is never due",
            schedule.cron
        ))),
    }
}

/// Tells what came of the jobs of a manifest. `before`: how they were shown before.
pub(crate) async fn tell(
    plane: &Plane,
    before: &Shown,
    app: &AppSpec,
    events: &mpsc::Sender<Event>,
) {
    let now = plane.jobs.shown();
    for service in app.services.iter().filter(|service| service.job.is_some()) {
        let id = ServiceId::new(app.name.clone(), service.name.clone());
        let Some(shelf) = now.shelves.get(&id) else {
            continue;
        };
        let same = before.shelves.get(&id).is_some_and(|before| {
            let made = |shelf: &crate::store::Shelf| shelf.job.as_ref().map(|job| job.made_ms);
            made(before) == made(shelf)
        });
        let text = match same {
            true => "job, unchanged".to_owned(),
            false => show::deployed(&id, shelf, &now),
        };
        let _ = events
            .send(Event::Job {
                job: id.to_string(),
                text,
            })
            .await;
    }
}

/// The jobs of an app that its manifest does not name (any more).
pub(crate) fn orphans(plane: &Plane, manifest: &Manifest) -> Vec<ServiceId> {
    let shown = plane.jobs.shown();
    let lost = shown.shelves.iter().filter(|(id, shelf)| {
        let stays = shelf.job.as_ref().is_some_and(|job| !job.removing);
        stays && id.app == manifest.app.name && !manifest.names(&id.service)
    });
    lost.map(|(id, _)| id.clone()).collect()
}

/// The warning of one that goes on.
pub(crate) fn left_out(id: &ServiceId) -> String {
    format!(
        "the job {id} is not in the manifest (any more) and goes on as it is; `layby job rm {id}` removes it"
    )
}

/// Removes jobs that a manifest does not name (any more).
///
/// # Errors
/// It takes too long: it goes on.
pub(crate) async fn remove_orphans(
    plane: &Plane,
    lost: Vec<ServiceId>,
    by: &str,
    events: &mpsc::Sender<Event>,
) -> Result<(), Problem> {
    for id in lost {
        plane.jobs.remove(&id.app, Some(&id), by).await?;
        let (job, text) = (id.to_string(), "removed".to_owned());
        let _ = events.send(Event::Job { job, text }).await;
    }
    Ok(())
}

/// What deploying a job would do (dry run).
pub(crate) fn steps(plane: &Plane, id: &ServiceId, spec: &ServiceSpec) -> Vec<String> {
    let Some(job) = &spec.job else {
        return Vec::new();
    };
    let known = if plane.jobs.has(id) {
        "anew if it has changed"
    } else {
        ""
    };
    let text = match &job.schedule {
        _ if job.suspended => "keep the job, suspended".to_owned(),
        Some(schedule) => {
            let table = Timetable::new(schedule).ok();
            let due = table.and_then(|table| table.next(crate::clock::wall_ms()));
            let due = due.map(show::moment).unwrap_or_default();
            format!("schedule the job ({}), next run at {due}", schedule.cron)
        }
        None => format!("run the job {known}").trim_end().to_owned(),
    };
    vec![text]
}
