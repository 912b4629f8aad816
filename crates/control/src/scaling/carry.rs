//! Carrying out: another number is written as `layby scale` does it, as far as it fits, and handed to the driver.

use std::sync::Arc;
use std::time::Duration;

use layby_model::capacity::Claim;
use tokio::sync::{Mutex, MutexGuard};

use crate::capacity;
use crate::deploy::current;
use crate::driver::{DriverHandle, Request};
use crate::plane::Plane;
use crate::store::{Row, StoreError};

/// How long somebody else who asks for room is waited for: who holds it for longer must not hold up the other services.
const TURN: Duration = Duration::from_millis(100);

/// How many replicas a service has then.
pub(super) struct Carried {
    pub(super) replicas: u32,
    /// What stands in the way of as many as it was to have.
    pub(super) short: Option<String>,
}

/// Gives the service of `row` so many replicas, or as many of them as fit; `None`: somebody else asks for room for long, and it
/// is to be tried again. Where the row was changed meanwhile, nothing is done: the next look sees it.
pub(super) async fn out(
    plane: &Arc<Plane>,
    driver: &DriverHandle,
    row: &Row,
    replicas: u32,
) -> Result<Option<Carried>, StoreError> {
    // Nobody else may be given what this takes, until it is written.
    let Some(_turn) = turn(&plane.deploys).await else {
        return Ok(None);
    };
    let (replicas, short) = match replicas > row.replicas {
        true => {
            let rows = plane.store.services().await?;
            let spec = &current(row).1.spec.service;
            let claim = Claim::of(row.service.clone(), spec, row.replicas);
            capacity::most(plane, &rows, &claim, replicas)
        }
        false => (replicas, None),
    };
    let generation = row.generation;
    let mut carried = Carried {
        replicas: row.replicas,
        short,
    };
    if replicas != row.replicas
        && (plane.store)
            .set_replicas(&row.service, generation, replicas)
            .await?
    {
        carried.replicas = replicas;
        let request = Request::Replicas {
            generation,
            replicas,
        };
        // One that is too busy to hear of it reads the row, or is asked again.
        let _ = driver.requests.try_send(request);
    }
    Ok(Some(carried))
}

/// The turn among those who ask for room; `None`: somebody else has it for long.
async fn turn(turns: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    tokio::time::timeout(TURN, turns.lock()).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deploy_that_takes_long_is_waited_for_no_longer_than_other_services_can_bear() {
        let turns = Mutex::new(());
        let deploy = turns.lock().await;
        let begun = tokio::time::Instant::now();
        assert!(turn(&turns).await.is_none());
        assert!(begun.elapsed() >= TURN);
        drop(deploy);
        assert!(turn(&turns).await.is_some());
    }
}
