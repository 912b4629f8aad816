//! The rules under test, and the mistakes within them.
//!
//! `layby_model::plan` knows nothing of mistakes: here they are made around it, by bending what the real
//! functions are told or what they answer.

use std::collections::BTreeSet;

use layby_model::plan::{
    self, Desired, Ended, FailReason, GatewayReport, Observed, Route, Step, Timer,
};
use layby_model::replica::Phase;
use layby_model::route::Version;
use layby_model::spec::RestartPolicy;
use layby_model::{ReplicaId, RevisionId, Wakefulness};

use crate::mutation::Mutation::{self, *};

/// The rules, with at most one mistake.
#[derive(Clone, Copy)]
pub(crate) struct Rules(pub(crate) Option<Mutation>);

/// What only mistakes look at.
#[derive(Default)]
pub(crate) struct Hints {
    /// The replicas of the table that the gateway has confirmed.
    pub(crate) confirmed_ids: Vec<ReplicaId>,
    /// When the target was deployed, on the scale of `now_ms`.
    pub(crate) deployed_at_ms: u64,
}

const NEVER: Version = Version {
    life: u32::MAX,
    counter: u64::MAX,
};
const NEWEST: Version = Version {
    life: u32::MAX,
    counter: 0,
};

impl Rules {
    pub(crate) fn timers(self, d: &Desired, o: &Observed, hints: &Hints) -> BTreeSet<Timer> {
        let (bent_d, bent_o) = self.bend(d, o);
        let mut timers = plan::timers(&bent_d, &bent_o);
        let drain = |timer: &Timer| matches!(timer, Timer::Drain(_));
        match self.0 {
            Some(FreezeUnconfirmed | DrainFromUnwanted) => {
                timers.extend(plan::timers(d, &all_let_go(o)).into_iter().filter(drain));
            }
            Some(StaleConfirm) => {
                timers.retain(|timer| !drain(timer));
                let drains = plan::timers(d, &let_go_if_absent(o, hints));
                timers.extend(drains.into_iter().filter(drain));
            }
            Some(StopFirstKeepsLive) => {
                let free = |r: RevisionId| o.replicas.iter().all(|x| x.revision == r);
                timers
                    .retain(|timer| !matches!(timer, Timer::Roll(r, _) | Timer::Still(r, _) if d.stop_first && !free(*r)));
            }
            Some(DeadlineWhileBlocked) => timers.extend(rolls(d, o)),
            Some(CanaryAges) if d.enabled && d.rolling() => timers.extend(rolls(d, o)),
            _ => {}
        }
        timers
    }

    pub(crate) fn wakefulness(self, d: &Desired, o: &Observed) -> Wakefulness {
        let waiting = o.gateway.as_ref().is_some_and(|g| g.waiting > 0);
        if self.0 == Some(WakeTarget) && waiting && d.rolling() {
            return d.wanted;
        }
        plan::wakefulness(d, o)
    }

    pub(crate) fn next_steps(
        self,
        d: &Desired,
        o: &Observed,
        stored: Wakefulness,
        hints: &Hints,
    ) -> Vec<Step> {
        let (bent_d, mut bent_o) = self.bend(d, o);
        match self.0 {
            Some(FreezeUnconfirmed) => bent_o = all_let_go(o),
            Some(StaleConfirm) => bent_o = let_go_if_absent(o, hints),
            Some(FreezeInFlight) => {
                bent_o.gateway.iter_mut().for_each(|g| g.in_flight.clear());
            }
            Some(DeadlineFromDeploy) => {
                let roll = d.target.map(|target| Timer::Still(target, o.progress));
                bent_o
                    .since
                    .extend(roll.map(|roll| (roll, hints.deployed_at_ms)));
            }
            Some(BackoffForever) => {
                bent_o
                    .since
                    .retain(|timer, _| !matches!(timer, Timer::Backoff(..)));
            }
            _ => {}
        }
        let steps = plan::next_steps(&bent_d, &bent_o, stored);
        self.twist_rollout(self.twist(steps, d, o), d, o)
    }

    pub(crate) fn next_due(self, d: &Desired, o: &Observed) -> Option<u64> {
        plan::next_due(d, o).filter(|_| self.0 != Some(DueForgotten))
    }

    /// Mistakes in what the rules are told.
    fn bend(self, d: &Desired, o: &Observed) -> (Desired, Observed) {
        let (mut d, mut o) = (d.clone(), o.clone());
        let waiting = o.gateway.as_ref().is_some_and(|g| g.waiting > 0);
        let target = d.target.filter(|_| d.rolling());
        match self.0 {
            Some(NoDrainDeadline) => d.drain_ms = u64::MAX,
            Some(NoDeadline) => (d.deadline_ms, d.deadline_max_ms) = (u64::MAX, u64::MAX),
            Some(RetireOldFirst) => d.stop_first = true,
            Some(StopFirstKeepsLive) => d.stop_first = false,
            Some(StopFirstOverlap) if target.is_none() => d.stop_first = false,
            Some(HopelessRollsOn) => o.hopeless = None,
            Some(KeepNewest) => {
                // What is not among the newest is shown as of a revision that nobody wants.
                for revision in [d.live, d.target].into_iter().flatten() {
                    let mut mine: Vec<_> = (o.replicas.iter_mut())
                        .filter(|r| r.revision == revision && plan::depth(r.phase).is_some())
                        .collect();
                    mine.sort_by_key(|r| std::cmp::Reverse(r.id));
                    for replica in mine.into_iter().skip(d.replicas as usize) {
                        replica.revision = RevisionId(u32::MAX);
                    }
                }
            }
            Some(NeverRestarts) => {
                let never = (o.replicas.iter_mut()).filter(|r| r.restart == RestartPolicy::Never);
                never.for_each(|r| r.restart = RestartPolicy::Always);
            }
            Some(EndedWellRestarts) => {
                let well = (o.replicas.iter_mut())
                    .filter(|r| r.restart != RestartPolicy::Never && r.ended == Some(Ended::Well));
                well.for_each(|r| r.ended = None);
            }
            Some(RetriesUncounted) => {
                for replica in &mut o.replicas {
                    if let RestartPolicy::OnFailure { max_retries } = &mut replica.restart {
                        *max_retries = None;
                    }
                }
            }
            Some(EndedWellFails) => {
                let well = (o.replicas.iter_mut())
                    .filter(|r| r.restart == RestartPolicy::Never && Some(r.revision) == target);
                well.for_each(|r| r.ended = r.ended.map(|_| Ended::Badly));
            }
            Some(BlockedIgnored | DeadlineWhileBlocked) => o.blocked = None,
            Some(LiveLoweredWhileBlocked) if o.blocked.is_some() && d.stop_first => {
                d.live = d.live.filter(|_| target.is_none());
            }
            Some(LiveLoweredInPause) if d.failed_attempts > 0 && d.stop_first => {
                d.live = d.live.filter(|_| target.is_none());
            }
            Some(PauseSkipped) => {
                let pause = target.map(|target| (Timer::Pause(target, d.failed_attempts), 0));
                o.since.extend(pause);
            }
            Some(PauseFlat) if d.failed_attempts > 1 => {
                let pause = Timer::Pause(target.unwrap_or(RevisionId(0)), d.failed_attempts);
                let short_ms = plan::pause_ms(d.failed_attempts) - plan::pause_ms(1);
                o.since
                    .entry(pause)
                    .and_modify(|since| *since = since.saturating_sub(short_ms));
            }
            Some(PauseForever) => {
                o.since
                    .retain(|timer, _| !matches!(timer, Timer::Pause(..)));
            }
            Some(ProgressIgnored) => o.progress = 0,
            Some(HardDeadlineIgnored) => d.deadline_max_ms = u64::MAX,
            Some(CanaryGoesLive) => d.share = None,
            Some(RetriesUnbounded) => d.retries = u32::MAX,
            Some(RetryForgotten) => d.retries = 0,
            Some(CanaryUnready) if d.share.is_some() => {
                let starting = |r: &&mut plan::Replica| {
                    Some(r.revision) == d.target && r.phase == Phase::Starting
                };
                let started = o.replicas.iter_mut().filter(starting);
                started.for_each(|r| r.phase = Phase::Ready);
            }
            Some(BootingIsSick) => o.replicas.iter_mut().for_each(|r| r.unhealthy = true),
            Some(SickIsLost) => {
                let sick = o.replicas.iter_mut().filter(|r| r.unhealthy);
                sick.for_each(|r| r.phase = Phase::Lost);
            }
            Some(SickIsHeld) => o.replicas.iter_mut().for_each(|r| r.unhealthy = false),
            Some(DeadReplacedAtOnce) => o.vacancies.clear(),
            Some(BackoffIgnored) => o.replicas.iter_mut().for_each(|r| r.crashed = false),
            Some(DemandSkipsBackoff) if waiting => {
                o.replicas.iter_mut().for_each(|r| r.crashed = false);
            }
            Some(BackoffFlat) => {
                let others = o.replicas.iter_mut().filter(|r| Some(r.revision) != target);
                others.for_each(|r| r.failed_starts = r.failed_starts.min(1));
            }
            Some(CrashLoopUncounted) => {
                let mine = o.replicas.iter_mut().filter(|r| Some(r.revision) == target);
                mine.for_each(|r| r.failed_starts = r.failed_starts.min(2));
            }
            _ => {}
        }
        (d, o)
    }

    /// Mistakes in what the rules answer.
    fn twist(self, mut steps: Vec<Step>, d: &Desired, o: &Observed) -> Vec<Step> {
        match self.0 {
            Some(RouteWhenDozing) => {
                let awake = Desired {
                    wanted: Wakefulness::Awake,
                    ..d.clone()
                };
                reroute(&mut steps, route(&awake, o), o);
            }
            Some(RefuseNotHold) if d.enabled && d.live.is_some() => {
                let held = route(d, o) == Route::Hold;
                let route = if held { Route::Refuse } else { route(d, o) };
                reroute(&mut steps, route, o);
            }
            Some(EndedIsHeld) if d.enabled && d.live.is_some() => {
                let refused = route(d, o) == Route::Refuse;
                let route = if refused { Route::Hold } else { route(d, o) };
                reroute(&mut steps, route, o);
            }
            Some(EndedRollsOn) => {
                steps.retain(|step| !matches!(step, Step::Fail(_, FailReason::Ended)));
            }
            Some(LiveOnStart) => {
                let mut hasty = o.clone();
                let starting = |r: &&mut plan::Replica| {
                    Some(r.revision) == d.target && r.phase == Phase::Starting
                };
                let started = hasty.replicas.iter_mut().filter(starting);
                started.for_each(|r| r.phase = Phase::Ready);
                let verdict = plan::next_steps(d, &hasty, d.wanted).into_iter().next();
                steps.retain(|step| !is_verdict(step));
                steps.splice(0..0, verdict.filter(is_verdict));
            }
            Some(StopFirstKeepsLive) if d.stop_first => {
                let of = |id: &ReplicaId| {
                    let replica = o.replicas.iter().find(|r| r.id == *id);
                    replica.map(|r| r.revision)
                };
                let free = |rev| o.replicas.iter().all(|r| Some(r.revision) == rev);
                steps.retain(|step| match step {
                    Step::Create(revision) => free(Some(*revision)),
                    Step::Start(id) | Step::Thaw(id) => free(of(id)),
                    _ => true,
                });
            }
            Some(CrashLoopRollsOn) => {
                steps.retain(|step| !matches!(step, Step::Fail(_, FailReason::CrashLoop)));
            }
            Some(FailBeforeLive) => {
                if let Some(Step::GoLive(target)) = steps.first().cloned()
                    && let Some(since) = o.since.get(&Timer::Still(target, o.progress))
                    && o.now_ms - since >= d.deadline_ms
                {
                    steps[0] = Step::Fail(target, FailReason::Deadline);
                }
            }
            _ => {}
        }
        steps
    }
}

impl Rules {
    /// Mistakes in how rollouts end.
    fn twist_rollout(self, mut steps: Vec<Step>, d: &Desired, o: &Observed) -> Vec<Step> {
        match self.0 {
            Some(HopelessIsRetried | EndedIsRetried) if d.failed_attempts < d.retries => {
                for step in &mut steps {
                    let hopeless = self.0 == Some(HopelessIsRetried);
                    *step = match step.clone() {
                        Step::Fail(target, reason @ FailReason::Hopeless(_)) if hopeless => {
                            Step::Retry(target, reason)
                        }
                        Step::Fail(target, FailReason::Ended) if !hopeless => {
                            Step::Retry(target, FailReason::Ended)
                        }
                        other => other,
                    };
                }
            }
            Some(DeadlineWhileBlocked) if o.blocked.is_some() => {
                let begun = o.replicas.iter().any(|r| Some(r.revision) == d.target);
                let waits = |step: &Step| matches!(step, Step::Create(r) if Some(*r) == d.target);
                steps.retain(|step| begun || !waits(step));
            }
            Some(CanaryUnrouted) => {
                let route = match route(d, o) {
                    Route::Serve { live, .. } => Route::Serve {
                        live,
                        canary: Vec::new(),
                    },
                    other => other,
                };
                reroute(&mut steps, route, o);
            }
            _ => {}
        }
        steps
    }
}

/// The timers of a rollout, whatever it is at.
fn rolls(d: &Desired, o: &Observed) -> Vec<Timer> {
    let target = d.target.filter(|_| d.enabled && d.rolling());
    let timers = |target| {
        let attempts = d.failed_attempts;
        [
            Timer::Roll(target, attempts),
            Timer::Still(target, o.progress),
        ]
    };
    target.into_iter().flat_map(timers).collect()
}

fn is_verdict(step: &Step) -> bool {
    matches!(step, Step::GoLive(_) | Step::Fail(..) | Step::Retry(..))
}

/// As if the gateway had let go of every replica.
fn all_let_go(o: &Observed) -> Observed {
    let report = o.gateway.clone().unwrap_or_default();
    let gateway = Some(GatewayReport {
        confirmed: NEWEST,
        ..report
    });
    Observed {
        gateway,
        ..o.clone()
    }
}

/// As if the gateway had let go of every replica that its confirmed table lacks.
fn let_go_if_absent(o: &Observed, hints: &Hints) -> Observed {
    if o.gateway.is_none() {
        return o.clone();
    }
    let mut o = all_let_go(o);
    let named = |id: ReplicaId| {
        let absent = !hints.confirmed_ids.contains(&id);
        if absent { Version::default() } else { NEVER }
    };
    o.named = o.replicas.iter().map(|r| (r.id, named(r.id))).collect();
    o
}

/// The route that the real rules give.
fn route(d: &Desired, o: &Observed) -> Route {
    let unpublished = Observed {
        published: None,
        ..o.clone()
    };
    let steps = plan::next_steps(d, &unpublished, d.wanted);
    let publish = |step| match step {
        Step::Publish(route) => Some(route),
        _ => None,
    };
    let route = steps.into_iter().find_map(publish);
    route.expect("a first route is always published")
}

/// Puts another route into the steps.
fn reroute(steps: &mut Vec<Step>, route: Route, o: &Observed) {
    steps.retain(|step| !matches!(step, Step::Publish(_)));
    let at = steps.iter().take_while(|step| is_verdict(step)).count();
    if o.published.as_ref() != Some(&route) {
        steps.insert(at, Step::Publish(route));
    }
}
