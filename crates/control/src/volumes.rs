//! Named volumes: who uses which, and which may go.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use layby_model::mounts::{MountSource, VolumeReport};
use layby_model::spec::ServiceSpec;
use layby_model::{AppName, ServiceId};

use crate::api::types::Problem;
use crate::plane::Plane;
use crate::store::Row;

/// Every volume, with all who use it: those whose replicas have it mounted, and those that are deployed and name it
/// (a service between two revisions, or one that failed, has no replica).
pub(crate) async fn all(plane: &Plane) -> Result<Vec<VolumeReport>, Problem> {
    let mut volumes = plane.access.volumes().await?;
    let rows = plane.store.services().await?;
    let jobs = plane.store.jobs().await?;
    for volume in &mut volumes {
        for (id, job) in &jobs {
            if mounts(&job.spec.service, &volume.name) && !volume.used_by.contains(id) {
                volume.used_by.push(id.clone());
            }
        }
        for row in &rows {
            if names(row, &volume.name) && !volume.used_by.contains(&row.service) {
                volume.used_by.push(row.service.clone());
            }
        }
        volume.used_by.sort_unstable();
    }
    Ok(volumes)
}

/// One volume.
pub(crate) async fn one(plane: &Plane, name: &str) -> Result<VolumeReport, Problem> {
    let mut volumes = all(plane).await?.into_iter();
    let found = volumes.find(|volume| volume.name == name);
    found.ok_or_else(|| missing(name))
}

/// Refuses services that mount a volume which is not there, and is not to be made for them: no start of them could succeed.
///
/// # Errors
/// 409, with the command that makes it.
pub(crate) async fn check<'a>(
    plane: &Plane,
    services: impl IntoIterator<Item = (ServiceId, &'a ServiceSpec)>,
) -> Result<(), Problem> {
    let mut needed = Vec::new();
    for (id, spec) in services {
        needed.extend(external(spec).map(|name| (id.clone(), name)));
    }
    if needed.is_empty() {
        return Ok(());
    }
    let there = plane.access.volumes().await?;
    needed.retain(|(_, name)| there.iter().all(|volume| volume.name != *name));
    let problems = needed.into_iter().map(|(id, name)| {
        let text = format!("{id} mounts the external volume {name}, which is not there");
        let hint = match name.strip_prefix(&format!("{}_", id.app)) {
            Some(claim) => format!(
                "`layby volume create {name}` makes it; if a PersistentVolumeClaim {claim:?} is meant, give its file along (`layby up -f FILE -f FILE`, or their folder)"
            ),
            None => format!("`layby volume create {name}` makes it"),
        };
        Problem::conflict(text).hint(hint)
    });
    Problem::all(problems.collect()).map_or(Ok(()), Err)
}

/// The volumes that are not to be made for a service, but to be there.
pub(crate) fn external(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let mounts = spec.all_containers().flat_map(|c| &c.mounts);
    mounts.filter_map(|mount| match &mount.source {
        MountSource::Volume { name, external, .. } => external.then_some(name.as_str()),
        MountSource::Bind { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Scratch { .. }
        | MountSource::Files { .. } => None,
    })
}

/// There is no such volume.
pub(crate) fn missing(name: &str) -> Problem {
    let text = format!("there is no volume {name} on this node");
    Problem::new(StatusCode::NOT_FOUND, "not-found", text)
        .hint("`layby volume ls` shows what there is")
}

/// Makes a volume for nobody in particular; one that is there is left as it is.
pub(crate) async fn make(
    plane: &Plane,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<VolumeReport, Problem> {
    plane.access.make_volume(name, labels).await?;
    one(plane, name).await
}

/// Removes a volume that nobody uses, with all that is in it.
pub(crate) async fn remove(plane: &Plane, name: &str) -> Result<(), Problem> {
    // Until it is gone nobody deploys what would use it.
    let _turn = plane.deploys.lock().await;
    let volume = one(plane, name).await?;
    if let Some(service) = volume.used_by.first() {
        let text = format!("the volume {name} is in use by {}", list(&volume.used_by));
        return Err(Problem::conflict(text).hint(format!("`layby down {}` first", service.app)));
    }
    plane.access.remove_volume(name).await?;
    tracing::info!(volume = name, "removed");
    Ok(())
}

/// Removes the volumes that were made for an app, but those that others use. Gives the names of those that are gone.
pub(crate) async fn remove_of(plane: &Plane, app: &AppName) -> Result<Vec<String>, Problem> {
    // As above: the app itself may be deployed again meanwhile.
    let _turn = plane.deploys.lock().await;
    let mut removed = Vec::new();
    for volume in all(plane).await? {
        if volume.app.as_ref() == Some(app) && volume.used_by.is_empty() {
            plane.access.remove_volume(&volume.name).await?;
            tracing::info!(volume = volume.name, %app, "removed with its app");
            removed.push(volume.name);
        }
    }
    Ok(removed)
}

fn list(services: &[ServiceId]) -> String {
    let names: Vec<String> = services.iter().map(ServiceId::to_string).collect();
    names.join(", ")
}

/// Whether a revision that may have replicas mounts this volume.
pub(crate) fn names(row: &Row, volume: &str) -> bool {
    let mut revisions = row.live.iter().chain([&row.target]);
    revisions.any(|revision| mounts(&revision.spec.service, volume))
}

fn mounts(spec: &ServiceSpec, volume: &str) -> bool {
    let mut mounts = spec.all_containers().flat_map(|c| &c.mounts);
    mounts.any(|mount| match &mount.source {
        MountSource::Volume { name, .. } => name == volume,
        MountSource::Bind { .. }
        | MountSource::Tmpfs { .. }
        | MountSource::Scratch { .. }
        | MountSource::Files { .. } => false,
    })
}
