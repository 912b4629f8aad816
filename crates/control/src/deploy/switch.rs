//! Disabling and enabling: a disabled service has no replicas, answers 503, and keeps its settings and its history.

use std::sync::Arc;
use std::time::Duration;

use layby_model::ServiceId;
use tokio::sync::{MutexGuard, mpsc};

use super::commit::tell_driver;
use super::leave::STOP_SLACK;
use super::{Committed, EVENTS, current, finish, outcome};
use crate::api::Who;
use crate::api::types::{Event, EventKind, Problem, ServiceView};
use crate::capacity;
use crate::plane::Plane;
use crate::scaling;
use crate::store::Row;

/// Disables a service, also while it rolls, and gives it when its last replica is gone. One that is disabled stays so.
///
/// # Errors
/// There is no such service, or it is being taken down; or it takes longer than the drain and a minute, and goes on.
pub(crate) async fn disable(
    plane: &Arc<Plane>,
    id: &ServiceId,
    who: &Who,
) -> Result<ServiceView, Problem> {
    switch(plane, id, false, who).await?;
    until_off(plane, id).await
}

/// Waits until nothing of a service that was disabled is there any more.
pub(super) async fn until_off(plane: &Plane, id: &ServiceId) -> Result<ServiceView, Problem> {
    let mut driver = plane.driver(id).ok_or_else(|| Problem::no_service(id))?;
    let drain = Duration::from_millis(driver.status.borrow().row.target.spec.service.drain_ms);
    let off = driver.status.wait_for(|status| {
        let off = !status.row.enabled && status.detail.replicas.is_empty();
        status.gone || off
    });
    match tokio::time::timeout(drain + STOP_SLACK, off).await {
        Ok(Ok(status)) if !status.gone => Ok(status.detail.view.clone()),
        Ok(_) => Err(Problem::no_service(id)),
        Err(_) => Err(
            Problem::timed_out(format!("{id} is disabled, and its replicas still end"))
                .hint(format!("`layby status {id}` says what it waits for")),
        ),
    }
}

/// Enables a service, and tells how it comes back: live as awake as it was, or on with the rollout that waited.
///
/// # Errors
/// There is no such service, or it is being taken down.
pub(crate) async fn enable(
    plane: Arc<Plane>,
    id: &ServiceId,
    detach: bool,
    who: &Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let (row, changed) = switch(&plane, id, true, who).await?;
    let driver = plane.driver(id).ok_or_else(|| Problem::no_service(id))?;
    let committed = Committed {
        comes_back: changed,
        ..Committed::back(&row, driver.status)
    };
    // What was pushed meanwhile was not for it.
    plane.desk.pushed();
    let (events, stream) = mpsc::channel(EVENTS);
    plane.spawn(async move {
        let code = outcome::wait(vec![committed], detach, &events).await;
        finish(&events, Ok(code)).await;
    });
    Ok(stream)
}

/// Refuses to enable what does not fit into the machine.
async fn check_fits(plane: &Plane, id: &ServiceId) -> Result<(), Problem> {
    let rows = plane.store.services().await?;
    let row = rows.iter().find(|row| row.service == *id && !row.enabled);
    let asked = row.map(|row| {
        let replicas = scaling::anew(row).unwrap_or(row.replicas);
        (id.clone(), &current(row).1.spec.service, replicas)
    });
    capacity::check(plane, &rows, asked)
}

/// Writes it, and tells the driver, whether whoever asked waits or not. Gives the row as it then is, and whether that is
/// a change.
pub(super) async fn switch(
    plane: &Arc<Plane>,
    id: &ServiceId,
    enabled: bool,
    who: &Who,
) -> Result<(Row, bool), Problem> {
    let (task_plane, id, who) = (Arc::clone(plane), id.clone(), who.clone());
    let work = async move {
        let turn = task_plane.deploys.lock().await;
        switch_in_turn(&task_plane, &turn, &id, enabled, &who).await
    };
    plane.carry_out(work).await
}

/// The same for whoever has its turn already.
pub(super) async fn switch_in_turn(
    plane: &Arc<Plane>,
    _turn: &MutexGuard<'_, ()>,
    id: &ServiceId,
    enabled: bool,
    who: &Who,
) -> Result<(Row, bool), Problem> {
    let mut replicas = None;
    if enabled {
        check_fits(plane, id).await?;
        replicas = (plane.store.service(id).await?).and_then(|row| scaling::anew(&row));
    }
    let switched = vec![(id.clone(), replicas)];
    if let Some(row) = plane.store.switch(switched, enabled).await?.pop() {
        let (kind, text) = match enabled {
            true => (EventKind::Enabled, "is enabled"),
            false => (EventKind::Disabled, "is disabled"),
        };
        plane.events.of(id, kind, text.to_owned(), Some(&who.name));
        tell_driver(plane, row.clone()).await;
        return Ok((row, true));
    }
    match plane.store.service(id).await? {
        Some(row) if row.removing => Err(Problem::conflict(format!("{id} is being taken down"))),
        Some(row) => Ok((row, false)),
        None => Err(Problem::no_service(id)),
    }
}
