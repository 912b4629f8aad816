//! `layby serve`: opens the parts of a node in order, wires them, and closes them in reverse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use layby_control::{Control, ControlConfig, OtherRegistries, StopRequest};
use layby_engine::embedded::{Embedded, EmbeddedConfig};
use layby_gateway::{Gateway, GatewayConfig};
use layby_image::Store;
use layby_model::access::Access;
use layby_model::advice::SAMPLE_EVERY_MS;
use layby_model::engine::Engine;
use layby_model::error_chain;
use layby_model::route::{Confirmed, Demand, NameTable, RouteTable};
use layby_model::secret::SecretWire;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::Serve;
use crate::commands::node::require_root;
use crate::fail;
use crate::https::{self, Https};
use crate::parent::{self, Handed};
use crate::paths::Paths;
use crate::process;
use crate::registry;
use crate::reserve;
use crate::rest;
use crate::settings;
use crate::socket;

/// How long open API connections (followed logs, say) may go on while the node ends.
const API_GRACE: Duration = Duration::from_secs(1);

/// Runs the node until it is asked to end: by SIGTERM, SIGINT or over the API.
///
/// # Errors
/// Not root, a wrong option, a node that runs on the same data already, or a part that cannot be opened.
pub(crate) fn serve(paths: &Paths, options: &Serve) -> Result<()> {
    require_root()?;
    settings::check(options)?;
    if options.keep {
        return parent::keep(paths);
    }
    layby_control::check_data_dir(&paths.data_dir)?;
    paths.create()?;
    let _lock = process::lock(paths)?;
    process::log_to_stderr();
    fail::install()?;
    process::allow_many_connections();
    let handed = Handed::from_env()?;
    if reserve::release_if_needed(&paths.data_dir) {
        tracing::warn!(
            "the disk of {} is full: gave up what was kept for this; free some space",
            paths.data_dir.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("layby-control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(paths, options, handed));
    if ended.is_err() {
        paths.remove_run_dir(); // nothing is left by a start that came to nothing; what is not empty stays
    }
    ended
}

async fn run(paths: &Paths, options: &Serve, mut handed: Handed) -> Result<()> {
    handed.tell_overridden(parent::HTTP, settings::asked_http(options));
    handed.tell_overridden(parent::REGISTRY, options.registry);
    handed.tell_overridden(parent::API, options.https.api);
    let images = Arc::new(Store::open(&paths.data_dir.join("images"))?);

    // The gateway opens first, with the table of its last run: it holds what comes before the rest is up.
    let (tables, tables_in) = watch::channel(Arc::new(RouteTable::default()));
    let (confirmed_out, confirmed) = watch::channel(Confirmed::default());
    let (demand_out, demand) = watch::channel(Demand::default());
    let names = watch::Sender::new(Arc::new(NameTable::default()));
    let http = handed.named_addr(parent::HTTP).unwrap_or(options.http);
    let gateway = Gateway::start(
        GatewayConfig {
            http,
            workers: settings::workers(options),
            table_file: paths.data_dir.join("routes.json"),
            handed: handed.gateway(http, &others(options)),
        },
        layby_gateway::Wires {
            tables: tables_in,
            confirmed: confirmed_out,
            demand: demand_out,
        },
    )?;
    let gateway = Arc::new(gateway);

    let secrets = SecretWire::default();
    let engine = Embedded::open(EmbeddedConfig {
        node: paths.node.clone(),
        data_dir: paths.data_dir.clone(),
        run_dir: paths.run_dir.clone(),
        images: Arc::clone(&images),
        names: names.subscribe(),
        secrets: secrets.clone(),
        virtual_port: gateway.virtual_port(),
        allow_privileged: options.allow_privileged,
    })
    .await?;
    let engine = Arc::new(engine);
    let wires = layby_control::Wires {
        tables,
        names,
        secrets,
        confirmed,
        demand,
        traffic: {
            let traffic = Arc::clone(&gateway);
            Arc::new(move |id| traffic.traffic(id))
        },
        dropped_ports: {
            let firewall = Arc::clone(&engine);
            Arc::new(move |ports| {
                let firewall = Arc::clone(&firewall);
                Box::pin(async move { firewall.dropped_ports(&ports).await })
            })
        },
    };
    let served = serve_on(paths, options, (images, gateway), &engine, wires, handed).await;
    if served.is_err()
        && let Err(error) = engine.give_up().await
    {
        tracing::warn!("the network is not taken back: {}", error_chain(&error));
    }
    served
}

/// The rest of a node, on a gateway and an engine that are open, until it is asked to end.
async fn serve_on(
    paths: &Paths,
    options: &Serve,
    (images, gateway): (Arc<Store>, Arc<Gateway>),
    engine: &Arc<Embedded>,
    wires: layby_control::Wires,
    mut handed: Handed,
) -> Result<()> {
    let (registry, registry_addr) = registry::bind(options.registry, &mut handed).await?;
    let https = https::open(&options.https, paths, &options.domain, &mut handed).await?;
    let config = ControlConfig {
        api: https.as_ref().map(Https::address),
        data_dir: paths.data_dir.clone(),
        domain: options.domain.clone(),
        http: gateway.http_addr(),
        publish_on: options.publish_on,
        allow_privileged: options.allow_privileged,
        shifts_ids: engine.shifts_ids(),
        prune: settings::prune(options),
        registry: settings::registry(options, registry_addr),
        registries: OtherRegistries {
            insecure: options.insecure_registry.clone(),
            ca_files: options.registry_ca.clone(),
        },
        master_key: settings::master_key(options, paths),
        forget_secrets: options.forget_secrets,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        virtual_range: engine.virtual_range(),
        machine: engine.machine(),
        sample_every: Duration::from_millis(SAMPLE_EVERY_MS),
    };
    let control = Control::start(
        config,
        Arc::clone(engine) as Arc<dyn Engine>,
        Arc::clone(engine) as Arc<dyn Access>,
        images,
        Some(engine.runner()),
        wires,
    )
    .await?;

    let (listener, socket) = match socket::listen(paths, &mut handed) {
        Ok(opened) => opened,
        Err(error) => {
            control.shutdown(false).await; // nothing is to be made while the network is taken back
            return Err(error);
        }
    };
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let router = control.router();
    let api = axum::serve(
        listener,
        router.into_make_service_with_connect_info::<layby_control::Peer>(),
    );
    let api = api.with_graceful_shutdown(async { drop(closed.await) });
    let api = tokio::spawn(api.into_future());
    let https = https.map(|https| https.serve(control.network_router()));
    let https = https.transpose()?;
    let registry = registry::serve(registry, control.registry_router());
    tracing::info!(gateway = %gateway.http_addr(), registry = %registry_addr, data = %paths.data_dir.display(), "the node is ready");
    handed.tell_unused();
    handed.notify().ready();
    reserve::keep(&paths.data_dir);
    let rest = tokio::spawn(rest::give_memory_back());

    let stop = until_asked_to_end(&control).await?;
    tracing::info!(all = stop.all, "the node ends");
    handed.notify().stopping();
    socket.close(&handed); // nobody is to be sent to a node that ends
    rest.abort();
    drop(close);
    registry.abort(); // a push that is cut goes on where it was, at the next start
    if stop.all {
        gateway.turn_away(); // before any replica goes: nobody is to be sent to one that is about to
    }
    control.shutdown(stop.all).await;
    if let Some(https) = https {
        https.end(API_GRACE).await;
    }
    let _ = tokio::time::timeout(API_GRACE, api).await; // those who still follow a log are cut
    engine.close(stop.all).await?;
    if stop.all {
        paths.remove_run_dir();
    }
    tokio::task::spawn_blocking(move || gateway.stop()).await?;
    Ok(())
}

/// Where other parts than the gateway listen.
fn others(options: &Serve) -> Vec<SocketAddr> {
    let registry = registry::wanted(options.registry);
    options.https.api.into_iter().chain([registry]).collect()
}

async fn until_asked_to_end(control: &Control) -> Result<StopRequest> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(tokio::select! {
        request = control.stop_requested() => request,
        _ = term.recv() => StopRequest { all: false },
        _ = int.recv() => StopRequest { all: false },
    })
}
