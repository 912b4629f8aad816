//! Looking: the wants and facts of one turn, as the model takes them.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::deadline;
use layby_model::depends::Blockade;
use layby_model::network::Networks;
use layby_model::plan::{
    Desired, Ended, GatewayReport, Observed, Replica, Timer, depth, pause_after, timers,
};
use layby_model::replica::{ContainerReport, Phase, ReplicaReport};
use layby_model::route::{Listener, Protocol, Version};
use layby_model::spec::{RETRIES, RestartPolicy, ServiceSpec, Strategy};
use layby_model::{ReplicaId, RevisionId};

use super::{Driver, failed_of};
use crate::addresses;
use crate::probes::Verdict;
use crate::store::Row;

/// What a row wants, with the wakefulness that is stored.
pub(crate) fn desired(row: &Row) -> Desired {
    let shown = shown_spec(row);
    Desired {
        enabled: row.enabled,
        target: Some(row.target.id),
        live: row.live.as_ref().map(|live| live.id),
        target_failed: row.target_failed,
        retries: row.target.spec.service.retries.unwrap_or(RETRIES),
        failed_attempts: row.failed_attempts,
        deadline_ms: row.target.deadline_ms,
        deadline_max_ms: deadline::hard_ms(
            row.target.spec.service.progress_deadline_ms,
            row.target.deadline_ms,
        ),
        share: row.share.clone(),
        stop_first: row.target.spec.service.strategy == Strategy::StopFirst,
        replicas: row.replicas,
        wanted: row.wanted,
        ladder: shown.sleep,
        drain_ms: shown.drain_ms,
        generation: row.generation,
    }
}

/// The settings that count for a service as a whole: live's, before anything is live the target's.
pub(crate) fn shown_spec(row: &Row) -> &ServiceSpec {
    let shown = row.live.as_ref().unwrap_or(&row.target);
    &shown.spec.service
}

/// The sets of networks that replicas of a row are in, as far as it says: live's, and the target's. Also of one that failed: what
/// is live may still need a service that already went where the two were to meet.
pub(crate) fn networks_of(row: &Row) -> BTreeSet<Networks> {
    let revisions = row.live.iter().chain([&row.target]);
    revisions
        .map(|revision| revision.spec.service.networks.clone())
        .collect()
}

/// Whether the row's target is on its way to be live.
pub(crate) fn rolling(row: &Row) -> bool {
    let live = row.live.as_ref().map(|live| live.id);
    !row.target_failed && live != Some(row.target.id)
}

/// How long who asks what is unhealthy waits about (the gateway says so exactly), in milliseconds.
const UNHEALTHY_WAIT_MS: u64 = 3_000;

/// How many ends in a row of a container came too soon that lies alone now, or with which its replica `ended`: where one is left
/// after so many, the replica is not started for it again.
fn loops(report: &ReplicaReport, ended: Option<Ended>) -> u32 {
    let told = report.ended.as_ref().filter(|_| ended.is_some());
    let told = told.map(|end| &end.container);
    let counts = |c: &&ContainerReport| c.down || Some(&c.name) == told;
    let all = report.containers.iter().filter(counts);
    all.map(|c| c.ended_in_a_row).max().unwrap_or(0)
}

/// Whether a replica runs without a container that nobody should wait for: its pause before the next start is longer than those
/// wait who ask what is unhealthy, or it is left as it failed.
fn is_crippled(report: &ReplicaReport) -> bool {
    let runs = report.containers.iter().any(|c| c.pid.is_some());
    let mut failed = report.containers.iter().filter(|c| c.is_left_failed());
    pause_after(loops(report, None)) >= UNHEALTHY_WAIT_MS || runs && failed.next().is_some()
}

impl Driver {
    /// One look. What the gateway confirmed is read before what is in flight: see [`GatewayReport`].
    pub(super) fn look(&mut self) -> (Desired, Observed) {
        let now_ms = self.plane.clock.now_ms();
        let mut d = desired(self.row());
        d.wanted = self.wanted;

        let confirmed = {
            let confirmed = self.confirmed.borrow_and_update();
            self.failed_listeners = failed_of(&confirmed, &self.id);
            confirmed.version
        };
        let waiting = self.plane.demand.borrow().waiting.get(&self.id).copied();
        let traffic = (self.plane.traffic)(&self.id);
        let gateway = GatewayReport {
            confirmed,
            in_flight: traffic.in_flight,
            open: traffic.open,
            awaited: traffic.awaited,
            // Who is in it by another way waits for nothing, but is to find it awake as well.
            waiting: waiting.unwrap_or(0) + self.plane.uses.of(&self.id),
            uses: traffic.uses,
        };

        let reports = self.plane.facts.of(&self.id);
        let ids: BTreeSet<ReplicaId> = reports.iter().map(|r| r.id).collect();
        let mut o = Observed {
            now_ms,
            replicas: self.replicas(&reports, &d, confirmed, now_ms),
            vacancies: self.vacancies.all(),
            published: self.route.clone(),
            base: self.plane.tables.base(),
            named: self.plane.tables.named(&self.id, &ids),
            gateway: Some(gateway),
            hopeless: self.hopeless(&reports, &d, confirmed),
            progress: self.progress,
            blocked: None,
            since: self.since.clone(),
        };
        self.blockade = self.blockade(&d);
        match &self.blockade {
            Blockade::Open => {}
            Blockade::Waits(why) | Blockade::Stuck(why) => o.blocked = Some(why.clone()),
            Blockade::Fails(why) => o.hopeless = Some(why.clone()),
        }
        if let Some(boot) = &mut self.boot
            && d.target.is_some_and(|target| boot.of(target).is_some())
        {
            let mine = o.replicas.iter().filter(|r| Some(r.revision) == d.target);
            if mine.filter(|r| r.phase == Phase::Ready).count() >= d.replicas as usize {
                boot.done(now_ms);
            }
        }
        let last_uses = [traffic.idle_ms, self.plane.uses.idle_ms(&self.id)];
        o.since = self.since(&d, &o, last_uses.into_iter().flatten().min());
        (d, o)
    }

    /// The reports with what the probes say of them, and what is remembered.
    fn replicas(
        &mut self,
        reports: &[ReplicaReport],
        d: &Desired,
        confirmed: Version,
        now_ms: u64,
    ) -> Vec<Replica> {
        let asks = !self.plane.engine.traits().reports_health;
        if asks {
            let target = d.target.filter(|_| d.rolling());
            self.health.follow(reports, &self.loaded.plans, target);
        }
        self.tracks.keep(reports);
        let counts = |id: RevisionId| {
            let mine = reports.iter().filter(|r| r.revision == id);
            mine.filter(|r| depth(r.phase).is_some() && self.health.died(r.id, r.run).is_none())
                .count()
        };
        let is_there = |id: ReplicaId| reports.iter().any(|report| report.id == id);
        self.vacancies.keep(d, is_there, counts);
        self.restarts.keep(reports);
        self.addresses = reports
            .iter()
            .filter_map(|r| Some((r.id, r.address?)))
            .collect();
        // A target is no better than the ports that it was deployed to open.
        let unopened = d.rolling()
            && !self.wanted_listeners().is_empty()
            && (!self.tried_to_open(confirmed) || self.port_refused().is_some());
        let row = self.row();
        let revisions = row.live.iter().chain([&row.target]);
        let policies: BTreeMap<RevisionId, RestartPolicy> = revisions
            .map(|revision| (revision.id, revision.spec.service.restart))
            .collect();
        let mut replicas = Vec::with_capacity(reports.len());
        for report in reports {
            let mut phase = report.phase;
            if asks {
                phase = match (phase, self.health.verdict(report.id, report.run)) {
                    (Phase::Starting, Verdict::Ready) => Phase::Ready,
                    // It is to be drained and replaced: that is what happens to a lost one.
                    (Phase::Starting, Verdict::Dead) => Phase::Lost,
                    (phase, _) => phase,
                };
            }
            if phase == Phase::Ready && report.address.is_none() {
                phase = Phase::Starting;
            }
            let proved = self.proved_alive(report);
            if let Some(said) = self.health.died(report.id, report.run).filter(|_| asks)
                && let Some(failed_starts) = self.tracks.dies(report, proved, now_ms)
            {
                let (id, revision) = (report.id, report.revision);
                self.vacancies.add(id, revision, failed_starts, &said);
                self.tell_death(report, &said, failed_starts);
            }
            for (container, said) in self.health.given_up(report.id) {
                self.tell_given_up(report, &container, &said);
            }
            for container in self.tracks.fallen(report) {
                self.tell_fallen(report, container);
            }
            let stood = self.tracks.stands(report.id);
            let mut track = self.tracks.see(report, phase, now_ms);
            if phase == Phase::Ready && proved {
                track = self.tracks.holds(report, now_ms);
            }
            if stood && track.crashed {
                self.tell_end(report);
            }
            if phase == Phase::Ready && unopened && Some(report.revision) == d.target {
                phase = Phase::Starting;
            }
            let stale = self.restarts.is_stale(report.id);
            // What a user wants restarted is started, however it ended before its turn.
            let ended = track.ended(report).filter(|_| !stale);
            replicas.push(Replica {
                id: report.id,
                revision: report.revision,
                phase,
                failed_starts: track.failed_starts.max(loops(report, ended)),
                crashed: track.crashed,
                ended,
                stale,
                unhealthy: phase == Phase::Starting
                    && (asks && self.health.unready(report.id, report.run).is_some()
                        || is_crippled(report)),
                restart: policies.get(&report.revision).copied().unwrap_or_default(),
            });
        }
        replicas
    }

    /// Whether a replica has answered its liveness probes in this run, as far as it has any.
    fn proved_alive(&self, report: &ReplicaReport) -> bool {
        let plan = self.loaded.plans.get(&report.revision);
        plan.is_none_or(|plan| self.health.proved_alive(report.id, report.run, plan))
    }

    /// Why the target cannot succeed.
    fn hopeless(
        &self,
        reports: &[ReplicaReport],
        d: &Desired,
        confirmed: Version,
    ) -> Option<String> {
        if !d.rolling() {
            return None;
        }
        let of_target = reports.iter().filter(|r| Some(r.revision) == d.target);
        let fatal = of_target
            .filter_map(|report| report.trouble.as_ref())
            .find(|trouble| trouble.fatal);
        if let Some(trouble) = fatal {
            return Some(trouble.message.clone());
        }
        if !self.tried_to_open(confirmed) {
            return None; // an older table's failures
        }
        self.port_refused()
            .map(|(listener, why)| format!("{} cannot be listened on: {why}", listener.socket()))
    }

    /// A port of a rolling target that could not be opened, and why. One that live has not got either is no reason
    /// to keep live.
    fn port_refused(&self) -> Option<&(Listener, String)> {
        let row = self.row();
        let of =
            |spec: &ServiceSpec| addresses::listeners(&self.id, spec, self.plane.config.publish_on);
        let live = row.live.as_ref().map(|live| of(&live.spec.service));
        let live = live.unwrap_or_default();
        let new: Vec<Listener> = of(&row.target.spec.service)
            .into_iter()
            .filter(|listener| live.iter().all(|l| l.socket() != listener.socket()))
            .collect();
        let mut failed = self.failed_listeners.iter();
        failed.find(|(listener, _)| new.iter().any(|l| l.socket() == listener.socket()))
    }

    /// Whether a gateway that has come to table `confirmed` tried to open the listeners that are wanted. What it did
    /// in an earlier life of the control plane does not count: it may not have had the newest table of that.
    fn tried_to_open(&self, confirmed: Version) -> bool {
        self.listeners_version
            .is_some_and(|version| version <= confirmed)
    }

    /// Since when each condition holds.
    fn since(&mut self, d: &Desired, o: &Observed, idle_ms: Option<u64>) -> BTreeMap<Timer, u64> {
        let keys = timers(d, o);
        if !keys.iter().any(|key| matches!(key, Timer::Idle(_))) {
            self.idle_floor_ms = o.now_ms;
        }
        // The last use is known exactly, however rarely it is asked for.
        let last_use_ms = idle_ms.map_or(0, |ms| o.now_ms.saturating_sub(ms));
        let idle_since_ms = last_use_ms.max(self.idle_floor_ms);
        let since = |key: &Timer| match key {
            Timer::Idle(_) => idle_since_ms,
            Timer::Roll(..)
            | Timer::Still(..)
            | Timer::Pause(..)
            | Timer::Drain(_)
            | Timer::Backoff(..) => self.since.get(key).copied().unwrap_or(o.now_ms),
        };
        let since: BTreeMap<Timer, u64> = keys.iter().map(|key| (*key, since(key))).collect();
        self.since.clone_from(&since);
        since
    }

    /// The listeners of live and of a rolling target.
    pub(super) fn wanted_listeners(&self) -> Vec<Listener> {
        let row = self.row();
        if row.removing {
            return Vec::new();
        }
        let target = rolling(row).then_some(&row.target);
        let mut listeners: Vec<Listener> = Vec::new();
        for revision in row.live.iter().chain(target) {
            let spec = &revision.spec.service;
            for listener in addresses::listeners(&self.id, spec, self.plane.config.publish_on) {
                // Of what is disabled, those where that can be said: who asks by TCP is turned away at once.
                let speaks = row.enabled || listener.protocol == Protocol::Http;
                if speaks && listeners.iter().all(|l| l.socket() != listener.socket()) {
                    listeners.push(listener);
                }
            }
        }
        listeners
    }

    /// The revisions whose replicas may be made, with what they run.
    pub(super) fn spec_of(&self, id: RevisionId) -> Option<&layby_model::engine::RunSpec> {
        let row = self.row();
        let mut revisions = row.live.iter().chain([&row.target]);
        revisions.find(|r| r.id == id).map(|r| &*r.spec)
    }
}
