//! Pruning: old revisions, names of images and build caches are let go by a policy, on a timer or when somebody asks.
//!
//! What runs, rolls or may be gone back to is named by a revision that is kept, and stays whatever is asked. So does what a
//! deploy is making: it keeps the collector off, and pruning waits for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use layby_image::{Budget, PruneOptions, Pruned};
use layby_model::error_chain;
use tokio::time::{Instant, MissedTickBehavior};

use crate::api::types::{Problem, PruneBody, PruneView};
use crate::collect::Alone;
use crate::config::PrunePolicy;
use crate::plane::Plane;
use crate::secrets;

/// How long somebody who asks waits for deploys and builds to be done.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether they are.
const LOOK: Duration = Duration::from_millis(50);
/// From the start to the first round of the timer.
const FIRST: Duration = Duration::from_secs(300);
const DAY_S: u64 = 24 * 3600;

/// Carries out the node's policy on a timer, until the control plane ends.
pub(crate) async fn run(plane: Arc<Plane>) {
    let policy = plane.config.prune;
    let mut timer = tokio::time::interval_at(Instant::now() + FIRST, policy.every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let task_plane = Arc::clone(&plane);
        let swept = tokio::task::spawn_blocking(move || task_plane.desk.registry.sweep()).await;
        if let Ok(Err(error)) = swept {
            let error = error_chain(&error);
            tracing::warn!(
                error,
                "uploads that nobody went on with could not be removed"
            );
        }
        match prune(&plane, by_policy(&policy)).await {
            Ok(view) if view.freed_bytes > 0 => tracing::info!(
                freed = view.freed_bytes,
                left = view.left_bytes,
                names = view.names.join(", "),
                "pruned images"
            ),
            Ok(_) => {}
            Err(problem) => tracing::warn!(problem = problem.detail, "images were not pruned"),
        }
    }
}

/// Forgets the revisions that the policy does not keep, since there are new ones; nobody waits for it. What only they
/// needed is collected.
pub(crate) fn revisions(plane: &Arc<Plane>) {
    let PrunePolicy {
        keep_revisions,
        keep_days,
        ..
    } = plane.config.prune;
    if keep_revisions.is_none() {
        return;
    }
    let task_plane = Arc::clone(plane);
    plane.spawn(async move {
        let plane = task_plane;
        let kept_for = Duration::from_secs(u64::from(keep_days.unwrap_or(0)) * DAY_S);
        let pruned = plane
            .store
            .prune_revisions(keep_revisions, before(kept_for), false);
        match pruned.await {
            Ok((gone, _)) if gone.is_empty() => {}
            Ok(_) => plane.collector.ring(),
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(error, "old revisions are still there");
            }
        }
    });
}

/// The moment so long ago.
fn before(age: Duration) -> Option<jiff::Timestamp> {
    let age = SignedDuration::try_from(age).ok()?;
    crate::clock::wall().checked_sub(age).ok()
}

fn by_policy(policy: &PrunePolicy) -> PruneBody {
    PruneBody {
        keep_revisions: policy.keep_revisions,
        keep_days: policy.keep_days,
        budget_bytes: policy.budget.map(|budget| budget.high_bytes),
        low_bytes: policy.budget.map(|budget| budget.low_bytes),
        ..PruneBody::default()
    }
}

/// Prunes once.
///
/// # Errors
/// Marks that make no sense, builds that do not end, or the disk.
pub(crate) async fn prune(plane: &Arc<Plane>, body: PruneBody) -> Result<PruneView, Problem> {
    let budget = budget(&body)?;
    let asked_ago = Duration::from_millis(body.asked_ago_ms.unwrap_or(0).into());
    let asked_at = SystemTime::now().checked_sub(asked_ago);
    let patience = match body.at_once {
        true => Duration::ZERO,
        false => PATIENCE,
    };
    // Every file is looked at: before builds and deploys are kept out.
    let images = Arc::clone(&plane.images);
    let measured = tokio::task::spawn_blocking(move || images.measure());
    let measured = measured.await.map_err(broke_off)??;
    let alone = alone(plane, patience).await?;
    let unused_for = Duration::from_secs(u64::from(body.keep_days.unwrap_or(0)) * DAY_S);
    let before = before(unused_for);
    let (revisions, in_use) = plane
        .store
        .prune_revisions(body.keep_revisions, before, body.dry_run)
        .await?;
    if !body.dry_run {
        secrets::prune(plane).await?;
    }
    let options = PruneOptions {
        in_use,
        registry: plane.desk.registry.hosts().name.clone(),
        all: body.all,
        cache: body.cache,
        untagged: body.untagged,
        asked_at,
        unused_for,
        budget,
        dry_run: body.dry_run,
    };
    let images = Arc::clone(&plane.images);
    let pruned = tokio::task::spawn_blocking(move || {
        // Nor are they to wait until all is deleted.
        images.prune_measured(&options, measured, move || drop(alone))
    });
    let pruned = pruned.await.map_err(broke_off)??;
    Ok(view(revisions, pruned))
}

fn broke_off(error: tokio::task::JoinError) -> Problem {
    Problem::failed(format!("pruning broke off: {error}"))
}

/// Keeps builds and deploys out. They keep others out only for as long as they take, and are not to wait here.
async fn alone(plane: &Plane, patience: Duration) -> Result<Alone, Problem> {
    let until = Instant::now() + patience;
    loop {
        if let Some(alone) = plane.collector.try_alone() {
            return Ok(alone);
        }
        if Instant::now() >= until {
            return Err(match plane.collector.is_alone() {
                true => Problem::conflict("images are being pruned already")
                    .hint("try again when that is done"),
                false => Problem::conflict(
                    "builds or deploys are under way, and what they make must not be pruned",
                )
                .hint("try again when they are done"),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn budget(body: &PruneBody) -> Result<Option<Budget>, Problem> {
    match (body.budget_bytes, body.low_bytes) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Problem::bad_request(
            "a low mark is of no use without a budget: name both, or the budget alone",
        )),
        (Some(high), Some(low)) if low > high => Err(Problem::bad_request(format!(
            "the low mark ({low} bytes) is above the budget ({high} bytes)"
        ))),
        (Some(high_bytes), low) => Ok(Some(Budget {
            high_bytes,
            // Far enough below that the next push does not reach the high mark again.
            low_bytes: low.unwrap_or(high_bytes / 10 * 8),
        })),
    }
}

fn view(revisions: Vec<String>, pruned: Pruned) -> PruneView {
    PruneView {
        names: pruned.names,
        untagged: pruned.untagged,
        revisions,
        build_cache: pruned.build_cache,
        freed_bytes: pruned.freed_bytes,
        left_bytes: pruned.left_bytes,
        left_cache_bytes: pruned.left_cache_bytes,
    }
}
