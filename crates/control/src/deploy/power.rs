//! Another power for a service: a revision like any other, with what it runs as it was.

use std::sync::Arc;

use layby_model::power::{self, Power};
use layby_model::spec::{AppSpec, ServiceSpec};
use layby_model::{AppName, ServiceId};
use tokio::sync::mpsc;

use super::{Committed, EVENTS, canary, commit_in_turn, current, finish, outcome, warn};
use crate::api::Who;
use crate::api::types::{Event, Problem};
use crate::capacity;
use crate::plane::Plane;
use crate::store::{NewRevision, Row};

/// Gives a service the power of this name; `None`: what its manifest says holds again.
///
/// # Errors
/// There is no such service or power, or it does not fit into the machine.
pub(crate) async fn change(
    plane: Arc<Plane>,
    id: &ServiceId,
    name: Option<&str>,
    detach: bool,
    who: &Who,
) -> Result<mpsc::Receiver<Event>, Problem> {
    let (task_plane, id, who) = (Arc::clone(&plane), id.clone(), who.clone());
    let name = name.map(ToOwned::to_owned);
    let work = async move { write(&task_plane, &id, name.as_deref(), &who).await };
    let (committed, warnings) = plane.carry_out(work).await?;
    let (events, stream) = mpsc::channel(EVENTS);
    plane.spawn(async move {
        warn(&events, warnings).await;
        let code = outcome::wait(committed, detach, &events).await;
        finish(&events, Ok(code)).await;
    });
    Ok(stream)
}

/// Writes it, and gives what is to be told of it.
async fn write(
    plane: &Arc<Plane>,
    id: &ServiceId,
    name: Option<&str>,
    who: &Who,
) -> Result<(Vec<Committed>, Vec<String>), Problem> {
    let table = table(plane).await?;
    let _kept = plane.collector.keep().await;
    let turn = plane.deploys.lock().await;
    let row = plane.store.service(id).await?;
    let row = row.ok_or_else(|| Problem::no_service(id))?;
    canary::refuse_on_top(&row, None)?;
    let mut spec = (*current(&row).1.spec).clone();
    let (changed, cause) = match name {
        Some(name) => (
            power::give(&table, name, &mut spec.service),
            format!("power {name}"),
        ),
        None => (
            power::take_back(&table, &mut spec.service),
            "the power that its manifest says".to_owned(),
        ),
    };
    changed.map_err(|unknown| no_power(id, &unknown))?;
    let warnings = capacity::warnings(&plane.config, [(id.clone(), &spec.service)]);
    let new = NewRevision {
        service: id.clone(),
        spec,
        cause: Some(cause),
        unscale: false,
        made_by: who.name.clone(),
        enables: false,
        anew: false,
        share: None,
    };
    Ok((commit_in_turn(plane, &turn, vec![new]).await?, warnings))
}

/// Every power of the node, from the least to the most.
pub(crate) async fn table(plane: &Plane) -> Result<Vec<Power>, Problem> {
    Ok(power::table(plane.store.powers().await?))
}

/// An app whose services have the limits that hold, and what is to be told of that.
pub(super) async fn settle(
    plane: &Plane,
    rows: &[Row],
    app: &AppSpec,
) -> Result<(AppSpec, Vec<String>), Problem> {
    let table = table(plane).await?;
    let mut app = app.clone();
    let mut notes = Vec::new();
    for spec in &mut app.services {
        let id = ServiceId::new(app.name.clone(), spec.name.clone());
        let row = rows.iter().find(|row| row.service == id);
        let before = row.map(|row| &current(row).1.spec.service);
        let lost = power::settle(&table, before, spec);
        if let Some(lost) = lost.map_err(|unknown| no_power(&id, &unknown))? {
            notes.push(format!(
                "{id} loses its power {lost}: the manifest says other limits than when `layby power` gave it that"
            ));
        }
        notes.extend(row.and_then(|row| unscaled(row, spec)));
    }
    let specs = app.services.iter();
    notes.extend(capacity::warnings(
        &plane.config,
        specs.map(|spec| (named(&app.name, spec), spec)),
    ));
    Ok((app, notes))
}

/// What is told when a manifest takes back what `layby scale` said.
fn unscaled(row: &Row, spec: &ServiceSpec) -> Option<String> {
    let (before, after) = (row.target.spec.service.replicas, spec.replicas);
    let scale = row.scale.filter(|_| before != after)?;
    Some(format!(
        "{} loses its scale of {scale}: the manifest asked for {before} when `layby scale` gave it that, and asks for {after} now",
        row.service
    ))
}

fn named(app: &AppName, spec: &ServiceSpec) -> ServiceId {
    ServiceId::new(app.clone(), spec.name.clone())
}

fn no_power(id: &ServiceId, unknown: &power::Unknown) -> Problem {
    Problem::new(
        axum::http::StatusCode::UNPROCESSABLE_ENTITY,
        "no-power",
        format!("{id}: {unknown}"),
    )
    .hint("`layby power ls` shows what each is, `layby power set` makes another one")
}
