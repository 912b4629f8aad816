//! Showing: what the API says of a service, published when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use layby_model::depends::Blockade;
use layby_model::plan::{
    CRASH_LOOP_STARTS, Desired, Observed, Replica, Route, is_resting, stays_ended,
};
use layby_model::replica::{ContainerReport, Phase, ReplicaReport};
use layby_model::state::state;
use layby_model::{ReplicaId, RevisionId, State, Wakefulness};

use super::act::rests_at;
use super::canary::{self, Begun};
use super::ending::Ending;
use super::look::{desired, shown_spec};
use super::restarts::Restarting;
use super::vacancies::Vacancies;
use super::{Driver, Waking, fallen};
use crate::addresses;
use crate::api::types::{
    AbortedView, ContainerView, DeadlineView, Failure, LastWake, RangeView, ReplicaView,
    ServiceDetail, ServiceView, SizeView,
};
use crate::config::ControlConfig;
use crate::scaling;
use crate::store::{Revision, Row};

/// What a driver shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status {
    /// What the API says.
    pub(crate) detail: ServiceDetail,
    /// The row that this is of.
    pub(crate) row: Row,
    /// The level that all of live's replicas have reached and rest at; `None`: on the way.
    pub(crate) resting: Option<Wakefulness>,
    /// Replicas that ended unasked, and when they are started again.
    pub(crate) ends: Vec<Ending>,
    /// What the probe of a target's replica that is starting said last.
    pub(crate) last_answer: Option<String>,
    /// What the target waits for.
    pub(crate) blockade: Blockade,
    /// Since when its canary serves.
    pub(super) canary: Option<Begun>,
    /// Its target rests between two attempts.
    pub(crate) rests: bool,
    /// The gateway serves by a table that shows the service as it is here, and has it on the disk.
    pub(crate) is_confirmed: bool,
    /// It is wanted awake.
    pub(crate) is_awake: bool,
    /// The replicas that a user wants restarted.
    pub(crate) restarting: Restarting,
    /// The service was removed.
    pub(crate) gone: bool,
}

impl Status {
    /// The most starts in a row that came to nothing of a replica of a revision.
    pub(crate) fn failed_starts(&self, revision: RevisionId) -> u32 {
        let ends = self.ends.iter();
        let failed = ends.filter_map(|end| end.failed_starts(revision));
        failed.max().unwrap_or(0)
    }

    /// Whether a replica of a revision cannot be started, now or later: the revision fails as soon as that is written.
    pub(crate) fn is_hopeless(&self, revision: RevisionId) -> bool {
        self.ends.iter().any(|end| end.is_hopeless(revision))
    }

    /// What is shown before the first look.
    pub(crate) fn at_rest(row: &Row, config: &ControlConfig) -> Self {
        let d = desired(row);
        let nothing = Observed {
            now_ms: 0,
            replicas: Vec::new(),
            vacancies: Vec::new(),
            published: None,
            base: Default::default(),
            named: BTreeMap::new(),
            gateway: None,
            hopeless: None,
            progress: 0,
            blocked: None,
            since: BTreeMap::new(),
        };
        Self {
            detail: ServiceDetail {
                view: view(row, &d, &nothing, config),
                size: size(row),
                deadline: DeadlineView::of(
                    row.target.spec.service.progress_deadline_ms,
                    &row.boots_ms,
                ),
                cause: shown_revision(row).cause.clone(),
                replicas: Vec::new(),
                conditions: Vec::new(),
                last_wake: None,
                last_failure: last_failure(row),
            },
            row: row.clone(),
            resting: None,
            ends: Vec::new(),
            last_answer: None,
            blockade: Blockade::Open,
            canary: None,
            rests: false,
            is_confirmed: false,
            is_awake: row.wanted == Wakefulness::Awake,
            restarting: Restarting::default(),
            gone: false,
        }
    }
}

impl Driver {
    /// Publishes what the API says, if it changed.
    pub(super) fn show(&self, d: &Desired, o: &Observed, at_rest: bool) {
        let row = self.row();
        let reports = self.plane.facts.of(&self.id);
        let phases: BTreeMap<ReplicaId, Phase> =
            o.replicas.iter().map(|r| (r.id, r.phase)).collect();
        let status = Status {
            detail: ServiceDetail {
                view: view(row, d, o, &self.plane.config),
                size: size(row),
                deadline: DeadlineView::of(
                    row.target.spec.service.progress_deadline_ms,
                    &row.boots_ms,
                ),
                cause: shown_revision(row).cause.clone(),
                replicas: (reports.iter())
                    .map(|r| replica(r, &phases, &self.vacancies))
                    .collect(),
                conditions: self.conditions(d, o, &reports),
                last_wake: self.last_wake,
                last_failure: last_failure(row),
            },
            row: row.clone(),
            resting: self.resting(d, o, at_rest),
            ends: self.ends(o, &reports),
            last_answer: self
                .starting(d, o)
                .find_map(|id| Some(self.health.last_answer(id)?.text)),
            blockade: self.blockade.clone(),
            canary: self.canary.clone(),
            rests: is_resting(d, o),
            is_confirmed: (self.route.is_some())
                && (o.gateway.as_ref()).is_some_and(|gateway| gateway.confirmed >= self.version),
            is_awake: d.wanted == Wakefulness::Awake,
            restarting: self.restarts.shown(),
            gone: false,
        };
        let is_scaled = scaling::policy(row).is_some() && d.enabled && d.live.is_some();
        let changed = self.status.send_if_modified(|shown| {
            let changed = **shown != status;
            if changed {
                *shown = Arc::new(status);
            }
            changed
        });
        if changed {
            self.plane.waiting.ring(&self.id);
        }
        // After it is shown: whoever follows it reads that.
        let is_awake = d.wanted == Wakefulness::Awake;
        self.plane.scaling.follow(&self.id, is_scaled && is_awake);
    }

    /// The replicas of a rolling target that have not answered yet.
    pub(super) fn starting(&self, d: &Desired, o: &Observed) -> impl Iterator<Item = ReplicaId> {
        let target = d.target.filter(|_| d.rolling());
        let mine = o.replicas.iter();
        mine.filter(move |r| Some(r.revision) == target && r.phase == Phase::Starting)
            .map(|r| r.id)
    }

    /// The last thing that is shown.
    pub(super) fn show_gone(&self) {
        self.status.send_modify(|shown| {
            let mut status = Status::clone(shown);
            status.gone = true;
            *shown = Arc::new(status);
        });
        self.plane.waiting.ring(&self.id);
    }

    /// How the wake went, as of now.
    pub(super) fn wake_so_far(&self, waking: &Waking) -> LastWake {
        let ready_ms = waking.since.elapsed().as_secs_f64() * 1000.0;
        LastWake {
            from: waking.from,
            // Its request is still held: the gateway knows how long when it is on its way.
            held_ms: waking.by_demand.then_some(ready_ms),
            ready_ms,
        }
    }

    fn resting(&self, d: &Desired, o: &Observed, at_rest: bool) -> Option<Wakefulness> {
        let mut live = o.replicas.iter().filter(|r| Some(r.revision) == d.live);
        let all = live.all(|r| rests_at(r.phase, d.wanted) || stays_ended(r));
        let served =
            d.wanted < Wakefulness::Awake || matches!(o.published, Some(Route::Serve { .. }));
        (at_rest && all && served && d.live.is_some()).then_some(d.wanted)
    }

    /// What is out of the ordinary.
    fn conditions(&self, d: &Desired, o: &Observed, reports: &[ReplicaReport]) -> Vec<String> {
        let row = self.row();
        let mut conditions = Vec::new();
        if row.removing {
            conditions.push("it is being taken down".to_owned());
        }
        if let (true, Some(failure)) = (row.target_failed, &row.last_failure) {
            let revision = failure.revision;
            conditions.push(match &failure.aborted_by {
                Some(who) => format!("revision {revision} was aborted by {who}"),
                None => format!("revision {revision} failed: {}", failure.reason),
            });
        }
        if let Blockade::Waits(why) | Blockade::Stuck(why) = &self.blockade {
            conditions.push(format!("revision {} waits: {why}", row.target.id));
        }
        if let (true, Some(failure)) = (d.rolling() && d.failed_attempts > 0, &row.last_failure) {
            let (next, all) = (d.failed_attempts + 1, d.retries.max(d.failed_attempts) + 1);
            let when = match is_resting(d, o) {
                true => "is made after a pause",
                false => "is under way",
            };
            conditions.push(format!(
                "revision {}: attempt {next} of {all} {when}; the last one failed: {}",
                row.target.id, failure.reason
            ));
        }
        let shown = shown_revision(row).id;
        let ready = ready(o, shown);
        if d.wanted == Wakefulness::Awake && d.enabled && d.live.is_some() && ready < d.replicas {
            conditions.push(format!("{ready} of {} replicas are ready", d.replicas));
        }
        let unready = reports.iter().filter(|r| r.phase == Phase::Starting);
        let unready = unready.filter_map(|r| Some((r.id, self.health.unready(r.id, r.run)?)));
        let unready: BTreeMap<ReplicaId, String> = unready.collect();
        let starting = self.starting(d, o).filter(|id| !unready.contains_key(id));
        for (id, answer) in starting.filter_map(|id| Some((id, self.health.last_answer(id)?))) {
            conditions.push(format!("replica {id} is not ready yet: {}", answer.text));
        }
        let unready = unready.iter();
        conditions
            .extend(unready.map(|(id, said)| format!("replica {id} fails its probe now: {said}")));
        conditions.extend(fallen::left(reports));
        // How one ended is told apart.
        let stands = reports.iter().filter(|r| r.ended.is_none());
        for (id, trouble) in stands.filter_map(|r| Some((r.id, r.trouble.as_ref()?))) {
            conditions.push(format!("replica {id}: {}", trouble.message));
        }
        for (listener, why) in &self.failed_listeners {
            conditions.push(format!(
                "{} cannot be listened on: {why}",
                listener.socket()
            ));
        }
        let troubles = [
            ("engine", &self.engine_trouble),
            ("store", &self.store_trouble),
        ];
        for (who, trouble) in troubles {
            if let Some(trouble) = trouble {
                conditions.push(format!("the {who}: {}", trouble.text));
            }
        }
        conditions
    }
}

/// The revision that is shown: the live one, or the one that is to be the first.
fn shown_revision(row: &Row) -> &Revision {
    row.live.as_ref().unwrap_or(&row.target)
}

/// Why the last revision that failed did. One that somebody called off has not.
fn last_failure(row: &Row) -> Option<Failure> {
    let failure = row.last_failure.clone();
    failure.filter(|failure| failure.aborted_by.is_none())
}

/// How large a service is.
fn size(row: &Row) -> SizeView {
    let spec = shown_spec(row);
    let first = spec.containers.first();
    let resources = first.map(|first| first.resources).unwrap_or_default();
    SizeView {
        cpu_limit_milli: resources.cpu_limit_milli,
        memory_limit_bytes: resources.memory_limit_bytes,
        power_by_hand: spec.overridden.is_some(),
        scale: row.scale,
        manifest_replicas: spec.replicas,
    }
}

/// A service as lists show it.
fn view(row: &Row, d: &Desired, o: &Observed, config: &ControlConfig) -> ServiceView {
    let shown = state(d, o);
    let revision = shown_revision(row);
    let spec = shown_spec(row);
    ServiceView {
        app: row.service.app.to_string(),
        service: row.service.service.to_string(),
        state: shown.state,
        wakefulness: shown.wakefulness,
        failed_revision: (row.target_failed && row.aborted_by().is_none())
            .then_some(row.target.id.0),
        aborted: row.aborted_by().map(|who| AbortedView {
            revision: row.target.id.0,
            by: who.to_owned(),
        }),
        replicas_ready: ready(o, revision.id),
        replicas_wanted: match shown.state {
            State::Disabled => 0,
            State::Deploying | State::Ready | State::Updating | State::Running => d.replicas,
        },
        scales: scaling::policy(row).map(RangeView::from),
        power: spec.power.clone(),
        revision: revision.id.0,
        image: spec
            .containers
            .first()
            .map(|c| c.image.clone())
            .unwrap_or_default(),
        urls: addresses::urls(&row.service, spec, config),
        virtual_address: config
            .virtual_address(row.address)
            .filter(|_| spec.sandbox.network.is_own())
            .map(|address| address.to_string()),
        canary: canary::view(row, o),
        crash_loop: is_crash_loop(o, revision.id),
        set: spec.pod_of.as_ref().map(ToString::to_string),
    }
}

/// Whether starts of a replica of this revision come to nothing again and again.
fn is_crash_loop(o: &Observed, revision: RevisionId) -> bool {
    let loops = |r: &Replica| r.failed_starts >= CRASH_LOOP_STARTS && !stays_ended(r);
    let mut replicas = o.replicas.iter().filter(|r| r.revision == revision);
    let mut empty = o.vacancies.iter().filter(|v| v.revision == revision);
    replicas.any(loops) || empty.any(|v| v.failed_starts >= CRASH_LOOP_STARTS)
}

fn ready(o: &Observed, revision: RevisionId) -> u32 {
    let of_it = o.replicas.iter().filter(|r| r.revision == revision);
    let ready = of_it.filter(|r| r.phase == Phase::Ready).count();
    u32::try_from(ready).unwrap_or(u32::MAX)
}

fn replica(
    report: &ReplicaReport,
    phases: &BTreeMap<ReplicaId, Phase>,
    vacancies: &Vacancies,
) -> ReplicaView {
    let past = vacancies.past(report.id);
    let ended = report.ended.as_ref();
    let lies = |c: &ContainerReport| {
        // Where each start came to an end that nobody asked for, so did the last one.
        let each = c.pid.is_none() && c.starts > 0 && c.ended >= c.starts;
        c.down || each || ended.is_some_and(|end| end.container == c.name)
    };
    let container = |c: &ContainerReport, init| ContainerView {
        name: c.name.clone(),
        init,
        pid: c.pid,
        // One whose end stands was started once less than it ended.
        restarts: c.ended.saturating_sub(u32::from(lies(c))),
        last_exit: c.last_exit.map(Into::into),
        last_exit_ms: c.last_exit_ms,
    };
    ReplicaView {
        id: report.id.to_string(),
        revision: report.revision.0,
        phase: phases.get(&report.id).copied().unwrap_or(report.phase),
        address: report.address.map(|ip| ip.to_string()),
        deaths: past.map_or(0, |past| past.deaths),
        last_death: past.map(|past| past.said.clone()),
        containers: (report.containers.iter().map(|c| container(c, false)))
            .chain(report.init.iter().map(|c| container(c, true)))
            .collect(),
    }
}
