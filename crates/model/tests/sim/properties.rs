//! The properties, one function each, and the ghosts: what only they read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use layby_model::plan::{self, Desired, Ended, Observed, Route, Timer, Vacancy};
use layby_model::replica::Phase;
use layby_model::spec::SleepPolicy;
use layby_model::state::{Showing, state};
use layby_model::{ReplicaId, RevisionId, State, Wakefulness};

use crate::engine::{Image, Sandbox};
use crate::gateway::Request;
use crate::world::{DRAIN, TICK_MS, Violation, World, named};

macro_rules! properties {
    ($($variant:ident: $broken:literal,)*) => {
        /// The properties, each with how it reads when it is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Property {
            $(#[doc = $broken] $variant,)*
        }

        impl Property {
            pub(crate) const ALL: &[Property] = &[$(Property::$variant,)*];

            pub(crate) fn broken(self) -> &'static str {
                match self {
                    $(Property::$variant => $broken,)*
                }
            }
        }
    };
}

properties! {
    RoutedIsLowered: "a routed replica was stopped or frozen",
    CutBeforeDrained: "a request was cut or frozen before its drain deadline",
    SentToAnother: "a request reached another replica",
    SentIntoFrozen: "a request was sent into a frozen replica",
    AnsweredTwice: "a request was answered or sent twice",
    HeldTooLong: "a request was held past its deadline",
    WakingWaits: "a waiting request did not wake the service in time",
    LiveNeverReady: "a revision went live that was never ready",
    RouteLost: "the route was lost while live was awake and ready",
    RefusePublished: "refused although something is live",
    BadImageRolls: "a bad image still rolls long after its deadline",
    FailedEarly: "a target failed before its time",
    FailedReady: "a target failed although it was ready",
    TwoRevisions: "stop-first ran two revisions at once",
    LiveRefused: "refused although something is live and enabled",
    Needless: "a needless doze or wake without a lost write",
    LoopTooFast: "a crash loop was started faster than its backoff",
    FourthStart: "a target was started a fourth time",
    LoopRolls: "a target in a crash loop rolls on",
    LoopInvented: "a target failed for a crash loop that there was not",
    MadeTooMany: "a replica was made although there are as many as are wanted",
    HopelessRolls: "a target without hope rolls on",
    EndedStarted: "what its restart policy leaves as it ended was started",
    EndedHeld: "requests for what has ended were held",
    EndedRolls: "a target that ended badly and stays so rolls on",
    SickHeld: "requests for a sick service were held as if somebody came",
    BootingTurnedAway: "requests were held briefly although live is not sick",
    HopelessRetried: "what cannot succeed was tried again",
    TriedTooOften: "a target was tried more often than it may",
    TriedTooSeldom: "a target that may be tried again was given up",
    PauseTooShort: "an attempt began before its pause was over",
    LiveLowered: "live was lowered while the target does not run",
    BlockedStarts: "a target was started that waits for another service",
    AbortedGoesOn: "a target that was aborted was made again",
    CanaryLive: "a canary went live by itself",
    CanaryStarved: "a canary that is ready did not get its share",
    CanaryWrong: "a share of requests went to what is no canary, or not ready",
    DueWrong: "next_due missed a change, or named none",
    UnsettledState: "did not settle: state",
    UnsettledReplicas: "did not settle: wrong or left-over replicas",
    UnsettledTable: "did not settle: the table was not applied",
    UnsettledSteps: "did not settle: steps left",
    UnsettledIdle: "did not settle: idle but awake",
}

/// Ticks within which a waiting request wakes a service when nothing is in the way.
const WAKE_LIMIT: u64 = 40;
/// Ticks after which a gateway no longer refuses what is live.
const REFUSE_LIMIT: u64 = 30;
/// Ticks that a bad image may roll beyond its deadline and a drain.
const ROLL_SLACK: u64 = 60;
/// Ticks within which a target without hope is given up.
const FAIL_LIMIT: u64 = 20;
/// How long a replica lies after so many failed starts, in milliseconds; the last one stands for all further.
const BACKOFF_MS: [u64; 9] = [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800];

/// What only the properties read.
pub(crate) struct Ghosts {
    /// Replicas that are gone.
    pub(crate) removed: BTreeSet<ReplicaId>,
    /// When the gateway last turned away from a replica.
    pub(crate) withdrawn: BTreeMap<ReplicaId, u64>,
    pub(crate) ever_ready: BTreeSet<RevisionId>,
    /// When a replica failed its liveness probe for good.
    pub(crate) vacated: BTreeMap<ReplicaId, u64>,
    /// Needless dozes and wakes of a replica since it last crashed.
    pub(crate) needless: BTreeMap<ReplicaId, u64>,
    /// The wakefulness that users, demand and idleness asked for last, lost writes or not; and so when planning.
    pub(crate) intent: Wakefulness,
    pub(crate) plan_intent: Wakefulness,
    /// Since when nothing is in the way of waking.
    pub(crate) able_since: u64,
    /// Ticks that the target rolls with all being well, as a canary since it was good last; that something is live,
    /// likewise.
    pub(crate) roll_ticks: u64,
    pub(crate) live_ticks: u64,
    /// Ticks of its deadline that the target was given.
    pub(crate) given: u64,
    /// Ticks in a row that a target in a crash loop, or without hope, was not given up although it could be.
    loop_ticks: u64,
    hopeless_ticks: u64,
    ended_ticks: u64,
    /// Ticks in a row that live has ended for good, and the gateway holds its requests.
    held_ticks: u64,
}

impl Ghosts {
    pub(crate) fn new() -> Self {
        Self {
            removed: BTreeSet::new(),
            withdrawn: BTreeMap::new(),
            ever_ready: BTreeSet::new(),
            vacated: BTreeMap::new(),
            needless: BTreeMap::new(),
            intent: Wakefulness::Awake,
            plan_intent: Wakefulness::Awake,
            able_since: 0,
            roll_ticks: 0,
            live_ticks: 0,
            given: 0,
            loop_ticks: 0,
            hopeless_ticks: 0,
            ended_ticks: 0,
            held_ticks: 0,
        }
    }

    pub(crate) fn deployed(&mut self) {
        self.roll_ticks = 0;
        self.given = 0;
    }

    pub(crate) fn control_killed(&mut self) {
        self.roll_ticks = 0;
        self.given = 0;
    }
}

impl World {
    pub(crate) fn check(&mut self, ok: bool, property: Property, detail: impl Debug) {
        if ok || self.violations.iter().any(|v| v.property == property) {
            return;
        }
        let last = self.log.len().saturating_sub(30);
        self.violations.push(Violation {
            tick: self.now,
            property,
            detail: format!("{detail:?}"),
            log: self.log[last..].to_vec(),
        });
    }

    /// At every order to lower a replica, and for every replica of a table that the gateway turns to.
    pub(crate) fn no_routed_replica_is_stopped_or_frozen(&mut self, id: ReplicaId) {
        let up = |phase| matches!(phase, Phase::Starting | Phase::Ready);
        let lowered = |r: &Sandbox| !r.crashed && !up(r.phase);
        let down = self.engine.get(&id).is_some_and(lowered) || self.ghosts.removed.contains(&id);
        let gateway = &self.gateway;
        let table = if gateway.up {
            &gateway.table
        } else {
            &gateway.disk.0
        };
        let routed = named(table).contains(&id);
        self.check(!(down && routed), Property::RoutedIsLowered, id);
    }

    pub(crate) fn no_request_is_cut_before_its_drain_deadline(&mut self, id: ReplicaId) {
        let flying = self
            .gateway
            .in_flight
            .get(&id)
            .is_some_and(|sent| !sent.is_empty());
        let withdrawn = *self.ghosts.withdrawn.get(&id).unwrap_or(&self.now);
        let early = flying && self.now - withdrawn < DRAIN;
        self.check(!early, Property::CutBeforeDrained, id);
    }

    /// Not a frozen process (it would hang there), nor another replica at the same address.
    pub(crate) fn a_request_reaches_only_what_its_table_names(&mut self, id: ReplicaId) {
        let answers = |r: &&Sandbox| {
            use Phase::{Freezing, Frozen, Ready, Starting};
            r.address == self.addresses[&id]
                && matches!(r.phase, Ready | Starting | Freezing | Frozen)
        };
        let there: Vec<(ReplicaId, Phase)> = self
            .engine
            .values()
            .filter(answers)
            .map(|r| (r.id, r.phase))
            .collect();
        for (other, phase) in there {
            self.check(other == id, Property::SentToAnother, id);
            let awake = plan::depth(phase) == Some(Wakefulness::Awake);
            self.check(awake, Property::SentIntoFrozen, id);
        }
    }

    pub(crate) fn every_request_ends_once_and_in_time(&mut self, request: &Request) {
        let once = request.answers <= 1 && request.sent <= 1;
        self.check(once, Property::AnsweredTwice, request.id);
        let in_time = request.answers > 0 || request.sent > 0 || self.now <= request.deadline;
        self.check(in_time, Property::HeldTooLong, request.id);
    }

    /// For `WAKE_LIMIT` ticks nothing was in the way, and yet the request waits.
    pub(crate) fn waking_does_not_wait(&mut self, request: &Request) {
        let late = self.now - request.arrived.max(self.ghosts.able_since) > WAKE_LIMIT;
        self.check(!late, Property::WakingWaits, request.id);
    }

    pub(crate) fn nothing_goes_live_that_was_never_ready(&mut self) {
        let live = self.store.live;
        let proved = live.is_some_and(|live| self.ghosts.ever_ready.contains(&live));
        self.check(proved, Property::LiveNeverReady, live);
    }

    pub(crate) fn start_first_keeps_its_route(&mut self, d: &Desired, route: &Route) {
        let ready = |r: &Sandbox| Some(r.revision) == d.live && r.phase == Phase::Ready;
        let due = self.engine.values().any(ready)
            && d.enabled
            && d.wanted == Wakefulness::Awake
            && !(d.stop_first && d.rolling());
        let kept = !named(route).is_empty() || !due;
        self.check(kept, Property::RouteLost, route);
    }

    pub(crate) fn nothing_live_is_published_refused(&mut self, d: &Desired, route: &Route) {
        let ended = self.has_ended(d);
        let right = *route != Route::Refuse || !d.enabled || d.live.is_none() || ended;
        self.check(right, Property::RefusePublished, "publish");
    }

    fn a_bad_image_harms_only_until_its_deadline(&mut self) {
        let limit = self.store.deadline_max_ms / TICK_MS + DRAIN + ROLL_SLACK;
        let good = self
            .store
            .target
            .is_some_and(|t| matches!(self.images[&t], Image::Good | Image::Slow | Image::Second));
        let late = self.ghosts.roll_ticks > limit && !good;
        let target = self.store.target;
        self.check(!late, Property::BadImageRolls, target);
    }

    pub(crate) fn a_deadline_is_given_in_full(&mut self) {
        let (given, still) = (self.ghosts.given, self.attempts.still);
        let full = still >= self.store.deadline_ms / TICK_MS
            || given >= self.store.deadline_max_ms / TICK_MS;
        let detail = (self.store.target, given, still);
        self.check(full, Property::FailedEarly, detail);
    }

    pub(crate) fn a_ready_target_does_not_fail(&mut self) {
        let target = self.store.target;
        let good =
            |r: &Sandbox| r.phase == Phase::Ready || r.left() && r.ended == Some(Ended::Well);
        let ready = |r: &&Sandbox| Some(r.revision) == target && good(r);
        let enough = self.engine.values().filter(ready).count() >= self.store.replicas as usize;
        self.check(!enough, Property::FailedReady, target);
    }

    /// As many replicas of live as are wanted ended and are left so, and none is more awake.
    fn has_ended(&self, d: &Desired) -> bool {
        let mine = || {
            let live = d.live;
            self.engine
                .values()
                .filter(move |r| Some(r.revision) == live)
        };
        let up = |r: &Sandbox| plan::depth(r.phase) > Some(Wakefulness::Asleep);
        let left = mine().filter(|r| r.left()).count();
        left >= d.replicas as usize && !mine().any(up)
    }

    /// At every start of a replica.
    pub(crate) fn what_stays_ended_is_not_started(&mut self, id: ReplicaId, d: Option<&Desired>) {
        // One that ended after its giver looked does not count: the order comes from before.
        let seen = d.is_some() && self.engine[&id].left();
        self.check(!seen, Property::EndedStarted, id);
    }

    pub(crate) fn stop_first_runs_one_revision(&mut self, d: Option<&Desired>, rev: RevisionId) {
        let other = |r: &Sandbox| r.revision != rev && r.phase != Phase::Stopped;
        let both = d.is_some_and(|d| d.stop_first) && self.engine.values().any(other);
        self.check(!both, Property::TwoRevisions, rev);
    }

    pub(crate) fn what_is_live_is_never_refused(&mut self) {
        let ticks = self.ghosts.live_ticks;
        self.check(ticks <= REFUSE_LIMIT, Property::LiveRefused, ticks);
    }

    pub(crate) fn a_lost_write_costs_one_doze_or_wake(&mut self, id: ReplicaId, needless: bool) {
        self.stats.needless += u64::from(needless);
        let count = self.ghosts.needless.entry(id).or_default();
        *count += u64::from(needless);
        let bad = needless && *count > self.stats.lost_writes;
        self.check(!bad, Property::Needless, id);
    }

    /// At every start of a replica.
    pub(crate) fn a_crash_loop_is_slowed_and_ends(&mut self, id: ReplicaId, d: Option<&Desired>) {
        let replica = &self.engine[&id];
        let failed = replica.failed_starts as usize;
        if !replica.crashed || failed == 0 {
            return;
        }
        let rested_ms = (self.now - replica.crashed_at) * TICK_MS;
        let early = rested_ms < BACKOFF_MS[failed.min(BACKOFF_MS.len() - 1)];
        let rolls = |d: &Desired| d.rolling() && d.target == Some(replica.revision);
        let again = failed >= 3 && d.is_some_and(rolls);
        self.stats.restarts_after_backoff += 1;
        let detail = (id, failed, rested_ms);
        self.check(!early, Property::LoopTooFast, detail);
        self.check(!again, Property::FourthStart, detail);
    }

    /// At every order to make a replica: of the places that are empty, those whose pause is not over stay so.
    pub(crate) fn what_stalls_is_replaced_slowly(
        &mut self,
        revision: RevisionId,
        d: Option<&Desired>,
    ) {
        let Some(d) = d.filter(|d| d.generation == self.store.generation) else {
            return;
        };
        let mine = self.engine.values().filter(|r| r.revision == revision);
        let there = mine.filter(|r| plan::depth(r.phase).is_some()).count();
        let missing = (d.replicas as usize).saturating_sub(there);
        let places = self.control.vacancies.iter().rev();
        let places = places.filter(|v| v.revision == revision).take(missing);
        let resting = places.filter(|v| !self.has_rested(v)).count();
        self.check(
            resting < missing.max(1),
            Property::LoopTooFast,
            (revision, missing, resting),
        );
    }

    /// Whether the pause of a place is over.
    pub(crate) fn has_rested(&self, vacancy: &Vacancy) -> bool {
        let since = self.ghosts.vacated.get(&vacancy.replica);
        let rested_ms = since.map_or(0, |since| (self.now - since) * TICK_MS);
        let failed = vacancy.failed_starts as usize;
        rested_ms >= BACKOFF_MS[failed.min(BACKOFF_MS.len() - 1)]
    }

    /// At a turn of the driver: between now and `next_due` time alone changes nothing, and then it does.
    pub(crate) fn the_driver_may_sleep_until_due(&mut self, d: &Desired, o: &Observed) {
        let at = |now_ms| {
            let o = Observed {
                now_ms,
                ..o.clone()
            };
            let steps = plan::next_steps(d, &o, d.wanted);
            (plan::wakefulness(d, &o), steps, plan::timers(d, &o))
        };
        let (now, due) = (at(o.now_ms), self.rules.next_due(d, o));
        let last = due.unwrap_or(o.now_ms + 1_000_000); // longer than any length there is
        // The end of a pause may show only when an old revision has left.
        let rested = |due| {
            let mut pauses = o.since.iter();
            pauses.any(|(timer, since)| {
                matches!(timer, Timer::Pause(_, n) if since + plan::pause_ms(*n) == due)
            })
        };
        let changes = |due| at(due) != now || rested(due);
        let right = at(last - 1) == now && due.is_none_or(changes);
        self.check(right, Property::DueWrong, (o.now_ms, due));
    }

    /// The ghosts take a look at the end of every tick.
    pub(crate) fn look(&mut self) {
        let revisions = self.revisions();
        let (store, up) = (&self.store, self.control.up && self.gateway.up);
        let on = store.enabled && store.live.is_some();
        let tried = self.is_tried() && !self.waits();
        let runs = store.rolling() && !self.rests();
        let roll = store.enabled && store.rolling() && tried;
        let unstalled = u64::from(up && self.disk());
        let others = |revision| revisions.iter().any(|r| Some(*r) != revision);
        let of_live = |r: &&Sandbox| Some(r.revision) == store.live;
        let resting = |r: &Sandbox| r.crashed && r.phase == Phase::Stopped && r.failed_starts > 0;
        // Its crash loop is in the way, not the rules.
        let places = &self.control.vacancies;
        let empty = places.iter().any(|v| Some(v.revision) == store.live);
        let looping = empty || self.engine.values().filter(of_live).any(resting);
        let ended = self.has_ended(store);
        let sick = self.engine.values().filter(of_live).any(|r| r.sick);
        if !(up && on)
            || sick
            || store.stop_first && (runs || others(store.live))
            || looping
            || ended
        {
            self.ghosts.able_since = self.now;
        }
        self.stats.ended_live += u64::from(ended && on);
        let waits = store.stop_first && others(store.target);
        let holds = ended && on && !roll && self.gateway.table == Route::Hold;
        let ghosts = &mut self.ghosts;
        ghosts.held_ticks = if holds {
            ghosts.held_ticks + unstalled
        } else {
            0
        };
        let refused = on && !ended;
        ghosts.live_ticks = if refused {
            ghosts.live_ticks + unstalled
        } else {
            0
        };
        ghosts.roll_ticks = if roll {
            ghosts.roll_ticks + unstalled
        } else {
            0
        };
        let deadline_runs = store.rolling() && self.control.up && !waits && tried;
        ghosts.given += u64::from(deadline_runs);

        let of_target = |r: &&Sandbox| Some(r.revision) == store.target;
        let mine = || self.engine.values().filter(of_target);
        let good =
            |r: &&Sandbox| r.phase == Phase::Ready || r.left() && r.ended == Some(Ended::Well);
        let enough = mine().filter(good).count() >= store.replicas as usize;
        let due = roll && unstalled > 0 && !enough;
        let in_loop = due && mine().any(|r| r.failed_starts >= 3);
        let hopeless = due && mine().any(|r| r.fatal);
        let ended = due && mine().any(|r| r.left() && r.ended == Some(Ended::Badly));
        ghosts.ended_ticks = if ended { ghosts.ended_ticks + 1 } else { 0 };
        ghosts.loop_ticks = if in_loop { ghosts.loop_ticks + 1 } else { 0 };
        ghosts.hopeless_ticks = if hopeless {
            ghosts.hopeless_ticks + 1
        } else {
            0
        };
        let (loop_ticks, hopeless_ticks) = (ghosts.loop_ticks, ghosts.hopeless_ticks);
        let (ended_ticks, held_ticks) = (ghosts.ended_ticks, ghosts.held_ticks);
        let (target, live) = (store.target, store.live);
        self.check(held_ticks <= REFUSE_LIMIT, Property::EndedHeld, live);
        self.check(ended_ticks <= FAIL_LIMIT, Property::EndedRolls, target);
        self.check(loop_ticks <= FAIL_LIMIT, Property::LoopRolls, target);
        self.check(
            hopeless_ticks <= FAIL_LIMIT,
            Property::HopelessRolls,
            target,
        );
        self.look_at_rollouts(deadline_runs, unstalled);
        if roll {
            self.a_bad_image_harms_only_until_its_deadline();
        }
    }

    /// At the end, long after the last disturbance.
    pub(crate) fn it_settles(&mut self) {
        let d = self.desired();
        let o = self.observe(&d);
        let shown = state(&d, &o);
        let phase = match shown.wakefulness {
            Some(Showing::Awake) => Some(Phase::Ready),
            Some(Showing::Dozing) => Some(Phase::Frozen),
            Some(Showing::Asleep | Showing::Ended) => Some(Phase::Stopped),
            Some(Showing::Waking | Showing::Unhealthy) | None => None,
        };
        let still = phase.is_some() || matches!(shown.state, State::Disabled | State::Ready);
        let same = self.control.shown == Some(shown);
        self.check(same && still, Property::UnsettledState, shown);
        // What stays ended is one of those that are wanted, wherever the others are.
        let left = |r: &&Sandbox| Some(r.revision) == d.live && r.left();
        let others = self.engine.values().filter(|r| !left(r));
        let is: Vec<_> = others.map(|r| (Some(r.revision), Some(r.phase))).collect();
        let left = self.engine.values().filter(left).count();
        let count = match phase {
            Some(_) => (d.replicas as usize).saturating_sub(left),
            None => 0,
        };
        let right = is == vec![(d.live, phase); count];
        self.check(right, Property::UnsettledReplicas, (shown, is));
        let table = &self.gateway.table;
        let applied = Some(table) == self.control.published.as_ref()
            && self.gateway.confirmed == self.control.version;
        self.check(applied, Property::UnsettledTable, self.control.version);
        let steps = self
            .rules
            .next_steps(&d, &o, self.store.wanted, &self.hints());
        let done = steps.is_empty() && self.store.wanted == self.control.wanted;
        self.check(done, Property::UnsettledSteps, steps);
        let never = SleepPolicy {
            doze_after_ms: None,
            sleep_after_ms: None,
        };
        let awake = shown.wakefulness == Some(Showing::Awake);
        let idle = awake && !self.gateway.busy() && d.ladder != never;
        self.check(!idle, Property::UnsettledIdle, shown);
    }
}
