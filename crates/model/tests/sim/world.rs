//! The hostile world: users, a stalling disk, clock steps, kill -9 and machine restarts. Time goes in ticks.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::plan::{Desired, Route, Step};
use layby_model::route::Version;
use layby_model::spec::{RestartPolicy, SleepPolicy};
use layby_model::{ReplicaId, RevisionId, Wakefulness};

use crate::control::Control;
use crate::engine::{Image, Sandbox};
use crate::gateway::Gateway;
use crate::mutation::Mutation;
use crate::properties::{Ghosts, Property};
use crate::rng::Rng;
use crate::rollouts::Attempts;
use crate::rules::Rules;

/// So long is a tick for the rules, in milliseconds.
pub(crate) const TICK_MS: u64 = 50;
/// Ticks of a drain.
pub(crate) const DRAIN: u64 = 20;
/// The tick when disturbances end: from then on all has to settle.
pub(crate) const QUIET: u64 = 260;
/// The tick when the run ends, unless further attempts of a rollout take longer.
pub(crate) const END: u64 = 620;

/// Writes a line into the world's log, if it keeps one.
macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        if $world.logging {
            let line = format!("{:4} {}", $world.now, format_args!($($words)*));
            $world.log.push(line);
        }
    };
}
pub(crate) use note;

/// A property that did not hold.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) tick: u64,
    pub(crate) property: Property,
    pub(crate) detail: String,
    pub(crate) log: Vec<String>,
}

/// How often what happened.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Stats {
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) expired: u64,
    pub(crate) broken: u64,
    pub(crate) kills: u64,
    pub(crate) lost_writes: u64,
    pub(crate) needless: u64,
    pub(crate) went_live: u64,
    pub(crate) failed_late: u64,
    pub(crate) failed_hopeless: u64,
    pub(crate) failed_looping: u64,
    pub(crate) restarts_after_backoff: u64,
    pub(crate) ended_live: u64,
    pub(crate) failed_ended: u64,
    pub(crate) retried: u64,
    pub(crate) refused_sick: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, more: &Stats) {
        self.answered += more.answered;
        self.refused += more.refused;
        self.expired += more.expired;
        self.broken += more.broken;
        self.kills += more.kills;
        self.lost_writes += more.lost_writes;
        self.needless += more.needless;
        self.went_live += more.went_live;
        self.failed_late += more.failed_late;
        self.failed_hopeless += more.failed_hopeless;
        self.failed_looping += more.failed_looping;
        self.restarts_after_backoff += more.restarts_after_backoff;
        self.ended_live += more.ended_live;
        self.failed_ended += more.failed_ended;
        self.retried += more.retried;
        self.refused_sick += more.refused_sick;
    }
}

/// All there is, seen by nobody but the properties.
pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    /// The wall clock, in ticks: it is set forwards and back.
    pub(crate) wall: i64,
    pub(crate) stalled_until: u64,
    /// Gateway and control plane are two processes, which die apart.
    pub(crate) split: bool,
    busy: f64,
    /// When the run ends.
    pub(crate) end: u64,
    pub(crate) traffic: bool,
    pub(crate) lives: u32,
    revisions: u32,
    pub(crate) replicas: u64,
    /// The store: one row.
    pub(crate) store: Desired,
    pub(crate) deployed_at: u64,
    pub(crate) engine: BTreeMap<ReplicaId, Sandbox>,
    /// Which address a replica has or had.
    pub(crate) addresses: BTreeMap<ReplicaId, u32>,
    pub(crate) images: BTreeMap<RevisionId, Image>,
    pub(crate) policies: BTreeMap<RevisionId, RestartPolicy>,
    pub(crate) late_orders: Vec<(u64, Step)>,
    pub(crate) control: Control,
    pub(crate) gateway: Gateway,
    pub(crate) ghosts: Ghosts,
    pub(crate) attempts: Attempts,
    pub(crate) stats: Stats,
    pub(crate) logging: bool,
    pub(crate) log: Vec<String>,
    pub(crate) violations: Vec<Violation>,
}

impl World {
    /// Runs a world from its beginning to its end.
    pub(crate) fn run(seed: u64, mutation: Option<Mutation>, logging: bool) -> World {
        let mut world = World::new(seed, mutation, logging);
        while world.now + 1 < world.end {
            world.tick();
            world.now += 1;
        }
        world.tick();
        world.it_settles();
        world
    }

    fn new(seed: u64, mutation: Option<Mutation>, logging: bool) -> World {
        let mut rng = Rng::new(seed);
        let split = rng.one_in(0.5);
        let busy = rng.choice(&[0.2, 1.0, 2.0]);
        let ms = |ticks: Option<u64>| ticks.map(|ticks| ticks * TICK_MS);
        let ladders = [
            (None, None),
            (Some(10), None),
            (Some(10), Some(22)),
            (None, Some(12)),
        ];
        let (doze, sleep) = rng.choice(&ladders);
        let store = Desired {
            enabled: true,
            target: None,
            live: None,
            target_failed: false,
            retries: 0,
            failed_attempts: 0,
            deadline_ms: 0,
            deadline_max_ms: 0,
            share: None,
            stop_first: false,
            replicas: 1,
            wanted: Wakefulness::Awake,
            ladder: SleepPolicy {
                doze_after_ms: ms(doze),
                sleep_after_ms: ms(sleep),
            },
            drain_ms: DRAIN * TICK_MS,
            generation: 0,
        };
        let mut world = World {
            rules: Rules(mutation),
            rng,
            now: 0,
            wall: 0,
            stalled_until: 0,
            split,
            busy,
            end: END,
            traffic: true,
            lives: 0,
            revisions: 0,
            replicas: 0,
            store,
            deployed_at: 0,
            engine: BTreeMap::new(),
            addresses: BTreeMap::new(),
            images: BTreeMap::new(),
            policies: BTreeMap::new(),
            late_orders: Vec::new(),
            control: Control::new(Wakefulness::Awake, Version::default()),
            gateway: Gateway::new(),
            ghosts: Ghosts::new(),
            attempts: Attempts::default(),
            stats: Stats::default(),
            logging,
            log: Vec::new(),
            violations: Vec::new(),
        };
        world.start_control();
        world
    }

    /// Whether this mistake is made here.
    pub(crate) fn mistake(&self, mutation: Mutation) -> bool {
        self.rules.0 == Some(mutation)
    }

    /// A disturbance happens, with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.now < QUIET && self.rng.one_in(probability)
    }

    /// The disk answers.
    pub(crate) fn disk(&self) -> bool {
        self.now >= self.stalled_until
    }

    /// The revisions of which there are replicas.
    pub(crate) fn revisions(&self) -> BTreeSet<RevisionId> {
        self.engine.values().map(|r| r.revision).collect()
    }

    fn tick(&mut self) {
        self.wall += 1;
        if self.chance(0.005) {
            self.wall += self.rng.choice(&[-1000, -30, 30, 1000]);
        }
        if self.chance(0.006) && self.disk() {
            self.stalled_until = (self.now + self.rng.between(5, 90)).min(QUIET);
            note!(self, "the disk stalls until {}", self.stalled_until);
        }
        if self.chance(0.04 * self.busy) || self.now == 1 {
            self.user();
        }
        if self.chance(0.03 * self.busy) {
            self.scale_by_load();
        }
        self.disturb_rollouts();
        if self.chance(0.004) && self.control.up {
            self.kill_control(false);
        }
        if self.chance(0.003) && self.split && self.gateway.up {
            self.kill_gateway();
        }
        if self.chance(0.001) {
            note!(self, "the machine restarts");
            self.kill_control(true);
            let all: Vec<ReplicaId> = self.engine.keys().copied().collect();
            for id in all {
                self.crash(id, layby_model::replica::Phase::Stopped);
            }
        }
        if !self.control.up && self.now >= self.control.back && self.disk() {
            self.start_control();
        }
        if self.control.up && self.rng.one_in(0.8) && self.turn().is_err() {
            self.kill_control(false);
        }
        self.engine_tick();
        self.move_target();
        self.gateway_tick();
        self.look();
    }

    /// A user changes the row.
    pub(crate) fn user(&mut self) {
        if !self.control.up || !self.disk() {
            return;
        }
        #[derive(Debug, Clone, Copy)]
        enum Wish {
            Deploy,
            Scale,
            Switch,
            Sleep,
            Wake,
            Canary,
        }
        self.store.generation += 1;
        let switch = if self.store.enabled { 1 } else { 9 };
        let wishes = [
            (Wish::Deploy, 7),
            (Wish::Scale, 3),
            (Wish::Switch, switch),
            (Wish::Sleep, 2),
            (Wish::Wake, 1),
            (Wish::Canary, 2),
        ];
        let wish = self.rng.weighted(&wishes);
        match wish {
            Wish::Deploy => self.deploy(), // a rollback is a deploy too
            Wish::Scale => self.store.replicas = self.rng.between(1, 3) as u32,
            Wish::Switch => {
                self.store.enabled = !self.store.enabled;
                self.ghosts.live_ticks = 0;
                self.ghosts.roll_ticks = 0; // the deadline counts only while enabled
                self.ghosts.able_since = self.now;
            }
            Wish::Sleep | Wish::Wake if self.store.live.is_none() => {}
            Wish::Sleep => {
                let ladder = self.store.ladder;
                let doze = ladder.doze_after_ms.map(|_| Wakefulness::Dozing);
                let sleep = ladder.sleep_after_ms.map(|_| Wakefulness::Asleep);
                let mut down: Vec<Wakefulness> = doze.into_iter().chain(sleep).collect();
                if down.is_empty() {
                    down.push(Wakefulness::Asleep);
                }
                let level = self.rng.choice(&down);
                self.order_wakefulness(level);
            }
            Wish::Wake => self.order_wakefulness(Wakefulness::Awake),
            Wish::Canary => self.decide_on_canary(),
        }
        let (replicas, enabled) = (self.store.replicas, self.store.enabled);
        note!(
            self,
            "user: {wish:?}, replicas {replicas}, enabled {enabled}"
        );
    }

    /// What it has to do takes another number of replicas: no change of a user's, so that the generation stays.
    pub(crate) fn scale_by_load(&mut self) {
        if !self.control.up || !self.disk() || !self.store.enabled {
            return;
        }
        let replicas = self.rng.between(1, 3) as u32;
        note!(self, "scaled from {} to {replicas}", self.store.replicas);
        self.store.replicas = replicas;
    }

    fn deploy(&mut self) {
        self.revisions += 1;
        let revision = RevisionId(self.revisions);
        let images = [
            (Image::Good, 28),
            (Image::Hangs, 8),
            (Image::Exits, 4),
            (Image::Flaps, 4),
            (Image::Finishes, 3),
            (Image::Missing, 1),
            (Image::Slow, 3),
            (Image::Talks, 3),
            (Image::Second, 3),
            (Image::Dies, 3),
            (Image::Wavers, 3),
            (Image::Stalls, 3),
        ];
        let image = self.rng.weighted(&images);
        self.images.insert(revision, image);
        let on_failure = |max_retries| RestartPolicy::OnFailure { max_retries };
        let policies = [
            (RestartPolicy::Always, 8),
            (on_failure(None), 2),
            (on_failure(Some(2)), 2),
            (RestartPolicy::Never, 2),
        ];
        let policy = self.rng.weighted(&policies);
        self.policies.insert(revision, policy);
        self.store.target = Some(revision);
        self.store.target_failed = false;
        self.store.stop_first = self.rng.one_in(0.3);
        let (short, long) = (self.rng.between(15, 40), self.rng.between(70, 110));
        self.store.deadline_ms = self.rng.choice(&[short, long]) * TICK_MS;
        self.deploy_with_care();
        self.deployed_at = self.now;
        self.ghosts.deployed();
        let strategy = if self.store.stop_first {
            "stop-first"
        } else {
            "start-first"
        };
        note!(
            self,
            "user: revision {revision}, image {image:?}, {strategy}, {policy:?}"
        );
    }

    fn order_wakefulness(&mut self, level: Wakefulness) {
        self.control.once_more = level == Wakefulness::Awake;
        self.store.wanted = level;
        self.control.wanted = level;
        self.control.forget_idleness();
        self.ghosts.intent = level;
        self.ghosts.able_since = self.now;
    }
}

/// The replicas that a route names.
pub(crate) fn named(route: &Route) -> Vec<ReplicaId> {
    route.named().collect()
}
