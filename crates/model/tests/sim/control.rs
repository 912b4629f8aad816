//! The control plane of the world: it looks, plans by the rules under test, and acts. It may be killed between
//! any two steps, and while the engine takes an order.

use std::collections::{BTreeMap, VecDeque};

use layby_model::plan::{
    self, Desired, FailReason, GatewayReport, Observed, Replica, Route, Step, Timer, Vacancy,
};
use layby_model::replica::Phase;
use layby_model::route::Version;
use layby_model::state::{Shown, state};
use layby_model::{ReplicaId, Wakefulness};

use crate::engine::Sandbox;
use crate::mutation::Mutation;
use crate::rules::Hints;
use crate::world::{TICK_MS, World, named, note};

/// What the gateway tells.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) confirmed: Version,
    /// The replicas of the confirmed table; only for a mistake.
    pub(crate) confirmed_ids: Vec<ReplicaId>,
    pub(crate) in_flight: BTreeMap<ReplicaId, u32>,
    pub(crate) waiting: u32,
    pub(crate) uses: u64,
}

/// kill -9 between two steps.
pub(crate) struct Killed;

/// One life of the control plane: all of it is lost when it is killed.
pub(crate) struct Control {
    pub(crate) up: bool,
    pub(crate) back: u64,
    pub(crate) wanted: Wakefulness,
    pub(crate) published: Option<Route>,
    base: Version,
    pub(crate) version: Version,
    named: BTreeMap<ReplicaId, Version>,
    since: BTreeMap<Timer, u64>,
    pub(crate) report: Option<Report>,
    /// Reports on their way, and when they are there.
    pub(crate) reports: VecDeque<(u64, Report)>,
    /// A user asked that what stays ended has another try.
    pub(crate) once_more: bool,
    /// The places of replicas that failed their liveness probe.
    pub(crate) vacancies: Vec<Vacancy>,
    /// How often something of a target was seen to move.
    pub(crate) progress: u64,
    /// What was shown last.
    pub(crate) shown: Option<Shown>,
    /// The generation of the row read last; only for a mistake.
    read: u64,
    /// The facts of the last look; only for a mistake.
    seen: Vec<Replica>,
}

impl Control {
    pub(crate) fn new(wanted: Wakefulness, base: Version) -> Self {
        Self {
            up: true,
            back: 0,
            wanted,
            published: None,
            base,
            version: base,
            named: BTreeMap::new(),
            since: BTreeMap::new(),
            report: None,
            reports: VecDeque::new(),
            once_more: false,
            vacancies: Vec::new(),
            progress: 0,
            shown: None,
            read: 0,
            seen: Vec::new(),
        }
    }

    /// A user's order about wakefulness starts idleness anew.
    pub(crate) fn forget_idleness(&mut self) {
        self.since
            .retain(|timer, _| !matches!(timer, Timer::Idle(_)));
    }
}

impl World {
    pub(crate) fn start_control(&mut self) {
        self.lives += 1;
        let again = self.mistake(Mutation::VersionsRestart);
        let base = Version {
            life: if again { 0 } else { self.lives },
            counter: if again {
                self.gateway.confirmed.counter
            } else {
                0
            },
        };
        self.control = Control::new(self.store.wanted, base);
        // Failed starts are counted in memory: a new life counts anew.
        for replica in self.engine.values_mut() {
            (replica.failed_starts, replica.failed_unready) = (0, 0);
        }
        self.rest_anew();
        note!(self, "the control plane starts, life {}", self.lives);
    }

    pub(crate) fn kill_control(&mut self, and_gateway: bool) {
        note!(self, "kill -9 of the control plane");
        self.ghosts.control_killed();
        self.stats.kills += 1;
        let lost_write = self.control.up && self.control.wanted != self.store.wanted;
        self.stats.lost_writes += u64::from(lost_write);
        self.control.up = false;
        self.control.back = self.now + self.rng.between(1, 6);
        self.control.reports.clear();
        if and_gateway || !self.split {
            self.kill_gateway();
        }
    }

    /// The row, but the wakefulness in memory wins over the one in the store.
    pub(crate) fn desired(&mut self) -> Desired {
        let generation = self.store.generation;
        if self.mistake(Mutation::ReloadWakefulness) && self.control.read != generation {
            self.control.wanted = self.store.wanted;
            self.control.read = generation;
        }
        let wanted = self.control.wanted;
        let target_failed = self.store.target_failed && !self.forgets_the_abort();
        Desired {
            wanted,
            target_failed,
            ..self.store.clone()
        }
    }

    fn now_ms(&self) -> u64 {
        if self.mistake(Mutation::WallClock) {
            return (self.wall + 1_000_000) as u64 * TICK_MS;
        }
        self.now * TICK_MS
    }

    /// One look. Keeps the ages of the conditions.
    pub(crate) fn observe(&mut self, d: &Desired) -> Observed {
        let hide = self.mistake(Mutation::ForgetFrozen);
        let lives = self.lives;
        let shown = |phase, life| {
            !(hide && life < lives && matches!(phase, Phase::Frozen | Phase::Stopped))
        };
        let replicas = self.engine.values().filter(|r| shown(r.phase, r.life));
        let mut seen: Vec<Replica> = replicas.map(Sandbox::seen).collect();
        for (told, replica) in seen.iter_mut().zip(self.engine.values()) {
            if self.mistake(Mutation::ReadyForgives) {
                told.failed_starts = replica.failed_unready;
            } else if self.mistake(Mutation::SickCounts) {
                told.failed_starts += replica.sick_times;
            }
        }
        if self.mistake(Mutation::StaleFacts) {
            std::mem::swap(&mut seen, &mut self.control.seen); // older than the last orders
        }
        let early = self.mistake(Mutation::InflightBeforeConfirm);
        let gateway = self.control.report.as_ref().map(|report| GatewayReport {
            confirmed: if early {
                self.gateway.confirmed
            } else {
                report.confirmed
            },
            in_flight: report.in_flight.clone(),
            open: BTreeMap::new(),
            awaited: BTreeMap::new(),
            waiting: report.waiting,
            uses: report.uses,
        });
        let fatal = |r: &Sandbox| r.fatal && Some(r.revision) == d.target;
        let hopeless = self.engine.values().any(fatal);
        let mut o = Observed {
            now_ms: self.now_ms(),
            replicas: seen,
            vacancies: self.control.vacancies.clone(),
            published: self.control.published.clone(),
            base: self.control.base,
            named: self.control.named.clone(),
            gateway,
            hopeless: hopeless.then(|| "the image is missing".to_owned()),
            progress: self.control.progress,
            blocked: self.attempts.blocked.then(|| "another service".to_owned()),
            since: std::mem::take(&mut self.control.since),
        };
        let timers = self.rules.timers(d, &o, &self.hints());
        let before = std::mem::take(&mut o.since);
        if self.mistake(Mutation::DrainNotRestarted) {
            let drains = before
                .iter()
                .filter(|(timer, _)| matches!(timer, Timer::Drain(_)));
            o.since
                .extend(drains.map(|(timer, since)| (*timer, *since)));
        }
        for timer in timers {
            let idle = matches!(timer, Timer::Idle(_));
            let again = idle && self.mistake(Mutation::IdleNeverAges);
            let since = before.get(&timer).filter(|_| !again);
            o.since.insert(timer, *since.unwrap_or(&o.now_ms));
        }
        self.control.since = o.since.clone();
        o
    }

    pub(crate) fn hints(&self) -> Hints {
        let report = self.control.report.as_ref();
        Hints {
            confirmed_ids: report.map(|r| r.confirmed_ids.clone()).unwrap_or_default(),
            deployed_at_ms: self.deployed_at * TICK_MS,
        }
    }

    /// One turn of the service's driver.
    pub(crate) fn turn(&mut self) -> Result<(), Killed> {
        if std::mem::take(&mut self.control.once_more) {
            for replica in self.engine.values_mut().filter(|r| r.left()) {
                replica.ended = None;
                replica.failed_starts = 0;
            }
            let places = &mut self.control.vacancies;
            places.iter_mut().for_each(|v| v.failed_starts = 0);
        }
        let mut d = self.desired();
        self.forget_places(&d);
        self.see_progress();
        let o = self.observe(&d);
        self.spare_the_canary(&d, &o);
        let wanted = self.rules.wakefulness(&d, &o);
        if wanted != d.wanted {
            note!(self, "wanted {wanted}");
            d.wanted = wanted;
            self.control.wanted = wanted;
            self.ghosts.intent = wanted;
        } else if self.now.is_multiple_of(8) {
            self.the_driver_may_sleep_until_due(&d, &o);
        }
        if !(d.enabled && d.rolling()) {
            self.ghosts.given = 0;
            self.attempts.still = 0;
            self.rest_anew(); // switched off, a pause is forgotten: it is kept once more
        }
        self.ghosts.plan_intent = self.ghosts.intent;
        self.control.shown = Some(state(&d, &o));
        let stored = self.store.wanted;
        for step in self.rules.next_steps(&d, &o, stored, &self.hints()) {
            if self.chance(0.006) {
                return Err(Killed);
            }
            if self.chance(0.01) {
                self.user();
            }
            if self.chance(0.01) {
                self.scale_by_load();
            }
            if self.execute(step, &d)? {
                return Ok(()); // a decision was written: look again
            }
        }
        Ok(())
    }

    /// Forgets places that nobody misses.
    fn forget_places(&mut self, d: &Desired) {
        let there = |revision| {
            let mine = self.engine.values().filter(|r| r.revision == revision);
            mine.filter(|r| plan::depth(r.phase).is_some()).count()
        };
        self.control.vacancies.retain(|v| {
            let revision = Some(v.revision);
            let wanted = d.live == revision || d.rolling() && d.target == revision;
            d.enabled && wanted && there(v.revision) < d.replicas as usize
        });
    }

    /// Takes a step; true if it wrote a decision.
    fn execute(&mut self, step: Step, d: &Desired) -> Result<bool, Killed> {
        match step {
            Step::Publish(route) => {
                self.publish(route, d);
                Ok(false)
            }
            Step::GoLive(_) | Step::Fail(..) | Step::Retry(..) | Step::WriteWakefulness(_) => {
                let stale =
                    self.store.generation != d.generation || self.store.replicas != d.replicas;
                if !self.disk() || stale && !self.mistake(Mutation::GoLiveUnchecked) {
                    return Ok(false); // the disk does not answer, or the row has changed
                }
                note!(self, "write {step:?}");
                Ok(self.write(step))
            }
            order => {
                let acts_late = self.mistake(Mutation::PersistBeforeAct);
                if acts_late && self.store.wanted != d.wanted {
                    if self.disk() {
                        self.store.wanted = d.wanted;
                    }
                    return Ok(false);
                }
                self.give(order, d)
            }
        }
    }

    fn publish(&mut self, route: Route, d: &Desired) {
        self.control.version.counter += 1;
        let version = self.control.version;
        self.control.published = Some(route.clone());
        self.control
            .named
            .extend(named(&route).iter().map(|id| (*id, version)));
        note!(self, "publish {version:?}: {route:?}");
        self.start_first_keeps_its_route(d, &route);
        self.nothing_live_is_published_refused(d, &route);
        self.the_canary_gets_its_share(d, &route);
        self.only_the_sick_are_held_briefly(&route);
    }

    fn write(&mut self, step: Step) -> bool {
        match step {
            Step::GoLive(_) => {
                self.no_canary_goes_live_by_itself();
                self.store.live = self.store.target;
                self.store.wanted = Wakefulness::Awake;
                self.control.wanted = Wakefulness::Awake;
                self.ghosts.intent = Wakefulness::Awake;
                self.stats.went_live += 1;
                self.nothing_goes_live_that_was_never_ready();
                true
            }
            Step::Fail(_, reason) => {
                self.store.target_failed = true;
                self.every_attempt_is_made(&reason);
                self.a_ready_target_does_not_fail();
                self.a_crash_loop_is_one(&reason);
                match reason {
                    FailReason::Deadline => {
                        self.stats.failed_late += 1;
                        self.a_deadline_is_given_in_full();
                    }
                    FailReason::Hopeless(_) => self.stats.failed_hopeless += 1,
                    FailReason::CrashLoop => self.stats.failed_looping += 1,
                    FailReason::Ended => self.stats.failed_ended += 1,
                }
                true
            }
            Step::Retry(_, reason) => {
                self.a_ready_target_does_not_fail();
                self.a_crash_loop_is_one(&reason);
                if reason == FailReason::Deadline {
                    self.a_deadline_is_given_in_full();
                }
                self.only_what_may_succeed_is_tried_again(&reason);
                true
            }
            Step::WriteWakefulness(wanted) => {
                self.store.wanted = wanted;
                false
            }
            other => unreachable!("nothing to write: {other:?}"),
        }
    }

    /// Gives the engine an order. Killed while it takes it, the order lands now or never.
    fn give(&mut self, order: Step, d: &Desired) -> Result<bool, Killed> {
        let killed = self.chance(0.01);
        if killed && self.mistake(Mutation::OrdersOutlive) {
            let due = self.now + self.rng.between(8, 16);
            self.late_orders.push((due, order));
        } else if !killed || self.rng.one_in(0.5) {
            self.order(&order, Some(d));
        }
        if killed { Err(Killed) } else { Ok(false) }
    }
}
