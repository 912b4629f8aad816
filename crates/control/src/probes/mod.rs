//! Health: asks the replicas of engines that do not say themselves whether they are ready.
//!
//! Until the first success a replica is asked every few milliseconds, so that nobody waits for the prober;
//! then at the manifest's pace. One task per container from each of its starts on; what is frozen or stopped has none.

mod ask;
mod grpc;
mod plan;
mod tls;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use layby_model::engine::{Engine, EngineError};
use layby_model::replica::{ContainerReport, Phase, ReplicaReport};
use layby_model::spec::ProbeAction;
use layby_model::{ReplicaId, RevisionId};
use tokio::task::AbortHandle;

use crate::bell::Bell;
use ask::Failed;
pub(crate) use plan::{Check, Checks, ProbePlan};

/// From one HTTP or TCP attempt to the next until the first success.
const FAST: Duration = Duration::from_millis(5);
/// The same for the first attempts: what boots within milliseconds is not to wait for the prober.
const EAGER: Duration = Duration::from_millis(1);
/// So many attempts are eager.
const EAGER_ATTEMPTS: u32 = 10;
/// From one command to the next until the first success: a process costs more than a packet.
const FAST_EXEC: Duration = Duration::from_millis(200);
/// From one HTTPS attempt that was answered to the next until the first success: each shakes hands anew.
const FAST_TLS: Duration = Duration::from_millis(50);
/// Where there is nothing to ask, a replica that has run this long is ready: one that exits at once is not.
const SETTLED: Duration = Duration::from_millis(500);
/// How long one early attempt may take to connect: a packet lost while the address comes up is sent again
/// by the kernel only after a second.
const FAST_CONNECT: Duration = Duration::from_millis(200);

/// The health of one service's replicas.
pub(crate) struct Health {
    engine: Arc<dyn Engine>,
    bell: Bell,
    states: States,
}

type States = Arc<Mutex<BTreeMap<ReplicaId, State>>>;

/// What is known of one run of a replica.
#[derive(Default)]
struct State {
    run: u64,
    /// It was ready when it was frozen, and nobody was asked since it was thawed.
    thawed: bool,
    /// All of its containers run, but for those that have come to a good end.
    whole: bool,
    /// Its containers that run.
    parts: BTreeMap<String, Part>,
    /// What the last attempt said, for people.
    last_answer: Option<Answer>,
    /// Containers that were ended for their liveness checks, each with what was said to it, until that is taken note of.
    given_up: Vec<(String, String)>,
}

/// What is known of one container since it was started.
struct Part {
    /// Counts its starts: what an earlier one said is void.
    starts: u32,
    /// It answered once.
    answered: bool,
    /// What was said last to its readiness check, which fails now.
    failing: Option<String>,
    /// Its liveness check has succeeded.
    alive: bool,
    /// Its liveness check failed for good, and this was said to it.
    dead: Option<String>,
    task: Option<AbortHandle>,
}

impl Part {
    fn rest(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.rest();
    }
}

impl State {
    fn verdict(&self) -> Verdict {
        let mut parts = self.parts.values();
        if parts.clone().any(|part| part.dead.is_some()) {
            return Verdict::Dead;
        }
        let asked = !self.parts.is_empty() || self.thawed;
        let all = parts.all(|part| part.answered && part.failing.is_none());
        match self.whole && asked && all {
            true => Verdict::Ready,
            false => Verdict::NotReady,
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
                if let Some(state) = states.get_mut(&report.id) {
                    state.parts.values_mut().for_each(Part::rest);
                }
                continue;
            }
            let (Some(plan), Some(address)) = (plans.get(&report.revision), report.address) else {
                continue;
            };
            // "Starting" begins with the order; before there is a process nobody can answer.
            if report.containers.iter().all(|c| c.pid.is_none()) {
                if let Some(state) = states.get_mut(&report.id) {
                    state.whole = false;
                }
                continue;
            }
            let state = states.entry(report.id).or_default();
            if state.run != report.run {
                *state = State {
                    run: report.run,
                    last_answer: state.last_answer.take(),
                    ..State::default()
                };
            }
            let is_target = target == Some(report.revision);
            self.follow_one(state, report, address, plan, is_target);
        }
    }

    /// Starts to ask the containers of a replica that run.
    fn follow_one(
        &self,
        state: &mut State,
        report: &ReplicaReport,
        address: IpAddr,
        plan: &ProbePlan,
        is_target: bool,
    ) {
        let stands = |c: &ContainerReport| !c.down && !c.is_left_failed();
        state.whole = report.containers.iter().all(stands);
        // A probe asks one container; another may be about to end, and that is found out before it goes live.
        let proves = report.containers.len() > 1 && is_target;
        for container in &report.containers {
            if container.pid.is_none() {
                state.parts.remove(&container.name);
                continue;
            }
            let known = state.parts.get(&container.name);
            let known = known.filter(|part| part.starts == container.starts);
            if known.is_some_and(|part| part.task.is_some()) {
                continue;
            }
            let answered = known.map_or(state.thawed, |part| part.answered);
            let checks = plan.of(&container.name);
            let settles = checks.first.is_empty() && (proves || plan.asks_nothing());
            let prober = Prober {
                engine: Arc::clone(&self.engine),
                bell: self.bell.clone(),
                states: Arc::clone(&self.states),
                checks,
                replica: report.id,
                run: report.run,
                container: container.name.clone(),
                starts: container.starts,
                address,
                settles,
                alone: report.containers.len() > 1,
            };
            // One that has nothing to answer is ready as it runs.
            let answered = answered || prober.checks.first.is_empty() && !settles;
            let task = tokio::spawn(prober.run(answered)).abort_handle();
            let part = Part {
                starts: container.starts,
                answered,
                failing: None,
                alive: false,
                dead: None,
                task: Some(task),
            };
            state.parts.insert(container.name.clone(), part);
        }
        state.thawed = false;
    }

    /// A replica was thawed into `run`: it was ready when it was frozen, so it is at once.
    pub(crate) fn thawed(&self, replica: ReplicaId, run: u64) {
        let state = State {
            run,
            thawed: true,
            whole: true,
            ..State::default()
        };
        lock(&self.states).insert(replica, state);
    }

    /// What is known of a replica in `run`.
    pub(crate) fn verdict(&self, replica: ReplicaId, run: u64) -> Verdict {
        let states = lock(&self.states);
        let state = states.get(&replica).filter(|state| state.run == run);
        state.map_or(Verdict::NotReady, State::verdict)
    }

    /// Why a replica that was ready in `run` is so no more: what was said to a check that fails now.
    pub(crate) fn unready(&self, replica: ReplicaId, run: u64) -> Option<String> {
        let states = lock(&self.states);
        let state = states.get(&replica).filter(|state| state.run == run)?;
        let mut answered = state.parts.values().filter(|part| part.answered);
        answered.find_map(|part| part.failing.clone())
    }

    /// Whether each of the liveness checks of a replica's revision has succeeded in `run`, as far as there are any.
    pub(crate) fn proved_alive(&self, replica: ReplicaId, run: u64, plan: &ProbePlan) -> bool {
        let states = lock(&self.states);
        let state = states.get(&replica).filter(|state| state.run == run);
        let is_alive = |name: &str| {
            let part = state.and_then(|state| state.parts.get(name));
            part.is_some_and(|part| part.alive)
        };
        plan.asked_alive().all(is_alive)
    }

    /// What was said to the liveness check that a replica failed in `run`.
    pub(crate) fn died(&self, replica: ReplicaId, run: u64) -> Option<String> {
        let states = lock(&self.states);
        let state = states.get(&replica).filter(|state| state.run == run)?;
        state.parts.values().find_map(|part| part.dead.clone())
    }

    /// The containers of a replica that were ended for their liveness checks since this was asked last, and what was said to
    /// each.
    pub(crate) fn given_up(&self, replica: ReplicaId) -> Vec<(String, String)> {
        let mut states = lock(&self.states);
        let state = states.get_mut(&replica);
        state.map_or_else(Vec::new, |state| std::mem::take(&mut state.given_up))
    }

    /// What the last attempt on a replica said.
    pub(crate) fn last_answer(&self, replica: ReplicaId) -> Option<Answer> {
        lock(&self.states).get(&replica)?.last_answer.clone()
    }
}

/// Asks one container of a replica, from one start of it on.
struct Prober {
    engine: Arc<dyn Engine>,
    bell: Bell,
    states: States,
    checks: Checks,
    replica: ReplicaId,
    run: u64,
    container: String,
    starts: u32,
    address: IpAddr,
    /// It is ready only after having run for a moment.
    settles: bool,
    /// It ends apart from the others of its replica.
    alone: bool,
}

impl Prober {
    async fn run(self, answered: bool) {
        if !answered {
            for check in &self.checks.first {
                let answers = self.until_it_answers(check);
                match check.patience_ms.map(Duration::from_millis) {
                    // It may as well never answer: then it is ready now.
                    Some(patience) => drop(tokio::time::timeout(patience, answers).await),
                    None => answers.await,
                }
            }
            if self.settles {
                tokio::time::sleep(SETTLED).await;
            }
            self.change(|part| part.answered = true);
        }
        let readiness = self.checks.readiness.iter();
        let readiness = readiness.map(|check| self.watch_readiness(check));
        let liveness = self.checks.liveness.iter();
        let liveness = liveness.map(|check| self.watch_liveness(check));
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
                        ProbeAction::Http { tls: true, .. } if !failed.early => FAST_TLS,
                        ProbeAction::Exec { .. }
                        | ProbeAction::Http { .. }
                        | ProbeAction::Grpc { .. }
                        | ProbeAction::Tcp { .. } => fast,
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn watch_readiness(&self, check: &Check) {
        let (mut good, mut bad) = (0, 0);
        loop {
            tokio::time::sleep(period(check)).await;
            match self.ask(check, Duration::MAX).await {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(failed) => {
                    (good, bad) = (0, bad + 1);
                    if bad >= check.probe.failure_threshold.max(1) {
                        self.change(|part| part.failing = Some(failed.text));
                    }
                }
            }
            if good >= check.probe.success_threshold.max(1) {
                self.change(|part| part.failing = None);
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
                    if bad >= check.probe.failure_threshold.max(1) {
                        // It was to be ended, did not run at that moment, and is well now.
                        self.change(|part| part.failing = None);
                    }
                    (good, bad) = (good + 1, 0);
                    if good == 1 {
                        self.change(|part| part.alive = true);
                    }
                }
                Err(failed) => {
                    bad += 1;
                    if bad >= check.probe.failure_threshold.max(1)
                        && self.give_up(check, failed.text).await
                    {
                        return;
                    }
                }
            }
        }
    }

    /// It failed its liveness check for good: it alone is ended, where others go on, and what follows is its restart
    /// policy's. Else its replica is done for. `false`: it has just ended by itself, so that nothing was given up.
    async fn give_up(&self, check: &Check, said: String) -> bool {
        if self.alone {
            self.change(|part| part.failing = Some(said.clone()));
            let grace_ms = check.probe.stop_grace_ms;
            let ended = self.engine.end(self.replica, &self.container, grace_ms);
            match ended.await {
                Ok(()) => {
                    let mut states = lock(&self.states);
                    if let Some(state) = states.get_mut(&self.replica) {
                        state.given_up.push((self.container.clone(), said));
                    }
                    self.bell.ring();
                    return true;
                }
                Err(EngineError::NotFound(_)) => return false,
                Err(_) if !self.runs_on().await => return false,
                Err(_) => {}
            }
        }
        self.change(|part| part.dead = Some(said));
        true
    }

    /// Whether this start of the container goes on, as far as the engine says.
    async fn runs_on(&self) -> bool {
        let Ok(reports) = self.engine.observe(None).await else {
            return true;
        };
        let report = reports.iter().find(|report| report.id == self.replica);
        let mut containers = report.into_iter().flat_map(|report| &report.containers);
        containers.any(|c| c.name == self.container && c.starts == self.starts && c.pid.is_some())
    }

    async fn ask(&self, check: &Check, connect: Duration) -> Result<(), Failed> {
        let answer = ask::ask(&*self.engine, self.replica, self.address, check, connect).await;
        let text = match (&answer, check.patience_ms) {
            (Ok(text), _) => text.clone(),
            (Err(failed), None) => failed.text.clone(),
            (Err(failed), Some(ms)) => format!(
                "{}; only the image speaks of that port: after {} s without an answer it is taken for ready",
                failed.text,
                ms / 1000
            ),
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

    /// Changes what is known of this start of the container, and rings if that changed what [`Health`] says of it.
    fn change(&self, change: impl FnOnce(&mut Part)) {
        let mut states = lock(&self.states);
        let state = states.get_mut(&self.replica);
        let Some(state) = state.filter(|state| state.run == self.run) else {
            return;
        };
        let before = state.verdict();
        let part = state.parts.get_mut(&self.container);
        if let Some(part) = part.filter(|part| part.starts == self.starts) {
            change(part);
        }
        if state.verdict() != before {
            self.bell.ring();
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
