//! The control plane as one thing: start it, mount its API, wait for its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use layby_image::build::run::RunStep;
use layby_model::access::Access;
use layby_model::engine::Engine;
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::{ReplicaId, ServiceId};
use tokio::time::Instant;

use crate::api::types::EventKind;
use crate::api::{self, Door};
use crate::audit;
use crate::collect;
use crate::config::{ControlConfig, StopRequest, Wires};
use crate::deploy::push;
use crate::driver::{networks_of, shown_spec};
use crate::error::Error;
use crate::events;
use crate::jobs::{self, Runner};
use crate::names;
use crate::plane::{Parts, Plane};
use crate::prune;
use crate::registry::{self, Desk};
use crate::samples;
use crate::scaling;
use crate::secrets::{self, Vault};
use crate::state;
use crate::store::{self, Store};
use crate::strays;
use crate::tables::Tables;
use crate::tokens::Doorman;

/// How long [`Control::shutdown`] waits for the last replica to go.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that requests in flight are left their time then, whatever their service says.
const STOP_DRAIN: Duration = Duration::from_secs(30);
/// How often it looks.
const STOP_POLL: Duration = Duration::from_millis(50);

/// The store's place in a data directory.
const STORE: &str = "layby.db";

/// Refuses the data directory of a newer Layby, and touches nothing of it. To be called before any part of a
/// node is opened: the others write to it too.
///
/// # Errors
/// [`StoreError::Newer`](crate::StoreError::Newer); and when there is a store that cannot be read.
pub fn check_data_dir(data_dir: &Path) -> Result<(), Error> {
    Ok(store::format::check(&data_dir.join(STORE))?)
}

/// The control plane of a node. Dropped, it stops at once, as if killed: the next start takes up what it left.
pub struct Control {
    plane: Arc<Plane>,
}

impl Control {
    /// Opens the store, looks at what runs, and starts one driver per service.
    ///
    /// # Errors
    /// When the store cannot be opened (also: it is a newer Layby's) or the engine does not answer.
    pub async fn start(
        config: ControlConfig,
        engine: Arc<dyn Engine>,
        access: Arc<dyn Access>,
        images: Arc<layby_image::Store>,
        runner: Option<Arc<dyn RunStep>>,
        wires: Wires,
    ) -> Result<Control, Error> {
        check_data_dir(&config.data_dir)?;
        // What uploads left there that a kill cut short.
        let left = tokio::fs::remove_dir_all(config.data_dir.join("tmp")).await;
        if let Err(error) = left
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "old uploads could not be removed");
        }
        state::sweep(&config.data_dir);
        let store = Store::open(&config.data_dir.join(STORE))?;
        let key = config.master_key.clone();
        let vault = Vault::open(store.clone(), key, config.forget_secrets).await?;
        let vault = Arc::new(vault);
        wires.secrets.connect(secrets::source(&vault));
        let life = store.begin_life().await?;
        store.interrupt_operations().await?;
        let rows = store.services().await?;
        let services = rows.iter().map(|row| {
            let address = config.virtual_address(row.address);
            let named = |at| names::named(&row.service, shown_spec(row), at, networks_of(row));
            (row.service.clone(), address.and_then(named))
        });
        let services = services.collect();
        let domain = config.domain.clone();
        let jobs = jobs::seekers(&store.shelves().await?);
        let tables = Tables::new(wires.tables, wires.names, domain, life, services, jobs);
        let desk = Desk::open(&config.registry, &config.domain, Arc::clone(&images)).await?;
        let doorman = Doorman::new(config.registry.anonymous_pull, store.tokens().await?);
        registry::route(&tables, desk.registry.hosts());
        let plane = Arc::new(Plane::new(Parts {
            config,
            engine,
            access,
            images,
            runner,
            store,
            vault,
            tables,
            desk,
            doorman,
            confirmed: wires.confirmed,
            demand: wires.demand,
            traffic: wires.traffic,
            dropped_ports: wires.dropped_ports,
            life,
        }));
        let control = Control { plane };
        control.begin(rows).await?;
        Ok(control)
    }

    async fn begin(&self, rows: Vec<crate::store::Row>) -> Result<(), Error> {
        let plane = &self.plane;
        for row in &rows {
            plane.facts.expect(&row.service);
        }
        let shelves = plane.store.shelves().await?;
        for id in jobs::engine_ids(&shelves) {
            plane.facts.expect(&id);
        }
        // Before any driver plans: it must not make anew what is there.
        let found = plane.facts.look_around().await?;
        strays::retire(&*plane.engine, found).await;
        for row in rows {
            let loaded = plane.load(row).await;
            plane.start_driver(loaded);
        }
        let version = &plane.config.version;
        plane.events.note(
            EventKind::NodeStarted,
            None,
            None,
            format!("the node started (Layby {version})"),
            None,
        );
        let facts = Arc::clone(plane);
        plane.spawn(async move { facts.facts.follow().await });
        plane.spawn(Arc::clone(plane).dispatch_demand());
        plane.spawn(events::write(Arc::clone(plane)));
        plane.spawn(Runner::new(Arc::clone(plane), shelves).run());
        plane.spawn(collect::run(Arc::clone(plane)));
        plane.spawn(push::run(Arc::clone(plane)));
        plane.spawn(prune::run(Arc::clone(plane)));
        plane.spawn(samples::run(Arc::clone(plane)));
        plane.spawn(scaling::run(Arc::clone(plane)));
        plane.spawn(audit::run(Arc::clone(plane)));
        Ok(())
    }

    /// The HTTP API for who is as good as root; serve it on the node's socket, with who is at the other end
    /// (`ConnectInfo<Peer>`).
    pub fn router(&self) -> axum::Router {
        api::router(&self.plane, Door::Socket)
    }

    /// The HTTP API for who has a token, with the registry below `/v2/`; serve it over TLS, with the addresses of its
    /// clients (`ConnectInfo<SocketAddr>`).
    pub fn network_router(&self) -> axum::Router {
        api::router(&self.plane, Door::Network)
    }

    /// The embedded registry; serve it on its own listener, with the addresses of its clients (`ConnectInfo`).
    pub fn registry_router(&self) -> axum::Router {
        registry::router(Arc::clone(&self.plane))
    }

    /// Waits until somebody asks over the API that the node ends.
    pub async fn stop_requested(&self) -> StopRequest {
        let mut stop = self.plane.stop.subscribe();
        match stop.wait_for(Option::is_some).await.map(|asked| *asked) {
            Ok(Some(request)) => request,
            // The sender lives in the plane, which this borrows.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Ends the drivers. With `all`, every replica is stopped and removed too (what is deployed stays deployed:
    /// the next start makes them anew); without, they go on running. The gateway turns away what is new by then: a replica with
    /// requests in flight is left its time, up to the drain deadline of its service and half a minute.
    pub async fn shutdown(self, all: bool) {
        let plane = &self.plane;
        plane.ledger.close().await;
        let drains = drains(plane);
        plane.abort_all();
        if !all {
            return;
        }
        let begun = Instant::now();
        let gone = async {
            loop {
                match plane.engine.observe(None).await {
                    Ok(mut left) => {
                        // One that ended by itself is the engine's to clear away: it remembers that it did.
                        left.retain(|r| r.phase != Phase::Stopped || r.ended.is_none());
                        if left.is_empty() {
                            return;
                        }
                        let drain = |id: &ServiceId| drains.get(id).copied().unwrap_or_default();
                        left.retain(|r| begun.elapsed() >= drain(&r.service) || !is_busy(plane, r));
                        strays::retire_quietly(&*plane.engine, left).await;
                    }
                    Err(error) => tracing::warn!(%error, "the engine could not say what is left"),
                }
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        let limit = STOP_TIMEOUT + STOP_DRAIN;
        if tokio::time::timeout(limit, gone).await.is_err() {
            let seconds = limit.as_secs();
            tracing::warn!("some replicas are still there after {seconds} s");
        }
    }
}

/// How long requests in flight to each service are left their time when all ends.
fn drains(plane: &Plane) -> BTreeMap<ServiceId, Duration> {
    let drivers = plane.all_drivers().into_iter();
    let drain = drivers.map(|(id, driver)| {
        let drain_ms = shown_spec(&driver.status.borrow().row).drain_ms;
        (id, Duration::from_millis(drain_ms).min(STOP_DRAIN))
    });
    drain.collect()
}

/// Whether requests are in flight to a replica, or a client of it waits for an answer.
fn is_busy(plane: &Plane, replica: &ReplicaReport) -> bool {
    let traffic = (plane.traffic)(&replica.service);
    let runs = matches!(replica.phase, Phase::Starting | Phase::Ready);
    let some = |counts: &BTreeMap<ReplicaId, u32>| counts.get(&replica.id) > Some(&0);
    runs && (some(&traffic.in_flight) || some(&traffic.awaited))
}

impl Drop for Control {
    fn drop(&mut self) {
        self.plane.abort_all();
    }
}
