//! Health: asks the replicas of engines that do not say themselves whether they are ready.
//!
//! Until the first success a replica is asked every few milliseconds, so that nobody waits for the prober;
//! then at the manifest's pace. One task per run of a replica; a frozen or stopped one has none.

mod ask;
mod plan;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use layby_model::engine::Engine;
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::spec::ProbeAction;
use layby_model::{ReplicaId, RevisionId};
use tokio::task::AbortHandle;

use crate::bell::Bell;
use ask::Failed;
pub(crate) use plan::{Check, ProbePlan};

/// From one HTTP or TCP attempt to the next until the first success.
const FAST: Duration = Duration::from_millis(5);
/// The same for the first attempts: what boots within milliseconds is not to wait for the prober.
const EAGER: Duration = Duration::from_millis(1);
/// So many attempts are eager.
const EAGER_ATTEMPTS: u32 = 10;
/// From one command to the next until the first success: a process costs more than a packet.
const FAST_EXEC: Duration = Duration::from_millis(200);
/// Where there is nothing to ask, a replica that has run this long is ready: one that exits at once is not.
const SETTLED: Duration = Duration::from_millis(500);
/// How long one early attempt may take to connect: a packet lost while the address comes up is sent again
/// by the kernel only after a second.
const FAST_CONNECT: Duration = Duration::from_millis(200);

/// The health of one service's replicas.
pub(crate) struct Health {
    engine: Arc<dyn Engine>,
    bell: Bell,
    states: Arc<Mutex<BTreeMap<ReplicaId, State>>>,
}

struct State {
    run: u64,
    /// It answered once in this run.
    answered: bool,
    /// Readiness checks (by their place in the plan) that fail now, and what was said to each last.
    failing: BTreeMap<usize, String>,
    /// So many liveness checks have succeeded in this run, each counted once.
    alive: usize,
    /// A liveness check failed, and what was said to it: it is to be replaced.
    dead: Option<String>,
    /// What the last attempt said, for people.
    last_answer: Option<Answer>,
    task: Option<AbortHandle>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What an attempt said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// In words.
    pub(crate) text: String,
    /// Nobody was there to answer: the kernel did, and not the app.
    pub(crate) early: bool,
}

/// What is known of a replica's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has not answered yet, or fails its readiness check now.
    NotReady,
    /// It answers.
    Ready,
    /// It failed its liveness check for good.
    Dead,
}

impl Health {
    /// Nothing is known yet; `bell` is rung at each change.
    pub(crate) fn new(engine: Arc<dyn Engine>, bell: Bell) -> Self {
        Self {
            engine,
            bell,
            states: Arc::default(),
        }
    }

    /// Starts to ask those that run, and stops asking all others. Replicas of a revision without a plan are not asked.
    /// `target`: the revision that is to prove itself.
    pub(crate) fn follow(
        &self,
        reports: &[ReplicaReport],
        plans: &BTreeMap<RevisionId, Arc<ProbePlan>>,
        target: Option<RevisionId>,
    ) {
        let mut states = lock(&self.states);
        states.retain(|id, _| reports.iter().any(|report| report.id == *id));
        for report in reports {
            if report.phase != Phase::Starting {
                if let Some(state) = states.get_mut(&report.id)
                    && let Some(task) = state.task.take()
                {
                    task.abort();
                }
                continue;
            }
            let (Some(plan), Some(address)) = (plans.get(&report.revision), report.address) else {
                continue;
            };
            // "Starting" begins with the order; before there is a process nobody can answer.
            if report.containers.iter().any(|c| c.pid.is_none()) {
                continue;
            }
            let known = states.get(&report.id);
            if known.is_some_and(|state| state.run == report.run && state.task.is_some()) {
                continue;
            }
            // The run that `thawed` was told of has no task yet.
            let answered = known.is_some_and(|s| s.run == report.run && s.answered);
            let prober = Prober {
                engine: Arc::clone(&self.engine),
                bell: self.bell.clone(),
                states: Arc::clone(&self.states),
                plan: Arc::clone(plan),
                replica: report.id,
                run: report.run,
                address,
                // A probe asks one container; another may be about to end, and that is found out before it goes live.
                settles: report.containers.len() > 1 && target == Some(report.revision),
            };
            let last_answer = known.and_then(|state| state.last_answer.clone());
            let task = tokio::spawn(prober.run(answered)).abort_handle();
            states.insert(
                report.id,
                State {
                    run: report.run,
                    answered,
                    failing: BTreeMap::new(),
                    alive: 0,
                    dead: None,
                    last_answer,
                    task: Some(task),
                },
            );
        }
    }

    /// A replica was thawed into `run`: it was ready when it was frozen, so it is at once.
    pub(crate) fn thawed(&self, replica: ReplicaId, run: u64) {
        let state = State {
            run,
            answered: true,
            failing: BTreeMap::new(),
            alive: 0,
            dead: None,
            last_answer: None,
            task: None,
        };
        lock(&self.states).insert(replica, state);
    }

    /// What is known of a replica in `run`.
    pub(crate) fn verdict(&self, replica: ReplicaId, run: u64) -> Verdict {
        let states = lock(&self.states);
        match states.get(&replica).filter(|state| state.run == run) {
            Some(state) if state.dead.is_some() => Verdict::Dead,
            Some(state) if state.answered && state.failing.is_empty() => Verdict::Ready,
            Some(_) | None => Verdict::NotReady,
        }
    }

    /// Why a replica that was ready in `run` is so no more: what was said to a check that fails now.
    pub(crate) fn unready(&self, replica: ReplicaId, run: u64) -> Option<String> {
        let states = lock(&self.states);
        let state = states.get(&replica)?;
        let fails = state.run == run && state.answered;
        state.failing.values().next().filter(|_| fails).cloned()
    }

    /// Whether each of the liveness checks of a replica's revision has succeeded in `run`, as far as there are any.
    pub(crate) fn proved_alive(&self, replica: ReplicaId, run: u64, plan: &ProbePlan) -> bool {
        let states = lock(&self.states);
        let state = states.get(&replica).filter(|state| state.run == run);
        plan.liveness.is_empty() || state.is_some_and(|state| state.alive >= plan.liveness.len())
    }

    /// What was said to the liveness check that a replica failed in `run`.
    pub(crate) fn died(&self, replica: ReplicaId, run: u64) -> Option<String> {
        let states = lock(&self.states);
        let state = states.get(&replica).filter(|state| state.run == run);
        state?.dead.clone()
    }

    /// What the last attempt on a replica said.
    pub(crate) fn last_answer(&self, replica: ReplicaId) -> Option<Answer> {
        lock(&self.states).get(&replica)?.last_answer.clone()
    }
}

/// Asks one run of one replica.
struct Prober {
    engine: Arc<dyn Engine>,
    bell: Bell,
    states: Arc<Mutex<BTreeMap<ReplicaId, State>>>,
    plan: Arc<ProbePlan>,
    replica: ReplicaId,
    run: u64,
    address: IpAddr,
    /// It is ready only after having run for a moment, however soon it answers.
    settles: bool,
}

impl Prober {
    async fn run(self, answered: bool) {
        if !answered {
            let settled = tokio::time::Instant::now() + SETTLED;
            for check in &self.plan.first {
                self.until_it_answers(check).await;
            }
            if self.settles || self.plan.first.is_empty() {
                tokio::time::sleep_until(settled).await;
            }
            self.change(|state| state.answered = true);
        }
        let readiness = self.plan.readiness.iter().enumerate();
        let readiness = readiness.map(|(n, check)| self.watch_readiness(n, check));
        let liveness = self
            .plan
            .liveness
            .iter()
            .map(|check| self.watch_liveness(check));
        tokio::join!(
            futures_util::future::join_all(readiness),
            futures_util::future::join_all(liveness)
        );
    }

    async fn until_it_answers(&self, check: &Check) {
        let mut successes = 0;
        for attempt in 0_u32.. {
            let fast = if attempt < EAGER_ATTEMPTS {
                EAGER
            } else {
                FAST
            };
            let pause = match self.ask(check, FAST_CONNECT).await {
                Ok(()) => {
                    successes += 1;
                    if successes >= check.probe.success_threshold.max(1) {
                        return;
                    }
                    fast
                }
                Err(failed) => {
                    successes = 0;
                    match check.probe.action {
                        ProbeAction::Exec { .. } if !failed.early => FAST_EXEC,
                        ProbeAction::Exec { .. }
                        | ProbeAction::Http { .. }
                        | ProbeAction::Tcp { .. } => fast,
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn watch_readiness(&self, place: usize, check: &Check) {
        let (mut good, mut bad) = (0, 0);
        loop {
            tokio::time::sleep(period(check)).await;
            match self.ask(check, Duration::MAX).await {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(failed) => {
                    (good, bad) = (0, bad + 1);
                    if bad >= check.probe.failure_threshold.max(1) {
                        self.change(|state| {
                            state.failing.insert(place, failed.text);
                        });
                    }
                }
            }
            if good >= check.probe.success_threshold.max(1) {
                self.change(|state| {
                    state.failing.remove(&place);
                });
            }
        }
    }

    async fn watch_liveness(&self, check: &Check) {
        let (mut good, mut bad) = (0, 0);
        tokio::time::sleep(Duration::from_millis(check.probe.initial_delay_ms)).await;
        loop {
            tokio::time::sleep(period(check)).await;
            match self.ask(check, Duration::MAX).await {
                Ok(()) => {
                    (good, bad) = (good + 1, 0);
                    if good == 1 {
                        self.change(|state| state.alive += 1);
                    }
                }
                Err(failed) => {
                    bad += 1;
                    if bad >= check.probe.failure_threshold.max(1) {
                        self.change(|state| state.dead = Some(failed.text));
                        return;
                    }
                }
            }
        }
    }

    async fn ask(&self, check: &Check, connect: Duration) -> Result<(), Failed> {
        let answer = ask::ask(&*self.engine, self.replica, self.address, check, connect).await;
        let text = match &answer {
            Ok(text) => text.clone(),
            Err(failed) => failed.text.clone(),
        };
        let mut states = lock(&self.states);
        if let Some(state) = states.get_mut(&self.replica).filter(|s| s.run == self.run) {
            // What a failed rollout shows is the last word of the app itself. That no container runs is no word
            // at all, and that nobody listens is one only until somebody did.
            let early = answer.as_ref().err().is_some_and(|failed| failed.early);
            let mute = matches!(check.probe.action, ProbeAction::Exec { .. });
            if !early || !mute && state.last_answer.is_none() {
                state.last_answer = Some(Answer { text, early });
            }
        }
        answer.map(|_| ())
    }

    /// Changes the state of this run, and rings if that changed what [`Health`] says of it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let said = |state: &State| {
            let ready = state.answered && state.failing.is_empty();
            (state.answered, ready, state.alive, state.dead.is_some())
        };
        let mut states = lock(&self.states);
        if let Some(state) = states.get_mut(&self.replica).filter(|s| s.run == self.run) {
            let before = said(state);
            change(state);
            if before != said(state) {
                self.bell.ring();
            }
        }
    }
}

fn period(check: &Check) -> Duration {
    Duration::from_millis(check.probe.period_ms.max(100))
}

fn lock(states: &Mutex<BTreeMap<ReplicaId, State>>) -> MutexGuard<'_, BTreeMap<ReplicaId, State>> {
    // Nothing panics while it is held; a poisoned lock still holds whole entries.
    states.lock().unwrap_or_else(PoisonError::into_inner)
}
