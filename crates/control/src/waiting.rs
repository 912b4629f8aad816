//! Who waits for whom: rollouts that other services hold up look again when something is shown of those.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use layby_model::ServiceId;

use crate::bell::Bell;

/// For each service the bells of those that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<BTreeMap<ServiceId, BTreeMap<ServiceId, Bell>>>);

impl Waiting {
    /// Rings `bell`, that of `who`, the next time that something is shown of `on`. To be called before that is looked at.
    pub(crate) fn wait(&self, on: &ServiceId, who: &ServiceId, bell: &Bell) {
        let mut waiting = self.lock();
        let bells = waiting.entry(on.clone()).or_default();
        bells.insert(who.clone(), bell.clone());
    }

    /// Something is shown of a service: those that wait for it look again.
    pub(crate) fn ring(&self, on: &ServiceId) {
        let bells = self.lock().remove(on);
        bells.iter().flatten().for_each(|(_, bell)| bell.ring());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceId, BTreeMap<ServiceId, Bell>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
