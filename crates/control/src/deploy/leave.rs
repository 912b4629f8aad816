//! Taking down: each service is withdrawn, drained, stopped and forgotten, with its history. Volumes stay.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use layby_model::{AppName, ServiceId};
use tokio::sync::{MutexGuard, watch};

use super::commit::tell_driver;
use crate::api::Who;
use crate::api::types::Problem;
use crate::driver::Status;
use crate::plane::Plane;
use crate::secrets;
use crate::store::Row;

/// Beside the drain, taking a service down may take this long: its containers have to stop.
pub(super) const STOP_SLACK: Duration = Duration::from_secs(60);

/// A service on its way out, and where to see when it is gone.
pub(super) type Leaving = (ServiceId, watch::Receiver<Arc<Status>>);

/// Takes all jobs and services of an app down, and gives their names when they are gone.
///
/// # Errors
/// There is no such app; or it takes longer than the drain and a minute, and goes on.
pub(crate) async fn down(
    plane: &Arc<Plane>,
    app: &AppName,
    who: &Who,
) -> Result<Vec<ServiceId>, Problem> {
    let (task_plane, app, who) = (Arc::clone(plane), app.clone(), who.clone());
    let work = async move { down_whole(&task_plane, &app, &who).await };
    plane.carry_out(work).await
}

async fn down_whole(
    plane: &Arc<Plane>,
    app: &AppName,
    who: &Who,
) -> Result<Vec<ServiceId>, Problem> {
    let jobs = plane.jobs.remove(app, None, &who.name).await?;
    let leaving = begin(plane, &who.name, |row| row.service.app == *app).await?;
    if leaving.is_empty() && jobs.is_empty() {
        let text = format!("there is no app {app} on this node");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", text)
            .hint("`layby ls` shows what there is"));
    }
    let services = until_gone(leaving).await?;
    secrets::forget_declared(plane, app).await?;
    Ok(jobs.into_iter().chain(services).collect())
}

/// Takes one service down.
///
/// # Errors
/// There is no such service; or as [`down`].
pub(crate) async fn remove(plane: &Arc<Plane>, id: &ServiceId, who: &Who) -> Result<(), Problem> {
    let (task_plane, id, who) = (Arc::clone(plane), id.clone(), who.clone());
    let work = async move { remove_whole(&task_plane, &id, &who).await };
    plane.carry_out(work).await
}

async fn remove_whole(plane: &Arc<Plane>, id: &ServiceId, who: &Who) -> Result<(), Problem> {
    let leaving = begin(plane, &who.name, |row| row.service == *id).await?;
    if leaving.is_empty() {
        return Err(Problem::no_service(id));
    }
    if plane.jobs.shown().shelves.contains_key(id) {
        // Its runs.
        plane.jobs.remove(&id.app, Some(id), &who.name).await?;
    }
    until_gone(leaving).await.map(|_| ())
}

/// Writes that services are to go, and tells their drivers.
pub(super) async fn begin(
    plane: &Arc<Plane>,
    by: &str,
    is_meant: impl Fn(&Row) -> bool,
) -> Result<Vec<Leaving>, Problem> {
    let turn = plane.deploys.lock().await;
    begin_in_turn(plane, &turn, by, is_meant).await
}

/// The same for whoever has its turn already.
pub(super) async fn begin_in_turn(
    plane: &Arc<Plane>,
    _turn: &MutexGuard<'_, ()>,
    by: &str,
    is_meant: impl Fn(&Row) -> bool,
) -> Result<Vec<Leaving>, Problem> {
    let mut leaving = Vec::new();
    for row in plane.store.services().await? {
        if !is_meant(&row) {
            continue;
        }
        let Some(driver) = plane.driver(&row.service) else {
            continue;
        };
        if !row.removing
            && let Some(row) = plane.store.begin_removal(&row.service, by).await?
        {
            tell_driver(plane, row).await;
        }
        leaving.push((row.service, driver.status));
    }
    Ok(leaving)
}

pub(super) async fn until_gone(leaving: Vec<Leaving>) -> Result<Vec<ServiceId>, Problem> {
    let mut removed = Vec::new();
    for (service, mut status) in leaving {
        let drain = Duration::from_millis(status.borrow().row.target.spec.service.drain_ms);
        let gone = status.wait_for(|status| status.gone);
        // An error of the inner kind means that the driver has ended: by then it is gone too.
        if tokio::time::timeout(drain + STOP_SLACK, gone)
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
