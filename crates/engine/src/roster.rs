//! The replicas that an engine has: accepts orders, hands out what is to be done, reports.
//!
//! One lock, held only for map operations, never across an await or a system call.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use layby_model::engine::{BoxStream, EngineError, RunSpec, Workload};
use layby_model::mounts::MountSource;
use layby_model::replica::{ContainerReport, End, Phase, ReplicaReport, Trouble};
use layby_model::spec::ContainerSpec;
use layby_model::{ReplicaId, RevisionId, ServiceId, Wakefulness};
use tokio::sync::{Notify, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use crate::lifecycle::{self, Action, Actual, Pending};

/// Hints kept for a listener that does not keep up; one that lags gets "any service" instead.
const HINTS: usize = 256;

/// One replica.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Of which service.
    pub service: ServiceId,
    /// Of which revision.
    pub revision: RevisionId,
    /// The newest generation that it was named with.
    pub generation: u64,
    /// What it runs; `None` for one whose record could not be read (it is lost).
    pub spec: Option<Arc<RunSpec>>,
    /// What it is.
    pub actual: Actual,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Its containers.
    pub containers: Vec<ContainerReport>,
    /// Those that run before them.
    pub init: Vec<ContainerReport>,
    /// Counts the orders to run or thaw.
    pub run: u64,
    /// Which container ended unasked since it was last ordered to run.
    pub ended: Option<End>,
    /// How many ends in a row were unasked and came too soon.
    pub ended_in_a_row: u32,
    /// What stands in its way.
    pub trouble: Option<Trouble>,
    /// The named volumes that it mounts: they are in use until it is gone.
    pub volumes: Vec<String>,
    pending: Option<Pending>,
    /// The action under way and the order that it was begun for.
    doing: Option<(Action, Option<Pending>)>,
    wake: Arc<Notify>,
}

impl Entry {
    /// A replica of which nothing is made yet.
    pub fn new(service: ServiceId, revision: RevisionId, generation: u64) -> Self {
        Self {
            service,
            revision,
            generation,
            spec: None,
            actual: Actual::Absent,
            address: None,
            containers: Vec::new(),
            init: Vec::new(),
            run: 0,
            ended: None,
            ended_in_a_row: 0,
            trouble: None,
            volumes: Vec::new(),
            pending: None,
            doing: None,
            wake: Arc::new(Notify::new()),
        }
    }

    /// Whether it was ordered to be removed.
    pub fn retiring(&self) -> bool {
        self.pending == Some(Pending::Retire)
    }

    /// Whether it ended by itself, and nothing is done to it since.
    pub fn has_ended(&self) -> bool {
        self.actual == Actual::Stopped && self.ended.is_some() && self.doing.is_none()
    }

    /// Whether what it was ordered to be since leaves a start that is under way without sense.
    pub fn is_called_off(&self) -> bool {
        matches!(
            self.pending,
            Some(Pending::Retire | Pending::Depth(Wakefulness::Asleep))
        )
    }

    /// What tells its task that something has changed.
    pub fn wakes(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// The action under way.
    pub fn doing(&self) -> Option<Action> {
        self.doing.map(|(action, _)| action)
    }

    /// The name of the container that is meant by `name`: the first, if none is named. `id`: the replica's.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if it has no such container.
    pub fn container(&self, id: ReplicaId, name: Option<&str>) -> Result<String, EngineError> {
        let found = match name {
            Some(name) => {
                let mut all = self.containers.iter().chain(&self.init);
                all.find(|known| known.name == name)
            }
            None => self.containers.first(),
        };
        let found = found.ok_or_else(|| {
            let name = name.unwrap_or("at all");
            EngineError::NotFound(format!("replica {id} has no container {name}"))
        })?;
        Ok(found.name.clone())
    }

    /// Wakes the replica's task: a fact has changed that it must see to.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The phase to report: none is ready while one of its containers is down, or is left as it failed.
    fn phase(&self) -> Phase {
        let stands = |c: &ContainerReport| !c.down && !c.is_left_failed();
        match lifecycle::phase(self.actual, self.pending, self.doing()) {
            Phase::Ready if !self.containers.iter().all(stands) => Phase::Starting,
            phase => phase,
        }
    }

    fn report(&self, id: ReplicaId) -> ReplicaReport {
        ReplicaReport {
            id,
            service: self.service.clone(),
            revision: self.revision,
            generation: self.generation,
            phase: self.phase(),
            address: self.address,
            containers: self.containers.clone(),
            init: self.init.clone(),
            run: self.run,
            ended: self.ended.clone(),
            ended_in_a_row: self.ended_in_a_row,
            trouble: self.trouble.clone(),
        }
    }

    fn order(&mut self, pending: Pending) {
        if self.pending == Some(Pending::Retire) {
            return;
        }
        if pending == Pending::Depth(Wakefulness::Awake)
            && lifecycle::begins_run(self.actual, self.pending)
        {
            self.run += 1;
            self.ended = None;
            self.trouble = None;
        }
        self.pending = Some(pending);
        self.settle();
        self.wake.notify_one();
    }

    /// Drops an order that is carried out.
    fn settle(&mut self) {
        if self.doing.is_none() && lifecycle::next(self.actual, self.pending).is_none() {
            self.pending = None;
        }
    }
}

/// What a replica's task is to do now.
#[derive(Debug)]
pub enum Next {
    /// Nothing until this wakes it.
    Wait(Arc<Notify>),
    /// This; tell its end by [`Roster::done`].
    Do(Action),
    /// It is gone: the task ends.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    replicas: BTreeMap<ReplicaId, Entry>,
    generations: BTreeMap<ServiceId, u64>,
}

/// The replicas of one engine.
#[derive(Debug)]
pub struct Roster {
    state: Mutex<State>,
    hints: broadcast::Sender<Option<ServiceId>>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            hints: broadcast::channel(HINTS).0,
        }
    }
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; a poisoned lock still holds whole entries.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts an order and returns the replicas that are new by it: each needs a task.
    ///
    /// # Errors
    /// [`EngineError::Stale`] if an order of a newer generation was accepted before; nothing is changed then.
    pub fn accept(&self, workload: &Workload) -> Result<Vec<ReplicaId>, EngineError> {
        let mut state = self.lock();
        let seen = state
            .generations
            .entry(workload.service.clone())
            .or_insert(workload.generation);
        if workload.generation < *seen {
            return Err(EngineError::Stale {
                service: workload.service.clone(),
                given: workload.generation,
                seen: *seen,
            });
        }
        *seen = workload.generation;

        let spec = Arc::new(workload.spec.clone());
        let mut new = Vec::new();
        for (&id, &depth) in &workload.replicas {
            if workload.retire.contains(&id) {
                continue;
            }
            let entry = state.replicas.entry(id).or_insert_with(|| {
                new.push(id);
                let mut entry = Entry::new(
                    workload.service.clone(),
                    workload.revision,
                    workload.generation,
                );
                entry.spec = Some(Arc::clone(&spec));
                entry.containers = containers(&spec.service.containers);
                entry.init = containers(&spec.service.init);
                entry.volumes = volumes(&spec);
                entry
            });
            entry.generation = workload.generation;
            entry.order(Pending::Depth(depth));
        }
        for id in &workload.retire {
            if let Some(entry) = state.replicas.get_mut(id) {
                entry.generation = workload.generation;
                entry.order(Pending::Retire);
            }
        }
        drop(state);
        self.hint(Some(workload.service.clone()));
        Ok(new)
    }

    /// Orders every replica to be removed, whatever its generation: the engine is being closed.
    pub fn retire_all(&self) {
        for entry in self.lock().replicas.values_mut() {
            entry.order(Pending::Retire);
        }
        self.hint(None);
    }

    /// Takes in a replica that was there before this engine was opened.
    pub fn adopt(&self, id: ReplicaId, entry: Entry) {
        let mut state = self.lock();
        let seen = state.generations.entry(entry.service.clone()).or_default();
        *seen = entry.generation.max(*seen);
        state.replicas.insert(id, entry);
    }

    /// The replicas of one service, or all; the oldest first.
    pub fn reports(&self, service: Option<&ServiceId>) -> Vec<ReplicaReport> {
        let state = self.lock();
        let wanted = state
            .replicas
            .iter()
            .filter(|(_, entry)| service.is_none_or(|service| *service == entry.service));
        wanted.map(|(&id, entry)| entry.report(id)).collect()
    }

    /// Copies of the replicas that ended by themselves and were not started again.
    pub fn ended(&self) -> BTreeMap<ReplicaId, Entry> {
        let state = self.lock();
        let ended = state.replicas.iter();
        let ended = ended.filter(|(_, entry)| entry.has_ended() && !entry.retiring());
        ended.map(|(&id, entry)| (id, entry.clone())).collect()
    }

    /// The named volumes that replicas mount, each with the services whose replicas they are.
    pub fn volumes(&self) -> BTreeMap<String, Vec<ServiceId>> {
        let mut used: BTreeMap<String, Vec<ServiceId>> = BTreeMap::new();
        for entry in self.lock().replicas.values() {
            for volume in &entry.volumes {
                let by = used.entry(volume.clone()).or_default();
                if !by.contains(&entry.service) {
                    by.push(entry.service.clone());
                }
            }
        }
        used
    }

    /// A copy of one replica.
    pub fn get(&self, id: ReplicaId) -> Option<Entry> {
        self.lock().replicas.get(&id).cloned()
    }

    /// How many replicas there are.
    pub fn len(&self) -> usize {
        self.lock().replicas.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Claims the next action on a replica for its task.
    pub fn next(&self, id: ReplicaId) -> Next {
        let mut state = self.lock();
        let Some(entry) = state.replicas.get_mut(&id) else {
            return Next::Gone;
        };
        if entry.doing.is_none()
            && let Some(action) = lifecycle::next(entry.actual, entry.pending)
        {
            entry.doing = Some((action, entry.pending));
            return Next::Do(action);
        }
        entry.settle();
        Next::Wait(Arc::clone(&entry.wake))
    }

    /// Claims `action` on a replica, if that is its next one and nobody is at it. The caller then does it in place of
    /// the replica's task.
    pub fn claim(&self, id: ReplicaId, action: Action) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.replicas.get_mut(&id) else {
            return false;
        };
        let free = entry.doing.is_none();
        if free && lifecycle::next(entry.actual, entry.pending) == Some(action) {
            entry.doing = Some((action, entry.pending));
            return true;
        }
        false
    }

    /// Tells how the claimed action ended: what the replica is now, or what stood in the way.
    ///
    /// What stood in the way of an earlier action is over when one succeeds. A failed action ends the order that it was begun for, unless another came since; nothing is tried
    /// again unasked. Retiring is: it must not be given up. The caller waits before its next try.
    pub fn done(&self, id: ReplicaId, outcome: Result<Actual, Trouble>) {
        self.change(id, |entry| {
            let begun_for = entry.doing.take().and_then(|(_, pending)| pending);
            match outcome {
                Ok(actual) => {
                    entry.actual = actual;
                    entry.trouble = None;
                }
                Err(trouble) => {
                    entry.trouble = Some(trouble);
                    if entry.pending == begun_for && !entry.retiring() {
                        entry.pending = None;
                    }
                }
            }
            entry.settle();
            entry.wake.notify_one();
        });
    }

    /// Forgets a replica: it is gone.
    pub fn remove(&self, id: ReplicaId) {
        let gone = self.lock().replicas.remove(&id);
        if let Some(entry) = gone {
            entry.wake.notify_one();
            self.hint(Some(entry.service));
        }
    }

    /// Writes down a fact about a replica, and hints at it. `None` if it is gone.
    pub fn change<T>(&self, id: ReplicaId, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut state = self.lock();
        let entry = state.replicas.get_mut(&id)?;
        let result = change(entry);
        let service = entry.service.clone();
        drop(state);
        self.hint(Some(service));
        Some(result)
    }

    /// Hints from now on.
    pub fn changes(&self) -> BoxStream<'static, Option<ServiceId>> {
        let hints = BroadcastStream::new(self.hints.subscribe());
        Box::pin(hints.map(|hint| hint.unwrap_or(None)))
    }

    fn hint(&self, service: Option<ServiceId>) {
        // An error means that nobody listens.
        let _ = self.hints.send(service);
    }
}

/// Containers, before the first of them ran.
fn containers(specs: &[ContainerSpec]) -> Vec<ContainerReport> {
    specs
        .iter()
        .map(|container| ContainerReport::new(&container.name))
        .collect()
}

/// The named volumes that `spec` mounts.
fn volumes(spec: &RunSpec) -> Vec<String> {
    let containers = spec.service.all_containers();
    let mounts = containers.flat_map(|container| &container.mounts);
    let mut names: Vec<String> = mounts
        .filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => Some(name.clone()),
            MountSource::Bind { .. }
            | MountSource::Tmpfs { .. }
            | MountSource::Scratch { .. }
            | MountSource::Files { .. } => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use layby_model::ServiceName;
    use layby_model::spec::ServiceSpec;

    use super::*;

    const ID: ReplicaId = ReplicaId(1);

    fn order(roster: &Roster, depth: Wakefulness) {
        let name = ServiceName::new("web").expect("a label");
        let workload = Workload {
            service: "shop/web".parse().expect("a service"),
            revision: RevisionId(1),
            generation: 1,
            spec: RunSpec {
                service: ServiceSpec::new(name),
                images: Vec::new(),
            },
            replicas: BTreeMap::from([(ID, depth)]),
            retire: Vec::new(),
        };
        roster.accept(&workload).expect("accepted");
    }

    #[test]
    fn trouble_is_over_when_the_action_succeeds_that_it_stood_in_the_way_of() {
        let roster = Roster::default();
        order(&roster, Wakefulness::Dozing);
        roster.change(ID, |entry| entry.actual = Actual::Running);
        let trouble = Trouble {
            fatal: false,
            message: "the freezer is stuck".to_owned(),
        };
        let shown = || roster.get(ID).expect("there").trouble;
        assert!(matches!(roster.next(ID), Next::Do(Action::Freeze)));
        roster.done(ID, Err(trouble.clone()));
        assert_eq!(shown(), Some(trouble));
        order(&roster, Wakefulness::Dozing);
        assert!(matches!(roster.next(ID), Next::Do(Action::Freeze)));
        roster.done(ID, Ok(Actual::Frozen));
        assert_eq!(shown(), None);
    }
}
