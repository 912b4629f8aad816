//! Facts: what the engine reports of every replica, kept in one table by one task.
//!
//! A driver reads its service's part and is rung when that changes; nobody else is. What was looked at
//! later wins, whoever looked: a driver looks itself right after its orders, so that it never plans with
//! facts older than those.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use layby_model::ServiceId;
use layby_model::engine::{Engine, EngineError};
use layby_model::replica::ReplicaReport;

use crate::bell::Bell;
use crate::strays;

/// How often everything is looked at, hint or no hint.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The table of facts.
pub(crate) struct Facts {
    engine: Arc<dyn Engine>,
    /// Counts the looks, by their beginnings.
    looks: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    services: HashMap<ServiceId, Entry>,
}

#[derive(Default)]
struct Entry {
    /// The look that these reports are from.
    look: u64,
    reports: Arc<Vec<ReplicaReport>>,
    /// Rung when they change; `None`: nobody drives the service.
    bell: Option<Bell>,
}

impl Facts {
    /// An empty table over `engine`.
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            looks: AtomicU64::new(0),
            table: Mutex::default(),
        }
    }

    /// The newest reports of a service, the oldest replica first.
    pub(crate) fn of(&self, service: &ServiceId) -> Arc<Vec<ReplicaReport>> {
        let table = self.lock();
        let entry = table.services.get(service);
        entry.map(|e| Arc::clone(&e.reports)).unwrap_or_default()
    }

    /// A driver for `service` is about to be started: its replicas are no strays.
    pub(crate) fn expect(&self, service: &ServiceId) {
        self.lock().services.entry(service.clone()).or_default();
    }

    /// From now on `bell` is rung when the facts of `service` change.
    pub(crate) fn subscribe(&self, service: &ServiceId, bell: Bell) {
        let mut table = self.lock();
        table.services.entry(service.clone()).or_default().bell = Some(bell);
    }

    /// Nobody drives `service` any more.
    pub(crate) fn unsubscribe(&self, service: &ServiceId) {
        self.lock().services.remove(service);
    }

    /// Looks at one service now. What is in the table afterwards is not older than this call.
    pub(crate) async fn look_at(&self, service: &ServiceId) -> Result<(), EngineError> {
        let look = self.begin_look();
        let reports = self.engine.observe(Some(service)).await?;
        self.put(&mut self.lock(), service, look, reports);
        Ok(())
    }

    /// Looks at everything now, and returns the replicas of services that nobody drives.
    pub(crate) async fn look_around(&self) -> Result<Vec<ReplicaReport>, EngineError> {
        let look = self.begin_look();
        let mut by_service: BTreeMap<ServiceId, Vec<ReplicaReport>> = BTreeMap::new();
        for report in self.engine.observe(None).await? {
            let reports = by_service.entry(report.service.clone()).or_default();
            reports.push(report);
        }
        let mut table = self.lock();
        let known: Vec<ServiceId> = table.services.keys().cloned().collect();
        for service in known {
            let reports = by_service.remove(&service).unwrap_or_default();
            self.put(&mut table, &service, look, reports);
        }
        Ok(by_service.into_values().flatten().collect())
    }

    /// Keeps the table up to date until the engine's hints end. Replicas that nobody drives are removed.
    pub(crate) async fn follow(&self) {
        let mut hints = self.engine.changes();
        let mut timer = tokio::time::interval(LOOK_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let hint = tokio::select! {
                hint = hints.next() => match hint {
                    Some(hint) => hint,
                    None => return,
                },
                _ = timer.tick() => None,
            };
            let looked = match hint {
                Some(service) if self.is_driven(&service) => self.look_at(&service).await,
                // A stray: it is found again by the next look at everything.
                Some(_) => Ok(()),
                None => match self.look_around().await {
                    Ok(found) => {
                        strays::retire(&*self.engine, found).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = looked {
                tracing::warn!(%error, "the engine could not say what runs; asking again");
            }
        }
    }

    fn is_driven(&self, service: &ServiceId) -> bool {
        self.lock().services.contains_key(service)
    }

    fn begin_look(&self) -> u64 {
        self.looks.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn put(
        &self,
        table: &mut Table,
        service: &ServiceId,
        look: u64,
        mut reports: Vec<ReplicaReport>,
    ) {
        let Some(entry) = table.services.get_mut(service) else {
            return;
        };
        if look <= entry.look {
            return;
        }
        entry.look = look;
        reports.sort_by_key(|report| report.id);
        if *entry.reports != reports {
            entry.reports = Arc::new(reports);
            if let Some(bell) = &entry.bell {
                bell.ring();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held; a poisoned lock still holds whole entries.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
