//! The five rules that keep one service running: what is wanted and what is seen -> the next steps.
//!
//! Everything here is a pure function of [`Desired`] and [`Observed`]. There is no memory beside
//! [`Observed::since`], which the caller carries from one look to the next by [`timers`]:
//!
//! 1. take `Desired` (its `wanted` from memory, not from the store) and `Observed`;
//! 2. for each of [`timers`] (asked with `since` as of the last look), keep the instant from which it has held without a
//!    break: that is `since`;
//! 3. let [`wakefulness`] replace `Desired::wanted`, in memory;
//! 4. take the [`next_steps`] in their order, and look again after one that wrote a decision;
//! 5. once none is left, sleep until facts or wants change, or until [`next_due`].
//!
//! The rules: (1) *want* says which replicas there are to be and how awake; (2) *route* says who gets requests;
//! (3) *go live* and (4) *fail* end a rollout; (5) *stop or freeze* waits until the gateway has let go.
//! `tests/sim` runs them against a hostile world.

mod terms;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

pub use terms::{
    Desired, Ended, FailReason, GatewayReport, Observed, Replica, Route, Step, Timer, Vacancy,
};

use crate::names::{ReplicaId, RevisionId};
use crate::replica::Phase;
use crate::spec::RestartPolicy;
use crate::state::Wakefulness::{self, Asleep, Awake, Dozing};

/// So many starts in a row that came to nothing are a crash loop; a target in one fails.
pub const CRASH_LOOP_STARTS: u32 = 3;
/// The wait before the start after the first failed one, in milliseconds. It doubles with each further failure.
pub const BACKOFF_MS: u64 = 100;
/// The longest wait between two starts, in milliseconds. A minute, as Docker's: a loop then costs a machine next to
/// nothing, and who waits for what mends itself (a database that is back) waits no longer than a request is held.
/// Kubernetes goes up to 5 minutes.
pub const BACKOFF_MAX_MS: u64 = 60_000;
/// The wait after the first failed attempt of a target, in milliseconds. It triples with each further one.
pub const RETRY_PAUSE_MS: u64 = 5_000;
/// The longest wait between two attempts, in milliseconds.
pub const RETRY_PAUSE_MAX_MS: u64 = 300_000;

/// How awake a replica in this phase is or is becoming; `None`: it is no use any more.
pub fn depth(phase: Phase) -> Option<Wakefulness> {
    match phase {
        Phase::Ready | Phase::Starting => Some(Awake),
        Phase::Frozen | Phase::Freezing => Some(Dozing),
        Phase::Stopped | Phase::Stopping => Some(Asleep),
        Phase::Lost | Phase::Removing => None,
    }
}

/// Whether a replica's restart policy leaves it as it ended. It counts as one of those that are wanted, and nothing
/// starts it but a user's word.
pub fn stays_ended(replica: &Replica) -> bool {
    let Some(ended) = replica.ended.filter(|_| replica.phase == Phase::Stopped) else {
        return false;
    };
    match (replica.restart, ended) {
        (RestartPolicy::Always, Ended::Well | Ended::Badly) => false,
        (RestartPolicy::Never, Ended::Well | Ended::Badly) => true,
        (RestartPolicy::OnFailure { .. }, Ended::Well) => true,
        // One that had held for long is the first of a new row.
        (RestartPolicy::OnFailure { max_retries }, Ended::Badly) => {
            max_retries.is_some_and(|max| replica.failed_starts.max(1) > max)
        }
    }
}

/// Whether all of live's replicas stay ended: nothing more comes of the service unasked.
pub fn has_ended(d: &Desired, o: &Observed) -> bool {
    Plan::new(d, o).has_ended()
}

/// Whether a replica that is to be lowered is left its time, for what goes on there.
pub fn drains(d: &Desired, o: &Observed, replica: &Replica) -> bool {
    Plan::new(d, o).drains(replica)
}

/// The conditions whose age matters and that hold now. One that stops holding starts again at zero.
pub fn timers(d: &Desired, o: &Observed) -> BTreeSet<Timer> {
    let plan = Plan::new(d, o);
    let mut timers = BTreeSet::new();
    // The deadline is not spent while stop-first makes the target wait for the old revision to leave, nor by a canary
    // that has come good.
    if let Some(target) = plan.target()
        && plan.may_start(target)
        && !(plan.share() && plan.is_good(target))
    {
        timers.insert(Timer::Roll(target, d.failed_attempts));
        timers.insert(Timer::Still(target, o.progress));
    }
    if let Some(target) = d.target
        && d.enabled
        && d.rolling()
        && d.failed_attempts > 0
    {
        // What is left of the last attempt would be taken for the next one.
        let left = o.replicas.iter().any(|r| r.revision == target);
        if !left || !is_resting(d, o) {
            timers.insert(Timer::Pause(target, d.failed_attempts));
        }
    }
    // A rollout is a use. So is a request in flight, however long. Before the first report nothing is known.
    if let Some(gateway) = &o.gateway
        && d.enabled
        && d.live.is_some()
        && plan.target().is_none()
        && gateway.waiting == 0
        && gateway.in_flight.values().all(|n| *n == 0)
    {
        timers.insert(Timer::Idle(gateway.uses));
    }
    for replica in &o.replicas {
        if plan.lower(replica).is_some() && plan.let_go(replica) {
            timers.insert(Timer::Drain(replica.id));
        }
        // Whether or not it is wanted: one that crashed before a long sleep need not wait once more.
        if backoff_ms(replica) > 0 {
            timers.insert(Timer::Backoff(replica.id, replica.failed_starts));
        }
    }
    let pauses = o
        .vacancies
        .iter()
        .filter(|v| pause_after(v.failed_starts) > 0);
    timers.extend(pauses.map(|v| Timer::Backoff(v.replica, v.failed_starts)));
    timers
}

/// How awake live is to be now: demand wakes, idleness goes down the ladder.
///
/// Takes the place of `Desired::wanted` in memory, and is acted on at once: the write comes after, so that
/// waking never waits for the disk.
pub fn wakefulness(d: &Desired, o: &Observed) -> Wakefulness {
    if !d.enabled || d.live.is_none() {
        return d.wanted;
    }
    if o.gateway.as_ref().is_some_and(|g| g.waiting > 0) {
        return Awake;
    }
    let uses = o.gateway.as_ref().map_or(0, |g| g.uses);
    let idle = |after: Option<u64>| after.is_some_and(|ms| held(o, Timer::Idle(uses), ms));
    if idle(d.ladder.sleep_after_ms) {
        Asleep
    } else if idle(d.ladder.doze_after_ms) {
        d.wanted.min(Dozing)
    } else {
        d.wanted
    }
}

/// The steps to take now, in this order. `stored_wanted` is what the store says of [`Desired::wanted`].
pub fn next_steps(d: &Desired, o: &Observed, stored_wanted: Wakefulness) -> Vec<Step> {
    let plan = Plan::new(d, o);
    let mut steps = Vec::new();

    // Rules 3 and 4. First of all: what else is planned changes with the decision.
    let verdict = plan.verdict();
    let given_up = given_up(&verdict);
    steps.extend(verdict);

    // Rule 2. Before anything is lowered: the sooner a replica is withdrawn, the sooner it may go.
    let route = plan.route();
    if o.published.as_ref() != Some(&route) {
        steps.push(Step::Publish(route));
    }

    // Rule 1, upwards.
    let mut reached = true;
    for (&revision, &level) in &plan.wants {
        let mine: Vec<&Replica> = plan.kept_of(revision).collect();
        if plan.may_start(revision) && given_up != Some(revision) {
            let resting = plan.vacancies(revision).filter(|v| !is_over(o, v));
            let new = plan.missing(revision) - resting.count();
            steps.extend(std::iter::repeat_n(Step::Create(revision), new));
            for replica in &mine {
                if plan.restarting == Some(replica.id) && replica.phase != Phase::Stopped {
                    continue; // on its way down
                }
                if level == Awake && depth(replica.phase) == Some(Dozing) {
                    steps.push(Step::Thaw(replica.id));
                } else if level > Asleep
                    && replica.phase == Phase::Stopped
                    && !stays_ended(replica)
                    && rested(o, replica)
                {
                    steps.push(Step::Start(replica.id));
                }
            }
        }
        if d.live == Some(revision) {
            let there = |r: &&Replica| depth(r.phase) == Some(level) || stays_ended(r);
            reached = mine.len() == d.replicas as usize && mine.iter().all(there);
        }
    }

    // Rules 1 and 5, downwards.
    for replica in &o.replicas {
        if let Some(step) = plan.lower(replica)
            && plan.let_go(replica)
            && (!plan.drains(replica) || held(o, Timer::Drain(replica.id), d.drain_ms))
        {
            steps.push(step);
        }
    }

    // Last, after the engine has acted: a kill in between costs one needless doze or wake, never a request.
    if d.wanted != stored_wanted && reached {
        steps.push(Step::WriteWakefulness(d.wanted));
    }
    steps
}

/// The `now_ms` at which the passing of time alone next changes what [`wakefulness`], [`next_steps`] or [`timers`] say.
/// `None`: never, as long as no fact and no want changes.
pub fn next_due(d: &Desired, o: &Observed) -> Option<u64> {
    let plan = Plan::new(d, o);
    let holding = timers(d, o);
    let due = |timer: Timer, ms: u64| {
        // One that `since` does not have yet began with a want that changed after `since` was taken.
        let since = *o.since.get(&timer).unwrap_or(&o.now_ms);
        holding.contains(&timer).then(|| since.saturating_add(ms))
    };
    let mut dues = Vec::new();

    let verdict = plan.verdict();
    let given_up = given_up(&verdict);
    if let (None, Some(target)) = (&verdict, plan.target()) {
        dues.push(due(
            Timer::Roll(target, d.failed_attempts),
            d.deadline_max_ms,
        ));
        dues.push(due(Timer::Still(target, o.progress), d.deadline_ms));
    }
    if let Some(target) = d.target
        && is_resting(d, o)
        && !waits(d, o)
    {
        let attempts = d.failed_attempts;
        dues.push(due(Timer::Pause(target, attempts), pause_ms(attempts)));
    }
    let uses = o.gateway.as_ref().map_or(0, |g| g.uses);
    let idle = |after: Option<u64>| due(Timer::Idle(uses), after?);
    let (doze, sleep) = (idle(d.ladder.doze_after_ms), idle(d.ladder.sleep_after_ms));
    if d.wanted > Asleep {
        dues.push(sleep);
    }
    if d.wanted > Dozing && sleep.is_none_or(|sleep| doze < Some(sleep)) {
        dues.push(doze); // one that is asleep by then has no doze to come
    }
    for replica in &o.replicas {
        if plan.lower(replica).is_some() && plan.let_go(replica) && plan.drains(replica) {
            dues.push(due(Timer::Drain(replica.id), d.drain_ms));
        }
    }
    for (&revision, &level) in &plan.wants {
        if !plan.may_start(revision) || given_up == Some(revision) {
            continue;
        }
        let pause = |v: &Vacancy| {
            let timer = Timer::Backoff(v.replica, v.failed_starts);
            due(timer, pause_after(v.failed_starts))
        };
        dues.extend(plan.vacancies(revision).map(pause));
        if level > Asleep {
            let backoff = |r: &Replica| due(Timer::Backoff(r.id, r.failed_starts), backoff_ms(r));
            dues.extend(
                plan.kept_of(revision)
                    .filter(|r| backoff_ms(r) > 0)
                    .map(backoff),
            );
        }
    }
    dues.into_iter()
        .flatten()
        .filter(|due| *due > o.now_ms)
        .min()
}

/// What rule 1 makes of one look: worked out once, asked by all the others.
struct Plan<'a> {
    d: &'a Desired,
    o: &'a Observed,
    /// The revisions that are to have replicas (`d.replicas` each), and how awake.
    wants: BTreeMap<RevisionId, Wakefulness>,
    /// The replicas that fill the wants. Wanted means wanted by id: nobody else chooses which one goes.
    kept: BTreeSet<ReplicaId>,
    /// The target, while it rolls and may.
    target: Option<RevisionId>,
    /// The replica that is stopped to be started again.
    restarting: Option<ReplicaId>,
}

impl<'a> Plan<'a> {
    fn new(d: &'a Desired, o: &'a Observed) -> Self {
        let mut wants = BTreeMap::new();
        let target = underway(d, o);
        // What cannot succeed and has not begun takes nothing from live while its failure is written.
        let begins = target.filter(|_| o.hopeless.is_none() || has_begun(d, o));
        if let Some(live) = d.live
            && d.enabled
            && !(begins.is_some() && d.stop_first)
        {
            wants.insert(live, d.wanted);
        }
        if let Some(target) = begins {
            wants.insert(target, Awake); // it is here to prove that it gets ready
        }
        let mut kept = BTreeSet::new();
        for &revision in wants.keys() {
            let mine = o.replicas.iter().filter(|r| r.revision == revision);
            let mut mine: Vec<_> = mine.filter_map(|r| Some((worth(o, r)?, r.id))).collect();
            mine.sort_unstable();
            kept.extend(mine.into_iter().map(|(_, id)| id).take(d.replicas as usize));
        }
        let mut plan = Self {
            d,
            o,
            wants,
            kept,
            target,
            restarting: None,
        };
        plan.restarting = plan.next_restart();
        plan
    }

    /// Which of live's replicas that are to be restarted is: one at a time, and only while all that are not (any more) are
    /// ready. Those that serve nobody come first, then the oldest.
    fn next_restart(&self) -> Option<ReplicaId> {
        let live = self
            .d
            .live
            .filter(|live| self.wants.get(live) == Some(&Awake))?;
        let (stale, others): (Vec<&Replica>, Vec<&Replica>) =
            self.kept_of(live).partition(|replica| replica.stale);
        // It is down already, and is started next.
        let down = stale
            .iter()
            .filter(|r| matches!(r.phase, Phase::Stopped | Phase::Stopping));
        if let Some(id) = down.map(|r| r.id).min() {
            return Some(id);
        }
        let is_there = |r: &Replica| r.phase == Phase::Ready || stays_ended(r);
        let next = stale.iter().min_by_key(|r| (r.phase == Phase::Ready, r.id));
        next.filter(|_| others.into_iter().all(is_there))
            .map(|r| r.id)
    }

    /// The target, while it rolls and may.
    fn target(&self) -> Option<RevisionId> {
        self.target
    }

    /// The target is a canary.
    fn share(&self) -> bool {
        self.d.share.is_some() && self.d.live.is_some() && !self.d.stop_first
    }

    /// As many replicas of the target as are wanted have come good. Ready counts, not started. So does what was to end,
    /// and ended well.
    fn is_good(&self, target: RevisionId) -> bool {
        let ended = |r: &Replica| stays_ended(r) && r.ended == Some(Ended::Well);
        let mine = self.o.replicas.iter().filter(|r| r.revision == target);
        let good = mine.filter(|r| r.phase == Phase::Ready || ended(r));
        good.count() >= self.d.replicas as usize
    }

    fn kept_of(&self, revision: RevisionId) -> impl Iterator<Item = &'a Replica> {
        let mine = move |r: &&Replica| r.revision == revision && self.kept.contains(&r.id);
        self.o.replicas.iter().filter(mine)
    }

    /// How many replicas of a revision are missing.
    fn missing(&self, revision: RevisionId) -> usize {
        let there = self.kept_of(revision).count();
        (self.d.replicas as usize).saturating_sub(there)
    }

    /// Those of the places of a revision that are empty which are missing: the newest, if there are more.
    fn vacancies(&self, revision: RevisionId) -> impl Iterator<Item = &'a Vacancy> {
        let mine = move |v: &&Vacancy| v.revision == revision;
        let all = self.o.vacancies.iter().rev();
        all.filter(mine).take(self.missing(revision))
    }

    /// Rule 1, stop-first: nothing starts or wakes beside a replica of another revision, not even on the way
    /// back after a failure.
    fn may_start(&self, revision: RevisionId) -> bool {
        !self.d.stop_first || self.o.replicas.iter().all(|r| r.revision == revision)
    }

    /// Rules 3 and 4: whether the rollout ends, and how.
    fn verdict(&self) -> Option<Step> {
        let target = self.target()?;
        let mine = || self.o.replicas.iter().filter(move |r| r.revision == target);
        // It counts first: what has come good in the last moment is good.
        if self.is_good(target) {
            return (!self.share()).then_some(Step::GoLive(target));
        }
        let reason = if let Some(why) = &self.o.hopeless {
            FailReason::Hopeless(why.clone())
        } else if mine().any(|r| r.failed_starts >= CRASH_LOOP_STARTS)
            || (self.vacancies(target)).any(|v| v.failed_starts >= CRASH_LOOP_STARTS)
        {
            FailReason::CrashLoop
        } else if (self.kept_of(target)).any(|r| stays_ended(r) && r.ended == Some(Ended::Badly)) {
            FailReason::Ended
        } else if held(
            self.o,
            Timer::Still(target, self.o.progress),
            self.d.deadline_ms,
        ) || held(
            self.o,
            Timer::Roll(target, self.d.failed_attempts),
            self.d.deadline_max_ms,
        ) {
            FailReason::Deadline
        } else {
            return None;
        };
        let again = match reason {
            FailReason::CrashLoop | FailReason::Deadline => true,
            FailReason::Hopeless(_) | FailReason::Ended => false,
        };
        Some(match again && self.d.failed_attempts < self.d.retries {
            true => Step::Retry(target, reason),
            false => Step::Fail(target, reason),
        })
    }

    /// All of live's replicas are there, and stay ended.
    fn has_ended(&self) -> bool {
        let Some(live) = self.d.live else {
            return false;
        };
        let ended = self.kept_of(live).filter(|r| stays_ended(r)).count();
        ended > 0 && ended == self.d.replicas as usize
    }

    /// Rule 2: the ready replicas of live that are kept and wanted awake. One that is ready but wanted dozing is
    /// about to be frozen. What has ended for good is nobody to wait for.
    fn route(&self) -> Route {
        let Some(live) = self.d.live.filter(|_| self.d.enabled) else {
            // Also between two attempts, and while it waits for another service: it is on its way.
            let coming = self.d.enabled && self.d.rolling();
            return if coming { Route::Hold } else { Route::Refuse };
        };
        let ready = self.ready(live);
        if !ready.is_empty() && self.d.wanted == Awake {
            let canary = self
                .target()
                .filter(|target| self.share() && self.is_good(*target));
            let canary = canary.map(|target| self.ready(target));
            Route::Serve {
                live: ready,
                canary: canary.unwrap_or_default(),
            }
        } else if self.has_ended() && self.target().is_none() {
            Route::Refuse
        } else if self.is_unhealthy() {
            Route::Unhealthy
        } else {
            Route::Hold
        }
    }

    /// The ready ones of a revision's replicas that are kept, the oldest first: the engine's order must make no new table.
    fn ready(&self, revision: RevisionId) -> Vec<ReplicaId> {
        let ready = self.kept_of(revision).filter(|r| r.phase == Phase::Ready);
        let ready = ready.filter(|r| self.restarting != Some(r.id));
        let mut ids: Vec<ReplicaId> = ready.map(|r| r.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Live is wanted awake, all of its replicas run, and none answers its probe any more: nothing is on its way that
    /// would be worth waiting for.
    fn is_unhealthy(&self) -> bool {
        let Some(live) = self
            .d
            .live
            .filter(|live| self.wants.get(live) == Some(&Awake))
        else {
            return false;
        };
        let fails = |r: &&Replica| r.phase == Phase::Starting && r.unhealthy;
        let (failing, left): (Vec<&Replica>, Vec<&Replica>) = self.kept_of(live).partition(fails);
        let left = left.into_iter().filter(|r| stays_ended(r)).count();
        !failing.is_empty() && failing.len() + left == self.d.replicas as usize
    }

    /// The step that takes a replica down to what is wanted of it; `None`: it is there.
    fn lower(&self, replica: &Replica) -> Option<Step> {
        let id = replica.id;
        if replica.phase == Phase::Removing {
            return None;
        }
        let level = self
            .wants
            .get(&replica.revision)
            .filter(|_| self.kept.contains(&id));
        let restarts = self.restarting == Some(id) && depth(replica.phase) > Some(Asleep);
        match level {
            None => Some(Step::Remove(id)),
            Some(_) if restarts => Some(Step::Sleep(id)),
            Some(Asleep) if depth(replica.phase) > Some(Asleep) => Some(Step::Sleep(id)),
            // A starting one gets ready first: frozen half-way, its boot would be paid by the next request.
            Some(Dozing) if replica.phase == Phase::Ready => Some(Step::Freeze(id)),
            Some(Asleep | Dozing | Awake) => None,
        }
    }

    /// Rule 5: whether a replica that is to be lowered is left its time. For requests in flight it is, also on connections that
    /// speak no HTTP as far as anybody knows; and one that goes, or restarts while others serve, for connections that are open
    /// and may be quiet, too. Those of a replica that only rests outlive a doze; those of a service that is switched off lead
    /// nowhere; and under stop-first the next revision would wait for them, as requests would for the only replica.
    fn drains(&self, replica: &Replica) -> bool {
        let Some(gateway) = &self.o.gateway else {
            return false;
        };
        let some = |counts: &BTreeMap<ReplicaId, u32>| counts.get(&replica.id) > Some(&0);
        let runs = matches!(replica.phase, Phase::Ready | Phase::Starting);
        let goes = || !self.d.stop_first && self.lower(replica) == Some(Step::Remove(replica.id));
        let others_serve = || self.d.live.is_some_and(|live| !self.ready(live).is_empty());
        let restarts = || self.restarting == Some(replica.id) && others_serve();
        some(&gateway.in_flight)
            || (some(&gateway.awaited) && runs)
            || (some(&gateway.open) && runs && self.d.enabled && (goes() || restarts()))
    }

    /// Rule 5: the gateway has confirmed a table newer than the last one that named the replica. A table that
    /// merely lacks it proves nothing: an older one that names it may still be on its way.
    fn let_go(&self, replica: &Replica) -> bool {
        let named = self.o.named.get(&replica.id).unwrap_or(&self.o.base);
        self.o
            .gateway
            .as_ref()
            .is_some_and(|g| g.confirmed > *named)
    }
}

/// The target whose failure waits only for being written: nothing of it is started any more.
fn given_up(verdict: &Option<Step>) -> Option<RevisionId> {
    match verdict {
        Some(Step::Fail(target, _) | Step::Retry(target, _)) => Some(*target),
        _ => None,
    }
}

/// The target, while it rolls and may have replicas: not between two attempts, and not while it waits for another
/// service. What has begun goes on.
fn underway(d: &Desired, o: &Observed) -> Option<RevisionId> {
    let target = d.target.filter(|_| d.enabled && d.rolling())?;
    (!waits(d, o) && !is_resting(d, o)).then_some(target)
}

/// The target waits for another service, and nothing of it is there yet.
fn waits(d: &Desired, o: &Observed) -> bool {
    o.blocked.is_some() && !has_begun(d, o)
}

/// Something of the target is there.
fn has_begun(d: &Desired, o: &Observed) -> bool {
    o.replicas.iter().any(|r| Some(r.revision) == d.target)
}

/// Whether the target rolls, and rests between two attempts.
pub fn is_resting(d: &Desired, o: &Observed) -> bool {
    let attempts = d.failed_attempts;
    let rested = |target| held(o, Timer::Pause(target, attempts), pause_ms(attempts));
    let target = d.target.filter(|_| d.enabled && d.rolling());
    attempts > 0 && target.is_some_and(|target| !rested(target))
}

/// How long a target rests after so many failed attempts, in milliseconds: what it failed for may have passed by then.
pub fn pause_ms(failed_attempts: u32) -> u64 {
    match failed_attempts {
        0 => 0,
        n => RETRY_PAUSE_MS
            .saturating_mul(3_u64.saturating_pow(n - 1))
            .min(RETRY_PAUSE_MAX_MS),
    }
}

/// Whether live is unhealthy: its replicas run, none answers its probe any more, and none is on its way.
pub fn is_unhealthy(d: &Desired, o: &Observed) -> bool {
    Plan::new(d, o).is_unhealthy()
}

/// By what replicas are kept, the best first: the most awake, since that costs the least to make ready; then those that are in
/// the table, or whoever was chosen to go would be another one at each look; then the busiest, since what it does would have
/// to be waited for; and the oldest, since it has proved itself.
fn worth(o: &Observed, replica: &Replica) -> Option<(u8, bool, Reverse<u32>)> {
    let is_out = |route: &Route| route.named().all(|id| id != replica.id);
    let gateway = o.gateway.as_ref();
    let count = |of: &BTreeMap<ReplicaId, u32>| of.get(&replica.id).copied().unwrap_or(0);
    let busy = gateway.map_or(0, |g| count(&g.in_flight).saturating_add(count(&g.open)));
    let is_out = o.published.as_ref().is_some_and(is_out);
    Some((rank(replica.phase)?, is_out, Reverse(busy)))
}

/// The most awake first, and within that what is there before what is on its way.
fn rank(phase: Phase) -> Option<u8> {
    match phase {
        Phase::Ready => Some(0),
        Phase::Starting => Some(1),
        Phase::Frozen => Some(2),
        Phase::Freezing => Some(3),
        Phase::Stopped => Some(4),
        Phase::Stopping => Some(5),
        Phase::Lost | Phase::Removing => None,
    }
}

/// Whether a condition has held for so many milliseconds.
fn held(o: &Observed, timer: Timer, ms: u64) -> bool {
    o.since
        .get(&timer)
        .is_some_and(|since| o.now_ms.saturating_sub(*since) >= ms)
}

/// How long a replica lies where it crashed before it is started again, in milliseconds. At once when it had
/// been ready for a while: most crashes are single. Then longer and longer, so that a loop does not eat the machine.
pub fn backoff_ms(replica: &Replica) -> u64 {
    let lies = replica.crashed && replica.phase == Phase::Stopped && !stays_ended(replica);
    if !lies {
        return 0;
    }
    pause_after(replica.failed_starts)
}

/// The pause before the next start after so many failed ones in a row, in milliseconds.
pub fn pause_after(failed_starts: u32) -> u64 {
    match failed_starts {
        0 => 0,
        n => (BACKOFF_MS << (n - 1).min(16)).min(BACKOFF_MAX_MS),
    }
}

/// Whether a place may be filled as far as those go who had it.
pub fn is_over(o: &Observed, vacancy: &Vacancy) -> bool {
    let pause_ms = pause_after(vacancy.failed_starts);
    let timer = Timer::Backoff(vacancy.replica, vacancy.failed_starts);
    pause_ms == 0 || held(o, timer, pause_ms)
}

/// Whether a replica may be started as far as its crashes go. Demand does not shorten the wait.
fn rested(o: &Observed, replica: &Replica) -> bool {
    let backoff_ms = backoff_ms(replica);
    backoff_ms == 0
        || held(
            o,
            Timer::Backoff(replica.id, replica.failed_starts),
            backoff_ms,
        )
}

#[cfg(test)]
mod tests;
