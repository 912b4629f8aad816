//! Acting: steps become orders to the engine, tables for the gateway, and decisions to write.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::engine::{EngineError, Workload};
use layby_model::network::Networks;
use layby_model::options::NetworkMode;
use layby_model::plan::{self, Desired, Observed, Route, Step, Vacancy, depth};
use layby_model::replica::Phase;
use layby_model::route::{Canary, Limits, Mode, ServiceRoute, Upstream};
use layby_model::spec::ServiceSpec;
use layby_model::{ReplicaId, RevisionId, Wakefulness};

use super::boot::Boot;
use super::look::shown_spec;
use super::{Driver, STUCK_PAUSE_MS, Trouble};
use crate::addresses;
use crate::names::{self, Named};
use crate::store::Decision;
use crate::tables::Entry;

/// Orders of one turn, by the revision of their replicas.
#[derive(Default)]
struct Orders(BTreeMap<RevisionId, Order>);

#[derive(Default)]
struct Order {
    replicas: BTreeMap<ReplicaId, Wakefulness>,
    retire: Vec<ReplicaId>,
}

impl Driver {
    /// Does the steps. `true`: something changed by it, so look again at once.
    pub(super) async fn act(&mut self, d: &Desired, o: &Observed, steps: Vec<Step>) -> bool {
        let mut orders = Orders::default();
        let mut made = Vec::new();
        let revision = |id: ReplicaId| o.replicas.iter().find(|r| r.id == id).map(|r| r.revision);
        let mut published = false;
        for step in steps {
            let (replica, level) = match step {
                Step::GoLive(revision) => {
                    let boot_ms = self.boot.and_then(|boot| boot.of(revision)?.took_ms);
                    self.decide(d, Decision::GoLive { revision, boot_ms });
                    continue;
                }
                Step::Fail(target, reason) => {
                    self.decide_failure(d, o, target, reason, false);
                    continue;
                }
                Step::Retry(target, reason) => {
                    self.decide_failure(d, o, target, reason, true);
                    continue;
                }
                Step::WriteWakefulness(wanted) => {
                    self.decide(d, Decision::Wakefulness(wanted));
                    continue;
                }
                Step::Publish(route) => {
                    self.route = Some(route);
                    self.publish();
                    published = true;
                    continue;
                }
                Step::Create(revision) => {
                    if d.target == Some(revision) && d.rolling() {
                        self.boot = Some(Boot::begin(
                            self.boot,
                            revision,
                            d.failed_attempts,
                            o.now_ms,
                        ));
                    }
                    let id = self.plane.new_replica();
                    let is_over = |vacancy: &Vacancy| plan::is_over(o, vacancy);
                    let failed_starts = self.vacancies.fill(revision, id, is_over);
                    made.push(id);
                    self.tracks.inherit(id, failed_starts);
                    let order = orders.0.entry(revision).or_default();
                    order.replicas.insert(id, first_level(d, revision));
                    continue;
                }
                Step::Start(id) => {
                    self.restarts.started(id);
                    (id, Some(Wakefulness::Awake))
                }
                Step::Thaw(id) => (id, Some(Wakefulness::Awake)),
                Step::Freeze(id) => (id, Some(Wakefulness::Dozing)),
                Step::Sleep(id) => (id, Some(Wakefulness::Asleep)),
                Step::Remove(id) => (id, None),
            };
            let Some(revision) = revision(replica) else {
                continue;
            };
            let order = orders.0.entry(revision).or_default();
            match level {
                Some(level) => {
                    order.replicas.insert(replica, level);
                }
                None => order.retire.push(replica),
            }
        }
        if !published {
            self.publish(); // hosts and listeners change without the route
        }
        let ordered = self.order(d, o, orders).await;
        self.give_back(made);
        published || ordered
    }

    /// Of the replicas that were to be made, those are not there that the engine did not take, or was not asked for.
    fn give_back(&mut self, made: Vec<ReplicaId>) {
        let reports = self.plane.facts.of(&self.id);
        let is_there = |id: &ReplicaId| reports.iter().any(|report| report.id == *id);
        for id in made.into_iter().filter(|id| !is_there(id)) {
            self.vacancies.give_back(id);
        }
    }

    /// Puts this service's entry into the routing table, if it is another than before.
    fn publish(&mut self) {
        let Some(route) = &self.route else {
            return;
        };
        let mode = match route {
            Route::Refuse if !self.row().enabled && !self.row().removing => Mode::Disabled,
            Route::Refuse => Mode::Refuse,
            Route::Hold => Mode::Hold,
            Route::Unhealthy => Mode::Unhealthy,
            Route::Serve { live, canary } => {
                let row = self.row();
                let of_live = self.upstreams(live, row.live.as_ref().map(|live| live.id));
                let of_canary = self.upstreams(canary, Some(row.target.id));
                match of_live.is_empty() {
                    true => Mode::Hold,
                    false => Mode::Serve {
                        upstreams: of_live,
                        canary: (row.share.clone()).filter(|_| !of_canary.is_empty()).map(
                            |share| Canary {
                                share,
                                upstreams: of_canary,
                            },
                        ),
                    },
                }
            }
        };
        let has_canary = matches!(
            mode,
            Mode::Serve {
                canary: Some(_),
                ..
            }
        );
        self.note_canary(has_canary);
        let is_awake = match shown_spec(self.row()).sandbox.network {
            NetworkMode::Own | NetworkMode::Host => matches!(mode, Mode::Serve { .. }),
            NetworkMode::None => matches!(self.route, Some(Route::Serve { .. })),
        };
        if is_awake && let Some(waking) = self.waking.take() {
            self.last_wake = Some(self.wake_so_far(&waking));
        }
        let networks = self.networks();
        let spec = shown_spec(self.row());
        let listeners = self.wanted_listeners();
        let address = self.plane.config.virtual_address(self.row().address);
        let leads = !matches!(mode, Mode::Disabled | Mode::Refuse);
        let named = address.and_then(|address| names::named(&self.id, spec, address, networks));
        let entry = Entry {
            hosts: addresses::hosts(&self.id, spec, &self.plane.config.domain),
            paths: addresses::paths(&self.id, spec),
            listeners: listeners.clone(),
            route: ServiceRoute {
                mode,
                port: spec.port,
                limits: limits(spec),
                // A canary's limit holds also beside a live that has none.
                is_scaled: spec.autoscale.is_some()
                    || has_canary && self.row().target.spec.service.autoscale.is_some(),
            },
            named: named.map(|named| Named { leads, ..named }),
        };
        self.version = self.plane.tables.set(&self.id, entry);
        if self.listeners_version.is_none() || self.listeners != listeners {
            self.listeners = listeners;
            self.listeners_version = Some(self.version);
        }
    }

    /// The sets of networks that replicas of this service are in, or will be: those of the row, and of each revision before
    /// that still has a replica. One that drains needs its names and doors to the end.
    fn networks(&mut self) -> BTreeSet<Networks> {
        let reports = self.plane.facts.of(&self.id);
        let has_replicas = |id: &RevisionId| reports.iter().any(|r| r.revision == *id);
        self.networks.retain(|id, _| has_replicas(id));
        let row = &self.loaded.row;
        for revision in row.live.iter().chain([&row.target]) {
            let networks = &revision.spec.service.networks;
            self.networks.insert(revision.id, networks.clone());
        }
        self.networks.values().cloned().collect()
    }

    /// The replicas of `revision` that have an address which leads to them.
    fn upstreams(&self, ids: &[ReplicaId], revision: Option<RevisionId>) -> Vec<Upstream> {
        let spec = revision.and_then(|revision| self.spec_of(revision));
        // Without a network it has a loopback of its own, whose address is the machine's where the gateway is.
        if spec.is_some_and(|spec| spec.service.sandbox.network == NetworkMode::None) {
            return Vec::new();
        }
        let concurrency = spec.and_then(|spec| spec.service.autoscale.as_ref()?.concurrency);
        let upstream = |id: &ReplicaId| {
            let ip = *self.addresses.get(id)?;
            Some(Upstream {
                replica: *id,
                ip,
                concurrency,
            })
        };
        ids.iter().filter_map(upstream).collect()
    }

    /// Gives the orders, and looks at what came of them. `true`: some were given.
    async fn order(&mut self, d: &Desired, o: &Observed, orders: Orders) -> bool {
        if orders.0.is_empty()
            || (self.engine_trouble.as_ref()).is_some_and(|t| t.until_ms > o.now_ms)
        {
            return false;
        }
        if self.stuck_until_ms > o.now_ms {
            return false;
        }
        let before = self.plane.facts.of(&self.id);
        let mut thawed = Vec::new();
        let mut failed = None;
        for (revision, order) in orders.0 {
            for (&id, &level) in &order.replicas {
                let phase = o.replicas.iter().find(|r| r.id == id).map(|r| r.phase);
                // One on its way into the freezer proves nothing: it is probed as one that starts.
                if level == Wakefulness::Awake && phase == Some(Phase::Frozen) {
                    thawed.push(id);
                }
            }
            // Replicas of a revision that the row no longer has are only ever removed: any settings do.
            let spec = self
                .spec_of(revision)
                .unwrap_or(&self.row().target.spec)
                .clone();
            let workload = Workload {
                service: self.id.clone(),
                revision,
                generation: d.generation,
                spec,
                replicas: order.replicas,
                retire: order.retire,
            };
            match self.plane.engine.apply(&workload).await {
                Ok(()) => {
                    for (&id, &level) in &workload.replicas {
                        // One that is frozen still counts as ordered to run: if it ends, that was unasked.
                        self.tracks.ordered(id, level > Wakefulness::Asleep);
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Err(error) = self.plane.facts.look_at(&self.id).await {
            failed.get_or_insert(error);
        }
        let after = self.plane.facts.of(&self.id);
        for report in after.iter().filter(|report| thawed.contains(&report.id)) {
            if report.phase == Phase::Starting {
                self.health.thawed(report.id, report.run);
            }
        }
        if *before == *after {
            self.stuck_until_ms = o.now_ms + STUCK_PAUSE_MS;
        }
        self.note_engine(failed, o.now_ms);
        true
    }

    /// Remembers what the engine said.
    fn note_engine(&mut self, failed: Option<EngineError>, now_ms: u64) {
        let Some(error) = failed else {
            self.engine_trouble = None;
            return;
        };
        tracing::warn!(service = %self.id, %error, "the engine did not take an order; trying again");
        if matches!(error, EngineError::Stale { .. }) {
            self.reload();
        }
        let trouble = Trouble::again(self.engine_trouble.as_ref(), error.to_string(), now_ms);
        self.engine_trouble = Some(trouble);
    }
}

/// How much of a service's requests may wait, and for how long.
fn limits(spec: &ServiceSpec) -> Limits {
    let limits = Limits::default();
    let said = spec.autoscale.as_ref().and_then(|policy| policy.hold_ms);
    Limits {
        hold_deadline_ms: said.unwrap_or(limits.hold_deadline_ms),
        ..limits
    }
}

/// How awake a new replica begins: a target's, and one that is to freeze once it was ready, run at once.
fn first_level(d: &Desired, revision: RevisionId) -> Wakefulness {
    let live = d.live == Some(revision);
    match d.wanted {
        Wakefulness::Asleep if live => Wakefulness::Asleep,
        Wakefulness::Asleep | Wakefulness::Dozing | Wakefulness::Awake => Wakefulness::Awake,
    }
}

/// Whether a replica in `phase` rests at `level`.
pub(super) fn rests_at(phase: Phase, level: Wakefulness) -> bool {
    let settled = matches!(phase, Phase::Ready | Phase::Frozen | Phase::Stopped);
    settled && depth(phase) == Some(level)
}
