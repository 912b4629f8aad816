//! A build's place among those that are carried out at a time. One that waits for another build leaves it meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use layby_image::build::run::Place;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The place of one build; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Slot {
    places: Arc<Semaphore>,
    held: Mutex<Held>,
    /// Where it can be waited for a place.
    handle: Handle,
}

#[derive(Debug)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    /// How many of its steps wait for another build.
    away: usize,
}

impl Slot {
    /// Waits for a place.
    pub(crate) async fn take(places: &Arc<Semaphore>) -> Self {
        // The semaphore is never closed; without a permit the work would only have more company.
        let permit = Arc::clone(places).acquire_owned().await.ok();
        Self {
            places: Arc::clone(places),
            held: Mutex::new(Held { permit, away: 0 }),
            handle: Handle::current(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place for Slot {
    fn leave(&self) {
        let mut held = self.held();
        held.away += 1;
        held.permit = None;
    }

    fn come_back(&self) {
        let is_back = {
            let mut held = self.held();
            held.away = held.away.saturating_sub(1);
            held.away == 0
        };
        if !is_back {
            return;
        }
        let permit = self
            .handle
            .block_on(Arc::clone(&self.places).acquire_owned());
        let mut held = self.held();
        if held.away == 0 {
            held.permit = permit.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_build_that_waits_for_another_leaves_its_place_until_it_goes_on() {
        let places = Arc::new(Semaphore::new(1));
        let one = Arc::new(Slot::take(&places).await);
        assert_eq!(places.available_permits(), 0);
        one.leave();
        one.leave();
        let other = Slot::take(&places).await;
        one.come_back();
        let back = {
            let one = Arc::clone(&one);
            tokio::task::spawn_blocking(move || one.come_back())
        };
        drop(other);
        back.await.expect("it came back");
        assert_eq!(places.available_permits(), 0);
        drop(one);
        assert_eq!(places.available_permits(), 1);
    }
}
