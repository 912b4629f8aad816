//! What befalls rollouts beside good and bad images: attempts and the pauses between them, progress, canaries, other
//! services to wait for, and live services that fall sick. Ghosts and properties of their own.

use layby_model::plan::{Desired, Ended, FailReason, Observed, Route, pause_ms};
use layby_model::replica::Phase;
use layby_model::share::Share;
use layby_model::{ReplicaId, RevisionId, Wakefulness};

use crate::engine::{Image, Sandbox};
use crate::mutation::Mutation;
use crate::properties::Property;
use crate::world::{END, QUIET, TICK_MS, World, named, note};

/// Ticks that a request for a sick service may be held.
pub(crate) const BRIEF: u64 = 12;
/// Ticks after which the gateway no longer holds requests for a sick service.
const SICK_LIMIT: u64 = 30;

/// What a rollout is at, as only the properties know.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// A replica was made since the last attempt failed, the control plane started, or it saw nothing roll.
    begun: bool,
    /// When that was.
    rests_since: u64,
    /// Ticks of its deadline that the target was given since it was last seen to move.
    pub(crate) still: u64,
    /// Something of the target moved, and the control plane has not seen it yet.
    pub(crate) moved: bool,
    /// The target waits for another service.
    pub(crate) blocked: bool,
    /// A user gave it up.
    pub(crate) aborted: Option<RevisionId>,
    /// Ticks in a row that all of live is sick, and the gateway holds its requests as if somebody came.
    sick_ticks: u64,
}

impl World {
    /// A user makes a revision: how often it is tried, how long it may take, whether it is a canary, and waits.
    pub(crate) fn deploy_with_care(&mut self) {
        let retries = self.rng.weighted(&[(0, 14), (1, 4), (2, 2)]);
        let more = self.rng.choice(&[1, 2]);
        let canary = self.store.live.is_some() && !self.store.stop_first && self.rng.one_in(0.25);
        let store = &mut self.store;
        (store.retries, store.failed_attempts) = (retries, 0);
        // What moves is given longer, but not so long that the world ends before.
        store.deadline_max_ms = store
            .deadline_ms
            .max((store.deadline_ms * more).min(100 * TICK_MS));
        store.share = canary.then_some(Share::Percent(10));
        self.attempts = Attempts {
            blocked: self.rng.one_in(0.15),
            begun: true,
            ..Attempts::default()
        };
        let (blocked, max) = (self.attempts.blocked, self.store.deadline_max_ms / TICK_MS);
        note!(
            self,
            "user: {retries} retries, at most {max} ticks, canary {canary}, blocked {blocked}"
        );
    }

    /// A user decides on the canary.
    pub(crate) fn decide_on_canary(&mut self) {
        if !self.store.rolling() || self.store.share.is_none() {
            return;
        }
        self.store.generation += 1;
        self.store.share = None;
        let promote = self.rng.one_in(0.5);
        if !promote {
            self.store.target_failed = true;
            self.attempts.aborted = self.store.target;
        }
        note!(self, "user: the canary is promoted: {promote}");
    }

    /// Other services come and go, and live falls sick, until the disturbances end.
    pub(crate) fn disturb_rollouts(&mut self) {
        if self.chance(0.02) || self.now >= QUIET {
            self.attempts.blocked = false;
        } else if self.chance(0.003) {
            self.attempts.blocked = true;
        }
        if self.now >= QUIET && self.control.up && self.disk() {
            self.decide_on_canary(); // nobody leaves one for ever
        }
        if self.now == QUIET {
            // Each further attempt takes its time, and its pause.
            let attempts = 0..self.store.retries;
            let ticks = |n| 140 + pause_ms(n + 1) / TICK_MS;
            self.end = END + attempts.map(ticks).sum::<u64>();
        }
    }

    /// At the end of a tick: whether something of the target moves.
    pub(crate) fn move_target(&mut self) {
        let target = self.store.target;
        let moves = |r: &Sandbox| {
            let image = self.images[&r.revision];
            r.phase == Phase::Starting && matches!(image, Image::Slow | Image::Talks)
        };
        let any = (self.engine.values()).any(|r| Some(r.revision) == target && moves(r));
        self.attempts.moved |= any && self.rng.one_in(0.4);
    }

    /// The control plane looks whether something moved.
    pub(crate) fn see_progress(&mut self) {
        if std::mem::take(&mut self.attempts.moved) {
            self.control.progress += 1;
            self.attempts.still = 0;
        }
    }

    /// The target waits for another service, and nothing of it is there.
    pub(crate) fn waits(&self) -> bool {
        let target = self.store.target;
        let begun = self.engine.values().any(|r| Some(r.revision) == target);
        self.attempts.blocked && !begun
    }

    /// An attempt of the target is under way, as far as pauses go.
    pub(crate) fn is_tried(&self) -> bool {
        self.store.failed_attempts == 0 || self.attempts.begun
    }

    /// The target may have no replicas for now: it rests between two attempts, or waits.
    pub(crate) fn rests(&self) -> bool {
        let rested_ms = (self.now - self.attempts.rests_since) * TICK_MS;
        let rests = !self.is_tried() && rested_ms < pause_ms(self.store.failed_attempts);
        rests || self.waits()
    }

    /// The control plane starts, or sees the service switched off: it knows nothing of how long a target rested.
    pub(crate) fn rest_anew(&mut self) {
        self.attempts.begun = false;
        self.attempts.rests_since = self.now;
    }

    /// At the end of a look: a canary that has come good spends no deadline.
    pub(crate) fn spare_the_canary(&mut self, d: &Desired, o: &Observed) {
        let good = |r: &&layby_model::plan::Replica| {
            let ended =
                r.ended == Some(Ended::Well) && self.engine.get(&r.id).is_some_and(Sandbox::left);
            Some(r.revision) == d.target && (r.phase == Phase::Ready || ended)
        };
        let enough = o.replicas.iter().filter(good).count() >= d.replicas as usize;
        if d.share.is_some() && enough {
            self.ghosts.roll_ticks = 0;
            self.ghosts.given = 0;
            self.attempts.still = 0;
        }
    }

    /// At the end of a tick.
    pub(crate) fn look_at_rollouts(&mut self, deadline_runs: bool, unstalled: u64) {
        self.attempts.still += u64::from(deadline_runs);
        let d = &self.store;
        let live = |r: &&Sandbox| Some(r.revision) == d.live && r.phase != Phase::Removing;
        let mine: Vec<&Sandbox> = self.engine.values().filter(live).collect();
        let sick = mine.iter().any(|r| r.sick);
        let all = mine.iter().all(|r| r.sick || r.left()) && mine.len() >= d.replicas as usize;
        let wanted = d.enabled && self.control.wanted == Wakefulness::Awake;
        let rolls = d.stop_first && d.rolling();
        let held = sick && all && wanted && !rolls && self.gateway.table == Route::Hold;
        self.attempts.sick_ticks = match held {
            true => self.attempts.sick_ticks + unstalled,
            false => 0,
        };
        let ticks = self.attempts.sick_ticks;
        self.check(ticks <= SICK_LIMIT, Property::SickHeld, ticks);
    }

    /// At every write that an attempt failed, and gets another.
    pub(crate) fn only_what_may_succeed_is_tried_again(&mut self, reason: &FailReason) {
        let target = self.store.target;
        let may = match reason {
            FailReason::CrashLoop | FailReason::Deadline => true,
            FailReason::Hopeless(_) | FailReason::Ended => false,
        };
        self.check(may, Property::HopelessRetried, target);
        let attempts = self.store.failed_attempts;
        let left = attempts < self.store.retries;
        self.check(left, Property::TriedTooOften, (target, attempts));
        self.store.failed_attempts += 1;
        self.stats.retried += 1;
        self.ghosts.roll_ticks = 0;
        self.ghosts.given = 0;
        self.rest_anew();
    }

    /// At every write that a target failed.
    pub(crate) fn every_attempt_is_made(&mut self, reason: &FailReason) {
        let done = self.store.failed_attempts >= self.store.retries;
        let may = match reason {
            FailReason::CrashLoop | FailReason::Deadline => done,
            FailReason::Hopeless(_) | FailReason::Ended => true,
        };
        self.check(may, Property::TriedTooSeldom, (self.store.target, reason));
    }

    /// At every order to make a replica.
    pub(crate) fn an_attempt_begins_when_it_may(
        &mut self,
        revision: RevisionId,
        d: Option<&Desired>,
    ) {
        let Some(d) = d.filter(|d| d.target == Some(revision) && d.live != Some(revision)) else {
            return;
        };
        let aborted =
            self.attempts.aborted == Some(revision) && self.store.generation == d.generation;
        self.check(!aborted, Property::AbortedGoesOn, revision);
        if d.generation != self.store.generation {
            return; // deployed anew meanwhile
        }
        self.check(!self.waits(), Property::BlockedStarts, revision);
        if d.failed_attempts > 0 && !self.attempts.begun {
            let rested_ms = (self.now - self.attempts.rests_since) * TICK_MS;
            let enough = rested_ms >= pause_ms(d.failed_attempts);
            self.check(enough, Property::PauseTooShort, (revision, rested_ms));
        }
        self.attempts.begun = true;
    }

    /// At every order to make a replica: one that does not answer for a while is none that is missing.
    pub(crate) fn no_more_are_made_than_are_wanted(
        &mut self,
        revision: RevisionId,
        d: Option<&Desired>,
    ) {
        let Some(d) = d.filter(|d| d.generation == self.store.generation) else {
            return;
        };
        let there = |r: &&Sandbox| {
            r.revision == revision && !matches!(r.phase, Phase::Lost | Phase::Removing)
        };
        let there = self.engine.values().filter(there).count();
        let missing = there < d.replicas as usize;
        self.check(missing, Property::MadeTooMany, (revision, there));
    }

    /// At every write that an attempt failed.
    pub(crate) fn a_crash_loop_is_one(&mut self, reason: &FailReason) {
        let target = self.store.target;
        let mine = |r: &&Sandbox| Some(r.revision) == target;
        let loops = self
            .engine
            .values()
            .filter(mine)
            .any(|r| r.failed_starts >= 3);
        let mut places = self.control.vacancies.iter();
        let loops = loops || places.any(|v| Some(v.revision) == target && v.failed_starts >= 3);
        let right = loops || *reason != FailReason::CrashLoop;
        self.check(right, Property::LoopInvented, target);
    }

    /// At every order to remove a replica: while the target rests or waits, live is as if nothing rolled.
    pub(crate) fn live_stays_while_the_target_does_not_run(
        &mut self,
        id: ReplicaId,
        d: Option<&Desired>,
    ) {
        let Some(d) =
            d.filter(|d| d.enabled && d.rolling() && d.generation == self.store.generation)
        else {
            return;
        };
        let rests = self.rests();
        let mine = |r: &&Sandbox| Some(r.revision) == d.live && r.phase != Phase::Lost;
        let live = self.engine.values().filter(mine);
        let of_live = self.engine.get(&id).is_some_and(|r| mine(&r));
        let needed = of_live && live.count() <= d.replicas as usize;
        self.check(!(rests && needed), Property::LiveLowered, id);
    }

    /// At every table that is published.
    pub(crate) fn the_canary_gets_its_share(&mut self, d: &Desired, route: &Route) {
        let (live, canary) = match route {
            Route::Serve { live, canary } => (live.clone(), canary.clone()),
            Route::Refuse | Route::Hold | Route::Unhealthy => return,
        };
        let ready = |r: &Sandbox| Some(r.revision) == d.target && r.phase == Phase::Ready;
        let is_canary = d.share.is_some() && d.rolling() && d.live.is_some() && !d.stop_first;
        // A replica that ends between the look and the table is nobody's mistake.
        let right = |id: &ReplicaId| {
            is_canary
                && self
                    .engine
                    .get(id)
                    .is_none_or(|r| ready(r) || r.crashed || r.sick)
        };
        let ok = canary.iter().all(right);
        let all = self.engine.values().filter(|r| ready(r)).count();
        let starved =
            is_canary && canary.is_empty() && all >= d.replicas as usize && self.is_tried();
        let tables = (live, canary);
        self.check(ok, Property::CanaryWrong, &tables);
        self.check(!starved, Property::CanaryStarved, &tables);
    }

    /// At every table that is published.
    pub(crate) fn only_the_sick_are_held_briefly(&mut self, route: &Route) {
        let live = |r: &&Sandbox| Some(r.revision) == self.store.live;
        let sick = self
            .engine
            .values()
            .filter(live)
            .any(|r| r.sick || r.crashed);
        let right = *route != Route::Unhealthy || sick;
        self.check(right, Property::BootingTurnedAway, named(route));
    }

    /// At every write that a target is live.
    pub(crate) fn no_canary_goes_live_by_itself(&mut self) {
        let alone = self.store.share.is_some();
        self.check(!alone, Property::CanaryLive, self.store.target);
    }

    /// Whether a mistake has an aborted target go on.
    pub(crate) fn forgets_the_abort(&self) -> bool {
        self.mistake(Mutation::AbortedRollsOn) && self.attempts.aborted == self.store.target
    }
}
