//! Who uses a service beside its requests: commands, copies, forwarded connections. While one does, it stays awake.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use layby_model::ServiceId;

use crate::plane::Plane;

/// How many there are of each service.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<BTreeMap<ServiceId, u32>>);

impl Uses {
    /// How many there are of one.
    pub(crate) fn of(&self, service: &ServiceId) -> u32 {
        self.with(|uses| uses.get(service).copied().unwrap_or(0))
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ServiceId, u32>) -> T) -> T {
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
        let count = |uses: &mut BTreeMap<ServiceId, u32>| {
            *uses.entry(service.clone()).or_default() += 1;
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
            if let Some(count) = uses.get_mut(&self.service) {
                *count -= 1;
                if *count == 0 {
                    uses.remove(&self.service);
                }
            }
        });
        // It may begin to be idle now.
        self.ring();
    }
}
