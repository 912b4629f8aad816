//! What replicas use.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use layby_model::ReplicaId;
use layby_model::access::ReplicaUsage;
use layby_model::engine::EngineError;
use layby_runtime::usage;

use super::Shared;
use super::blocking::blocking;

/// How old the figure for the disk may be: finding it out walks all files that a replica has written.
const DISK_FRESH: Duration = Duration::from_secs(10);

/// The disk figures of last time.
#[derive(Debug, Default)]
pub(super) struct Disks(Mutex<BTreeMap<ReplicaId, (Instant, u64)>>);

impl Disks {
    fn of(&self, id: ReplicaId, bundle: &Path) -> u64 {
        let known = self.with(|known| known.get(&id).copied());
        if let Some((at, bytes)) = known
            && at.elapsed() < DISK_FRESH
        {
            return bytes;
        }
        let bytes = usage::disk_bytes(bundle);
        self.with(|known| known.insert(id, (Instant::now(), bytes)));
        bytes
    }

    fn keep(&self, ids: &[ReplicaId]) {
        self.with(|known| known.retain(|id, _| ids.contains(id)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ReplicaId, (Instant, u64)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the replicas use that have processes.
pub(super) async fn usage(
    shared: &Arc<Shared>,
) -> Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError> {
    let ids = running(shared);
    let shared = Arc::clone(shared);
    blocking(move || {
        shared.disks.keep(&ids);
        let measured = ids.into_iter().map(|id| {
            let mut usage = measure(&shared, id)?;
            usage.disk_bytes = shared.disks.of(id, &shared.bundle(id));
            Ok((id, usage))
        });
        measured.collect()
    })
    .await
}

/// The same of some, but what walks their files.
pub(super) async fn usage_of(
    shared: &Arc<Shared>,
    replicas: &[ReplicaId],
) -> Result<BTreeMap<ReplicaId, ReplicaUsage>, EngineError> {
    let mut ids = running(shared);
    ids.retain(|id| replicas.contains(id));
    let shared = Arc::clone(shared);
    blocking(move || {
        let measured = ids.into_iter().map(|id| Ok((id, measure(&shared, id)?)));
        measured.collect()
    })
    .await
}

fn running(shared: &Shared) -> Vec<ReplicaId> {
    let reports = shared.roster.reports(None);
    let running = reports.iter().filter(|report| {
        let mut containers = report.containers.iter();
        containers.any(|container| container.pid.is_some())
    });
    running.map(|report| report.id).collect()
}

fn measure(shared: &Shared, id: ReplicaId) -> Result<ReplicaUsage, EngineError> {
    let found = usage::read(&shared.bundle(id), &shared.cgroup(id))
        .map_err(|error| EngineError::Failed(error.sentence()))?;
    Ok(ReplicaUsage {
        cpu_us: found.cpu_us,
        memory_bytes: found.memory_bytes,
        memory_limit_bytes: found.memory_limit_bytes,
        pids: found.pids,
        network_in_bytes: found.network_in_bytes,
        network_out_bytes: found.network_out_bytes,
        disk_read_bytes: found.disk_read_bytes,
        disk_write_bytes: found.disk_write_bytes,
        disk_bytes: 0,
    })
}
