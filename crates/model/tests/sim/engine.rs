//! The engine of the world: slow, crashing, with good and bad images. An order shows in its facts from the
//! moment when it is accepted.

use layby_model::plan::{Desired, Ended, Replica, Step, Vacancy};
use layby_model::replica::Phase;
use layby_model::spec::RestartPolicy;
use layby_model::{ReplicaId, RevisionId, Wakefulness, plan};

use crate::mutation::Mutation;
use crate::world::{QUIET, World, note};

/// What a revision's image does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    Good,
    /// It never gets ready.
    Hangs,
    /// It ends before it is ready.
    Exits,
    /// It ends before it is ready, or soon after.
    Flaps,
    /// It does its work and ends well, before it was ready.
    Finishes,
    /// It cannot be started at all, and the engine knows.
    Missing,
    /// It moves, and gets ready late until it was live once.
    Slow,
    /// It moves, and never gets ready.
    Talks,
    /// It ends before it is ready while it is tried for the first time.
    Second,
    /// It gets ready, and ends soon after, again and again.
    Dies,
    /// It runs well, and answers its probe only now and then.
    Wavers,
    /// It gets ready, and fails its liveness probe for good soon after, again and again.
    Stalls,
}

/// Ticks that a replica has to be ready for, or its start came to nothing.
const HOLDS: u64 = 40;

/// A replica.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) id: ReplicaId,
    pub(crate) revision: RevisionId,
    pub(crate) phase: Phase,
    /// Ticks until it is ready.
    boot: u64,
    /// When it has got to where it is on its way to.
    due: u64,
    /// It ended unasked since the last order.
    pub(crate) crashed: bool,
    /// How, and when that was.
    pub(crate) ended: Option<Ended>,
    pub(crate) crashed_at: u64,
    /// Its revision's.
    pub(crate) restart: RestartPolicy,
    /// It was ready since its last start, and since when.
    proved: bool,
    ready_since: u64,
    /// It was ready, runs, and does not answer for a while.
    pub(crate) sick: bool,
    /// As control counts them: since its own start.
    pub(crate) failed_starts: u32,
    /// Those of them since it was ready last, and how often it was sick; only for mistakes.
    pub(crate) failed_unready: u32,
    pub(crate) sick_times: u32,
    /// No later try can succeed.
    pub(crate) fatal: bool,
    /// The life of the control plane that made it.
    pub(crate) life: u32,
    pub(crate) address: u32,
}

impl Sandbox {
    /// As the rules see it.
    pub(crate) fn seen(&self) -> Replica {
        let stopped = self.phase == Phase::Stopped;
        Replica {
            id: self.id,
            revision: self.revision,
            phase: self.phase,
            failed_starts: self.failed_starts,
            crashed: self.crashed && stopped,
            ended: self.ended.filter(|_| stopped),
            restart: self.restart,
            unhealthy: self.sick,
            stale: false,
        }
    }

    /// Whether its policy leaves it as it ended: said once more, apart from the rules.
    pub(crate) fn left(&self) -> bool {
        let again = match (self.restart, self.ended) {
            (_, None) | (RestartPolicy::Always, _) => true,
            (RestartPolicy::OnFailure { max_retries }, Some(Ended::Badly)) => {
                self.failed_starts < 2 || max_retries.is_none_or(|max| self.failed_starts <= max)
            }
            (RestartPolicy::Never | RestartPolicy::OnFailure { .. }, Some(_)) => false,
        };
        self.phase == Phase::Stopped && !again
    }

    fn end(&mut self, now: u64, phase: Phase, how: Ended) {
        if plan::depth(self.phase) > Some(Wakefulness::Asleep) && self.phase != Phase::Stopping {
            self.ended = Some(how);
        }
        let runs = matches!(self.phase, Phase::Starting | Phase::Ready);
        let held = self.proved && now - self.ready_since >= HOLDS;
        self.failed_starts = match (runs, held) {
            (true, true) => 0,
            (true, false) => self.failed_starts + 1,
            (false, _) => self.failed_starts,
        };
        self.failed_unready += u32::from(runs && !self.proved);
        self.phase = phase;
        self.sick = false;
        // What lies there already does not end once more.
        self.crashed_at = if self.crashed { self.crashed_at } else { now };
        self.crashed = true;
    }
}

impl World {
    /// Takes an order. `d` is what its giver planned with; `None`: it died meanwhile.
    pub(crate) fn order(&mut self, step: &Step, d: Option<&Desired>) {
        let (id, lowered) = match *step {
            Step::Create(revision) => {
                self.an_attempt_begins_when_it_may(revision, d);
                self.no_more_are_made_than_are_wanted(revision, d);
                self.what_stalls_is_replaced_slowly(revision, d);
                return self.create(revision);
            }
            Step::Start(id) | Step::Thaw(id) => (id, None),
            Step::Freeze(id) => (id, Some(Phase::Freezing)),
            Step::Sleep(id) => (id, Some(Phase::Stopping)),
            Step::Remove(id) => (id, Some(Phase::Removing)),
            Step::GoLive(_)
            | Step::Fail(..)
            | Step::Retry(..)
            | Step::Publish(_)
            | Step::WriteWakefulness(_) => {
                unreachable!("no order for an engine: {step:?}")
            }
        };
        let remove = lowered == Some(Phase::Removing);
        let Some(replica) = self.engine.get(&id) else {
            return; // gone meanwhile
        };
        if replica.phase == Phase::Removing || replica.phase == Phase::Lost && !remove {
            return;
        }
        let mut id = id;
        if remove && self.mistake(Mutation::EngineChooses) {
            let revision = replica.revision;
            let mine = (self.engine.values())
                .filter(|r| r.revision == revision && r.phase != Phase::Removing);
            let mine: Vec<ReplicaId> = mine.map(|r| r.id).collect();
            id = self.rng.choice(&mine);
        }
        let revision = self.engine[&id].revision;
        note!(self, "{step:?} -> replica {} of revision {revision}", id.0);
        if matches!(step, Step::Start(_)) {
            self.a_crash_loop_is_slowed_and_ends(id, d);
            self.what_stays_ended_is_not_started(id, d);
        }
        if remove {
            self.live_stays_while_the_target_does_not_run(id, d);
        }
        if lowered.is_none() {
            self.stop_first_runs_one_revision(d, revision);
        }
        let slow = self.images[&revision] == Image::Slow && self.store.live != Some(revision);
        let boot = match (step, slow) {
            (Step::Thaw(_), _) => 1,
            (_, true) if self.now < QUIET => self.rng.between(20, 50),
            (_, _) => self.rng.between(2, 10),
        };
        let due = self.now + self.rng.between(1, 4);
        let replica = self.engine.get_mut(&id).expect("it was there just now");
        replica.crashed = false;
        replica.sick = false;
        replica.ended = replica.ended.filter(|_| lowered.is_some());
        if lowered.is_some() && replica.proved && replica.phase != Phase::Stopped {
            replica.failed_starts = 0; // it was still there when it was to rest
        }
        replica.proved &= !matches!(step, Step::Start(_));
        match lowered {
            None => (replica.phase, replica.boot) = (Phase::Starting, boot),
            Some(phase) => (replica.phase, replica.due) = (phase, due),
        }
        if lowered.is_some() {
            self.no_routed_replica_is_stopped_or_frozen(id);
            self.no_request_is_cut_before_its_drain_deadline(id);
        }
        if let Some(d) = d
            && d.live == Some(revision)
            && !remove
        {
            let intent = self.ghosts.plan_intent;
            let needless = if lowered.is_none() {
                intent < d.wanted
            } else {
                intent > d.wanted
            };
            self.a_lost_write_costs_one_doze_or_wake(id, needless);
        }
    }

    fn create(&mut self, revision: RevisionId) {
        self.replicas += 1;
        let id = ReplicaId(self.replicas);
        // An address is free again only when its replica is removed.
        let early = self.mistake(Mutation::AddressReused);
        let uses = |r: &&Sandbox| !(early && r.phase == Phase::Lost);
        let used: Vec<u32> = self
            .engine
            .values()
            .filter(uses)
            .map(|r| r.address)
            .collect();
        let address = (0..).find(|a| !used.contains(a)).expect("there are enough");
        self.addresses.insert(id, address);
        let failed_starts = self.fill_place(revision);
        let replica = Sandbox {
            id,
            revision,
            phase: Phase::Stopped,
            boot: 0,
            due: 0,
            crashed: false,
            ended: None,
            crashed_at: 0,
            restart: self.policies[&revision],
            proved: false,
            ready_since: 0,
            sick: false,
            failed_starts,
            failed_unready: failed_starts,
            sick_times: 0,
            fatal: false,
            life: self.lives,
            address,
        };
        self.engine.insert(id, replica);
        note!(self, "replica {} of revision {revision} is made", id.0);
    }

    /// A replica ends by itself, or is never to be started again.
    pub(crate) fn crash(&mut self, id: ReplicaId, phase: Phase) {
        self.end(id, phase, Ended::Badly);
    }

    fn end(&mut self, id: ReplicaId, phase: Phase, how: Ended) {
        let now = self.now;
        let Some(replica) = self.engine.get_mut(&id) else {
            return;
        };
        if plan::depth(replica.phase).is_none() {
            return;
        }
        let before = replica.phase;
        replica.end(now, phase, how);
        let failed = replica.failed_starts;
        self.ghosts.able_since = now;
        self.ghosts.needless.remove(&id); // what it costs now is the crash's
        note!(
            self,
            "replica {} ends {how:?}: {before:?} -> {phase:?}, failed starts {failed}",
            id.0
        );
    }

    /// A replica fails its liveness probe for good: to the rules it is lost, and its place is empty.
    fn die(&mut self, id: ReplicaId) {
        self.crash(id, Phase::Lost);
        let dead = &self.engine[&id];
        let vacancy = Vacancy {
            replica: id,
            revision: dead.revision,
            failed_starts: dead.failed_starts,
        };
        // Nobody else asks.
        if self.control.up {
            self.control.vacancies.push(vacancy);
            self.ghosts.vacated.insert(id, self.now);
        }
    }

    /// The first place of a revision whose pause is over is filled, if there is one.
    fn fill_place(&mut self, revision: RevisionId) -> u32 {
        let over = |v: &Vacancy| v.revision == revision && self.has_rested(v);
        let at = self.control.vacancies.iter().position(over);
        at.map_or(0, |at| self.control.vacancies.remove(at).failed_starts)
    }

    pub(crate) fn engine_tick(&mut self) {
        let now = self.now;
        let late = std::mem::take(&mut self.late_orders);
        for (due, step) in late {
            if due <= now {
                self.order(&step, None);
            } else {
                self.late_orders.push((due, step));
            }
        }
        let all: Vec<ReplicaId> = self.engine.keys().copied().collect();
        for id in all {
            let image = self.images[&self.engine[&id].revision];
            let flaps = image == Image::Flaps && now < QUIET;
            let revision = self.engine[&id].revision;
            let first = self.store.target == Some(revision)
                && self.store.live != Some(revision)
                && self.store.failed_attempts == 0;
            let ends_starting = image == Image::Exits
                || image == Image::Second && first
                || flaps && self.rng.one_in(0.6);
            let dies = image == Image::Dies && now < QUIET;
            let stalls = image == Image::Stalls && now < QUIET && self.rng.one_in(0.25);
            let ends_ready = flaps && self.rng.one_in(0.05) || dies && self.rng.one_in(0.25);
            let replica = self.engine.get_mut(&id).expect("nothing left meanwhile");
            replica.boot = replica.boot.saturating_sub(1);
            match replica.phase {
                Phase::Starting if replica.boot == 0 && image == Image::Missing => {
                    replica.fatal = true;
                    self.crash(id, Phase::Stopped);
                }
                Phase::Starting
                    if replica.boot == 0 && !matches!(image, Image::Hangs | Image::Talks) =>
                {
                    if image == Image::Finishes && !replica.proved {
                        if replica.restart != RestartPolicy::Always {
                            self.ghosts.ever_ready.insert(replica.revision);
                        }
                        self.end(id, Phase::Stopped, Ended::Well);
                    } else if ends_starting && !replica.proved {
                        self.crash(id, Phase::Stopped);
                    } else {
                        if !replica.proved {
                            replica.ready_since = now;
                        }
                        replica.phase = Phase::Ready;
                        replica.proved = true;
                        replica.sick = false;
                        replica.failed_unready = 0;
                        self.ghosts.ever_ready.insert(replica.revision);
                    }
                }
                Phase::Ready if ends_ready => self.crash(id, Phase::Stopped),
                Phase::Ready if stalls => self.die(id),
                Phase::Removing if now >= replica.due => {
                    self.engine.remove(&id);
                    self.ghosts.removed.insert(id);
                }
                Phase::Freezing if now >= replica.due => replica.phase = Phase::Frozen,
                Phase::Stopping if now >= replica.due => replica.phase = Phase::Stopped,
                _ => {}
            }
            let wavers = image == Image::Wavers;
            if self.chance(if wavers { 0.1 } else { 0.003 })
                && self
                    .engine
                    .get(&id)
                    .is_some_and(|r| r.phase == Phase::Ready)
            {
                let boot = self.rng.between(1, if wavers { 4 } else { 60 });
                let replica = self.engine.get_mut(&id).expect("it is there");
                (replica.phase, replica.sick, replica.boot) = (Phase::Starting, true, boot);
                replica.sick_times += 1;
                note!(self, "replica {} is sick for {boot} ticks", id.0);
            }
            if self.chance(0.002) {
                let phase = self.rng.choice(&[Phase::Stopped, Phase::Lost]);
                self.crash(id, phase);
            }
        }
    }
}
