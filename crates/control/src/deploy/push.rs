//! Push = deploy: a service with `deploy_on_push` gets a new revision when a tag moves that one of its images names.
//!
//! After each push, and at the start, the services are compared with the tags: a push whose deploy a crash has cut short is
//! taken up, and one that changes nothing does nothing.

use std::sync::Arc;
use std::time::Duration;

use layby_model::{ServiceId, error_chain};

use super::{commit_in_turn, images};
use crate::api::types::Problem;
use crate::plane::Plane;
use crate::store::{NewRevision, Row};

/// How long who asks for a rollout waits for what the last push sets off.
const SETTLE: Duration = Duration::from_secs(10);

/// Deploys what pushes ask for, until the control plane ends.
pub(crate) async fn run(plane: Arc<Plane>) {
    let mut moved = plane.desk.pushes.moved.subscribe();
    loop {
        let seen = *moved.borrow_and_update();
        match plane.store.services().await {
            Ok(rows) => deploy_moved(&plane, rows).await,
            Err(error) => {
                tracing::warn!(
                    error = error_chain(&error),
                    "what a push deploys could not be read"
                );
            }
        }
        plane.desk.pushes.handled.send_replace(seen);
        if moved.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until what was pushed before has been deployed.
pub(super) async fn settled(plane: &Plane) {
    let pushed = *plane.desk.pushes.moved.borrow();
    let mut handled = plane.desk.pushes.handled.subscribe();
    let all = handled.wait_for(|handled| *handled >= pushed);
    // One that takes longer is followed as far as it has come.
    let _ = tokio::time::timeout(SETTLE, all).await;
}

async fn deploy_moved(plane: &Arc<Plane>, rows: Vec<Row>) {
    for row in rows {
        if !row.target.spec.service.deploy_on_push {
            continue;
        }
        let service = row.service;
        match deploy_one(plane, &service).await {
            Ok(None) => {}
            Ok(Some(cause)) => tracing::info!(%service, cause, "deploying what was pushed"),
            Err(problem) => {
                tracing::warn!(%service, problem = problem.detail, "what was pushed could not be deployed");
            }
        }
    }
}

/// Gives a service a revision with what its tags mean now. `None`: its newest one has that already, live or failed.
async fn deploy_one(plane: &Arc<Plane>, id: &ServiceId) -> Result<Option<String>, Problem> {
    let kept = plane.collector.keep().await;
    // Nobody else deploys meanwhile: what is taken over from the newest revision is the newest.
    let turn = plane.deploys.lock().await;
    let row = plane.store.service(id).await?;
    let waits = |row: &Row| row.target.spec.service.deploy_on_push && row.enabled && !row.removing;
    let Some(row) = row.filter(waits) else {
        return Ok(None);
    };
    let mut spec = (*row.target.spec).clone();
    let mut causes = Vec::new();
    let mut made_by = String::new();
    let names: Vec<String> = (spec.service.all_containers())
        .map(|container| container.image.clone())
        .take(spec.images.len())
        .collect();
    for (n, name) in names.into_iter().enumerate() {
        let Some(pushed) = plane.desk.registry.hosts().repository(&name) else {
            continue;
        };
        let (Some(tag), None) = (&pushed.tag, &pushed.digest) else {
            continue;
        };
        let digest = images::image(plane, &name).await?.digest;
        if digest == spec.images[n] {
            continue;
        }
        let (task_plane, repository, tag) =
            (Arc::clone(plane), pushed.repository.clone(), tag.clone());
        let who = move || task_plane.desk.registry.pushed_by(&repository, &tag);
        let who = tokio::task::spawn_blocking(who).await.unwrap_or_default();
        let who = if who.is_empty() { "somebody" } else { &who };
        causes.push(format!("{who} pushed {} ({digest})", pushed.short()));
        made_by = who.to_owned();
        spec.images[n] = digest;
    }
    if causes.is_empty() {
        return Ok(None);
    }
    let cause = causes.join(", ");
    let new = NewRevision {
        service: row.service,
        spec,
        cause: Some(cause.clone()),
        unscale: false,
        made_by,
        enables: false,
        anew: false,
        // What a canary was tried out on goes on with what is newer.
        share: row.share,
    };
    commit_in_turn(plane, &turn, vec![new]).await?;
    drop(kept);
    Ok(Some(cause))
}
