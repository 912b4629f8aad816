//! Scaling: samples what services have to do, lets the policy say how many replicas that takes, and has it so.
//!
//! One task does it for all services that are scaled and awake; while there is none it sleeps. It looks once a second, and sooner
//! while something is held: whoever is held because all replicas are full rings.

mod carry;
mod sample;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use layby_model::ServiceId;
use layby_model::scale::{Autoscale, Decision, History, desired};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::deploy::current;
use crate::driver::{DriverHandle, Status};
use crate::plane::Plane;
use crate::store::Row;
use sample::Readings;
use told::Told;

/// From one look at a service to the next.
const LOOK: Duration = Duration::from_secs(1);
/// The same while something is held.
const LOOK_HELD: Duration = Duration::from_millis(250);
/// So long is looked on from the first that is held until it counts as a burst: what is answered sooner needs no more replicas.
const BURST: Duration = Duration::from_millis(100);
/// What does not fit into the machine is asked for again after so long.
const FIT_AGAIN: Duration = Duration::from_secs(5);

/// Which services are scaled and awake, and what was found out about them.
#[derive(Debug, Default)]
pub(crate) struct Scaling {
    bell: Notify,
    awake: Mutex<BTreeSet<ServiceId>>,
    found: Mutex<BTreeMap<ServiceId, Found>>,
}

/// What was found out about a service at the last look.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) decision: Decision,
    /// Why it has fewer replicas than it takes.
    pub(crate) short: Option<String>,
}

impl Scaling {
    /// A service is to be looked at from now on, or no longer.
    pub(crate) fn follow(&self, id: &ServiceId, on: bool) {
        let mut awake = lock(&self.awake);
        let changed = match on {
            true => !awake.contains(id) && awake.insert(id.clone()),
            false => awake.remove(id),
        };
        if changed {
            self.bell.notify_one();
        }
    }

    /// What was found out about a service that is scaled and awake.
    pub(crate) fn found(&self, id: &ServiceId) -> Option<Found> {
        lock(&self.found).get(id).cloned()
    }
}

/// How a service is scaled; `None`: it is not, or somebody has said a number.
pub(crate) fn policy(row: &Row) -> Option<&Autoscale> {
    let policy = current(row).1.spec.service.autoscale.as_ref();
    policy.filter(|_| row.scale.is_none())
}

/// How many replicas a service begins with that comes back after it was off, where what it has to do scales it: the fewest,
/// as after a rest. `None`: as many as it had.
pub(crate) fn anew(row: &Row) -> Option<u32> {
    policy(row).map(Autoscale::floor)
}

/// A service that is looked at.
struct Scaled {
    policy: Autoscale,
    history: History,
    readings: Readings,
    due: Instant,
    /// Something is held, and that was seen.
    is_held: bool,
    /// Until when no more is asked for than fits.
    fits_until: Option<Instant>,
    short: Option<String>,
    told: Told,
}

impl Scaled {
    fn new(plane: &Plane, id: &ServiceId, row: &Row, policy: &Autoscale) -> Self {
        let load = (plane.traffic)(id).load;
        Self {
            policy: policy.clone(),
            history: History::new(row.replicas, load.at_us / 1_000),
            readings: Readings::from(load),
            due: Instant::now() + LOOK,
            is_held: false,
            fits_until: None,
            short: None,
            told: Told::new(row.replicas),
        }
    }
}

/// Looks and scales, until the control plane ends.
pub(crate) async fn run(plane: Arc<Plane>) {
    let mut scaled: BTreeMap<ServiceId, Scaled> = BTreeMap::new();
    let mut demand = plane.demand.clone();
    loop {
        let due = scaled.values().map(|one| one.due).min();
        tokio::select! {
            () = plane.scaling.bell.notified() => {}
            changed = demand.changed(), if !scaled.is_empty() => if changed.is_err() {
                return;
            },
            () = at(due) => {}
        }
        let held: BTreeSet<ServiceId> =
            demand.borrow_and_update().waiting.keys().cloned().collect();
        let awake = lock(&plane.scaling.awake).clone();
        let gone = scaled.extract_if(.., |id, _| !awake.contains(id));
        for (id, mut one) in gone.collect::<Vec<_>>() {
            lock(&plane.scaling.found).remove(&id);
            if !rest(&plane, &id).await {
                one.due = Instant::now() + LOOK_HELD;
                scaled.insert(id, one);
            }
        }
        for id in awake {
            let Some(driver) = plane.driver(&id) else {
                continue;
            };
            let status = Arc::clone(&driver.status.borrow());
            let Some(policy) = policy(&status.row) else {
                continue; // it will be shown so in a moment
            };
            let one = scaled
                .entry(id.clone())
                .or_insert_with(|| Scaled::new(&plane, &id, &status.row, policy));
            if one.policy != *policy {
                one.policy = policy.clone();
                one.due = Instant::now();
            }
            let is_held = held.contains(&id);
            if is_held && !one.is_held {
                // From here on: what was before is another sample.
                one.sample(&plane, &id, &status, false).await;
                one.due = one.due.min(Instant::now() + BURST);
            }
            one.is_held = is_held;
            if one.due <= Instant::now() {
                look(&plane, &id, &driver, one).await;
            }
        }
    }
}

impl Scaled {
    /// Takes a sample. CPU is measured only now and then.
    async fn sample(&mut self, plane: &Plane, id: &ServiceId, status: &Status, with_cpu: bool) {
        let load = (plane.traffic)(id).load;
        let cpu_percent = match with_cpu && self.policy.cpu_percent.is_some() {
            true => self.readings.cpu_percent(plane, status).await,
            false => None,
        };
        let ready = status.detail.view.replicas_ready;
        let sample = self.readings.sample(load, ready, cpu_percent);
        self.history.add(&self.policy, sample);
    }
}

/// Looks at a service, and scales it if it has another number than it is to have.
async fn look(plane: &Arc<Plane>, id: &ServiceId, driver: &DriverHandle, one: &mut Scaled) {
    let status = Arc::clone(&driver.status.borrow());
    let row = &status.row;
    one.sample(plane, id, &status, true).await;
    let Some(newest) = one.history.newest().copied() else {
        one.due = Instant::now() + LOOK;
        return;
    };
    let decision = desired(&one.policy, &mut one.history, row.replicas, newest.at_ms);
    let now = Instant::now();
    one.due = match newest.held {
        0 => now + LOOK,
        _ => now + LOOK_HELD,
    };
    let waits = one.fits_until.is_some_and(|until| until > now);
    let is_more = decision.replicas > row.replicas;
    if !is_more {
        (one.short, one.fits_until) = (None, None);
    }
    let mut replicas = row.replicas;
    if decision.replicas != row.replicas && !(is_more && waits) {
        match carry::out(plane, driver, row, decision.replicas).await {
            Ok(None) => one.due = now + LOOK_HELD,
            Ok(Some(carried)) => {
                replicas = carried.replicas;
                one.fits_until = carried.short.as_ref().map(|_| now + FIT_AGAIN);
                one.short = carried.short;
            }
            Err(error) => {
                tracing::warn!(service = %id, %error, "the number of replicas could not be written; trying again");
            }
        }
    }
    if let Some(text) = one
        .told
        .tell(replicas, &decision, one.short.as_deref(), now)
    {
        let kind = crate::api::types::EventKind::Scaled;
        plane.events.of(id, kind, text, None);
    }
    let short = one.short.clone();
    lock(&plane.scaling.found).insert(id.clone(), Found { decision, short });
}

/// A service that is looked at no more: while it rests, it needs no more than the fewest. `false`: that is to be tried again.
async fn rest(plane: &Arc<Plane>, id: &ServiceId) -> bool {
    let Some(driver) = plane.driver(id) else {
        return true;
    };
    let row = driver.status.borrow().row.clone();
    let fewest = match policy(&row) {
        Some(policy) if row.enabled && !driver.status.borrow().is_awake => policy.floor(),
        Some(_) | None => return true,
    };
    if fewest >= row.replicas {
        return true;
    }
    match carry::out(plane, &driver, &row, fewest).await {
        Ok(carried) => carried.is_some(),
        Err(error) => {
            tracing::warn!(service = %id, %error, "it rests with more replicas than it needs");
            true
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
