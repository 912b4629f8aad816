//! Sampling: what awake services use, looked at now and then, so that a power can be proposed.
//!
//! Who rests is not looked at, and a node on which all rest writes nothing: it costs a look at what the drivers show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use layby_model::advice::Used;
use layby_model::replica::Phase;
use layby_model::{ReplicaId, ServiceId};
use tokio::time::{Instant, MissedTickBehavior};

use crate::plane::Plane;
use crate::store::StoreError;

/// So long is it kept.
const KEPT_HOURS: i64 = 14 * 24;
/// So many samples are gathered in memory until they are written: five minutes. A kill loses no more.
const UNWRITTEN_MAX: u32 = 20;

/// What was seen and is not written yet.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<Unwritten>);

#[derive(Debug, Default)]
struct Unwritten {
    hour: i64,
    used: BTreeMap<ServiceId, Used>,
}

impl Samples {
    /// What a service has used in the time that is kept.
    pub(crate) async fn of(&self, plane: &Plane, id: &ServiceId) -> Result<Used, StoreError> {
        let mut all = plane.store.usage(id, hour() - KEPT_HOURS).await?;
        if let Some(new) = self.lock().used.get(id) {
            all.merge(new);
        }
        Ok(all)
    }

    fn lock(&self) -> MutexGuard<'_, Unwritten> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks and writes, until the control plane ends.
pub(crate) async fn run(plane: Arc<Plane>) {
    let every = plane.config.sample_every;
    let mut timer = tokio::time::interval_at(Instant::now() + every, every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = BTreeMap::new();
    let mut ticks = 0_u32;
    loop {
        timer.tick().await;
        let awake = awake(&plane);
        if !awake.is_empty() {
            look(&plane, &awake, &mut last).await;
        } else {
            last.clear();
        }
        ticks += 1;
        let due = ticks >= UNWRITTEN_MAX || plane.samples.lock().hour != hour();
        if due {
            ticks = 0;
            write(&plane).await;
        }
    }
}

/// The replicas that are ready, and whose.
fn awake(plane: &Plane) -> BTreeMap<ReplicaId, ServiceId> {
    let mut awake = BTreeMap::new();
    for (id, driver) in plane.all_drivers() {
        let status = driver.status.borrow();
        let replicas = status.detail.replicas.iter();
        for replica in replicas.filter(|r| r.phase == Phase::Ready) {
            // It is shown as it is written.
            awake.extend(replica.id.parse().ok().map(|replica| (replica, id.clone())));
        }
    }
    awake
}

/// Takes a sample of each. CPU is counted from one to the next, so the first says nothing of it.
async fn look(
    plane: &Plane,
    awake: &BTreeMap<ReplicaId, ServiceId>,
    last: &mut BTreeMap<ReplicaId, (Instant, u64)>,
) {
    let ids: Vec<ReplicaId> = awake.keys().copied().collect();
    let Ok(seen) = plane.access.usage_of(&ids).await else {
        return; // the next look says more
    };
    let now = Instant::now();
    last.retain(|id, _| seen.contains_key(id));
    let mut unwritten = plane.samples.lock();
    for (id, usage) in seen {
        let before = last.insert(id, (now, usage.cpu_us));
        let milli = before.and_then(|(at, cpu_us)| {
            let us = u64::try_from(now.duration_since(at).as_micros()).ok()?;
            // One that was made anew begins at 0.
            let used = usage.cpu_us.checked_sub(cpu_us)?;
            used.saturating_mul(1000).checked_div(us)
        });
        if let Some(service) = awake.get(&id) {
            let used = unwritten.used.entry(service.clone()).or_default();
            used.add(milli, usage.memory_bytes);
        }
    }
}

/// Writes what was seen since the last time.
async fn write(plane: &Plane) {
    let (at, used) = {
        let mut unwritten = plane.samples.lock();
        let at = std::mem::replace(&mut unwritten.hour, hour());
        (at, std::mem::take(&mut unwritten.used))
    };
    if used.is_empty() {
        return;
    }
    // Before the first writing no hour was noted: then it is this one.
    let at = if at == 0 { hour() } else { at };
    let all = used.into_iter().collect();
    if let Err(error) = plane.store.add_usage(at, all, hour() - KEPT_HOURS).await {
        tracing::warn!(%error, "what services used could not be written; it is left out");
    }
}

/// The hour of Unix time.
fn hour() -> i64 {
    crate::clock::wall().as_second().div_euclid(3600)
}
