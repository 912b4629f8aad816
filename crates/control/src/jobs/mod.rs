//! Jobs: what runs to its end. One task drives all of them ([`runner`]); the model decides, the store remembers, and the
//! engine runs them as it runs services.

mod deploy;
mod held;
mod logs;
mod one_off;
mod room;
mod round;
mod runner;
mod show;
mod timetable;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layby_model::engine::RunSpec;
use layby_model::job::{RunId, Skipped};
use layby_model::{AppName, ReplicaId, ServiceId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::types::Problem;
use crate::bell::Bell;
use crate::plane::Plane;
use crate::store::{NewRun, Shelf, StoreError};

pub(crate) use deploy::{
    check_names, check_schedule, left_out, orphans, remove_orphans, steps, tell,
};
pub(crate) use held::{Holding, hold};
pub(crate) use logs::open as log;
pub(crate) use one_off::{OneOff, spec as one_off};
pub(crate) use runner::{Runner, engine_ids, seekers};
pub(crate) use show::{job_view, run_view};

/// So many requests may wait for the task.
const REQUESTS: usize = 64;
/// How long taking jobs down may take beside their grace.
const DOWN_PATIENCE: Duration = Duration::from_secs(120);

/// All jobs and runs, by their names.
pub(crate) type Shelves = BTreeMap<ServiceId, Shelf>;

/// What is shown of the jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shown {
    /// The jobs and services with runs.
    pub(crate) shelves: Shelves,
    /// When each job is due next, in milliseconds since 1970.
    pub(crate) due: BTreeMap<ServiceId, u64>,
    /// The due times that were skipped last, in this life of the node, and why.
    pub(crate) skipped: BTreeMap<ServiceId, (u64, Skipped)>,
    /// What the runs that have not begun wait for.
    pub(crate) waits: BTreeMap<(ServiceId, RunId), String>,
}

/// How to reach the jobs.
pub(crate) struct Jobs {
    /// Makes the task look again.
    pub(crate) bell: Bell,
    requests: mpsc::Sender<Request>,
    waiting: Mutex<Option<mpsc::Receiver<Request>>>,
    shown: watch::Sender<Arc<Shown>>,
}

/// What is asked of the task.
pub(crate) enum Request {
    /// Rows were written by somebody else.
    Reload(oneshot::Sender<()>),
    /// Make a run.
    Run(Box<NewRun>, oneshot::Sender<Result<RunId, Problem>>),
    /// Make a run that somebody holds.
    Hold(Box<NewRun>, oneshot::Sender<Result<Held, Problem>>),
    /// The command of a run that somebody holds has ended; `None`: nobody knows how.
    Over(ServiceId, RunId, Option<i32>),
    /// End a run.
    Stop(
        ServiceId,
        RunId,
        String,
        oneshot::Sender<Result<(), Problem>>,
    ),
    /// Suspend a job, or resume it.
    Suspend(ServiceId, bool, oneshot::Sender<Result<(), Problem>>),
    /// Take a job down, or all of an app, by somebody's word.
    Remove(
        AppName,
        Option<ServiceId>,
        String,
        oneshot::Sender<Result<Vec<ServiceId>, Problem>>,
    ),
}

/// A run that somebody is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// Its number.
    pub(crate) run: RunId,
    /// Its replica.
    pub(crate) replica: ReplicaId,
}

impl Default for Jobs {
    fn default() -> Self {
        let (requests, waiting) = mpsc::channel(REQUESTS);
        Self {
            bell: Bell::default(),
            requests,
            waiting: Mutex::new(Some(waiting)),
            shown: watch::Sender::new(Arc::default()),
        }
    }
}

impl Jobs {
    /// What is shown of them now.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.borrow())
    }

    /// The same, whenever it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Shown>> {
        self.shown.subscribe()
    }

    /// Whether there is a job of this name.
    pub(crate) fn has(&self, id: &ServiceId) -> bool {
        let shown = self.shown.borrow();
        shown
            .shelves
            .get(id)
            .is_some_and(|shelf| shelf.job.is_some())
    }

    /// Lets the task read all rows again, and waits until it has.
    pub(crate) async fn reload(&self) {
        // The node is ending otherwise.
        let _ = self.ask(Request::Reload).await;
    }

    /// Makes a run, and gives its number.
    pub(crate) async fn run(&self, new: NewRun) -> Result<RunId, Problem> {
        self.ask(|reply| Request::Run(Box::new(new), reply)).await?
    }

    /// Makes a run that somebody holds.
    async fn hold(&self, new: NewRun) -> Result<Held, Problem> {
        self.ask(|reply| Request::Hold(Box::new(new), reply))
            .await?
    }

    /// The command of a held run has ended.
    async fn over(&self, id: &ServiceId, run: RunId, code: Option<i32>) {
        let over = Request::Over(id.clone(), run, code);
        // The node is ending otherwise: the next start finds it without anybody at its other end.
        let _ = self.requests.send(over).await;
    }

    /// Ends a run.
    pub(crate) async fn stop(&self, id: &ServiceId, run: RunId, by: &str) -> Result<(), Problem> {
        self.ask(|reply| Request::Stop(id.clone(), run, by.to_owned(), reply))
            .await?
    }

    /// Suspends a job, or resumes it.
    pub(crate) async fn suspend(&self, id: &ServiceId, suspend: bool) -> Result<(), Problem> {
        self.ask(|reply| Request::Suspend(id.clone(), suspend, reply))
            .await?
    }

    /// Takes a job down, or all jobs and runs of an app; gives the jobs that are gone.
    ///
    /// # Errors
    /// It takes too long: it goes on.
    pub(crate) async fn remove(
        &self,
        app: &AppName,
        only: Option<&ServiceId>,
        by: &str,
    ) -> Result<Vec<ServiceId>, Problem> {
        let mut jobs: Vec<ServiceId> = match only {
            Some(only) => vec![only.clone()],
            None => self
                .shown()
                .shelves
                .keys()
                .filter(|id| id.app == *app)
                .cloned()
                .collect(),
        };
        jobs.retain(|id| self.has(id));
        let leaving = self
            .ask(|reply| Request::Remove(app.clone(), only.cloned(), by.to_owned(), reply))
            .await??;
        let mut shown = self.watch();
        let gone = shown.wait_for(|shown| leaving.iter().all(|id| !shown.shelves.contains_key(id)));
        match tokio::time::timeout(DOWN_PATIENCE, gone).await {
            Ok(_) => Ok(jobs),
            Err(_) => Err(
                Problem::timed_out(format!("jobs of {app} are still being taken down"))
                    .hint("`layby job ls` shows what is left"),
            ),
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Problem> {
        let (reply, replied) = oneshot::channel();
        let ending = || Problem::from(StoreError::Closed);
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| ending())?;
        replied.await.map_err(|_| ending())
    }

    fn take_requests(&self) -> Option<mpsc::Receiver<Request>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }
}

/// The settings of a job, as it is deployed.
///
/// # Errors
/// There is no such job, or it is on its way out.
pub(crate) fn spec_of(plane: &Plane, id: &ServiceId) -> Result<Arc<RunSpec>, Problem> {
    let shown = plane.jobs.shown();
    let job = shown.shelves.get(id).and_then(|shelf| shelf.job.as_ref());
    let job = job.ok_or_else(|| Problem::no_job(id))?;
    if job.removing {
        return Err(Problem::conflict(format!("{id} is being taken down")));
    }
    Ok(Arc::clone(&job.spec))
}
