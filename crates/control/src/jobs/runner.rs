//! The task that drives all jobs: it answers requests, looks at each job, and sleeps until something may be due.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use layby_model::capacity::Claim;
use layby_model::fail::{self, Point};
use layby_model::job::{
    self, Concurrency, Held as HeldFact, JobSpec, Made, RunId, Schedule, Stop, Waiting,
};
use layby_model::network::Networks;
use layby_model::{AppName, ReplicaId, ServiceId};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::room::{Awaited, Room};
use super::timetable::Timetable;
use super::{Held, Request, Shelves, Shown, logs};
use crate::api::types::Problem;
use crate::capacity;
use crate::clock::wall_ms;
use crate::names::Seekers;
use crate::plane::Plane;
use crate::secrets;
use crate::store::{NewRun, RunRow, Shelf, StoreError};

/// The longest sleep while there is a schedule: so late it is seen that the clock was set.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The pause of a job after the store or the engine did not take something; each further time in a row doubles it.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether there is room for a run that waits for it: nobody tells.
const ROOM_EVERY: Duration = Duration::from_secs(2);
/// So many logs are read at a time.
const READERS: usize = 8;
/// So many looks in a row are enough for anything; then others have their turn.
const LOOKS: usize = 64;

/// The task's state. Rows are read anew after each change; only what no row can know is kept beside them.
pub(crate) struct Runner {
    pub(super) plane: Arc<Plane>,
    pub(super) shelves: Shelves,
    tables: BTreeMap<ServiceId, (Schedule, Option<Timetable>)>,
    pub(super) due: BTreeMap<ServiceId, u64>,
    pub(super) clocks: BTreeMap<(ServiceId, RunId), RunClock>,
    pub(super) holds: BTreeMap<(ServiceId, RunId), HoldState>,
    /// The names whose replicas are the jobs' own.
    driven: BTreeSet<ServiceId>,
    /// Those that go, with all their runs, once none of these is left.
    pub(super) leaving: BTreeSet<ServiceId>,
    /// Why and when due times were skipped last.
    pub(super) skipped: BTreeMap<ServiceId, (u64, job::Skipped)>,
    /// The jobs of which the store or the engine did not take something. The others go on.
    troubles: BTreeMap<ServiceId, Trouble>,
    /// The logs of attempts that ended are being read, or were: by replica, until their ends are written.
    pub(super) reads: BTreeMap<ReplicaId, AbortHandle>,
    /// The tasks that do.
    pub(super) reading: JoinSet<()>,
    /// How many of them may be at it.
    pub(super) readers: Arc<Semaphore>,
    /// The jobs whose rows may be others than those that were read last.
    stale: BTreeSet<ServiceId>,
    /// The runs that have not begun for want of room, and since when that is known.
    waiting: BTreeMap<(ServiceId, RunId), Instant>,
}

/// What was not taken of a job.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    /// Nothing is tried until then.
    until: Instant,
    /// How often in a row.
    times: u32,
}

impl Trouble {
    /// The next one, after so many in a row.
    fn after(times: u32, now: Instant) -> Self {
        let pause = TROUBLE_PAUSE * (1 << times.min(10));
        Self {
            until: now + pause.min(TROUBLE_PAUSE_MAX),
            times: times.saturating_add(1),
        }
    }
}

/// The lengths of a run, on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunClock {
    /// When it began, or this life of the node did: no clock that can be trusted goes on from one to the next.
    begun: Instant,
    /// When an attempt failed last.
    pub(super) failed: Instant,
}

impl RunClock {
    /// That of a run which is known from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            failed: now,
        }
    }
}

/// What is known of the other end of a held run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldState {
    /// Somebody is there.
    There,
    /// The command ended so.
    Over(Option<i32>),
}

/// The names by which the engine knows the replicas of a job or of a service's runs.
pub(crate) fn engine_ids(shelves: &Shelves) -> BTreeSet<ServiceId> {
    let mut ids = BTreeSet::new();
    for (id, shelf) in shelves {
        if shelf.job.is_some() {
            ids.insert(id.clone());
        }
        ids.extend(shelf.active().map(|run| engine_id(id, run)));
    }
    ids
}

/// The sets of networks from which jobs, and runs that go on, look names up.
pub(crate) fn seekers(shelves: &Shelves) -> Seekers {
    let seekers = shelves.iter();
    seekers
        .map(|(id, shelf)| (id.clone(), networks(shelf)))
        .filter(|(_, networks)| !networks.is_empty())
        .collect()
}

fn networks(shelf: &Shelf) -> BTreeSet<Networks> {
    let job = shelf.job.iter().map(|job| &job.spec);
    let runs = shelf.active().filter_map(|run| run.spec.as_ref());
    job.chain(runs)
        .map(|spec| spec.service.networks.clone())
        .collect()
}

/// The name by which the engine knows a run's replicas.
pub(super) fn engine_id(id: &ServiceId, run: &RunRow) -> ServiceId {
    match run.of_service {
        true => job::runs_of(id),
        false => id.clone(),
    }
}

impl Runner {
    /// The task over what the store holds.
    pub(crate) fn new(plane: Arc<Plane>, shelves: Shelves) -> Self {
        // Shown from the first answer of the API on; what is due follows.
        plane.jobs.shown.send_replace(Arc::new(Shown {
            shelves: shelves.clone(),
            ..Shown::default()
        }));
        let now = Instant::now();
        let mut clocks = BTreeMap::new();
        for (id, shelf) in &shelves {
            let begun = shelf.active().filter(|run| !run.attempts.is_empty());
            clocks.extend(begun.map(|run| ((id.clone(), run.run), RunClock::new(now))));
        }
        Self {
            plane,
            shelves,
            tables: BTreeMap::new(),
            due: BTreeMap::new(),
            clocks,
            holds: BTreeMap::new(),
            driven: BTreeSet::new(),
            leaving: BTreeSet::new(),
            skipped: BTreeMap::new(),
            troubles: BTreeMap::new(),
            reads: BTreeMap::new(),
            reading: JoinSet::new(),
            readers: Arc::new(Semaphore::new(READERS)),
            stale: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Drives the jobs until the control plane ends.
    pub(crate) async fn run(mut self) {
        let Some(mut requests) = self.plane.jobs.take_requests() else {
            return;
        };
        self.forget_orphans().await;
        self.rounds().await;
        loop {
            let pause = self.pause();
            let bell = self.plane.jobs.bell.clone();
            let asked = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = bell.heard() => None,
                Some(read) = self.reading.join_next() => {
                    if let Err(error) = read {
                        tracing::error!(%error, "keeping a log broke off; please report this");
                    }
                    None
                }
                () = until(pause) => None,
            };
            match asked {
                Some(request) => self.answer(request).await,
                None => self.rounds().await,
            }
        }
    }

    /// Looks at every job until nothing is left to do now.
    async fn rounds(&mut self) {
        self.drive();
        for _ in 0..LOOKS {
            let mut changed = false;
            let ids = self.shelves.keys().chain(&self.stale);
            let ids: BTreeSet<ServiceId> = ids.cloned().collect();
            for id in ids {
                if self.in_trouble(&id) {
                    continue;
                }
                match self.look(&id).await {
                    Ok(more) => {
                        self.troubles.remove(&id);
                        changed |= more;
                    }
                    Err(trouble) => {
                        tracing::warn!(job = %id, "{trouble}; trying again");
                        let times = self.troubles.get(&id).map_or(0, |trouble| trouble.times);
                        let trouble = Trouble::after(times, Instant::now());
                        self.troubles.insert(id.clone(), trouble);
                        self.stale.insert(id);
                    }
                }
            }
            if !changed {
                break;
            }
            self.drive();
        }
        self.show();
    }

    /// Whether something of a job was not taken just now: it is not to be tried in a loop.
    fn in_trouble(&self, id: &ServiceId) -> bool {
        let trouble = self.troubles.get(id);
        trouble.is_some_and(|trouble| trouble.until > Instant::now())
    }

    /// Takes the replicas of all names that jobs have for the jobs' own, and lets go of the others.
    fn drive(&mut self) {
        let wanted = engine_ids(&self.shelves);
        let facts = &self.plane.facts;
        for id in wanted.difference(&self.driven) {
            facts.subscribe(id, self.plane.jobs.bell.clone());
        }
        let mut driven = wanted.clone();
        for id in self.driven.difference(&wanted) {
            // While the last replica goes it is not to be taken for a stray.
            match facts.of(id).is_empty() {
                true => facts.unsubscribe(id),
                false => drop(driven.insert(id.clone())),
            }
        }
        self.driven = driven;
    }

    fn show(&mut self) {
        let waits = self.waits(&OnceCell::new());
        let now = Instant::now();
        let for_room = |run: &(ServiceId, RunId)| waits.get(run).is_some_and(Awaited::is_room);
        self.waiting.retain(|run, _| for_room(run));
        for run in waits.keys().filter(|run| for_room(run)) {
            self.waiting.entry(run.clone()).or_insert(now);
        }
        let waits = waits
            .into_iter()
            .map(|(run, for_what)| (run, for_what.text()))
            .collect();
        let shown = Shown {
            shelves: self.shelves.clone(),
            due: self.due.clone(),
            skipped: self.skipped.clone(),
            waits,
        };
        self.plane.jobs.shown.send_if_modified(|before| {
            let changed = **before != shown;
            if changed {
                *before = Arc::new(shown);
            }
            changed
        });
    }

    /// When to look again, if nothing happens until then.
    fn pause(&self) -> Option<Instant> {
        let (now, wall) = (Instant::now(), wall_ms());
        let calm = |id: &ServiceId| !self.in_trouble(id);
        let due = self.due.iter().filter(|(id, _)| calm(id));
        let due = due.map(|(_, due)| {
            let ahead = Duration::from_millis(due.saturating_sub(wall).max(1));
            now + ahead.min(LOOK_EVERY)
        });
        let room = OnceCell::new();
        let shelves = || self.shelves.iter().filter(|(id, _)| calm(id));
        let runs = shelves().flat_map(|(id, shelf)| {
            let active = shelf.active();
            active.filter_map(|run| job::wait_ms(&self.facts_of(id, shelf, run, &room)))
        });
        let runs = runs.map(|ms| now + Duration::from_millis(ms.max(1)));
        let ttls = shelves().filter_map(|(_, shelf)| {
            let ttl = shelf.kept().ttl_ms?;
            let ended = shelf.runs.iter().filter_map(|run| run.ended_ms).min()?;
            let left = (ended + ttl).saturating_sub(wall).max(1);
            Some(now + Duration::from_millis(left).min(LOOK_EVERY))
        });
        let troubles = self.troubles.values().map(|trouble| trouble.until);
        let troubles = troubles.filter(|until| *until > now);
        let waits = (!self.waits(&room).is_empty()).then(|| now + ROOM_EVERY);
        due.chain(runs)
            .chain(ttls)
            .chain(troubles)
            .chain(waits)
            .min()
    }

    /// What the runs that have not begun wait for. `room`: as it is now, once it was asked for.
    fn waits(&self, room: &OnceCell<Room>) -> BTreeMap<(ServiceId, RunId), Awaited> {
        let all = self.shelves.iter().flat_map(|(id, shelf)| {
            let waiting = shelf.active().filter(|run| run.attempts.is_empty());
            waiting.filter_map(|run| {
                let for_what = self.waits_for(id, shelf, run, room)?;
                Some(((id.clone(), run.run), for_what))
            })
        });
        all.collect()
    }

    /// What a run that has not begun waits for; `None`: nothing is in its way.
    fn waits_for(
        &self,
        id: &ServiceId,
        shelf: &Shelf,
        run: &RunRow,
        room: &OnceCell<Room>,
    ) -> Option<Awaited> {
        let spec = run.spec.as_ref()?;
        let job = spec.service.job.as_ref();
        let replaces = job.is_some_and(|job| job.concurrency == Concurrency::Replace);
        let older = shelf.active().find(|other| other.run < run.run);
        if let Some(older) = older.filter(|_| replaces) {
            let text = format!("run {}, whose place it takes, still ends", older.run);
            return Some(Awaited::Other(text));
        }
        if self.busy() >= job::MAX_RUNS {
            let text = format!("{} runs go on, and no more may", job::MAX_RUNS);
            return Some(Awaited::Other(text));
        }
        let claim = Claim::of_run(id.clone(), Some(run.run), &spec.service);
        let room = room.get_or_init(|| self.room(None));
        room.shortage(claim, &made(id, run)).map(Awaited::Room)
    }

    /// The room that there is for runs. `leaving`: the runs of this job make room.
    fn room(&self, leaving: Option<&ServiceId>) -> Room {
        Room::new(&self.plane, &self.shelves, self.waiting(), leaving)
    }

    /// The runs that were seen to wait.
    fn waiting(&self) -> Vec<Waiting> {
        let all = self.waiting.iter().filter_map(|((id, run), since)| {
            let run = self.shelves.get(id)?.run(*run)?;
            let spec = run.spec.as_ref()?;
            Some(Waiting {
                made: made(id, run),
                claim: Claim::of_run(id.clone(), Some(run.run), &spec.service),
                waits_ms: ms(since.elapsed()),
            })
        });
        all.collect()
    }

    /// A run as the model sees it.
    pub(super) fn facts_of(
        &self,
        id: &ServiceId,
        shelf: &Shelf,
        run: &RunRow,
        room: &OnceCell<Room>,
    ) -> job::Run {
        let spec = run.spec.as_ref().and_then(|spec| spec.service.job.clone());
        let JobSpec {
            retries,
            time_limit_ms,
            completions,
            parallelism,
            ..
        } = spec.unwrap_or_default();
        let reports = self.plane.facts.of(&engine_id(id, run));
        let attempts = run.attempts.iter().map(|attempt| {
            let report = reports.iter().find(|report| report.id == attempt.replica);
            job::Attempt {
                replica: attempt.replica,
                launched: attempt.launched,
                end: attempt.end.as_ref().map(|end| end.end()),
                seen: report.map_or(job::Seen::Absent, job::Seen::of),
            }
        });
        let key = (id.clone(), run.run);
        let clock = self.clocks.get(&key);
        let waits = run.attempts.is_empty() && self.waits_for(id, shelf, run, room).is_some();
        job::Run {
            completions: completions.max(1),
            parallelism: parallelism.max(1),
            retries,
            time_limit_ms,
            elapsed_ms: clock.map_or(0, |clock| ms(clock.begun.elapsed())),
            rested_ms: clock.map_or(u64::MAX, |clock| ms(clock.failed.elapsed())),
            stopping: run.stopping,
            waits,
            held: run.held.then(|| match self.holds.get(&key) {
                Some(HoldState::There) => HeldFact::There,
                Some(HoldState::Over(_)) => HeldFact::Over,
                None => HeldFact::Gone,
            }),
            attempts: attempts.collect(),
        }
    }

    /// How many runs have replicas.
    fn busy(&self) -> usize {
        let runs = self.shelves.values().flat_map(Shelf::active);
        runs.filter(|run| !run.attempts.is_empty()).count()
    }

    /// The timetable of a job; `None`: it has none, or this machine does not understand it (any more).
    pub(super) fn timetable(&mut self, id: &ServiceId, schedule: &Schedule) -> Option<&Timetable> {
        let known = self.tables.get(id).is_some_and(|(of, _)| of == schedule);
        if !known {
            let table = Timetable::new(schedule);
            if let Err(why) = &table {
                tracing::warn!(job = %id, "{why}; it does not run");
            }
            self.tables
                .insert(id.clone(), (schedule.clone(), table.ok()));
        }
        self.tables.get(id).and_then(|(_, table)| table.as_ref())
    }

    /// Reads a job's rows again, where what was read last may not hold any more.
    pub(super) async fn refresh(&mut self, id: &ServiceId) -> Result<(), StoreError> {
        match self.stale.contains(id) {
            true => self.reload(id).await,
            false => Ok(()),
        }
    }

    /// Reads a job's rows again.
    pub(super) async fn reload(&mut self, id: &ServiceId) -> Result<(), StoreError> {
        self.stale.insert(id.clone());
        let shelf = self.plane.store.shelf(id).await?;
        self.stale.remove(id);
        // Before a replica of it is ordered: it finds what it needs from its first moment on.
        self.plane.tables.set_job(id, networks(&shelf));
        if shelf == Shelf::default() {
            self.shelves.remove(id);
            self.tables.remove(id);
            self.due.remove(id);
            self.skipped.remove(id);
            self.leaving.remove(id);
            self.troubles.remove(id);
        } else {
            self.shelves.insert(id.clone(), shelf);
        }
        Ok(())
    }

    /// Forgets the runs of services that are gone.
    async fn forget_orphans(&mut self) {
        let Ok(rows) = self.plane.store.services().await else {
            return; // at the next start
        };
        let orphans = self.shelves.iter().filter(|(id, shelf)| {
            let known = rows.iter().any(|row| row.service == **id);
            shelf.job.is_none() && shelf.active().next().is_none() && !known
        });
        let orphans: Vec<ServiceId> = orphans.map(|(id, _)| id.clone()).collect();
        for id in orphans {
            if let Err(error) = self.forget(&id).await {
                tracing::warn!(service = %id, %error, "its old runs could not be forgotten");
            }
        }
    }

    /// Forgets a job, or the runs of a service, with their logs.
    pub(super) async fn forget(&mut self, id: &ServiceId) -> Result<(), StoreError> {
        self.plane.store.remove_shelf(id).await?;
        logs::remove_all(&self.plane, id).await;
        self.reload(id).await
    }

    /// Does what is asked, and answers when it shows.
    async fn answer(&mut self, request: Request) {
        // What somebody asks for is tried at once, whatever failed before.
        self.troubles
            .values_mut()
            .for_each(|trouble| trouble.until = Instant::now());
        match request {
            Request::Reload(reply) => {
                self.reload_all().await;
                self.rounds().await;
                reply_to(reply, ());
            }
            Request::Run(new, reply) => {
                let made = self.make(*new).await;
                self.rounds().await;
                reply_to(reply, made);
            }
            Request::Hold(new, reply) => {
                let held = self.begin_held(*new).await;
                self.rounds().await;
                reply_to(reply, held);
            }
            Request::Over(id, run, code) => {
                if let Some(hold) = self.holds.get_mut(&(id, run)) {
                    *hold = HoldState::Over(code);
                }
                self.rounds().await;
            }
            Request::Stop(id, run, by, reply) => {
                let stopped = self.stop(&id, run, &by).await;
                self.rounds().await;
                reply_to(reply, stopped);
            }
            Request::Suspend(id, suspend, reply) => {
                let done = self.suspend(&id, suspend).await;
                self.rounds().await;
                reply_to(reply, done);
            }
            Request::Remove(app, only, by, reply) => {
                let leaving = self.remove(&app, only.as_ref(), &by).await;
                self.rounds().await;
                reply_to(reply, leaving);
            }
        }
    }

    async fn reload_all(&mut self) {
        match self.plane.store.shelves().await {
            Ok(shelves) => {
                self.due.retain(|id, _| shelves.contains_key(id));
                self.tables.retain(|id, _| shelves.contains_key(id));
                self.skipped.retain(|id, _| shelves.contains_key(id));
                self.troubles.retain(|id, _| shelves.contains_key(id));
                self.stale.clear();
                self.plane.tables.set_jobs(seekers(&shelves));
                self.shelves = shelves;
            }
            Err(error) => {
                tracing::warn!(%error, "the jobs could not be read; what was known of them holds");
            }
        }
    }

    async fn make(&mut self, mut new: NewRun) -> Result<RunId, Problem> {
        let id = new.of.clone();
        let shelf = self.shelves.get(&id);
        let active = shelf.map_or(0, |shelf| shelf.active().count());
        let job = shelf.and_then(|shelf| shelf.job.as_ref());
        let job = job.and_then(|job| job.spec.service.job.as_ref());
        if job.is_some_and(|job| job.concurrency == Concurrency::Forbid) && active > 0 {
            let text = format!("a run of {id} goes on, and its runs are not to overlap");
            return Err(Problem::conflict(text).hint(format!(
                "wait for its end, or end it with `layby job stop {id}`"
            )));
        }
        if active >= job::MAX_OVERLAP {
            let text = format!("{active} runs of {id} go on already, and no more may");
            return Err(Problem::conflict(text).hint(format!(
                "wait for one's end, or end one with `layby job stop {id} RUN`"
            )));
        }
        let replaces = job.is_some_and(|job| job.concurrency == Concurrency::Replace);
        // What is due waits for room; whoever asks for a run is told that there is none.
        let claim = Claim::of_run(id.clone(), None, &new.spec.service);
        let last = (u64::MAX, id.clone(), RunId(u32::MAX));
        let room = self.room(Some(&id).filter(|_| replaces));
        if let Some(text) = room.shortage(claim, &last) {
            return Err(capacity::does_not_fit(text));
        }
        if replaces {
            self.replace(&id).await?;
        }
        let plane = Arc::clone(&self.plane);
        let pins = plane.vault.pins().await;
        // Runs of a service have what it is live with.
        if !new.of_service {
            let spec = Arc::make_mut(&mut new.spec);
            secrets::pin(&self.plane, std::iter::once((&id.app, &mut spec.service))).await?;
        }
        fail::at(Point::AfterPin);
        let run = self.plane.store.make_run(new).await?;
        fail::at(Point::AfterRun);
        drop(pins);
        self.reload(&id).await?;
        Ok(run)
    }

    /// Lets all runs of a job that go on end.
    pub(super) async fn replace(&mut self, id: &ServiceId) -> Result<(), StoreError> {
        let runs: Vec<RunId> = match self.shelves.get(id) {
            Some(shelf) => shelf.active().map(|run| run.run).collect(),
            None => Vec::new(),
        };
        for run in runs {
            self.plane
                .store
                .halt_run(id, run, Stop::Replaced, None)
                .await?;
        }
        Ok(())
    }

    async fn begin_held(&mut self, new: NewRun) -> Result<Held, Problem> {
        if self.busy() >= job::MAX_RUNS {
            let text = format!("{} runs go on already, and no more may", job::MAX_RUNS);
            return Err(Problem::conflict(text).hint("`layby job ls` shows which"));
        }
        let id = new.of.clone();
        let run = self.make(new).await?;
        let key = (id.clone(), run);
        self.holds.insert(key.clone(), HoldState::There);
        self.rounds().await;
        let shelf = self.shelves.get(&id);
        let attempt = shelf.and_then(|shelf| shelf.run(run)?.attempts.first());
        if let Some(replica) = attempt.map(|attempt| attempt.replica) {
            return Ok(Held { run, replica });
        }
        // Whoever asked is told so and goes: nobody would ever end it.
        self.holds.remove(&key);
        let text = format!("run {run} of {id} could not be begun: see the node's log");
        Err(Problem::failed(text))
    }

    async fn stop(&mut self, id: &ServiceId, run: RunId, by: &str) -> Result<(), Problem> {
        let row = self.shelves.get(id).and_then(|shelf| shelf.run(run));
        let row = row.ok_or_else(|| Problem::no_run(id, run))?;
        if row.ended_ms.is_some() {
            return Err(Problem::conflict(format!(
                "run {run} of {id} is over already"
            )));
        }
        self.plane
            .store
            .halt_run(id, run, Stop::Asked, Some(by))
            .await?;
        Ok(self.reload(id).await?)
    }

    async fn suspend(&mut self, id: &ServiceId, suspend: bool) -> Result<(), Problem> {
        let job = self.shelves.get(id).and_then(|shelf| shelf.job.as_ref());
        let job = job.ok_or_else(|| Problem::no_job(id))?;
        if job.suspended != suspend {
            self.plane.store.suspend(id, suspend).await?;
            self.reload(id).await?;
        }
        Ok(())
    }

    async fn remove(
        &mut self,
        app: &AppName,
        only: Option<&ServiceId>,
        by: &str,
    ) -> Result<Vec<ServiceId>, Problem> {
        let of_app = self.shelves.iter().filter(|(id, _)| id.app == *app);
        let wanted = of_app.filter(|(id, _)| only.is_none_or(|only| only == *id));
        let leaving: Vec<ServiceId> = wanted.map(|(id, _)| id.clone()).collect();
        if let Some(only) = only
            && leaving.is_empty()
        {
            return Err(Problem::no_job(only));
        }
        let begun = self.plane.store.begin_job_removal(app, only, by);
        begun.await?;
        self.reload_all().await;
        self.leaving.extend(leaving.iter().cloned());
        Ok(leaving)
    }
}

fn made(id: &ServiceId, run: &RunRow) -> Made {
    (run.made_ms, id.clone(), run.run)
}

/// Whoever asked may have gone.
fn reply_to<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until `at`, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
