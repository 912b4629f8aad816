//! The gateway of the world: late to take tables, late to write them, slow to claim. And its requests.

use std::collections::BTreeMap;

use layby_model::ReplicaId;
use layby_model::plan::Route;
use layby_model::replica::Phase;
use layby_model::route::Version;

use crate::control::Report;
use crate::mutation::Mutation;
use crate::rollouts::BRIEF;
use crate::world::{World, named, note};

/// Ticks that a request may be held.
pub(crate) const HOLD_DEADLINE: u64 = 80;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) arrived: u64,
    pub(crate) deadline: u64,
    pub(crate) sent: u32,
    pub(crate) answers: u32,
    /// The replica that it is about to claim.
    picked: Option<ReplicaId>,
    /// Until it is sent: so many ticks its answer takes; then: when that is.
    slow: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Answered,
    Refused,
    Expired,
    Broken,
}

/// The gateway. What it has beside `disk` is lost when it dies, and so are its requests.
pub(crate) struct Gateway {
    pub(crate) up: bool,
    back: u64,
    pub(crate) table: Route,
    version: Version,
    /// Since when its table says that nobody answers.
    sick_since: u64,
    pub(crate) disk: (Route, Version),
    pub(crate) confirmed: Version,
    /// A table on its way in, and when it is there.
    taking: Option<(u64, Route, Version)>,
    /// A table on its way to disk, and when it is there.
    writing: Option<(u64, Route, Version)>,
    pub(crate) waiting: Vec<Request>,
    pub(crate) in_flight: BTreeMap<ReplicaId, Vec<Request>>,
    uses: u64,
    /// How many were waiting at the last report; only for a mistake.
    told: usize,
    /// The version of the table seen last, taken or not; only for a mistake.
    seen: Version,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        Self {
            up: true,
            back: 0,
            table: Route::Refuse,
            version: Version::default(),
            sick_since: 0,
            disk: (Route::Refuse, Version::default()),
            confirmed: Version::default(),
            taking: None,
            writing: None,
            waiting: Vec::new(),
            in_flight: BTreeMap::new(),
            uses: 0,
            told: 0,
            seen: Version::default(),
        }
    }

    pub(crate) fn busy(&self) -> bool {
        !self.waiting.is_empty() || self.in_flight.values().any(|sent| !sent.is_empty())
    }
}

impl World {
    fn turn_to(&mut self, table: Route, version: Version) {
        let old = std::mem::replace(&mut self.gateway.table, table.clone());
        self.gateway.version = version;
        if old != Route::Unhealthy {
            self.gateway.sick_since = self.now;
        }
        for id in named(&old) {
            if !named(&table).contains(&id) {
                self.ghosts.withdrawn.insert(id, self.now);
            }
        }
        note!(self, "the gateway turns to {version:?}: {table:?}");
        for id in named(&table) {
            self.no_routed_replica_is_stopped_or_frozen(id);
        }
    }

    pub(crate) fn kill_gateway(&mut self) {
        note!(self, "the gateway is killed");
        self.ghosts.able_since = self.now;
        let gateway = &mut self.gateway;
        gateway.up = false;
        gateway.back = self.now + 1;
        gateway.taking = None;
        gateway.writing = None;
        gateway.waiting.clear();
        gateway.in_flight.clear();
        if gateway.disk.0 == Route::Refuse {
            self.ghosts.live_ticks = 0;
        }
    }

    pub(crate) fn gateway_tick(&mut self) {
        let now = self.now;
        if !self.gateway.up && now >= self.gateway.back {
            // It opens with its last table, before there is any control plane.
            self.gateway.up = true;
            let kept = !self.mistake(Mutation::TableNotKept);
            let first = (Route::Refuse, Version::default());
            let (table, version) = if kept {
                self.gateway.disk.clone()
            } else {
                first
            };
            self.turn_to(table, version);
            self.gateway.confirmed = version;
        }
        if !self.gateway.up {
            return;
        }
        self.take_and_keep_tables();
        self.requests();
        if self.control.up && self.rng.one_in(0.7) {
            let report = self.report();
            let due = now + self.rng.between(0, 2);
            self.control.reports.push_back((due, report));
        }
        while self.control.up
            && self
                .control
                .reports
                .front()
                .is_some_and(|(due, _)| *due <= now)
        {
            self.control.report = self.control.reports.pop_front().map(|(_, report)| report);
        }
    }

    fn take_and_keep_tables(&mut self) {
        let now = self.now;
        if let Some((_, table, version)) = self.gateway.taking.take_if(|(due, ..)| now >= *due)
            && version > self.gateway.version
        {
            self.turn_to(table, version);
            if self.mistake(Mutation::ConfirmBeforeDisk) {
                self.gateway.confirmed = version;
            }
        }
        let (disk, slow) = (self.disk(), self.mistake(Mutation::SwapWaitsForDisk));
        let edge = self.mistake(Mutation::TableEdge);
        let (control, gateway, rng) = (&self.control, &mut self.gateway, &mut self.rng);
        if let Some((_, table, version)) = gateway.writing.take_if(|(due, ..)| now >= *due && disk)
        {
            gateway.disk = (table, version);
            gateway.confirmed = gateway.confirmed.max(version); // only what is on disk is confirmed
        }
        let wait = gateway.taking.is_some()
            || slow && gateway.writing.is_some()
            || edge && gateway.seen == control.version;
        gateway.seen = control.version;
        if let Some(table) = &control.published
            && control.up
            && control.version > gateway.version
            && !wait
            && rng.one_in(0.6)
        {
            gateway.taking = Some((now + rng.between(0, 3), table.clone(), control.version));
        }
        if gateway.writing.is_none() && gateway.disk.1 < gateway.version {
            let due = now + rng.between(0, 2);
            gateway.writing = Some((due, gateway.table.clone(), gateway.version));
        }
    }

    /// One report: its counts are taken after its version.
    fn report(&mut self) -> Report {
        let once = self.mistake(Mutation::DemandEdge);
        let gateway = &mut self.gateway;
        let held = gateway
            .waiting
            .iter()
            .filter(|q| q.picked.is_none())
            .count();
        let waiting = if once && gateway.told > 0 { 0 } else { held };
        gateway.told = held;
        let applied = gateway.confirmed == gateway.version;
        let table = if applied {
            &gateway.table
        } else {
            &gateway.disk.0
        };
        let flying = gateway.in_flight.iter();
        Report {
            confirmed: gateway.confirmed,
            confirmed_ids: named(table),
            in_flight: flying.map(|(id, sent)| (*id, sent.len() as u32)).collect(),
            waiting: waiting as u32,
            uses: gateway.uses,
        }
    }

    fn answer(&mut self, mut request: Request, end: End) {
        request.answers += 1;
        *match end {
            End::Answered => &mut self.stats.answered,
            End::Refused => &mut self.stats.refused,
            End::Expired => &mut self.stats.expired,
            End::Broken => &mut self.stats.broken,
        } += 1;
        self.every_request_ends_once_and_in_time(&request);
    }

    fn requests(&mut self) {
        let now = self.now;
        self.traffic ^= self.rng.one_in(0.03);
        let often = if self.traffic { 0.25 } else { 0.04 };
        if self.rng.one_in(often) && now < self.end - HOLD_DEADLINE - 60 {
            self.gateway.uses += 1;
            let slow = self.rng.weighted(&[(0, 97), (60, 2), (1_000_000_000, 1)]);
            self.gateway.waiting.push(Request {
                id: self.gateway.uses,
                arrived: now,
                deadline: now + HOLD_DEADLINE,
                sent: 0,
                answers: 0,
                picked: None,
                slow,
            });
        }
        for request in std::mem::take(&mut self.gateway.waiting) {
            self.every_request_ends_once_and_in_time(&request);
            self.waking_does_not_wait(&request);
            self.hold_or_send(request);
        }
        let flying: Vec<ReplicaId> = self.gateway.in_flight.keys().copied().collect();
        for id in flying {
            self.await_answers(id);
        }
    }

    fn hold_or_send(&mut self, mut request: Request) {
        if self.gateway.table == Route::Refuse {
            self.what_is_live_is_never_refused();
            return self.answer(request, End::Refused);
        }
        let sick_for = self.now - self.gateway.sick_since.max(request.arrived);
        if self.gateway.table == Route::Unhealthy && sick_for >= BRIEF {
            self.stats.refused_sick += 1;
            return self.answer(request, End::Refused);
        }
        if self.now >= request.deadline && !self.mistake(Mutation::HoldForever) {
            return self.answer(request, End::Expired);
        }
        // Picked from a snapshot, claimed a little later.
        let Some(id) = request.picked.filter(|_| !self.rng.one_in(0.3)) else {
            let ids = named(&self.gateway.table);
            if request.picked.is_none() && !ids.is_empty() {
                request.picked = Some(self.rng.choice(&ids));
            }
            return self.gateway.waiting.push(request);
        };
        let withdrawn = !named(&self.gateway.table).contains(&id);
        if withdrawn && !self.mistake(Mutation::ClaimUnchecked) {
            request.picked = None; // claimed, looked at the table again, withdrawn: back
            return self.gateway.waiting.push(request);
        }
        self.a_request_reaches_only_what_its_table_names(id);
        if self.connects(id) {
            request.sent += 1;
            request.slow += self.now;
            self.gateway.in_flight.entry(id).or_default().push(request);
        } else {
            request.picked = None; // connecting failed, nothing was sent: hold again
            self.gateway.waiting.push(request);
        }
    }

    /// Something accepts connections there: also a frozen process does, in the kernel.
    fn connects(&self, id: ReplicaId) -> bool {
        let phase = self.engine.get(&id).map(|r| r.phase);
        !matches!(
            phase,
            None | Some(Phase::Starting | Phase::Stopped | Phase::Lost)
        )
    }

    fn await_answers(&mut self, id: ReplicaId) {
        let now = self.now;
        let Some(sent) = self.gateway.in_flight.remove(&id) else {
            return;
        };
        if !self.connects(id) {
            if self.mistake(Mutation::RetryAfterSend) {
                return self.gateway.waiting.extend(sent);
            }
            for request in sent {
                self.answer(request, End::Broken);
            }
            return;
        }
        let frozen = matches!(self.engine[&id].phase, Phase::Freezing | Phase::Frozen);
        let mut left = Vec::new();
        for request in sent {
            if !frozen && now >= request.slow && self.rng.one_in(0.4) {
                self.answer(request, End::Answered);
            } else {
                left.push(request);
            }
        }
        if !left.is_empty() {
            self.gateway.in_flight.insert(id, left);
        }
    }
}
