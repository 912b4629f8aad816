//! Who uses a service beside its requests: commands, copies, forwarded connections. While one does, it stays awake.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use layby_model::ServiceId;
use tokio::time::Instant;

use crate::plane::Plane;

/// What there are of each service.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<BTreeMap<ServiceId, Of>>);

/// Those of one service.
#[derive(Debug, Default)]
struct Of {
    /// How many there are now.
    now: u32,
    /// When the last one ended.
    ended: Option<Instant>,
}

impl Uses {
    /// How many there are of one.
    pub(crate) fn of(&self, service: &ServiceId) -> u32 {
        self.with(|uses| uses.get(service).map_or(0, |of| of.now))
    }

    /// How long ago the last one of a service ended, in milliseconds; it may be that there is one now.
    pub(crate) fn idle_ms(&self, service: &ServiceId) -> Option<u64> {
        let ended = self.with(|uses| uses.get(service)?.ended)?;
        Some(u64::try_from(ended.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Forgets a service that is gone, unless it is in use.
    pub(crate) fn forget(&self, service: &ServiceId) {
        self.with(|uses| {
            if uses.get(service).is_some_and(|of| of.now == 0) {
                uses.remove(service);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ServiceId, Of>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One use; it ends when this is dropped.
pub(crate) struct Use {
    plane: Arc<Plane>,
    service: ServiceId,
}

impl Use {
    /// Begins to use a service: it is woken if it rests.
    pub(crate) fn begin(plane: &Arc<Plane>, service: &ServiceId) -> Self {
        let count = |uses: &mut BTreeMap<ServiceId, Of>| {
            uses.entry(service.clone()).or_default().now += 1;
        };
        plane.uses.with(count);
        let begun = Self {
            plane: Arc::clone(plane),
            service: service.clone(),
        };
        begun.ring();
        begun
    }

    fn ring(&self) {
        if let Some(driver) = self.plane.driver(&self.service) {
            driver.bell.ring();
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.plane.uses.with(|uses| {
            if let Some(of) = uses.get_mut(&self.service) {
                of.now -= 1;
                of.ended = Some(Instant::now());
            }
        });
        // It may begin to be idle now.
        self.ring();
    }
}
