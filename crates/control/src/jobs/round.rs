//! One look at one job: what is due is made, what a run needs is done, what is over is put away.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use layby_model::engine::{RunSpec, Workload};
use layby_model::fail::{self, Point};
use layby_model::job::{self, Due, Past, RunId, Step, Stop};
use layby_model::mounts::MountSource;
use layby_model::replica::{Exit, Phase, ReplicaReport};
use layby_model::secret::{ReplicaField, ValueSource};
use layby_model::{ReplicaId, RevisionId, ServiceId, Wakefulness};
use tokio::time::Instant;

use super::logs;
use super::runner::{HoldState, RunClock, Runner, engine_id};
use super::show;
use crate::api::types::EventKind;
use crate::clock::wall_ms;
use crate::plane::Plane;
use crate::secrets;
use crate::store::{Cause, EndRow, JobRow, NewRun, RunRow, Shelf, StoreError};

/// Who makes the runs of a schedule.
const BY_SCHEDULE: &str = "its schedule";
/// The variable by which an attempt has its number.
const INDEX: &str = "JOB_COMPLETION_INDEX";

impl Runner {
    /// Looks at a job, or at the runs of a service, and does what is to be done now. `true`: look again at once.
    pub(super) async fn look(&mut self, id: &ServiceId) -> Result<bool, String> {
        let told = |error: StoreError| layby_model::error_chain(&error);
        self.refresh(id).await.map_err(told)?;
        let Some(shelf) = self.shelves.get(id).cloned() else {
            return Ok(false);
        };
        if self.begin_due(id, &shelf).await.map_err(told)? {
            return Ok(true);
        }
        let mut changed = false;
        let mut trouble = None;
        let mut room = OnceCell::new();
        for run in shelf.active() {
            let steps = job::next_steps(&self.facts_of(id, &shelf, run, &room));
            for step in steps {
                match self.act(id, run, step).await {
                    Ok(more) => changed |= more,
                    // One replica that cannot be had keeps no other run, and no end, waiting.
                    Err(text) => trouble = trouble.or(Some(text)),
                }
                room.take(); // as it was before
            }
        }
        // Where something was done there may be more to do, and what was not taken is tried with it.
        if let Some(trouble) = trouble.filter(|_| !changed) {
            return Err(trouble);
        }
        self.retire_strays(id, &shelf).await;
        if !changed {
            changed = self.put_away(id, &shelf).await.map_err(told)?;
        }
        Ok(changed)
    }

    /// Makes the run that is due.
    async fn begin_due(&mut self, id: &ServiceId, shelf: &Shelf) -> Result<bool, StoreError> {
        self.due.remove(id);
        let Some(job) = shelf
            .job
            .as_ref()
            .filter(|job| !job.removing && !job.suspended)
        else {
            return Ok(false);
        };
        let Some(settings) = &job.spec.service.job else {
            return Ok(false);
        };
        let Some(schedule) = &settings.schedule else {
            if job.pending {
                self.begin_run(id, job, Cause::Deploy, None).await?;
            }
            return Ok(job.pending);
        };
        let Some(table) = self.timetable(id, schedule) else {
            return Ok(false);
        };
        let active = shelf.active().count();
        let next = |after| table.next(after);
        match job::due(settings, job.seen_ms, wall_ms(), active, next) {
            Due::Wait(ahead) => {
                self.due.extend(ahead.map(|ahead| (id.clone(), ahead)));
                return Ok(false);
            }
            Due::Replace(moment) => {
                self.replace(id).await?;
                self.begin_run(id, job, Cause::Schedule, Some(moment))
                    .await?;
            }
            Due::Run(moment) => {
                self.begin_run(id, job, Cause::Schedule, Some(moment))
                    .await?;
            }
            Due::Skip(upto, why) => {
                tracing::info!(job = %id, "skipped: {why}");
                self.skipped.insert(id.clone(), (upto, why));
                self.plane.store.see_due(id, upto).await?;
                self.reload(id).await?;
            }
        }
        Ok(true)
    }

    async fn begin_run(
        &mut self,
        id: &ServiceId,
        job: &JobRow,
        cause: Cause,
        due_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        let made_by = match cause {
            Cause::Schedule => BY_SCHEDULE.to_owned(),
            Cause::Deploy | Cause::Command => job.made_by.clone(),
        };
        let plane = Arc::clone(&self.plane);
        let pins = plane.vault.pins().await;
        let run = NewRun {
            of: id.clone(),
            of_service: false,
            spec: pinned(&self.plane, id, &job.spec).await,
            cause,
            made_by,
            due_ms,
            command: None,
            held: false,
        };
        fail::at(Point::AfterPin);
        plane.store.make_run(run).await?;
        fail::at(Point::AfterRun);
        drop(pins);
        self.reload(id).await
    }

    /// Does one step of a run. `true`: rows have changed.
    async fn act(&mut self, id: &ServiceId, run: &RunRow, step: Step) -> Result<bool, String> {
        let told = |error: StoreError| layby_model::error_chain(&error);
        match step {
            Step::Begin => {
                let replica = self.plane.new_replica();
                let ends = run.attempts.iter().filter_map(|attempt| {
                    let end = attempt.end.as_ref().map(|end| end.end());
                    Some((attempt.number?, end))
                });
                let number = is_indexed(run).then(|| job::next_index(ends));
                let store = &self.plane.store;
                store
                    .begin_attempt(id, run.run, replica, number)
                    .await
                    .map_err(told)?;
                fail::at(Point::AfterAttempt);
                if run.attempts.is_empty() {
                    self.note_begin(id, run);
                }
            }
            Step::Launch(replica) => {
                self.order(id, run, &[(replica, Some(Wakefulness::Awake))])
                    .await?;
                fail::at(Point::AfterOrder);
                let store = &self.plane.store;
                store.launch_attempt(replica).await.map_err(told)?;
                fail::at(Point::AfterLaunch);
            }
            Step::Stop(replica) => {
                self.order(id, run, &[(replica, Some(Wakefulness::Asleep))])
                    .await?;
                return Ok(false);
            }
            Step::Retire(replica) => {
                self.order(id, run, &[(replica, None)]).await?;
                return Ok(false);
            }
            Step::Settle(replica) => {
                if !self.has_kept_log(id, run, replica) {
                    return Ok(false);
                }
                self.settle(id, run, replica).await.map_err(told)?;
            }
            Step::Halt(stop) => {
                let store = &self.plane.store;
                store
                    .halt_run(id, run.run, stop, None)
                    .await
                    .map_err(told)?;
            }
            Step::End(outcome) => {
                let store = &self.plane.store;
                store.end_run(id, run.run, outcome).await.map_err(told)?;
                self.holds.remove(&(id.clone(), run.run));
                self.clocks.remove(&(id.clone(), run.run));
                self.reload(id).await.map_err(told)?;
                let over = self.shelves.get(id).and_then(|shelf| shelf.run(run.run));
                if let Some(over) = over {
                    let (who, text) = (over.stopped_by.as_deref(), show::sentence(over));
                    self.plane.events.of(id, EventKind::JobEnded, text, who);
                }
                return Ok(true);
            }
        }
        self.reload(id).await.map_err(told)?;
        Ok(true)
    }

    fn note_begin(&mut self, id: &ServiceId, run: &RunRow) {
        let clock = RunClock::new(Instant::now());
        self.clocks.insert((id.clone(), run.run), clock);
        let text = format!("run {} began", run.run);
        self.plane
            .events
            .of(id, EventKind::JobStarted, text, Some(&run.made_by));
    }

    /// Orders replicas of a run: how awake they are to be; `None`: gone. What came of it is looked at.
    async fn order(
        &mut self,
        id: &ServiceId,
        run: &RunRow,
        replicas: &[(ReplicaId, Option<Wakefulness>)],
    ) -> Result<(), String> {
        let Some(spec) = &run.spec else {
            return Ok(());
        };
        let mut spec = (**spec).clone();
        if let [(replica, _)] = replicas
            && let Some(attempt) = run.attempts.iter().find(|one| one.replica == *replica)
            && let Some(number) = attempt.number
        {
            tell_number(&mut spec, id, number);
        }
        let awake = replicas
            .iter()
            .filter_map(|(id, level)| Some((*id, (*level)?)));
        let retire = replicas.iter().filter(|(_, level)| level.is_none());
        let service = engine_id(id, run);
        // Runs of one job share its name, and newer ones, which may be forgotten by now, have had their orders.
        let generation = self.plane.store.generation().await;
        let order = Workload {
            service: service.clone(),
            revision: RevisionId(run.run.0),
            generation: generation.map_err(|error| layby_model::error_chain(&error))?,
            spec,
            replicas: awake.collect(),
            retire: retire.map(|(id, _)| *id).collect(),
        };
        self.plane
            .engine
            .apply(&order)
            .await
            .map_err(|error| error.to_string())?;
        let looked = self.plane.facts.look_at(&service).await;
        looked.map_err(|error| error.to_string())
    }

    /// Whether the log of an attempt that ended is kept, as far as there is one. Else it is being read, in a task of its
    /// own: one that does not come keeps no other job waiting.
    fn has_kept_log(&mut self, id: &ServiceId, run: &RunRow, replica: ReplicaId) -> bool {
        if let Some(read) = self.reads.get(&replica) {
            return read.is_finished();
        }
        let reports = self.plane.facts.of(&engine_id(id, run));
        let report = reports.iter().find(|report| report.id == replica);
        // Of what somebody held, its output was the log.
        let Some(report) = report.filter(|_| !run.held).cloned() else {
            return true;
        };
        let (plane, readers) = (Arc::clone(&self.plane), Arc::clone(&self.readers));
        let (id, run) = (id.clone(), run.run);
        let read = self.reading.spawn(async move {
            let _one_of_them = readers.acquire().await;
            logs::keep(&plane, &id, run, &report).await;
        });
        self.reads.insert(replica, read);
        false
    }

    /// Writes how an attempt ended.
    async fn settle(
        &mut self,
        id: &ServiceId,
        run: &RunRow,
        replica: ReplicaId,
    ) -> Result<(), StoreError> {
        let reports = self.plane.facts.of(&engine_id(id, run));
        let report = reports.iter().find(|report| report.id == replica);
        let told = match self.holds.get(&(id.clone(), run.run)) {
            Some(HoldState::Over(code)) => *code,
            Some(HoldState::There) | None => None,
        };
        let end = end_of(run, report, told);
        if end.end() != job::AttemptEnd::Well
            && let Some(clock) = self.clocks.get_mut(&(id.clone(), run.run))
        {
            clock.failed = Instant::now();
        }
        self.plane.store.end_attempt(replica, end).await?;
        fail::at(Point::AfterSettle);
        self.reads.remove(&replica);
        Ok(())
    }

    /// Removes replicas that no row names: what was ordered, and whose row was lost or forgotten.
    async fn retire_strays(&self, id: &ServiceId, shelf: &Shelf) {
        let mut of: BTreeMap<ServiceId, Vec<ReplicaId>> = BTreeMap::new();
        if shelf.job.is_some() {
            of.entry(id.clone()).or_default();
        }
        for run in &shelf.runs {
            let known = run.attempts.iter();
            // One whose run is over is only on its way out; it is retired here should that order be lost.
            let known = known.filter(|_| run.ended_ms.is_none());
            of.entry(engine_id(id, run))
                .or_default()
                .extend(known.map(|attempt| attempt.replica));
        }
        for (service, known) in of {
            let reports = self.plane.facts.of(&service);
            let strays = reports
                .iter()
                .filter(|report| report.phase != Phase::Removing && !known.contains(&report.id));
            let strays: Vec<ReplicaReport> = strays.cloned().collect();
            if !strays.is_empty() {
                crate::strays::retire_quietly(&*self.plane.engine, strays).await;
                let _ = self.plane.facts.look_at(&service).await;
            }
        }
    }

    /// Forgets old runs, and jobs that are to go.
    async fn put_away(&mut self, id: &ServiceId, shelf: &Shelf) -> Result<bool, StoreError> {
        let removing = shelf.job.as_ref().is_some_and(|job| job.removing);
        if removing || self.leaving.contains(id) {
            let names = [id.clone(), job::runs_of(id)];
            let empty = names
                .iter()
                .all(|name| match shelf.job.is_none() && name == id {
                    true => true, // they are the service's own
                    false => self.plane.facts.of(name).is_empty(),
                });
            if shelf.active().next().is_some() || !empty {
                return Ok(false);
            }
            self.forget(id).await?;
            if removing {
                let who = shelf.job.as_ref().and_then(|job| job.removed_by.as_deref());
                let text = "was taken down".to_owned();
                self.plane.events.of(id, EventKind::Removed, text, who);
            }
            return Ok(true);
        }
        let now_ms = wall_ms();
        let past = shelf.runs.iter().filter_map(|run| {
            Some(Past {
                run: run.run,
                outcome: run.outcome?,
                age_ms: now_ms.saturating_sub(run.ended_ms?),
            })
        });
        let past: Vec<Past> = past.collect();
        let gone: Vec<RunId> = job::forgotten(&shelf.kept(), &past);
        if gone.is_empty() {
            return Ok(false);
        }
        logs::remove(&self.plane, id, &gone).await;
        self.plane.store.forget_runs(id, gone).await?;
        self.reload(id).await?;
        Ok(true)
    }
}

/// The settings with the newest versions of the secrets that they name. One that is not there (any more) is told by the
/// engine, which cannot start the run then.
async fn pinned(plane: &Plane, id: &ServiceId, spec: &Arc<RunSpec>) -> Arc<RunSpec> {
    let mut pinned = (**spec).clone();
    match secrets::pin(plane, std::iter::once((&id.app, &mut pinned.service))).await {
        Ok(()) => Arc::new(pinned),
        Err(problem) => {
            tracing::warn!(job = %id, "{}", problem.detail);
            Arc::clone(spec)
        }
    }
}

/// How an attempt ended, by what is seen of its replica. `told`: the exit code of a command that somebody held.
fn end_of(run: &RunRow, report: Option<&ReplicaReport>, told: Option<i32>) -> EndRow {
    let containers = report.into_iter().flat_map(|report| &report.containers);
    let last = containers.clone().find_map(|container| container.last_exit);
    let oom = containers
        .filter_map(|container| container.last_exit)
        .any(|exit| exit.oom);
    let ended = report.and_then(|report| report.ended.as_ref());
    let trouble = report.and_then(|report| report.trouble.as_ref());
    let stopped = run.stopping.map(|stop| show::why(stop).to_owned());
    let (exit, hopeless, message) = match (told, ended, report) {
        (Some(code), _, _) => (Some(Exit { code, oom }), false, None),
        // However it ended by itself then, nobody was told.
        (None, _, _) if run.stopping == Some(Stop::Lost) => (None, false, stopped.clone()),
        (None, Some(ended), _) => (Some(ended.exit), false, None),
        // It was stopped: how it ended then says little.
        (None, None, Some(_)) if run.stopping.is_some() => (last, false, stopped.clone()),
        (None, None, Some(_)) => {
            let fatal = trouble.is_some_and(|trouble| trouble.fatal);
            let message = trouble.map(|trouble| trouble.message.clone());
            let message = message.unwrap_or_else(|| "nobody knows how it ended".to_owned());
            (None, fatal, Some(message))
        }
        (None, None, None) => {
            let lost = || "its container is gone".to_owned();
            (None, false, Some(stopped.clone().unwrap_or_else(lost)))
        }
    };
    let oom_note = exit.filter(|exit| exit.oom && exit.code != 0);
    let oom_note = oom_note.map(|_| "it ran out of its memory".to_owned());
    EndRow {
        ended_ms: wall_ms(),
        exit,
        hopeless,
        message: message.or(oom_note),
    }
}

/// Whether each good end of a run is that of another number.
fn is_indexed(run: &RunRow) -> bool {
    let job = run.spec.as_ref().and_then(|spec| spec.service.job.as_ref());
    job.is_some_and(|job| job.indexed)
}

/// Tells an attempt its number: by a variable, also where its command names that, where it asks for it, and by its host name
/// (Kubernetes, "Completion mode").
fn tell_number(spec: &mut RunSpec, id: &ServiceId, number: u32) {
    let hostname = format!("{}-{number}", id.service);
    if layby_model::names::is_dns_label(&hostname) {
        spec.service.sandbox.hostname = Some(hostname);
    }
    for container in spec.service.all_containers_mut() {
        container.set_env(INDEX.to_owned(), number.to_string());
        let named = format!("$({INDEX})");
        let words = container
            .entrypoint
            .iter_mut()
            .chain(&mut container.command);
        for word in words.flatten() {
            *word = word.replace(&named, &number.to_string());
        }
        let asked = container.composed_env.values_mut().flatten();
        let files = container.mounts.iter_mut();
        let files = files.filter_map(|mount| match &mut mount.source {
            MountSource::Files { files, .. } => Some(files),
            MountSource::Volume { .. }
            | MountSource::Bind { .. }
            | MountSource::Tmpfs { .. }
            | MountSource::Scratch { .. } => None,
        });
        let files = files.flatten().map(|file| &mut file.content);
        for source in asked.chain(files) {
            if matches!(source, ValueSource::Replica(ReplicaField::CompletionIndex)) {
                *source = ValueSource::Text(number.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use layby_model::ServiceName;
    use layby_model::mounts::Mount;
    use layby_model::replica::End;
    use layby_model::secret::ValueFile;
    use layby_model::spec::{ContainerSpec, ServiceSpec};

    use super::*;
    use crate::store::AttemptRow;

    fn run(stopping: Option<Stop>) -> RunRow {
        RunRow {
            run: RunId(1),
            of_service: false,
            spec: None,
            cause: Cause::Deploy,
            made_by: "root".to_owned(),
            due_ms: None,
            command: None,
            held: false,
            made_ms: 0,
            stopping,
            stopped_by: None,
            ended_ms: None,
            outcome: None,
            attempts: Vec::<AttemptRow>::new(),
        }
    }

    #[test]
    fn an_attempt_knows_its_number_wherever_it_asks_for_it() {
        let mut container = ContainerSpec::new("task", "task:1");
        container.command = Some(vec!["--part=$(JOB_COMPLETION_INDEX)".to_owned()]);
        let index = ValueSource::Replica(ReplicaField::CompletionIndex);
        let asks = |source| BTreeMap::from([("PART".to_owned(), vec![source])]);
        container.composed_env = asks(index.clone());
        container.mounts = vec![Mount {
            target: "/part".to_owned(),
            read_only: true,
            source: MountSource::Files {
                files: vec![ValueFile {
                    path: String::new(),
                    content: index,
                    uid: 0,
                    gid: 0,
                    mode: 0o444,
                }],
                groups: Vec::new(),
            },
        }];
        let name = ServiceName::new("task").expect("a label");
        let mut spec = RunSpec {
            service: ServiceSpec {
                containers: vec![container],
                ..ServiceSpec::new(name)
            },
            images: vec![String::new()],
        };
        tell_number(&mut spec, &"shop/task".parse().expect("an id"), 3);
        let told = &spec.service.containers[0];
        assert_eq!(told.command.as_deref(), Some(&["--part=3".to_owned()][..]));
        assert_eq!(told.env[INDEX], "3");
        let three = ValueSource::Text("3".to_owned());
        assert_eq!(told.composed_env, asks(three.clone()));
        let MountSource::Files { files, .. } = &told.mounts[0].source else {
            panic!("it was files");
        };
        assert_eq!(files[0].content, three);
    }

    #[test]
    fn what_ended_by_itself_has_its_exit_and_what_is_gone_has_none() {
        let gone = end_of(&run(None), None, None);
        assert_eq!((gone.exit, gone.end()), (None, job::AttemptEnd::Badly));
        let told = end_of(&run(None), None, Some(0));
        assert_eq!(told.end(), job::AttemptEnd::Well);
        let stopped = end_of(&run(Some(Stop::TimeLimit)), None, None);
        assert_eq!(stopped.message.as_deref(), Some("it took too long"));
        let ended = ReplicaReport {
            id: ReplicaId(1),
            service: "shop/web".parse().expect("an id"),
            revision: RevisionId(1),
            generation: 1,
            phase: Phase::Stopped,
            address: None,
            containers: Vec::new(),
            init: Vec::new(),
            run: 1,
            ended: Some(End {
                container: "web".to_owned(),
                exit: Exit {
                    code: 0,
                    oom: false,
                },
                hook: false,
            }),
            ended_in_a_row: 0,
            trouble: None,
        };
        let lost = end_of(&run(Some(Stop::Lost)), Some(&ended), None);
        assert_eq!((lost.exit, lost.end()), (None, job::AttemptEnd::Badly));
    }
}
