//! The driver of one service: the only task that acts on it.
//!
//! It looks (wants and facts), lets the model decide, does the steps, shows the state, and waits for
//! something to change. It never waits for the disk: a decision is written beside, and takes effect when
//! it is on disk; waking is not among what has to be written first.

mod act;
mod boot;
mod canary;
mod decide;
mod ending;
mod failure;
mod fallen;
mod look;
mod moved;
pub(crate) use look::{desired, networks_of, rolling, shown_spec};
mod needs;
mod restarts;
mod show;
mod track;
mod vacancies;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use layby_model::depends::Blockade;
use layby_model::network::Networks;
use layby_model::plan::{self, Desired, Observed, Route, Step, Timer};
use layby_model::replica::Phase;
use layby_model::route::{Confirmed, Listener, Version};
use layby_model::{ReplicaId, RevisionId, ServiceId, Wakefulness};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::types::EventKind;
use crate::bell::Bell;
use crate::plane::{Loaded, Plane};
use crate::probes::{Health, Verdict};
use crate::store::Row;
use boot::Boot;
use decide::Work;
use moved::Moved;
use restarts::Restarts;
pub(crate) use show::Status;
use track::Tracks;
use vacancies::Vacancies;

/// So many requests of users may wait for one driver.
const REQUESTS: usize = 32;
/// How often in-flight counts are looked at while a replica drains, in milliseconds.
const DRAIN_POLL_MS: u64 = 20;
/// How often they are looked at while a long request alone keeps a service from being idle, in milliseconds.
const BUSY_POLL_MS: u64 = 1_000;
/// How often it is looked at what the probes of a target say that is not ready yet, in milliseconds: only to show it.
const ANSWER_POLL_MS: u64 = 1_000;
/// The wait before an order is repeated that changed no fact, in milliseconds.
const STUCK_PAUSE_MS: u64 = 50;

/// How long the first look after a start waits for replicas that run to answer their probes.
const FIRST_ANSWER: Duration = Duration::from_millis(250);

/// What users ask of a driver.
#[derive(Debug)]
pub(crate) enum Request {
    /// The row was changed; this is how it is now.
    Reload(Box<Loaded>),
    /// Be this awake.
    Want(Wakefulness),
    /// What it has to do takes so many replicas: written already, in the row of this generation.
    Replicas { generation: u64, replicas: u32 },
    /// Restart all replicas of live, one after the other. It answers how often that was asked for.
    Restart(oneshot::Sender<u64>),
}

/// How to reach a driver.
#[derive(Debug, Clone)]
pub(crate) struct DriverHandle {
    /// Makes it look again.
    pub(crate) bell: Bell,
    /// Its queue.
    pub(crate) requests: mpsc::Sender<Request>,
    /// What it shows.
    pub(crate) status: watch::Receiver<Arc<Status>>,
    /// The newest generation of its row that is written: what it shows of an older one is no longer so.
    written: Arc<AtomicU64>,
}

impl DriverHandle {
    /// A row of this generation is written, and the driver is about to be told of it.
    pub(crate) fn note_written(&self, generation: u64) {
        self.written.fetch_max(generation, Ordering::SeqCst);
    }

    /// Whether it shows its service as that is written.
    fn is_current(&self) -> bool {
        self.status.borrow().row.generation >= self.written.load(Ordering::SeqCst)
    }
}

/// One service's driver.
pub(crate) struct Driver {
    plane: Arc<Plane>,
    id: ServiceId,
    bell: Bell,
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<Arc<Status>>,
    confirmed: watch::Receiver<Confirmed>,
    loaded: Loaded,
    /// How awake it is wanted: the newest word, written or not.
    wanted: Wakefulness,
    /// What the store says of that.
    stored: Wakefulness,
    health: Health,
    tracks: Tracks,
    vacancies: Vacancies,
    restarts: Restarts,
    since: BTreeMap<Timer, u64>,
    /// It cannot have been idle since before this, whatever the gateway counts.
    idle_floor_ms: u64,
    /// What its target waits for, as of the last look.
    blockade: Blockade,
    /// What was published last.
    route: Option<Route>,
    listeners: Vec<Listener>,
    /// The table of this life that first had these listeners; `None`: there was none yet.
    listeners_version: Option<Version>,
    /// This service's listeners that could not be opened, and why, as of the last look.
    failed_listeners: Vec<(Listener, String)>,
    /// The first table that shows the service as it is now.
    version: Version,
    /// Since when a canary serves.
    canary: Option<canary::Begun>,
    addresses: BTreeMap<ReplicaId, IpAddr>,
    /// Of live, of the target, and of each revision before that had a replica at the last look.
    networks: BTreeMap<RevisionId, Networks>,
    work: Work,
    /// The attempt of the target that is under way, and how long it took.
    boot: Option<Boot>,
    /// How often the target was seen to move, and how last.
    progress: u64,
    moved: Moved,
    /// What stands in the way of acting, and until when nothing is tried again.
    engine_trouble: Option<Trouble>,
    store_trouble: Option<Trouble>,
    stuck_until_ms: u64,
    waking: Option<Waking>,
    last_wake: Option<crate::api::types::LastWake>,
}

/// Something that failed and is tried again later.
struct Trouble {
    text: String,
    tries: u32,
    until_ms: u64,
}

impl Trouble {
    /// After 100 ms, and twice as long each further time, up to 5 s.
    fn again(before: Option<&Self>, text: String, now_ms: u64) -> Self {
        let tries = before.map_or(0, |t| t.tries) + 1;
        let pause_ms = (100_u64 << tries.min(6).saturating_sub(1)).min(5_000);
        Self {
            text,
            tries,
            until_ms: now_ms + pause_ms,
        }
    }
}

/// A wake that is under way.
struct Waking {
    from: Wakefulness,
    since: tokio::time::Instant,
    by_demand: bool,
}

/// Makes the driver of a service, at rest.
pub(crate) fn new(plane: Arc<Plane>, loaded: Loaded) -> (DriverHandle, Driver) {
    let bell = Bell::default();
    let id = loaded.row.service.clone();
    plane.facts.subscribe(&id, bell.clone());
    let (requests, queue) = mpsc::channel(REQUESTS);
    let status = watch::Sender::new(Arc::new(Status::at_rest(&loaded.row, &plane.config)));
    let handle = DriverHandle {
        bell: bell.clone(),
        requests,
        status: status.subscribe(),
        written: Arc::new(AtomicU64::new(loaded.row.generation)),
    };
    let driver = Driver {
        health: Health::new(Arc::clone(&plane.engine), bell.clone()),
        confirmed: plane.confirmed.clone(),
        wanted: loaded.row.wanted,
        stored: loaded.row.wanted,
        idle_floor_ms: plane.clock.now_ms(),
        tracks: Tracks::default(),
        vacancies: Vacancies::default(),
        restarts: Restarts::default(),
        since: BTreeMap::new(),
        blockade: Blockade::Open,
        route: None,
        listeners: Vec::new(),
        listeners_version: None,
        failed_listeners: Vec::new(),
        version: Version::default(),
        canary: None,
        addresses: BTreeMap::new(),
        networks: BTreeMap::new(),
        work: Work::default(),
        boot: None,
        progress: 0,
        moved: Moved::default(),
        engine_trouble: None,
        store_trouble: None,
        stuck_until_ms: 0,
        waking: None,
        last_wake: None,
        plane,
        id,
        bell,
        requests: queue,
        status,
        loaded,
    };
    (handle, driver)
}

impl Driver {
    /// Drives until the service is removed.
    pub(crate) async fn run(mut self) {
        let wanted = self.wanted.max(self.seen_awake());
        self.wanted = self.plane.engine.traits().possible(wanted);
        self.ask_first().await;
        loop {
            let (mut d, o) = self.look();
            let wanted = plan::wakefulness(&d, &o);
            if wanted != d.wanted {
                self.want(wanted, true);
                d.wanted = self.wanted;
            }
            let steps = plan::next_steps(&d, &o, self.stored);
            let at_rest = steps.is_empty();
            if self.act(&d, &o, steps).await {
                continue;
            }
            self.show(&d, &o, at_rest);
            if self.loaded.row.removing && o.replicas.is_empty() && self.end().await {
                return;
            }
            if !self.wait(&d, &o).await {
                return;
            }
        }
    }

    /// Finds out who is ready before the first table: the gateway goes on by its last one until then, and need
    /// not hold requests for replicas that ran all the time.
    async fn ask_first(&mut self) {
        if self.plane.engine.traits().reports_health {
            return;
        }
        let asked = async {
            loop {
                let reports = self.plane.facts.of(&self.id);
                self.health.follow(&reports, &self.loaded.plans, None);
                let mut running = reports.iter().filter(|r| r.phase == Phase::Starting);
                if running.all(|r| self.health.verdict(r.id, r.run) != Verdict::NotReady) {
                    return;
                }
                self.bell.heard().await;
            }
        };
        // Who is not ready by then is held for as usual.
        let _ = tokio::time::timeout(FIRST_ANSWER, asked).await;
    }

    fn row(&self) -> &Row {
        &self.loaded.row
    }

    /// How awake live's replicas are: a wake that was not written before a kill is not undone.
    fn seen_awake(&self) -> Wakefulness {
        let live = self.row().live.as_ref().map(|live| live.id);
        let reports = self.plane.facts.of(&self.id);
        let mine = reports.iter().filter(|r| Some(r.revision) == live);
        let depths = mine.filter_map(|r| plan::depth(r.phase));
        depths.max().unwrap_or(Wakefulness::Asleep)
    }

    /// Changes how awake the service is wanted, in memory.
    fn want(&mut self, wanted: Wakefulness, by_demand: bool) {
        let wanted = self.plane.engine.traits().possible(wanted);
        self.tell_turn(wanted, by_demand);
        if wanted == Wakefulness::Awake && self.wanted < wanted {
            self.waking = Some(Waking {
                from: self.wanted,
                since: tokio::time::Instant::now(),
                by_demand,
            });
        } else if wanted < Wakefulness::Awake {
            self.waking = None;
        }
        self.wanted = wanted;
    }

    /// Tells those who listen that the service is to be more or less awake than it was.
    fn tell_turn(&self, wanted: Wakefulness, by_demand: bool) {
        if wanted == self.wanted {
            return;
        }
        let (kind, text) = match wanted {
            Wakefulness::Awake if by_demand => (EventKind::Woken, "is woken by a request"),
            Wakefulness::Awake => (EventKind::Woken, "is woken"),
            Wakefulness::Dozing => (EventKind::Dozing, "is to doze"),
            Wakefulness::Asleep => (EventKind::Asleep, "is to sleep"),
        };
        self.plane.events.of(&self.id, kind, text.to_owned(), None);
    }

    /// Takes up a request of a user.
    fn take(&mut self, request: Request) {
        match request {
            Request::Reload(loaded) => {
                if loaded.row.generation >= self.row().generation {
                    self.stored = loaded.row.wanted;
                    self.loaded = *loaded;
                }
            }
            Request::Replicas {
                generation,
                replicas,
            } => {
                if generation == self.row().generation {
                    self.loaded.row.replicas = replicas;
                }
            }
            Request::Want(wanted) => {
                self.idle_floor_ms = self.plane.clock.now_ms();
                if wanted == Wakefulness::Awake {
                    self.tracks.once_more(&self.plane.facts.of(&self.id));
                    self.vacancies.once_more();
                }
                self.want(wanted, false);
            }
            Request::Restart(answer) => {
                let reports = self.plane.facts.of(&self.id);
                let live = self.row().live.as_ref().map(|live| live.id);
                self.idle_floor_ms = self.plane.clock.now_ms();
                self.tracks.once_more(&reports);
                self.want(Wakefulness::Awake, false);
                // Who asked may have gone.
                let _ = answer.send(self.restarts.ask(live, &reports));
            }
        }
    }

    /// Waits until something may have changed. `false`: the control plane is gone.
    async fn wait(&mut self, d: &Desired, o: &Observed) -> bool {
        let due_ms = self.due_ms(d, o);
        let due = due_ms.map(|ms| self.plane.clock.at(ms));
        // Nobody is woken by a table that another service made, unless it waits for one.
        let awaiting = o
            .gateway
            .as_ref()
            .is_none_or(|g| g.confirmed < self.version);
        tokio::select! {
            () = self.bell.heard() => {}
            request = self.requests.recv() => match request {
                Some(request) => self.take(request),
                None => return false,
            },
            heard = news(&mut self.confirmed, awaiting, &self.id, &self.failed_listeners) => if !heard {
                return false;
            },
            written = self.work.finished() => self.written(written),
            () = until(due) => {}
        }
        while let Ok(request) = self.requests.try_recv() {
            self.take(request);
        }
        true
    }

    /// When to look again if nothing happens.
    fn due_ms(&self, d: &Desired, o: &Observed) -> Option<u64> {
        let in_flight = |id: &ReplicaId| {
            let gateway = o.gateway.as_ref();
            gateway.is_some_and(|g| g.in_flight.get(id).is_some_and(|n| *n > 0))
        };
        let timers = plan::timers(d, o);
        let drains = |id: &ReplicaId| {
            let replica = o.replicas.iter().find(|r| r.id == *id);
            replica.is_some_and(|replica| plan::drains(d, o, replica))
        };
        let draining = timers
            .iter()
            .any(|timer| matches!(timer, Timer::Drain(id) if drains(id)));
        let may_doze = d.ladder.doze_after_ms.or(d.ladder.sleep_after_ms).is_some();
        let busy = d.wanted > Wakefulness::Asleep
            && may_doze
            && o.replicas.iter().any(|replica| in_flight(&replica.id));
        let probing =
            !self.plane.engine.traits().reports_health && self.starting(d, o).next().is_some();
        let troubles = [&self.engine_trouble, &self.store_trouble];
        let retries = troubles
            .into_iter()
            .flatten()
            .map(|t| t.until_ms.max(o.now_ms + 1));
        plan::next_due(d, o)
            .into_iter()
            .chain(draining.then(|| o.now_ms + DRAIN_POLL_MS))
            .chain(busy.then(|| o.now_ms + BUSY_POLL_MS))
            .chain(probing.then(|| o.now_ms + ANSWER_POLL_MS))
            .chain((self.stuck_until_ms > o.now_ms).then_some(self.stuck_until_ms))
            .chain(retries)
            .chain(self.tracks.next_hold_ms(o.now_ms))
            .min()
    }

    /// The last replica of a service on its way out is gone: so is the service. `false`: the store did not do it.
    async fn end(&mut self) -> bool {
        let plane = Arc::clone(&self.plane);
        let _turn = plane.deploys.lock().await;
        if let Err(error) = self.plane.store.remove(&self.id).await {
            tracing::warn!(service = %self.id, %error, "the service could not be removed from the store; trying again");
            let now_ms = self.plane.clock.now_ms();
            let trouble = Trouble::again(self.store_trouble.as_ref(), error.to_string(), now_ms);
            self.store_trouble = Some(trouble);
            return false;
        }
        self.plane.tables.remove(&self.id);
        self.plane.facts.unsubscribe(&self.id);
        self.plane.forget_driver(&self.id);
        self.plane.collector.ring();
        let text = "is taken down".to_owned();
        let who = self.row().removed_by.as_deref();
        self.plane
            .events
            .of(&self.id, EventKind::Removed, text, who);
        self.show_gone();
        true
    }
}

/// The revision and settings of a step list, for people: used by the dry run too.
pub(crate) fn describe(step: &Step) -> String {
    match step {
        Step::GoLive(revision) => format!("let revision {revision} go live"),
        Step::Fail(revision, _) => format!("give revision {revision} up"),
        Step::Retry(revision, _) => format!("try revision {revision} once more, after a pause"),
        Step::Publish(Route::Refuse) => "refuse requests".into(),
        Step::Publish(Route::Hold) => "hold requests until a replica is ready".into(),
        Step::Publish(Route::Unhealthy) => "hold requests for a moment, then refuse them".into(),
        Step::Publish(Route::Serve { live, canary }) => {
            let ids = |ids: &[ReplicaId]| {
                let ids: Vec<String> = ids.iter().map(ReplicaId::to_string).collect();
                ids.join(", ")
            };
            let share = match canary.is_empty() {
                true => String::new(),
                false => format!(", and the canary's share to {}", ids(canary)),
            };
            format!("send requests to {}{share}", ids(live))
        }
        Step::Create(revision) => format!("make a replica of revision {revision}"),
        Step::Start(replica) => format!("start replica {replica}"),
        Step::Thaw(replica) => format!("thaw replica {replica}"),
        Step::Freeze(replica) => format!("freeze replica {replica}"),
        Step::Sleep(replica) => format!("stop replica {replica}, and keep it prepared"),
        Step::Remove(replica) => format!("stop and remove replica {replica}"),
        Step::WriteWakefulness(wanted) => format!("note that it is wanted {wanted}"),
    }
}

/// Waits for a word of the gateway that concerns a service: any, if it waits for one, or a change of what `failed`
/// of its listeners. `false`: the gateway is gone.
async fn news(
    confirmed: &mut watch::Receiver<Confirmed>,
    awaiting: bool,
    id: &ServiceId,
    failed: &[(Listener, String)],
) -> bool {
    while confirmed.changed().await.is_ok() {
        if awaiting || failed_of(&confirmed.borrow_and_update(), id) != failed {
            return true;
        }
    }
    false
}

/// The listeners of a service that could not be opened, and why.
fn failed_of(confirmed: &Confirmed, id: &ServiceId) -> Vec<(Listener, String)> {
    let failed = confirmed.failed_listeners.iter();
    failed
        .filter(|(listener, _)| listener.service == *id)
        .cloned()
        .collect()
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
