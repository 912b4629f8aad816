//! The embedded engine: containers on this machine, one shim process for each replica.
//!
//! A replica is a folder (its *bundle*, `DIR/replicas/<id>/`), a place in the network, and a shim that holds its
//! containers and outlives the node. All that a restart must find again stands there: who the replica is in the
//! bundle's `replica.json` ([`record`]), how it is with the shim, its address in the kernel.
//!
//! Each replica has one task, which carries out its orders one after another ([`replica`]). Only a thaw goes past
//! the task: it is one small write, and a request is waiting for it.

mod access;
mod blocking;
mod files;
mod ids;
mod logs;
mod measure;
mod merge;
mod mounts;
mod names;
mod record;
mod reopen;
mod replica;
mod sandbox;
mod session;
mod shim;
mod step;
mod volumes;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layby_image::Store;
use layby_image::build::run::RunStep;
use layby_model::capacity::Machine;
use layby_model::engine::{
    BoxFuture, BoxStream, Engine, EngineError, EngineTraits, ExecOutput, LogLine, LogQuery,
    Workload,
};
use layby_model::fail::{self, Point};
use layby_model::replica::ReplicaReport;
use layby_model::route::NameTable;
use layby_model::secret::SecretWire;
use layby_model::{ReplicaId, ServiceId, Wakefulness, error_chain};
use layby_net::{Network, NetworkConfig};
use layby_runtime::probe::UserNamespaces;
use layby_runtime::{ShimImage, machine, probe, protocol};
use tokio::sync::watch;

use crate::lifecycle::{Action, Actual};
use crate::roster::{Entry, Roster};
use blocking::blocking;
use shim::Shim;
use volumes::Volumes;

/// How long [`Embedded::close`] waits for replicas to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(120);

/// How often it is tried to find out whether user namespaces work, and the pause after the first time; each further one
/// is twice as long.
const PROBES: u32 = 5;
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// Where an embedded engine is, and what it uses.
#[derive(Debug)]
pub struct EmbeddedConfig {
    /// The node's name on the machine (8 hex digits): it names the bridges, the nft table and the cgroups.
    pub node: String,
    /// The node's data directory; the bundles are in `replicas/` below it.
    pub data_dir: PathBuf,
    /// The node's folder for sockets and namespaces, `/run/layby/<node>`; short, since sockets' paths are limited.
    pub run_dir: PathBuf,
    /// The images.
    pub images: Arc<Store>,
    /// The names that containers may look up. What it holds when the engine opens is not taken up: until a first table
    /// is sent, the names of the last start are in force.
    pub names: watch::Receiver<Arc<NameTable>>,
    /// Who knows the values of secrets.
    pub secrets: SecretWire,
    /// The port of the machine to which connections to virtual addresses are sent: the gateway's.
    pub virtual_port: u16,
    /// Services may ask for what makes them as good as root on the machine, and build steps for its network.
    pub allow_privileged: bool,
}

/// The embedded engine.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
}

/// What the engine and its replicas' tasks share.
#[derive(Debug)]
struct Shared {
    node: String,
    replicas_dir: PathBuf,
    sockets_dir: PathBuf,
    images: Arc<Store>,
    volumes: Volumes,
    gate: mounts::Gate,
    ids: ids::Ids,
    network: Network,
    secrets: SecretWire,
    program: ShimImage,
    /// The folders of build steps.
    steps_dir: PathBuf,
    /// Root inside can be nobody outside on this machine.
    shifts_ids: bool,
    roster: Roster,
    disks: measure::Disks,
    /// The shims that are connected; each replica that is prepared has one.
    shims: Mutex<BTreeMap<ReplicaId, Arc<Shim>>>,
}

impl Embedded {
    /// Opens the engine and finds every replica that was left running, frozen or stopped. What was left half made,
    /// or without its shim, is removed; the latter is reported as lost.
    ///
    /// # Errors
    /// [`EngineError::Failed`], in one sentence, when the network or the folders cannot be made, when it cannot be found out
    /// whether user namespaces work here, or when a replica was made by another version of Layby: nothing is touched then.
    pub async fn open(config: EmbeddedConfig) -> Result<Self, EngineError> {
        let replicas_dir = config.data_dir.join("replicas");
        let sockets_dir = config.run_dir.join("shims");
        for dir in [&replicas_dir, &sockets_dir] {
            std::fs::create_dir_all(dir).map_err(|error| {
                let text = format!("cannot make the folder {}: {error}", dir.display());
                EngineError::Failed(text)
            })?;
        }
        let found = {
            let replicas_dir = replicas_dir.clone();
            blocking(move || reopen::survey(&replicas_dir)).await?
        };
        let volumes = {
            let data_dir = config.data_dir.clone();
            blocking(move || Volumes::open(&data_dir)).await
        };
        let (volumes, left) = volumes.map_err(|error| {
            let dir = config.data_dir.display();
            EngineError::Failed(format!("cannot open the volumes in {dir}: {error}"))
        })?;
        let program = blocking(ShimImage::of_self)
            .await
            .map_err(|error| EngineError::Failed(error_chain(&error)))?;
        let steps_dir = config.data_dir.join("steps");
        let (program, shifts_ids) = {
            let data_dir = config.data_dir.clone();
            blocking(move || {
                let shifts_ids = shifts_ids(&program, &data_dir)?;
                Ok::<_, EngineError>((program, shifts_ids))
            })
            .await?
        };
        let own = [&config.data_dir, &config.run_dir];
        let gate = mounts::Gate {
            is_open: config.allow_privileged,
            shifts_ids,
            own: own
                .into_iter()
                .map(|dir| std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone()))
                .collect(),
        };
        let ids = {
            let (data_dir, node) = (config.data_dir.clone(), config.node.clone());
            let apps = reopen::apps(&found);
            blocking(move || ids::Ids::open(&data_dir, &node, &apps)).await
        };
        let ids = ids.map_err(|error| {
            let dir = config.data_dir.display();
            EngineError::Failed(format!("cannot read ids.json in {dir}: {error}"))
        })?;
        let network = Network::open(NetworkConfig {
            node: config.node.clone(),
            run_dir: config.run_dir,
            data_dir: config.data_dir,
            virtual_port: config.virtual_port,
        })
        .await
        .map_err(|error| EngineError::Failed(error_chain(&error)))?;
        let shared = Arc::new(Shared {
            node: config.node,
            replicas_dir,
            sockets_dir,
            images: config.images,
            volumes,
            gate,
            ids,
            network,
            secrets: config.secrets,
            program,
            steps_dir,
            shifts_ids,
            roster: Roster::default(),
            disks: measure::Disks::default(),
            shims: Mutex::default(),
        });
        {
            let shared = Arc::clone(&shared);
            blocking(move || step::sweep(&shared)).await;
        }
        reopen::reopen(&shared, found).await?;
        // Nobody waits for it: a volume may have had many files.
        tokio::spawn(blocking(move || volumes::sweep(&left)));
        tokio::spawn(names::follow(Arc::downgrade(&shared), config.names));
        Ok(Self { shared })
    }

    /// What runs the RUN steps of builds on this node. Call it in the async runtime that this engine was opened in; the
    /// steps themselves block, and run elsewhere.
    pub fn runner(&self) -> Arc<dyn RunStep> {
        let handle = tokio::runtime::Handle::current();
        let shared = Arc::clone(&self.shared);
        Arc::new(step::Runner::new(shared, handle))
    }

    /// The addresses that services can have: the first one, and the length of the prefix.
    pub fn virtual_range(&self) -> (Ipv4Addr, u8) {
        self.shared.network.virtual_range()
    }

    /// Whether root in a container is nobody on the machine, unless a service asks for the contrary.
    pub fn shifts_ids(&self) -> bool {
        self.shared.shifts_ids
    }

    /// What there is for the replicas of this node.
    pub fn machine(&self) -> Machine {
        let memory = machine::memory_bytes(&format!("layby/{}", self.shared.node));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine {
            // Where it cannot be read, nothing is refused for want of it.
            memory_bytes: memory.unwrap_or(u64::MAX),
            cpu_milli: cores as u64 * 1000,
            addresses: layby_net::APP_ADDRESSES,
        }
    }

    /// Those of `ports` (TCP, of the machine) that a firewall drops for other machines, each with the chain that does.
    pub async fn dropped_ports(&self, ports: &[u16]) -> Vec<(u16, String)> {
        self.shared.network.dropped_ports(ports).await
    }

    /// Closes the engine. With `all`, stops and removes every replica and the network, and leaves of those that ended by
    /// themselves that they did; without, leaves all as it is for the next start.
    ///
    /// # Errors
    /// [`EngineError::Failed`] with what could not be removed; closing it again may help.
    pub async fn close(&self, all: bool) -> Result<(), EngineError> {
        if !all {
            return Ok(());
        }
        let left = self.shared.roster.ended();
        self.shared.roster.retire_all();
        let ended = tokio::time::timeout(CLOSE_PATIENCE, async {
            while !self.shared.roster.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if ended.await.is_err() {
            let left = self.shared.roster.reports(None);
            let texts: Vec<String> = left.iter().map(describe_leftover).collect();
            return Err(EngineError::Failed(format!(
                "not all replicas could be removed: {}",
                texts.join("; ")
            )));
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || record::leave_ended(&shared.replicas_dir, &left)).await;
        self.close_network().await
    }

    /// Takes the network back after a start of the node that came to nothing. Where replicas live on it, it stays for
    /// them and for the next start.
    ///
    /// # Errors
    /// [`EngineError::Failed`] with what could not be removed.
    pub async fn give_up(&self) -> Result<(), EngineError> {
        if !self.shared.roster.is_empty() || !self.shared.network.attached().is_empty() {
            return Ok(());
        }
        self.close_network().await
    }

    async fn close_network(&self) -> Result<(), EngineError> {
        let closed = self.shared.network.close().await;
        closed.map_err(|error| EngineError::Failed(error_chain(&error)))
    }
}

/// Whether user namespaces work here. Where the kernel or the file system does not have them, containers run without,
/// and that is said once. Blocks.
///
/// # Errors
/// It could not be found out, however often: nothing is to run with more rights than was meant because a disk was full.
fn shifts_ids(program: &ShimImage, dir: &Path) -> Result<bool, EngineError> {
    let (mut tries, mut pause) = (1, PROBE_PAUSE);
    loop {
        match probe::user_namespaces(program, dir) {
            Ok(UserNamespaces::Work) => return Ok(true),
            Ok(UserNamespaces::Unsupported(why)) => {
                tracing::warn!(
                    "containers run without user namespaces, so root in one is root outside: {why}"
                );
                return Ok(false);
            }
            Err(error) if tries == PROBES => {
                return Err(EngineError::Failed(format!(
                    "it could not be found out whether user namespaces work in {}, and containers are not to run without \
                     them by mistake: {}; mend that, and start the node again",
                    dir.display(),
                    error.sentence()
                )));
            }
            Err(_) => std::thread::sleep(pause),
        }
        tries += 1;
        pause *= 2;
    }
}

fn describe_leftover(report: &ReplicaReport) -> String {
    let why = report.trouble.as_ref();
    let why = why.map_or("it is still stopping", |trouble| trouble.message.as_str());
    format!("{} of {}: {why}", report.id, report.service)
}

impl Shared {
    fn bundle(&self, id: ReplicaId) -> PathBuf {
        self.replicas_dir.join(id.to_string())
    }

    fn socket(&self, id: ReplicaId) -> PathBuf {
        self.sockets_dir.join(format!("{id}.sock"))
    }

    fn cgroup(&self, id: ReplicaId) -> String {
        format!("layby/{}/{id}", self.node)
    }

    fn shim(&self, id: ReplicaId) -> Option<Arc<Shim>> {
        let shims = self.shims.lock().unwrap_or_else(PoisonError::into_inner);
        shims.get(&id).cloned()
    }

    fn set_shim(&self, id: ReplicaId, shim: Option<Arc<Shim>>) {
        let mut shims = self.shims.lock().unwrap_or_else(PoisonError::into_inner);
        match shim {
            Some(shim) => shims.insert(id, shim),
            None => shims.remove(&id),
        };
    }

    /// A replica whose files can be reached now, and its shim: it runs, or has ended by itself.
    fn with_files(&self, id: ReplicaId) -> Result<(Entry, Arc<Shim>), EngineError> {
        let entry = self.roster.get(id).filter(Entry::has_ended);
        match entry.zip(self.shim(id)) {
            Some(ended) => Ok(ended),
            None => self.running(id),
        }
    }

    /// A replica that takes commands now, and its shim.
    fn running(&self, id: ReplicaId) -> Result<(Entry, Arc<Shim>), EngineError> {
        let entry = self.roster.get(id).ok_or_else(|| missing(id))?;
        match (entry.actual, self.shim(id)) {
            (Actual::Running | Actual::Ready, Some(shim)) => Ok((entry, shim)),
            // A command in a frozen cgroup would wait for the thaw.
            _ => Err(EngineError::NotFound(format!(
                "replica {id} of {} does not run: wake its service first",
                entry.service
            ))),
        }
    }
}

impl Engine for Embedded {
    fn traits(&self) -> EngineTraits {
        EngineTraits {
            can_doze: true,
            reports_health: false,
            can_exec: true,
        }
    }

    fn apply<'a>(&'a self, workload: &'a Workload) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let new = shared.roster.accept(workload)?;
            fail::at(Point::AfterApply);
            for (&id, _) in depths(workload, Wakefulness::Awake) {
                if shared.roster.claim(id, Action::Thaw) {
                    replica::thaw(shared, id);
                }
            }
            for id in new {
                tokio::spawn(replica::run(Arc::clone(shared), id));
            }
            Ok(())
        })
    }

    fn observe<'a>(
        &'a self,
        service: Option<&'a ServiceId>,
    ) -> BoxFuture<'a, Result<Vec<ReplicaReport>, EngineError>> {
        Box::pin(async move { Ok(self.shared.roster.reports(service)) })
    }

    fn changes(&self) -> BoxStream<'static, Option<ServiceId>> {
        self.shared.roster.changes()
    }

    fn logs<'a>(
        &'a self,
        replica: ReplicaId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<BoxStream<'static, LogLine>, EngineError>> {
        Box::pin(async move {
            let entry = self.shared.roster.get(replica);
            let entry = entry.ok_or_else(|| missing(replica))?;
            let container = entry.container(replica, query.container.as_deref())?;
            logs::open(&self.shared, replica, container, &query).await
        })
    }

    fn exec<'a>(
        &'a self,
        replica: ReplicaId,
        container: Option<&'a str>,
        argv: &'a [String],
        timeout_ms: u64,
    ) -> BoxFuture<'a, Result<ExecOutput, EngineError>> {
        Box::pin(async move {
            let (entry, shim) = self.shared.running(replica)?;
            let container = entry.container(replica, container)?;
            let result = shim.exec(container, argv.to_vec(), timeout_ms).await;
            let result = result.map_err(|trouble| EngineError::Failed(trouble.message))?;
            if result.timed_out {
                return Err(EngineError::Failed(format!(
                    "the command {argv:?} in replica {replica} took longer than {timeout_ms} ms"
                )));
            }
            Ok(ExecOutput {
                code: result.code,
                output: result.output.into_bytes(),
            })
        })
    }

    fn end<'a>(
        &'a self,
        replica: ReplicaId,
        container: &'a str,
        grace_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move {
            let (entry, shim) = self.shared.running(replica)?;
            let container = entry.container(replica, Some(container))?;
            let ended = shim.end(container.clone(), grace_ms).await;
            ended.map_err(|trouble| {
                // A state is known before the reply that it comes from.
                let state = shim.state().unwrap_or_default();
                let mut all = state.containers.iter();
                match all.any(|known| known.name == container && known.pid.is_some()) {
                    true => EngineError::Failed(trouble.message),
                    false => EngineError::NotFound(trouble.message),
                }
            })
        })
    }
}

/// The replicas of an order that are to be at `depth`.
fn depths(
    workload: &Workload,
    depth: Wakefulness,
) -> impl Iterator<Item = (&ReplicaId, &Wakefulness)> {
    workload
        .replicas
        .iter()
        .filter(move |(_, wanted)| **wanted == depth)
}

fn missing(replica: ReplicaId) -> EngineError {
    EngineError::NotFound(format!("there is no replica {replica}"))
}

/// What the shim says of containers, in the model's words.
fn containers(states: &[protocol::ContainerState]) -> Vec<layby_model::replica::ContainerReport> {
    states
        .iter()
        .map(|container| layby_model::replica::ContainerReport {
            name: container.name.clone(),
            pid: container.pid,
            ended: container.ended,
            last_exit: container.last_exit.map(exit),
            last_exit_ms: container.last_exit_ms,
            starts: container.starts,
            down: container.down,
            ended_in_a_row: container.ended_in_a_row,
            trouble: container.trouble.clone(),
        })
        .collect()
}

fn ended(state: &protocol::SandboxState) -> Option<layby_model::replica::End> {
    let ended = state.ended.as_ref()?;
    Some(layby_model::replica::End {
        container: ended.container.clone(),
        exit: exit(ended.exit),
        hook: ended.hook,
    })
}

fn exit(exit: protocol::Exit) -> layby_model::replica::Exit {
    layby_model::replica::Exit {
        code: exit.code,
        oom: exit.oom,
    }
}
