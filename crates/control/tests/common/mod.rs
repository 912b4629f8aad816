//! A whole control plane over the fake engine, with a gateway that only confirms: what the tests drive.

#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use layby_control::api::types::{Event, Failure, Outcome, Problem, ServiceDetail, ServiceView};
use layby_control::{Control, ControlConfig, PrunePolicy, Wires};
use layby_engine::fake::{Fake, FakeOptions};
use layby_image::{BuildOptions, Store, build};
use layby_model::ServiceId;
use layby_model::engine::Engine;
use layby_model::replica::ReplicaReport;
use layby_model::route::{Confirmed, Demand, Load, NameTable, RouteTable, Traffic};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// Long enough for a slow machine; nothing waits so long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// No test is so long unless it asks for less.
const SAMPLE_EVERY: Duration = Duration::from_secs(600);

/// A port that a firewall drops for other machines.
pub(crate) const FIREWALLED: u16 = 31099;

/// Images that the node has; their names are orders to the fake engine.
const IMAGES: &[&str] = &[
    "fake/ok",
    "fake/ok:2",
    "fake/slow:300ms",
    "fake/stuck-log",
    "fake/vanishes-after:300ms",
    "fake/hangs",
    "fake/exits:0",
    "fake/exits:3",
    "fake/oom",
    "fake/no-command",
    "fake/full-disk",
];

/// The stand-in for the gateway: confirms every table a moment later, and says what it is told to say.
pub(crate) struct Gateway {
    pub(crate) confirmed: watch::Sender<Confirmed>,
    pub(crate) demand: watch::Sender<Demand>,
    pub(crate) traffic: Arc<Mutex<BTreeMap<ServiceId, Traffic>>>,
    /// The names that the network has.
    pub(crate) names: watch::Sender<Arc<NameTable>>,
    /// Ports that cannot be listened on.
    pub(crate) taken: Arc<Mutex<BTreeSet<u16>>>,
    /// The table that it serves by.
    pub(crate) applied: Arc<Mutex<Arc<RouteTable>>>,
    /// Tables are only looked at while this is true.
    pub(crate) confirms: watch::Sender<bool>,
}

impl Gateway {
    /// Makes so many requests wait for a service.
    pub(crate) fn ask(&self, id: &str, waiting: u32) {
        self.demand.send_modify(|demand| {
            demand.waiting.retain(|known, _| known.to_string() != id);
            if waiting > 0 {
                demand.waiting.insert(id.parse().expect("an id"), waiting);
            }
        });
    }

    /// Sets what went through to a service.
    pub(crate) fn set_traffic(&self, id: &str, traffic: Traffic) {
        let mut all = self.traffic.lock().expect("no poison");
        all.insert(id.parse().expect("an id"), traffic);
    }

    /// From now on a service has so much to do.
    pub(crate) fn load(&self, id: &str, in_flight: u32, held: u32) {
        let mut all = self.traffic.lock().expect("no poison");
        let traffic = all.entry(id.parse().expect("an id")).or_default();
        traffic.load = until_now(traffic.load);
        (traffic.load.in_flight, traffic.load.held) = (in_flight, held);
        traffic.uses += 1;
        traffic.idle_ms = (in_flight + held > 0).then_some(0);
        drop(all);
        self.ask(id, held);
    }
}

/// What there was to do until now, by what there is to do.
fn until_now(load: Load) -> Load {
    static BEGUN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let passed = BEGUN.get_or_init(std::time::Instant::now).elapsed();
    let at_us = 1_000_000 + passed.as_micros() as u64;
    let span_us = at_us.saturating_sub(load.at_us.max(1_000_000));
    Load {
        at_us,
        in_flight_us: load.in_flight_us + u64::from(load.in_flight) * span_us,
        held_us: load.held_us + u64::from(load.held) * span_us,
        ..load
    }
}

/// A node without containers.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) fake: Arc<Fake>,
    pub(crate) images: Arc<Store>,
    pub(crate) gateway: Gateway,
    pub(crate) tables: watch::Receiver<Arc<RouteTable>>,
    control: Option<Control>,
    router: Router,
    registry: Router,
    listen: Option<std::net::SocketAddr>,
    /// What the operator allows from the next start on.
    pub(crate) allow_privileged: bool,
    /// From one look at what services use to the next, from the next start on.
    pub(crate) sample_every: Duration,
    /// What is let go of by itself, from the next start on.
    pub(crate) prune: PrunePolicy,
    confirmer: JoinHandle<()>,
}

/// What the operator says.
#[derive(Clone, Copy)]
struct Settings {
    listen: Option<std::net::SocketAddr>,
    allow_privileged: bool,
    sample_every: Duration,
    prune: PrunePolicy,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(FakeOptions::default()).await
    }

    /// One whose registry listens, as far as its names and routes go.
    pub(crate) async fn with_registry() -> Self {
        let mut world = Self::new().await;
        world.kill();
        world.listen = Some((Ipv4Addr::LOCALHOST, 5000).into());
        world.start().await;
        world
    }

    pub(crate) async fn with(options: FakeOptions) -> Self {
        let dir = TempDir::new().expect("a folder");
        let images = Arc::new(images(&dir));
        let fake = Arc::new(Fake::new(options));
        let gateway = Gateway {
            confirmed: watch::Sender::default(),
            demand: watch::Sender::default(),
            traffic: Arc::default(),
            names: watch::Sender::default(),
            taken: Arc::default(),
            applied: Arc::default(),
            confirms: watch::Sender::new(true),
        };
        let settings = Settings {
            listen: None,
            allow_privileged: false,
            sample_every: SAMPLE_EVERY,
            prune: PrunePolicy::default(),
        };
        let (control, tables, confirmer) = start(&dir, &fake, &images, &gateway, settings).await;
        Self {
            router: control.router(),
            registry: control.registry_router(),
            listen: None,
            allow_privileged: false,
            sample_every: SAMPLE_EVERY,
            prune: PrunePolicy::default(),
            dir,
            fake,
            images,
            gateway,
            tables,
            control: Some(control),
            confirmer,
        }
    }

    /// Ends the control plane as a kill does, and starts it again over the same engine, store and gateway.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.start().await;
    }

    pub(crate) fn kill(&mut self) {
        self.control = None;
        self.router = Router::new();
        self.registry = Router::new();
        self.confirmer.abort();
    }

    pub(crate) async fn start(&mut self) {
        let settings = Settings {
            listen: self.listen,
            allow_privileged: self.allow_privileged,
            sample_every: self.sample_every,
            prune: self.prune,
        };
        let (control, tables, confirmer) =
            start(&self.dir, &self.fake, &self.images, &self.gateway, settings).await;
        self.router = control.router();
        self.registry = control.registry_router();
        self.control = Some(control);
        self.tables = tables;
        self.confirmer = confirmer;
    }

    pub(crate) fn control(&self) -> &Control {
        self.control.as_ref().expect("it runs")
    }

    pub(crate) fn take_control(&mut self) -> Control {
        self.control.take().expect("it runs")
    }

    /// One request to the API.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> (StatusCode, Bytes) {
        self.ask_with(method, path, &[], body).await
    }

    /// The same, with further headers.
    pub(crate) async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (StatusCode, Bytes) {
        let request = Request::builder().method(method).uri(path);
        let mut request = request.header("accept", "application/x-ndjson, application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let answer = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let status = answer.status();
        let body = tokio::time::timeout(PATIENCE, answer.into_body().collect());
        let body = body.await.expect("in time").expect("a whole body");
        (status, body.to_bytes())
    }

    /// One request to the registry, as over the network.
    pub(crate) async fn ask_registry(
        &self,
        request: Request<Vec<u8>>,
    ) -> axum::http::Response<Bytes> {
        let answer = self.registry.clone().oneshot(request.map(Body::from));
        let (parts, body) = answer.await.expect("an answer").into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await;
        let body = body.expect("in time").expect("a whole body").to_bytes();
        axum::http::Response::from_parts(parts, body)
    }

    /// Serves the API on a port, for what takes over its connection.
    pub(crate) async fn serve(&self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(axum::serve(listener, self.router.clone()).into_future());
        addr
    }

    /// The first line of an answer that goes on, which is then no longer listened to.
    pub(crate) async fn first_line(&self, path: &str) -> String {
        let request = Request::builder().uri(path).body(Body::empty());
        let answer = self.router.clone().oneshot(request.expect("a request"));
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let mut body = answer.into_body();
        let line = tokio::time::timeout(PATIENCE, body.frame());
        let line = line
            .await
            .expect("in time")
            .expect("a line")
            .expect("whole");
        String::from_utf8_lossy(line.data_ref().expect("data")).into_owned()
    }

    /// Begins a request whose body never comes.
    pub(crate) fn stall(&self, path: &str) {
        let body =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let request = Request::builder().method("POST").uri(path);
        let request = request.body(body).expect("a request");
        tokio::spawn(self.router.clone().oneshot(request));
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask("GET", path, Vec::new()).await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON of this type")
    }

    /// Deploys a Compose file as app `shop`.
    pub(crate) async fn up(&self, compose: &str) -> Deployed {
        self.up_as("shop", compose, "").await
    }

    pub(crate) async fn up_as(&self, app: &str, compose: &str, query: &str) -> Deployed {
        let tar = tar(&[("manifest/compose.yaml", compose.as_bytes())]);
        let path = format!("/v1/apps?app={app}&folder=folder{query}");
        let (status, body) = self.ask("POST", &path, tar).await;
        Deployed::of(status, &body)
    }

    pub(crate) async fn detail(&self, id: &str) -> ServiceDetail {
        self.get(&format!("/v1/services/{id}")).await
    }

    pub(crate) async fn list(&self) -> Vec<ServiceView> {
        self.get("/v1/services").await
    }

    /// Waits until a service looks like this.
    pub(crate) async fn until(
        &self,
        id: &str,
        what: impl Fn(&ServiceDetail) -> bool,
    ) -> ServiceDetail {
        let started = tokio::time::Instant::now();
        loop {
            let detail = self.detail(id).await;
            if what(&detail) {
                return detail;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "never came about; now {detail:#?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the newest table looks like this.
    pub(crate) async fn until_table(&self, what: impl Fn(&RouteTable) -> bool) -> Arc<RouteTable> {
        let mut tables = self.tables.clone();
        let found = tokio::time::timeout(PATIENCE, tables.wait_for(|table| what(table)));
        match found.await {
            Ok(found) => Arc::clone(&found.expect("a control plane")),
            Err(_) => panic!("never came about; now {:#?}", self.tables.borrow()),
        }
    }

    /// Waits until a file is gone.
    pub(crate) async fn until_gone(&self, path: &std::path::Path) {
        let started = tokio::time::Instant::now();
        while path.exists() {
            assert!(started.elapsed() < PATIENCE, "{} stays", path.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until an image is no longer in the store.
    pub(crate) async fn until_collected(&self, digest: &str) {
        let started = tokio::time::Instant::now();
        while self.images.get(digest).is_ok() {
            assert!(started.elapsed() < PATIENCE, "{digest} stays");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the engine has.
    pub(crate) async fn replicas(&self) -> Vec<ReplicaReport> {
        self.fake.observe(None).await.expect("the fake answers")
    }

    /// Waits until what the engine has looks like this.
    pub(crate) async fn until_replicas(
        &self,
        what: impl Fn(&[ReplicaReport]) -> bool,
    ) -> Vec<ReplicaReport> {
        let started = tokio::time::Instant::now();
        loop {
            let replicas = self.replicas().await;
            if what(&replicas) {
                return replicas;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "never came about; now {replicas:#?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What a deploy answered.
#[derive(Debug)]
pub(crate) struct Deployed {
    pub(crate) status: StatusCode,
    pub(crate) events: Vec<Event>,
    pub(crate) problem: Option<Problem>,
}

impl Deployed {
    pub(crate) fn of(status: StatusCode, body: &[u8]) -> Self {
        if status != 200 {
            return Self {
                status,
                events: Vec::new(),
                problem: Some(serde_json::from_slice(body).expect("a problem")),
            };
        }
        let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        Self {
            status,
            events: lines
                .map(|line| serde_json::from_slice(line).expect("an event"))
                .collect(),
            problem: None,
        }
    }

    /// The exit code that the last event says.
    pub(crate) fn code(&self) -> i32 {
        match self.events.last() {
            Some(Event::Done { code }) => *code,
            _ => panic!("no end: {self:#?}"),
        }
    }

    pub(crate) fn outcomes(&self) -> Vec<(String, Outcome)> {
        let outcome = |event: &Event| match event {
            Event::Service {
                service, outcome, ..
            } => Some((service.service.clone(), *outcome)),
            _ => None,
        };
        self.events.iter().filter_map(outcome).collect()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let warnings = self.events.iter().filter_map(|event| match event {
            Event::Warning { text } => Some(text.as_str()),
            _ => None,
        });
        warnings.collect()
    }

    pub(crate) fn failure(&self) -> Failure {
        let failure = |event: &Event| match event {
            Event::Service { failure, .. } => failure.clone(),
            _ => None,
        };
        self.events
            .iter()
            .find_map(failure)
            .unwrap_or_else(|| panic!("no failure: {self:#?}"))
    }

    pub(crate) fn problem(&self) -> &Problem {
        self.problem
            .as_ref()
            .unwrap_or_else(|| panic!("no problem: {self:#?}"))
    }
}

/// A tar of files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content)
            .expect("to append");
    }
    tar.into_inner().expect("to finish")
}

/// A Compose file of one service with these lines. What fails in it has failed: it gets one attempt.
pub(crate) fn compose(image: &str, more: &str) -> String {
    let more = match (more.contains("x-layby: {"), more.contains("x-layby:\n")) {
        (true, _) => more.replacen("x-layby: {", "x-layby: {retries: 0, ", 1),
        (_, true) => more.replacen("x-layby:\n", "x-layby:\n  retries: 0\n", 1),
        (false, false) => format!("{more}\nx-layby: {{retries: 0}}"),
    };
    compose_retried(image, &more)
}

/// A Compose file of one service with these lines, just so.
pub(crate) fn compose_retried(image: &str, more: &str) -> String {
    let mut text = format!("services:\n  web:\n    image: {image}\n");
    for line in more.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

fn images(dir: &TempDir) -> Store {
    let context = dir.path().join("context");
    std::fs::create_dir_all(&context).expect("a folder");
    let store = Store::open(&dir.path().join("images")).expect("a store");
    let build = |dockerfile: &str, tag: &str| {
        std::fs::write(context.join("Dockerfile"), dockerfile).expect("a file");
        let options = BuildOptions {
            tag: Some(tag.to_owned()),
            ..BuildOptions::default()
        };
        build::build(&store, &context, &options, &mut |_| {}).expect("an image")
    };
    let plain = build(
        "FROM scratch\nCOPY Dockerfile /it\nCMD [\"/it\"]\nEXPOSE 8080\n",
        "plain",
    );
    for name in IMAGES {
        store.tag(&plain.digest, name).expect("a name");
    }
    let checked = build(
        "FROM scratch\nCOPY Dockerfile /it\nCMD [\"/it\"]\nHEALTHCHECK --interval=1s CMD [\"true\"]\n",
        "checked",
    );
    // The same, but it ends as soon as it is started.
    store.tag(&checked.digest, "fake/exits:4").expect("a name");
    store
}

async fn start(
    dir: &TempDir,
    fake: &Arc<Fake>,
    images: &Arc<Store>,
    gateway: &Gateway,
    Settings {
        listen,
        allow_privileged,
        sample_every,
        prune,
    }: Settings,
) -> (Control, watch::Receiver<Arc<RouteTable>>, JoinHandle<()>) {
    let (send, tables) = watch::channel(Arc::default());
    let traffic = Arc::clone(&gateway.traffic);
    let wires = Wires {
        tables: send,
        confirmed: gateway.confirmed.subscribe(),
        demand: gateway.demand.subscribe(),
        traffic: Arc::new(move |id: &ServiceId| {
            let mut traffic = traffic.lock().expect("no poison");
            let Some(traffic) = traffic.get_mut(id) else {
                return Traffic {
                    load: until_now(Load::default()),
                    ..Traffic::default()
                };
            };
            traffic.load = until_now(traffic.load);
            traffic.clone()
        }),
        names: gateway.names.clone(),
        secrets: fake.secrets(),
        dropped_ports: Arc::new(move |ports| {
            let dropped = ports.iter().filter(|port| **port == FIREWALLED);
            let dropped = dropped
                .map(|port| (*port, "chain INPUT".to_owned()))
                .collect();
            Box::pin(async move { dropped })
        }),
    };
    let config = ControlConfig {
        prune,
        data_dir: dir.path().to_owned(),
        domain: "localhost".into(),
        http: (Ipv4Addr::LOCALHOST, 8080).into(),
        publish_on: IpAddr::V4(Ipv4Addr::LOCALHOST),
        allow_privileged,
        shifts_ids: true,
        registry: layby_control::RegistrySettings {
            listen,
            ..Default::default()
        },
        api: None,
        registries: Default::default(),
        master_key: layby_control::MasterKey::File(dir.path().join("master.key")),
        forget_secrets: false,
        version: "0.0.0-test".into(),
        virtual_range: (Ipv4Addr::new(10, 1, 240, 0), 20),
        machine: layby_model::capacity::Machine {
            memory_bytes: 8 << 30,
            cpu_milli: 4_000,
            addresses: 253,
        },
        sample_every,
    };
    let confirmer = tokio::spawn(confirm(
        tables.clone(),
        gateway.confirmed.clone(),
        Arc::clone(&gateway.taken),
        Arc::clone(&gateway.applied),
        gateway.confirms.subscribe(),
    ));
    let engine: Arc<dyn Engine> = Arc::clone(fake) as _;
    let control = Control::start(
        config,
        engine,
        Arc::clone(fake) as _,
        Arc::clone(images),
        None,
        wires,
    )
    .await;
    (control.expect("a control plane"), tables, confirmer)
}

async fn confirm(
    mut tables: watch::Receiver<Arc<RouteTable>>,
    confirmed: watch::Sender<Confirmed>,
    taken: Arc<Mutex<BTreeSet<u16>>>,
    applied: Arc<Mutex<Arc<RouteTable>>>,
    mut confirms: watch::Receiver<bool>,
) {
    loop {
        if tables.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        if confirms.wait_for(|on| *on).await.is_err() {
            return;
        }
        let table = Arc::clone(&tables.borrow_and_update());
        *applied.lock().expect("no poison") = Arc::clone(&table);
        tokio::time::sleep(Duration::from_millis(1)).await; // the table goes to the disk first
        let taken = taken.lock().expect("no poison").clone();
        let failed = table
            .listeners
            .iter()
            .filter(|l| taken.contains(&l.addr.port()));
        confirmed.send_replace(Confirmed {
            version: table.version,
            failed_listeners: failed
                .map(|l| {
                    (
                        l.clone(),
                        "the port is in use by another program".to_owned(),
                    )
                })
                .collect(),
        });
    }
}
