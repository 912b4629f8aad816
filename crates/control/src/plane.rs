//! What the parts of the control plane share, and the register of drivers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use layby_image::build::run::RunStep;
use layby_model::access::Access;
use layby_model::engine::Engine;
use layby_model::route::{Confirmed, Demand, Traffic};
use layby_model::{ReplicaId, RevisionId, ServiceId};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::agents::Agents;
use crate::api::types::Problem;
use crate::api::{InFlight, Operations};
use crate::audit::Ledger;
use crate::clock::Clock;
use crate::collect::Collector;
use crate::config::{ControlConfig, DroppedPorts, StopRequest};
use crate::driver::{self, DriverHandle};
use crate::events::Events;
use crate::facts::Facts;
use crate::jobs::Jobs;
use crate::probes::ProbePlan;
use crate::registries::Registries;
use crate::registry::Desk;
use crate::samples::Samples;
use crate::scaling::Scaling;
use crate::secrets::Vault;
use crate::slot::Slot;
use crate::store::{Revision, Row, Store, StoreError};
use crate::tables::Tables;
use crate::tokens::Doorman;
use crate::uses::Uses;
use crate::waiting::Waiting;

/// So much work at clients' pace may hold a blocking thread at a time. The engine freezes and starts on the same
/// threads: however many clients stall, it is not to wait for them.
const CLIENT_THREADS: usize = 4;
/// So many images are built at a time.
const BUILDS: usize = 2;
/// How long a client may neither send nor take anything before such work gives it up.
pub(crate) const CLIENT_IDLE: Duration = Duration::from_secs(60);

/// Reads the traffic of one service.
pub(crate) type ReadTraffic = Arc<dyn Fn(&ServiceId) -> Traffic + Send + Sync>;

/// What every part of the control plane may use.
pub(crate) struct Plane {
    pub(crate) config: ControlConfig,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) access: Arc<dyn Access>,
    pub(crate) images: Arc<layby_image::Store>,
    /// Carries out the RUN steps of builds.
    pub(crate) runner: Option<Arc<dyn RunStep>>,
    pub(crate) registries: Registries,
    /// SSH agents of those who build.
    pub(crate) agents: Arc<Agents>,
    pub(crate) store: Store,
    pub(crate) vault: Arc<Vault>,
    pub(crate) facts: Facts,
    pub(crate) jobs: Jobs,
    pub(crate) tables: Tables,
    pub(crate) desk: Desk,
    pub(crate) events: Events,
    pub(crate) doorman: Doorman,
    pub(crate) ledger: Ledger,
    pub(crate) operations: Operations,
    pub(crate) in_flight: InFlight,
    pub(crate) clock: Clock,
    pub(crate) confirmed: watch::Receiver<Confirmed>,
    pub(crate) demand: watch::Receiver<Demand>,
    pub(crate) traffic: ReadTraffic,
    pub(crate) dropped_ports: DroppedPorts,
    pub(crate) stop: watch::Sender<Option<StopRequest>>,
    /// Held from the look for conflicts until the rows are written, so that two deploys cannot claim one port.
    pub(crate) deploys: tokio::sync::Mutex<()>,
    /// Held while the state of the node is taken out or put in.
    pub(crate) states: Arc<tokio::sync::Mutex<()>>,
    /// What is here gives way to the state of another node: nothing is deployed. Changed by who has the turn of `deploys`.
    pub(crate) replacing: AtomicBool,
    pub(crate) collector: Collector,
    /// What awake services use.
    pub(crate) samples: Samples,
    /// Which services are scaled by what they have to do.
    pub(crate) scaling: Scaling,
    /// Who uses services beside their requests.
    pub(crate) uses: Uses,
    /// Which rollouts other services hold up.
    pub(crate) waiting: Waiting,
    client_threads: Arc<Semaphore>,
    build_threads: Arc<Semaphore>,
    life: u32,
    replicas: AtomicU32,
    drivers: Mutex<BTreeMap<ServiceId, DriverHandle>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A row with what its revisions' replicas are to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) row: Row,
    pub(crate) plans: BTreeMap<RevisionId, Arc<ProbePlan>>,
}

/// What [`Plane::new`] is made of.
pub(crate) struct Parts {
    pub(crate) config: ControlConfig,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) access: Arc<dyn Access>,
    pub(crate) images: Arc<layby_image::Store>,
    pub(crate) runner: Option<Arc<dyn RunStep>>,
    pub(crate) store: Store,
    pub(crate) vault: Arc<Vault>,
    pub(crate) tables: Tables,
    pub(crate) desk: Desk,
    pub(crate) doorman: Doorman,
    pub(crate) confirmed: watch::Receiver<Confirmed>,
    pub(crate) demand: watch::Receiver<Demand>,
    pub(crate) traffic: ReadTraffic,
    pub(crate) dropped_ports: DroppedPorts,
    pub(crate) life: u32,
}

impl Plane {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            facts: Facts::new(Arc::clone(&parts.engine)),
            jobs: Jobs::default(),
            registries: Registries::new(&parts.config),
            agents: Arc::default(),
            config: parts.config,
            engine: parts.engine,
            access: parts.access,
            images: parts.images,
            runner: parts.runner,
            store: parts.store,
            vault: parts.vault,
            tables: parts.tables,
            desk: parts.desk,
            events: Events::default(),
            doorman: parts.doorman,
            ledger: Ledger::default(),
            operations: Operations::default(),
            in_flight: InFlight::default(),
            clock: Clock::start(),
            confirmed: parts.confirmed,
            demand: parts.demand,
            traffic: parts.traffic,
            dropped_ports: parts.dropped_ports,
            stop: watch::Sender::new(None),
            deploys: tokio::sync::Mutex::default(),
            states: Arc::default(),
            replacing: AtomicBool::new(false),
            collector: Collector::default(),
            samples: Samples::default(),
            scaling: Scaling::default(),
            uses: Uses::default(),
            waiting: Waiting::default(),
            client_threads: Arc::new(Semaphore::new(CLIENT_THREADS)),
            build_threads: Arc::new(Semaphore::new(BUILDS)),
            life: parts.life,
            replicas: AtomicU32::new(0),
            drivers: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Which start of the node this is, counted from the first.
    pub(crate) fn life(&self) -> u32 {
        self.life
    }

    /// An id that no replica ever had.
    pub(crate) fn new_replica(&self) -> ReplicaId {
        let counter = self.replicas.fetch_add(1, Ordering::Relaxed) + 1;
        ReplicaId::new(self.life, counter)
    }

    /// Lets no new replica have the id of one of these, which came with another node's record.
    pub(crate) fn count_replicas(&self, known: &[ReplicaId]) {
        let own = known.iter().filter_map(|id| id.counter_of(self.life));
        if let Some(newest) = own.max() {
            self.replicas.fetch_max(newest, Ordering::Relaxed);
        }
    }

    /// The driver of a service.
    pub(crate) fn driver(&self, service: &ServiceId) -> Option<DriverHandle> {
        self.drivers().get(service).cloned()
    }

    /// All drivers, by service.
    pub(crate) fn all_drivers(&self) -> Vec<(ServiceId, DriverHandle)> {
        let drivers = self.drivers();
        let pairs = drivers.iter();
        pairs
            .map(|(id, handle)| (id.clone(), handle.clone()))
            .collect()
    }

    /// Starts the driver of a service that has none.
    pub(crate) fn start_driver(self: &Arc<Self>, loaded: Loaded) {
        let service = loaded.row.service.clone();
        let (handle, driver) = driver::new(Arc::clone(self), loaded);
        self.drivers().insert(service.clone(), handle);
        self.waiting.ring(&service);
        self.spawn(driver.run());
    }

    /// Takes a driver that has ended out of the register.
    pub(crate) fn forget_driver(&self, service: &ServiceId) {
        self.drivers().remove(service);
        self.uses.forget(service);
        self.scaling.follow(service, false);
    }

    /// Rings the drivers for whom a request began to wait, or none waits any more. The others hear nothing.
    pub(crate) async fn dispatch_demand(self: Arc<Self>) {
        let mut demand = self.demand.clone();
        let mut before = Demand::default();
        loop {
            let now = demand.borrow_and_update().clone();
            let begun = now
                .waiting
                .keys()
                .filter(|id| !before.waiting.contains_key(id));
            let ended = before
                .waiting
                .keys()
                .filter(|id| !now.waiting.contains_key(id));
            {
                let drivers = self.drivers();
                for handle in begun.chain(ended).filter_map(|id| drivers.get(id)) {
                    handle.bell.ring();
                }
            }
            before = now;
            if demand.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reads what a row's images say about health. Off the async threads: it reads files.
    pub(crate) async fn load(&self, row: Row) -> Loaded {
        let revisions: Vec<Revision> = row.live.iter().chain([&row.target]).cloned().collect();
        let images = Arc::clone(&self.images);
        let plans = tokio::task::spawn_blocking(move || {
            let plan = |revision: Revision| {
                let configs: Vec<_> = (revision.spec.images.iter())
                    .map(|digest| images.get(digest).ok().map(|image| image.config))
                    .collect();
                let plan = ProbePlan::new(&revision.spec, &configs);
                (revision.id, Arc::new(plan))
            };
            revisions.into_iter().map(plan).collect()
        });
        Loaded {
            row,
            plans: plans.await.unwrap_or_default(),
        }
    }

    /// Runs blocking work that waits for a client, as soon as few enough others do.
    pub(crate) async fn at_clients_pace<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        blocking(&self.client_threads, work).await
    }

    /// Whether so many images are being built that another one waits.
    pub(crate) fn builds_wait(&self) -> bool {
        self.build_threads.available_permits() == 0
    }

    /// A place among the images that are built at a time, as soon as one is free.
    pub(crate) async fn build_slot(&self) -> Arc<Slot> {
        Arc::new(Slot::take(&self.build_threads).await)
    }

    /// Runs a task that ends with the control plane at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the control plane broke off; please report this");
            }
        }
        tasks.spawn(task);
    }

    /// Carries work out to its end, also when whoever asked for it no longer waits: what is written is told, too.
    ///
    /// # Errors
    /// What the work says, or that the node is ending.
    pub(crate) async fn carry_out<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let (reply, replied) = oneshot::channel();
        self.spawn(async move {
            // Whoever asked may have gone.
            let _ = reply.send(work.await);
        });
        replied.await.map_err(|_| StoreError::Closed)?
    }

    /// Ends all tasks; what they were in the middle of is taken up by the next start.
    pub(crate) fn abort_all(&self) {
        self.tasks().abort_all();
        // Drivers hold the plane, and the plane their handles: let go of them.
        self.drivers().clear();
    }

    fn drivers(&self) -> MutexGuard<'_, BTreeMap<ServiceId, DriverHandle>> {
        // Nothing panics while it is held; a poisoned lock still holds whole entries.
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs blocking work, as soon as one of the permits is free.
async fn blocking<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    // It is never closed; without a permit the work would only have more company.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    })
}
