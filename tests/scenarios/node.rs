//! A node on the fake engine: control plane and gateway as ever, in this process, and replicas that only answer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use layby_control::{Control, ControlConfig};
use layby_engine::fake::{Fake, FakeOptions};
use layby_gateway::{Gateway, GatewayConfig};
use layby_image::{BuildOptions, Store, build};
use layby_model::engine::Engine;
use layby_model::replica::ReplicaReport;
use layby_model::route::{Confirmed, Demand, NameTable, RouteTable};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Images that the node has; their names are orders to the fake engine.
const IMAGES: &[&str] = &[
    "fake/ok",
    "fake/ok:2",
    "fake/ok:3",
    "fake/slow:300ms",
    "fake/hangs",
    "fake/exits:0",
    "fake/exits:3",
    "fake/oom",
    "fake/no-command",
];
/// The port that replicas answer on.
const PORT: u16 = 8080;

/// Counts the nodes of this process, whose replicas have addresses in networks of their own.
static NODES: AtomicU8 = AtomicU8::new(0);

/// A node without containers.
pub(crate) struct Node {
    runtime: Runtime,
    dir: TempDir,
    run_dir: PathBuf,
    fake: Arc<Fake>,
    /// The number of its replicas' network.
    net: u8,
    images: Arc<Store>,
    gateway: Arc<Gateway>,
    tables: watch::Sender<Arc<RouteTable>>,
    confirmed: watch::Receiver<Confirmed>,
    demand: watch::Receiver<Demand>,
    control: Option<Control>,
    served: Option<JoinHandle<()>>,
}

impl Node {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let dir = TempDir::new().expect("a folder");
        for below in ["data", "folder"] {
            fs::create_dir(dir.path().join(below)).expect("a folder");
        }
        let data = dir.path().join("data").canonicalize().expect("a path");
        let digest = Sha256::digest(data.as_os_str().as_encoded_bytes());
        let hash: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
        let run_dir = Path::new("/run/layby").join(hash);
        fs::create_dir_all(&run_dir).expect("a folder in /run");
        let images = Arc::new(images(dir.path()));
        let (tables, tables_in) = watch::channel(Arc::new(RouteTable::default()));
        let (confirmed_out, confirmed) = watch::channel(Confirmed::default());
        let (demand_out, demand) = watch::channel(Demand::default());
        let gateway = Gateway::start(
            GatewayConfig {
                http: (Ipv4Addr::LOCALHOST, 0).into(),
                workers: 1,
                table_file: data.join("routes.json"),
                handed: layby_gateway::Handed::default(),
            },
            layby_gateway::Wires {
                tables: tables_in,
                confirmed: confirmed_out,
                demand: demand_out,
            },
        );
        let net = NODES.fetch_add(1, Ordering::Relaxed);
        let fake = Arc::new(Fake::new(FakeOptions {
            addresses: Ipv4Addr::new(127, 128 + net, 0, 0),
            ..FakeOptions::default()
        }));
        runtime.spawn(answer_for(Arc::clone(&fake)));
        let mut node = Self {
            runtime,
            dir,
            run_dir,
            fake,
            net,
            images,
            gateway: Arc::new(gateway.expect("a gateway")),
            tables,
            confirmed,
            demand,
            control: None,
            served: None,
        };
        node.begin();
        node
    }

    /// Where the node's data is.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where commands run.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    /// What differs from node to node, and what stands for it.
    pub(crate) fn known(&self) -> Vec<(String, &'static str)> {
        vec![
            (self.folder().display().to_string(), "FOLDER"),
            (self.data().display().to_string(), "DATA"),
            (self.run_dir.display().to_string(), "RUN"),
            (format!("127.{}.0.", 128 + self.net), "127.128.0."),
            (self.gateway.http_addr().to_string(), "127.0.0.1:8080"),
            (
                format!(".localhost:{}", self.gateway.http_addr().port()),
                ".localhost:8080",
            ),
            (
                format!(".example:{}", self.gateway.http_addr().port()),
                ".example:8080",
            ),
        ]
    }

    /// Asks the gateway, and gives the status and the body.
    pub(crate) fn get(&self, host: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.gateway.http_addr()).expect("the gateway");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("a limit");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: text/plain\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("to write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).unwrap_or_default();
        format!("{status} {}\n", body.trim_end())
    }

    /// Asks the gateway so many times at once, and counts the answers by their status.
    pub(crate) fn crowd(&self, host: &str, path: &str, count: usize) -> String {
        let answers = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..count)
                .map(|_| scope.spawn(|| self.get(host, path)))
                .collect();
            let answers = asked.into_iter().map(|one| one.join().expect("no panic"));
            answers.collect::<Vec<String>>()
        });
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for answer in &answers {
            let status = answer.split(' ').next().unwrap_or_default();
            *counts.entry(status).or_default() += 1;
        }
        let lines = counts.into_iter();
        let lines = lines.map(|(status, count)| format!("{count} x {status}\n"));
        lines.collect()
    }

    /// Ends the running replicas of a service.
    pub(crate) fn crash(&self, service: &str, code: i32) {
        let service = service.parse().expect("app/service");
        let reports = self.runtime.block_on(self.fake.observe(Some(&service)));
        for report in reports.expect("the fake answers") {
            self.fake.crash(report.id, code);
        }
    }

    /// Ends the control plane as a kill does, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.end();
        self.begin();
    }

    fn end(&mut self) {
        if let Some(served) = self.served.take() {
            served.abort();
        }
        self.control = None;
        let _ = fs::remove_file(self.run_dir.join("api.sock"));
    }

    fn begin(&mut self) {
        let traffic = Arc::clone(&self.gateway);
        let wires = layby_control::Wires {
            tables: self.tables.clone(),
            names: watch::Sender::new(Arc::new(NameTable::default())),
            confirmed: self.confirmed.clone(),
            demand: self.demand.clone(),
            traffic: Arc::new(move |id| traffic.traffic(id)),
            secrets: self.fake.secrets(),
            dropped_ports: Arc::new(|_| Box::pin(async { Vec::new() })),
        };
        let config = ControlConfig {
            data_dir: self.data(),
            domain: "localhost".into(),
            http: self.gateway.http_addr(),
            publish_on: IpAddr::V4(Ipv4Addr::LOCALHOST),
            allow_privileged: false,
            shifts_ids: true,
            prune: Default::default(),
            registry: Default::default(),
            api: None,
            registries: Default::default(),
            master_key: layby_control::MasterKey::File(self.data().join("master.key")),
            forget_secrets: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            virtual_range: (Ipv4Addr::new(10, 1, 240, 0), 20),
            machine: layby_model::capacity::Machine {
                memory_bytes: 8 << 30,
                cpu_milli: 4_000,
                addresses: 253,
            },
            // However slow a page is, none is taken.
            sample_every: Duration::from_secs(3_600),
        };
        let started = self.runtime.block_on(Control::start(
            config,
            Arc::clone(&self.fake) as Arc<dyn Engine>,
            Arc::clone(&self.fake) as _,
            Arc::clone(&self.images),
            None,
            wires,
        ));
        let control = started.expect("a control plane");
        let _entered = self.runtime.enter();
        let listener = UnixListener::bind(self.run_dir.join("api.sock")).expect("a socket");
        let router = control.router();
        self.served = Some(self.runtime.spawn(async move {
            axum::serve(listener, router).await.expect("the API");
        }));
        self.control = Some(control);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
        self.gateway.stop();
        let _ = fs::remove_dir(&self.run_dir);
    }
}

/// A store with all images; of what is in them only the port matters.
fn images(dir: &Path) -> Store {
    let context = dir.join("context");
    fs::create_dir(&context).expect("a folder");
    let dockerfile = format!("FROM scratch\nCOPY Dockerfile /it\nCMD [\"/it\"]\nEXPOSE {PORT}\n");
    fs::write(context.join("Dockerfile"), dockerfile).expect("a file");
    let store = Store::open(&dir.join("data/images")).expect("a store");
    let options = BuildOptions {
        tag: Some("plain".to_owned()),
        ..BuildOptions::default()
    };
    let image = build::build(&store, &context, &options, &mut |_| {}).expect("an image");
    for name in IMAGES {
        store.tag(&image.digest, name).expect("a name");
    }
    store
}

/// Listens on the address of every replica, for as long as it is there.
async fn answer_for(fake: Arc<Fake>) {
    let mut changes = fake.changes();
    let mut answering: BTreeMap<IpAddr, JoinHandle<()>> = BTreeMap::new();
    while changes.next().await.is_some() {
        let reports = fake.observe(None).await.expect("the fake answers");
        let there = |ip: &IpAddr| reports.iter().any(|r| r.address == Some(*ip));
        answering.retain(|ip, task| {
            let stays = there(ip);
            if !stays {
                task.abort();
            }
            stays
        });
        for report in &reports {
            if let Some(ip) = report.address
                && !answering.contains_key(&ip)
                && let Ok(listener) = TcpListener::bind(SocketAddr::new(ip, PORT)).await
            {
                answering.insert(ip, tokio::spawn(answer(listener, report.clone())));
            }
        }
    }
}

/// How long a request for `/takes/300ms` takes; others take no time.
fn takes(head: &[u8]) -> Duration {
    let head = String::from_utf8_lossy(head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let ms = path
        .strip_prefix("/takes/")
        .and_then(|ms| ms.strip_suffix("ms"));
    Duration::from_millis(ms.and_then(|ms| ms.parse().ok()).unwrap_or_default())
}

/// Says of every request by which revision it is answered.
async fn answer(listener: TcpListener, report: ReplicaReport) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let body = format!("{} revision {}", report.service, report.revision);
        tokio::spawn(async move {
            let mut head = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut head).await {
                tokio::time::sleep(takes(&head[..len])).await;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}
