//! An engine to ask, and how to order from it what the suite needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use layby_engine::embedded::{Embedded, EmbeddedConfig};
use layby_engine::fake::{Fake, FakeOptions};
use layby_image::{BuildOptions, Image, Store, build};
use layby_model::access::Access;
use layby_model::engine::{Engine, EngineError, RunSpec, Workload};
use layby_model::mounts::{Mount, MountSource};
use layby_model::replica::{Phase, ReplicaReport};
use layby_model::spec::{ContainerSpec, Resources, RestartPolicy, ServiceSpec};
use layby_model::{ReplicaId, RevisionId, ServiceId, ServiceName, Wakefulness};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Runtime;

/// How long anything may take before the suite gives up on it; the machine may be slow.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a replica is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// It runs and says `started` or more.
    Serves,
    /// It ends with code 3 as soon as it is started.
    Exits3,
    /// Its image does not exist.
    MissingImage,
    /// Its command does not exist.
    MissingCommand,
    /// As [`Kind::Serves`], with the volume `data` at `/data`.
    WithVolume,
    /// The same, but the volume is not to be made.
    WithExternalVolume,
    /// As [`Kind::Serves`], privileged.
    Privileged,
    /// As [`Kind::Serves`], with a second container that ends with code 3 as soon as it is started.
    WithHelper,
    /// Two containers that end, and are left so: the first with code 0, the second with code 3.
    TwoTasks,
}

/// Makes a kit for each promise.
#[derive(Debug, Clone)]
pub(crate) enum Maker {
    Fake,
    Embedded {
        images: Arc<Store>,
        image: Box<Image>,
        root: Arc<tempfile::TempDir>,
    },
}

/// One engine, on a runtime of its own.
pub(crate) struct Kit {
    maker: Maker,
    pub(crate) runtime: Runtime,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) access: Arc<dyn Access>,
    embedded: Option<Place>,
}

/// Where an embedded engine is.
struct Place {
    engine: Arc<Embedded>,
    node: String,
    dir: PathBuf,
}

/// Gets the machine ready for embedded engines. The error says what is missing.
pub(crate) fn embedded() -> Result<Maker, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
        .map_err(|error| format!("no namespaces of our own: {error}"))?;
    let root = tempfile::Builder::new()
        .prefix("lyb")
        .tempdir()
        .map_err(|error| error.to_string())?;
    let images = Store::open(&root.path().join("images")).expect("an image store");
    let image = build_image(&images, &root.path().join("context"));
    Ok(Maker::Embedded {
        images: Arc::new(images),
        image: Box::new(image),
        root: Arc::new(root),
    })
}

/// Compiles the test program and builds an image of it and nothing else.
fn build_image(images: &Store, context: &Path) -> Image {
    fs::create_dir_all(context).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/app.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiled = Command::new(rustc)
        .args(["--edition=2024", "-Ctarget-feature=+crt-static", "-o"])
        .args([&context.join("app"), &source])
        .status()
        .expect("rustc runs");
    assert!(compiled.success());
    let dockerfile =
        "FROM scratch\nCOPY app /app\nENV LEVEL=low\nENTRYPOINT [\"/app\"]\nCMD [\"serve\"]\n";
    fs::write(context.join("Dockerfile"), dockerfile).expect("written");
    let options = BuildOptions {
        tag: Some("app:1".to_owned()),
        ..BuildOptions::default()
    };
    build::build(images, context, &options, &mut |_| {}).expect("built")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

impl Maker {
    /// Opens an engine that has nothing yet.
    pub(crate) fn make(&self) -> Kit {
        static KITS: AtomicU32 = AtomicU32::new(0);
        let runtime = runtime();
        match self {
            Self::Fake => {
                let fake = Arc::new(Fake::new(FakeOptions::default()));
                Kit {
                    maker: self.clone(),
                    runtime,
                    engine: Arc::clone(&fake) as _,
                    access: fake,
                    embedded: None,
                }
            }
            Self::Embedded { root, .. } => {
                let number = KITS.fetch_add(1, Ordering::Relaxed);
                let node = format!("t{:x}{number:02x}", std::process::id() & 0xf_ffff);
                let dir = root.path().join(format!("n{number}"));
                fs::create_dir_all(dir.join("data")).expect("a folder");
                self.open(runtime, node, dir).expect("opened")
            }
        }
    }

    fn open(&self, runtime: Runtime, node: String, dir: PathBuf) -> Result<Kit, EngineError> {
        let Self::Embedded { images, root, .. } = self else {
            panic!("only an embedded engine can be opened again");
        };
        let config = EmbeddedConfig {
            node: node.clone(),
            data_dir: dir.join("data"),
            run_dir: root.path().join("run").join(&node),
            images: Arc::clone(images),
            names: tokio::sync::watch::channel(Arc::default()).1,
            secrets: Default::default(),
            virtual_port: 7777, // nobody asks for a name here
            allow_privileged: false,
        };
        let engine = Arc::new(runtime.block_on(Embedded::open(config))?);
        Ok(Kit {
            maker: self.clone(),
            runtime,
            engine: Arc::clone(&engine) as Arc<dyn Engine>,
            access: Arc::clone(&engine) as Arc<dyn Access>,
            embedded: Some(Place { engine, node, dir }),
        })
    }
}

/// An embedded engine whose node was killed.
pub(crate) struct Shut {
    maker: Maker,
    node: String,
    dir: PathBuf,
}

impl Shut {
    /// The folder of the bundles.
    pub(crate) fn bundles(&self) -> PathBuf {
        self.dir.join("data/replicas")
    }

    /// Opens it again.
    pub(crate) fn open(&self) -> Result<Kit, EngineError> {
        let (node, dir) = (self.node.clone(), self.dir.clone());
        self.maker.open(runtime(), node, dir)
    }
}

impl Kit {
    /// Opens the engine again, as after a kill of the node: nothing of the old one runs on. `between`: what happens
    /// in the meantime.
    pub(crate) fn reopen(self, between: impl FnOnce(&Path)) -> Kit {
        let shut = self.shut();
        between(&shut.bundles());
        shut.open().expect("opened")
    }

    /// Ends the engine as a kill of the node does: nothing of it runs on, and its replicas do.
    pub(crate) fn shut(mut self) -> Shut {
        let place = self.embedded.take().expect("an embedded engine");
        let (node, dir) = (place.node.clone(), place.dir.clone());
        let maker = self.maker.clone();
        drop(place);
        let old = std::mem::replace(&mut self.runtime, runtime());
        old.shutdown_timeout(DEADLINE);
        Shut { maker, node, dir }
    }

    /// The folder of the bundles.
    pub(crate) fn bundles(&self) -> PathBuf {
        let place = self.embedded.as_ref().expect("an embedded engine");
        place.dir.join("data/replicas")
    }

    /// Builds an image on top of the test's, by a Dockerfile's text after its FROM, with its steps run by the engine;
    /// its layers, topmost first, and what the builder said.
    pub(crate) fn build(&self, text: &str) -> (Result<Vec<PathBuf>, String>, String) {
        let (Some(place), Maker::Embedded { images, root, .. }) = (&self.embedded, &self.maker)
        else {
            panic!("only the embedded engine runs steps");
        };
        let _entered = self.runtime.enter();
        let context = root.path().join("steps");
        fs::create_dir_all(&context).expect("a folder");
        fs::write(context.join("Dockerfile"), format!("FROM app:1\n{text}")).expect("written");
        let options = BuildOptions {
            tag: Some("stepped:1".to_owned()),
            runner: Some(place.engine.runner()),
            ..BuildOptions::default()
        };
        let mut said = String::new();
        let built = build::build(images, &context, &options, &mut |event| {
            said.push_str(&format!("{event:?}\n"));
        });
        let layers = built
            .and_then(|image| images.layers(&image.digest))
            .map_err(|error| layby_model::error_chain(&error));
        (layers, said)
    }

    /// What runs a replica of `kind`.
    pub(crate) fn spec(&self, kind: Kind) -> RunSpec {
        let (image, digest, command) = match &self.maker {
            Maker::Fake => {
                let image = match kind {
                    Kind::Serves
                    | Kind::WithVolume
                    | Kind::WithExternalVolume
                    | Kind::Privileged
                    | Kind::WithHelper => "fake/ok",
                    Kind::TwoTasks => "fake/exits:0",
                    Kind::Exits3 => "fake/exits:3",
                    Kind::MissingImage => "fake/missing",
                    Kind::MissingCommand => "fake/no-command",
                };
                (image, String::new(), None)
            }
            Maker::Embedded { image, .. } => {
                let missing = format!("sha256:{}", "0".repeat(64));
                let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
                match kind {
                    Kind::Serves
                    | Kind::WithVolume
                    | Kind::WithExternalVolume
                    | Kind::Privileged
                    | Kind::WithHelper => ("app:1", image.digest.clone(), None),
                    Kind::TwoTasks => ("app:1", image.digest.clone(), Some(words("/app exit 0"))),
                    Kind::Exits3 => ("app:1", image.digest.clone(), Some(words("/app exit 3"))),
                    Kind::MissingImage => ("gone:1", missing, None),
                    Kind::MissingCommand => ("app:1", image.digest.clone(), Some(words("/nope"))),
                }
            }
        };
        let mut service = service_spec(image, command);
        service.containers[0].options.privileged = matches!(kind, Kind::Privileged);
        if matches!(kind, Kind::WithVolume | Kind::WithExternalVolume) {
            let source = MountSource::Volume {
                name: "data".to_owned(),
                subpath: None,
                copy: true,
                external: matches!(kind, Kind::WithExternalVolume),
                labels: BTreeMap::new(),
            };
            service.containers[0].mounts.push(Mount {
                source,
                target: "/data".to_owned(),
                read_only: false,
            });
        }
        let mut images = vec![digest];
        if matches!(kind, Kind::WithHelper | Kind::TwoTasks) {
            let mut helper = service.containers[0].clone();
            helper.name = "helper".to_owned();
            helper.entrypoint = Some(self.exit(3));
            service.containers.push(helper);
            images.push(images[0].clone());
        }
        if matches!(kind, Kind::TwoTasks) {
            service.restart = RestartPolicy::Never;
        }
        RunSpec { service, images }
    }

    /// A command that says `words`.
    pub(crate) fn say(&self, words: &str) -> Vec<String> {
        let head: &[&str] = match self.maker {
            Maker::Fake => &["echo"],
            Maker::Embedded { .. } => &["/app", "say"],
        };
        let head = head.iter().copied();
        head.chain(words.split(' ')).map(str::to_owned).collect()
    }

    /// A command that exits with `code`.
    pub(crate) fn exit(&self, code: i32) -> Vec<String> {
        let head: &[&str] = match self.maker {
            Maker::Fake => &["exit"],
            Maker::Embedded { .. } => &["/app", "exit"],
        };
        let code = code.to_string();
        let head = head.iter().copied();
        head.chain([code.as_str()]).map(str::to_owned).collect()
    }

    /// A command of one word that is known by the same name everywhere.
    pub(crate) fn word(&self, word: &str) -> Vec<String> {
        let head: &[&str] = match self.maker {
            Maker::Fake => &[],
            Maker::Embedded { .. } => &["/app"],
        };
        let head = head.iter().copied();
        head.chain([word]).map(str::to_owned).collect()
    }

    /// Whether replicas are real processes.
    pub(crate) fn is_real(&self) -> bool {
        self.embedded.is_some()
    }

    /// Orders, and expects that it is accepted.
    pub(crate) fn order(&self, order: &Order) {
        self.try_order(order).expect("accepted");
    }

    /// Orders.
    pub(crate) fn try_order(&self, order: &Order) -> Result<(), EngineError> {
        let workload = Workload {
            service: service(),
            revision: RevisionId(1),
            generation: order.generation,
            spec: self.spec(order.kind),
            replicas: order.replicas.clone(),
            retire: order.retire.clone(),
        };
        self.runtime.block_on(self.engine.apply(&workload))
    }

    /// What is there now.
    pub(crate) fn all(&self) -> Vec<ReplicaReport> {
        let service = service();
        let seen = self.runtime.block_on(self.engine.observe(Some(&service)));
        seen.expect("observed")
    }

    /// What is there of one replica now.
    pub(crate) fn see(&self, id: ReplicaId) -> Option<ReplicaReport> {
        self.all().into_iter().find(|report| report.id == id)
    }

    /// Waits until `fits` is true of a replica.
    pub(crate) fn until(
        &self,
        id: ReplicaId,
        what: &str,
        fits: impl Fn(&ReplicaReport) -> bool,
    ) -> ReplicaReport {
        let found = self.wait(|| self.see(id).filter(|report| fits(report)));
        found.unwrap_or_else(|| panic!("{id} is not {what} in time: {:?}", self.see(id)))
    }

    /// Waits until a replica is gone.
    pub(crate) fn until_gone(&self, id: ReplicaId) {
        let gone = self.wait(|| self.see(id).is_none().then_some(()));
        gone.unwrap_or_else(|| panic!("{id} is not gone in time: {:?}", self.see(id)));
    }

    /// Asks again at each hint, and now and then without one.
    fn wait<T>(&self, ask: impl Fn() -> Option<T>) -> Option<T> {
        let begun = std::time::Instant::now();
        let mut hints = self.engine.changes();
        loop {
            if let Some(answer) = ask() {
                return Some(answer);
            }
            if begun.elapsed() > DEADLINE {
                return None;
            }
            self.runtime.block_on(async {
                // A hint that is missed costs 50 ms and no more.
                let _ = tokio::time::timeout(Duration::from_millis(50), hints.next()).await;
            });
        }
    }

    /// Ends the promise: all that was made is removed, and that is checked too.
    pub(crate) fn close(self) {
        if self.embedded.is_some() {
            self.end_all();
        }
    }

    /// Ends all replicas, as `layby node stop --all` does. Of those that had ended by themselves a word is left.
    pub(crate) fn end_all(&self) {
        let place = self.embedded.as_ref().expect("an embedded engine");
        let closed = self.runtime.block_on(place.engine.close(true));
        closed.expect("closed");
        for bundle in fs::read_dir(self.bundles()).expect("read").flatten() {
            let left = fs::read_dir(bundle.path()).expect("read").flatten();
            let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
            assert_eq!(left, ["replica.json"], "{bundle:?}");
        }
    }
}

impl Drop for Kit {
    /// A promise that was broken leaves nothing either.
    fn drop(&mut self) {
        if let Some(place) = &self.embedded
            && std::thread::panicking()
        {
            // The panic has told what is wrong.
            let _ = self.runtime.block_on(place.engine.close(true));
        }
    }
}

/// What is ordered.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) generation: u64,
    pub(crate) kind: Kind,
    pub(crate) replicas: BTreeMap<ReplicaId, Wakefulness>,
    pub(crate) retire: Vec<ReplicaId>,
}

impl Order {
    /// One replica at a depth.
    pub(crate) fn one(id: ReplicaId, depth: Wakefulness) -> Self {
        Self {
            generation: 1,
            kind: Kind::Serves,
            replicas: BTreeMap::from([(id, depth)]),
            retire: Vec::new(),
        }
    }

    /// Replicas to retire.
    pub(crate) fn retire(ids: &[ReplicaId]) -> Self {
        Self {
            generation: 1,
            kind: Kind::Serves,
            replicas: BTreeMap::new(),
            retire: ids.to_vec(),
        }
    }

    pub(crate) fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn generation(self, generation: u64) -> Self {
        Self { generation, ..self }
    }
}

/// Whether its processes run and nothing else is ordered.
pub(crate) fn runs(report: &ReplicaReport) -> bool {
    let up = matches!(report.phase, Phase::Ready | Phase::Starting);
    up && report.containers[0].pid.is_some()
}

/// Whether it is prepared, and no process of it runs.
pub(crate) fn stopped(report: &ReplicaReport) -> bool {
    report.phase == Phase::Stopped && report.address.is_some() && report.containers[0].pid.is_none()
}

pub(crate) fn service() -> ServiceId {
    "shop/web".parse().expect("a service")
}

fn service_spec(image: &str, entrypoint: Option<Vec<String>>) -> ServiceSpec {
    let container = ContainerSpec {
        entrypoint,
        env: BTreeMap::from([("LEVEL".to_owned(), "high".to_owned())]),
        resources: Resources {
            memory_limit_bytes: Some(64 << 20),
            pids_limit: Some(64),
            ..Resources::default()
        },
        ports: vec![8000],
        stop_signal: Some("SIGKILL".to_owned()),
        stop_grace_ms: 2_000,
        ..ContainerSpec::new("web", image)
    };
    ServiceSpec {
        containers: vec![container],
        ..ServiceSpec::new(ServiceName::new("web").expect("a label"))
    }
}
