//! What RUN of a build runs in: the builder's [`RunStep`], done by the runtime, in the node's network.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use layby_image::build::run::{RunMount, RunNetwork, RunRequest, RunSource, RunStep};
use layby_model::error_chain;
use layby_net::Attachment;
use layby_runtime::machine;
use layby_runtime::moving;
use layby_runtime::step::{self, StepSpec};
use layby_runtime::{ContainerConfig, MountConfig, MountFrom, OptionsConfig, SandboxSpec};
use tokio::runtime::Handle;

use super::Shared;

/// The cgroup of all steps, below the node's, and what their names in the network begin with.
const NAME: &str = "build";

/// Whose ids steps have: no app can be named so.
const OWNER: &str = "/build";

/// The processes and threads of a step: a compiler may want one for each file.
const PIDS: u32 = 16_384;

/// The share of the CPU that all steps together have against one service's 1024.
const CPU_SHARES: u64 = 128;

/// What a step may hold in memory whose mount names no size, in bytes.
const TMPFS_BYTES: u64 = 256 << 20;

/// Runs the steps of builds.
pub(super) struct Runner {
    shared: Arc<Shared>,
    /// Where the network's work is done.
    handle: Handle,
    next: AtomicU64,
    memory_bytes: Option<u64>,
}

impl Runner {
    pub(super) fn new(shared: Arc<Shared>, handle: Handle) -> Self {
        let memory = machine::memory_bytes(&cgroup(&shared.node));
        Self {
            shared,
            handle,
            next: AtomicU64::new(1),
            // Half of what there is: services go on beside a build.
            memory_bytes: memory.map(|bytes| bytes / 2),
        }
    }

    fn spec(
        &self,
        id: &str,
        ids: (u32, u32),
        attached: Option<&Attachment>,
        request: &RunRequest,
    ) -> StepSpec {
        let netns = attached.map(|attached| attached.netns.clone());
        let gateway = attached.map(|attached| attached.gateway.to_string());
        let config = ContainerConfig {
            name: "run".to_owned(),
            lower: request.lower.clone(),
            argv: request.argv.clone(),
            env: request.env.clone(),
            cwd: request.cwd.clone(),
            user: request.user.clone(),
            pids: Some(PIDS),
            mounts: request.mounts.iter().map(mount).collect(),
            options: OptionsConfig {
                // As in Docker's builds: a step may well use sudo or su.
                new_privileges: true,
                // Where the machine runs out of memory, a build goes before what runs.
                oom_score_adj: Some(500),
                ..OptionsConfig::default()
            },
            ..ContainerConfig::default()
        };
        let hosts = request.hosts.iter();
        let sandbox = SandboxSpec {
            id: id.to_owned(),
            hostname: NAME.to_owned(),
            netns: netns.unwrap_or_default(),
            hosts: hosts
                .map(|(name, address)| (address.clone(), name.clone()))
                .collect(),
            dns: match request.network {
                RunNetwork::Host => machines_name_servers(),
                RunNetwork::Default | RunNetwork::None => gateway.into_iter().collect(),
            },
            cgroup: format!("{}/{id}", cgroup(&self.shared.node)),
            id_map: self.shared.shifts_ids.then_some(ids),
            containers: vec![config],
            ..SandboxSpec::default()
        };
        StepSpec {
            sandbox,
            host_network: request.network == RunNetwork::Host,
            upper: request.upper.clone(),
            work: request.work.clone(),
            memory_bytes: self.memory_bytes,
            cpu_shares: Some(CPU_SHARES),
        }
    }
}

impl RunStep for Runner {
    fn run(&self, request: &RunRequest, output: &mut dyn FnMut(&[u8])) -> Result<i32, String> {
        let ids = self.shared.ids.of(OWNER)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{NAME}-{number:x}");
        // What comes before the command is moved into its cgroup takes as long as the kernel wants to wait for that.
        drop(self.handle.spawn_blocking(moving::hasten));
        let attached = match request.network {
            RunNetwork::Default => {
                let attached = self.handle.block_on(self.shared.network.attach(&id, None));
                Some(attached.map_err(|error| error_chain(&error))?)
            }
            RunNetwork::Host if !self.shared.gate.is_open => return Err(
                "RUN --network=host needs the word of the node's operator: start the node with --allow-privileged"
                    .to_owned(),
            ),
            RunNetwork::None | RunNetwork::Host => None,
        };
        let spec = self.spec(&id, ids, attached.as_ref(), request);
        let dir = self.shared.steps_dir.join(&id);
        let outcome = step::run(
            &self.shared.program,
            &dir,
            &spec,
            &|| request.is_over(),
            output,
        );
        if attached.is_some() {
            let detached = self.handle.block_on(self.shared.network.detach(&id));
            if let Err(error) = detached {
                // Found again at the next start.
                tracing::warn!("cannot take {id} from the network: {}", error_chain(&error));
            }
        }
        outcome.map_err(|error| error.sentence())
    }
}

/// Removes what the steps of an earlier node left. Blocks.
pub(super) fn sweep(shared: &Shared) {
    if let Err(errors) = step::sweep(&shared.steps_dir, &cgroup(&shared.node)) {
        for error in errors {
            tracing::warn!("while clearing old build steps away: {}", error.sentence());
        }
    }
}

fn cgroup(node: &str) -> String {
    format!("layby/{node}/{NAME}")
}

/// The machine's own, for who is in its network.
fn machines_name_servers() -> Vec<String> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"));
    lines.map(|server| server.trim().to_owned()).collect()
}

fn mount(mount: &RunMount) -> MountConfig {
    let source = match &mount.source {
        RunSource::Bind(path) => MountFrom::Bind {
            path: path.clone(),
            recursive: false,
            subpath: None,
        },
        RunSource::Tmpfs { size_bytes } => MountFrom::Tmpfs {
            size_bytes: Some(size_bytes.unwrap_or(TMPFS_BYTES)),
            mode: None,
            no_exec: false,
        },
    };
    MountConfig {
        source,
        target: mount.target.clone(),
        read_only: mount.read_only,
        copy_up: false,
    }
}
