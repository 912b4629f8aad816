//! What a revision runs: the settings of a service, as read from a manifest. Immutable once deployed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::hook::Hook;
use crate::job::JobSpec;
use crate::mounts::Mount;
use crate::names::{AppName, ServiceName};
use crate::network::Networks;
use crate::options::{ContainerOptions, SandboxOptions};
use crate::route::Protocol;
use crate::scale::Autoscale;
use crate::secret::{SecretGroup, SecretRef, ValueSource};

/// So many more attempts a failed rollout gets where nothing is said.
pub const RETRIES: u32 = 2;
/// More attempts than this are no retries: whatever a rollout fails for has not gone away by then.
pub const MAX_RETRIES: u32 = 10;

/// How long requests in flight may go on after a replica was withdrawn, in milliseconds: 30 seconds.
pub const DRAIN_MS: u64 = 30_000;

/// How long a container may take to stop where nothing is said, in milliseconds: 10 seconds, as Docker's.
pub const STOP_GRACE_MS: u64 = 10_000;

/// The most replicas that a service can have.
pub const REPLICAS_MAX: u32 = 1000;

/// An app as a manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    /// Its name.
    pub name: AppName,
    /// Its services, in the order of the manifest.
    pub services: Vec<ServiceSpec>,
}

/// The settings of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// The containers of one replica; the first is the one that `logs` and `exec` mean.
    pub containers: Vec<ContainerSpec>,
    /// Containers that run before those, one after another, each to a good end, once in the life of a replica (Kubernetes
    /// `initContainers`). Their names are none of `containers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init: Vec<ContainerSpec>,
    /// How many replicas it is to have while awake; 0: it is deployed disabled, and has one when it is enabled.
    pub replicas: u32,
    /// It is scaled by what it has to do: then `replicas` is where that begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// The port in the replica that HTTP by host name goes to. `None`: ask the image (a single EXPOSE).
    pub port: Option<u16>,
    /// Further DNS labels in the app under which other services and host names reach it.
    pub aliases: Vec<ServiceName>,
    /// The networks that it is in.
    #[serde(default, skip_serializing_if = "Networks::is_usual")]
    pub networks: Networks,
    /// Further names by which the other containers of its app look it up, relative to nothing and in lower case, such as `web-0.web` or `my_db`. Several
    /// services may have the same: it leads to each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Further names as those, by which only those in one of its networks look it up, by that network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub network_names: BTreeMap<String, Vec<String>>,
    /// Host names and paths of others by which the gateway leads to it (Kubernetes Ingress).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<HostRoute>,
    /// Ports of the machine that lead to it.
    pub published: Vec<PublishedPort>,
    /// When it dozes off.
    pub sleep: SleepPolicy,
    /// How the next revision takes over.
    pub strategy: Strategy,
    /// How long a rollout may take to be ready, in milliseconds. `None`: what is learned ([`deadline`](crate::deadline)).
    #[serde(default)]
    pub progress_deadline_ms: Option<u64>,
    /// So many more attempts a failed rollout gets; `None`: [`RETRIES`].
    #[serde(default)]
    pub retries: Option<u32>,
    /// How long requests in flight may go on after a replica was withdrawn, in milliseconds.
    pub drain_ms: u64,
    /// What is done when a container ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Ports of its virtual address that lead elsewhere than to the same port of its replicas, or whose protocol is
    /// declared, as that of every UDP port has to be. Every other port leads to the same port, as plain TCP.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// A pushed tag that one of its images names makes a new revision (`x-layby: {deploy_on_push: true}`).
    #[serde(default)]
    pub deploy_on_push: bool,
    /// What the containers of a replica share.
    #[serde(default)]
    pub sandbox: SandboxOptions,
    /// The set of pods that it is one of (Kubernetes StatefulSet): it has a name and volumes of its own, and is one replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_of: Option<ServiceName>,
    /// The services of its app that a rollout of it waits for.
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// It is a job: it runs to its end, and nothing leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobSpec>,
    /// The name of the power that its first container's limits are of; `None`: they are its own, or it has none.
    #[serde(default)]
    pub power: Option<String>,
    /// What the manifest says instead, where `layby power` went over it: that holds until the manifest says something else.
    #[serde(default)]
    pub overridden: Option<Limits>,
}

impl ServiceSpec {
    /// One replica that runs nothing, and in all else what holds where nothing is said.
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            containers: Vec::new(),
            init: Vec::new(),
            replicas: 1,
            autoscale: None,
            port: None,
            aliases: Vec::new(),
            networks: Networks::default(),
            names: Vec::new(),
            network_names: BTreeMap::new(),
            routes: Vec::new(),
            published: Vec::new(),
            sleep: SleepPolicy::default(),
            strategy: Strategy::StartFirst,
            progress_deadline_ms: None,
            retries: None,
            drain_ms: DRAIN_MS,
            restart: RestartPolicy::default(),
            ports: Vec::new(),
            deploy_on_push: false,
            sandbox: SandboxOptions::default(),
            pod_of: None,
            depends_on: Vec::new(),
            job: None,
            power: None,
            overridden: None,
        }
    }

    /// Its containers, then those that run before them: the order of [`RunSpec::images`](crate::engine::RunSpec::images).
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerSpec> + Clone {
        self.containers.iter().chain(&self.init)
    }

    /// Whether the containers of a replica end and are started again each for itself, as in a pod. Those that share their
    /// processes do not: with the first one all of them end.
    pub fn ends_apart(&self) -> bool {
        self.containers.len() > 1 && !self.sandbox.share_pid
    }

    /// What is done when one of its containers ends.
    pub fn restart_of(&self, container: &ContainerSpec) -> RestartPolicy {
        match container.sidecar {
            Some(_) => RestartPolicy::Always,
            None => self.restart,
        }
    }

    /// The same, to be changed.
    pub fn all_containers_mut(&mut self) -> impl Iterator<Item = &mut ContainerSpec> {
        self.containers.iter_mut().chain(&mut self.init)
    }
}

/// Requests that the gateway leads to a service beside those for its own names (Kubernetes `networking.k8s.io/v1`, IngressRule).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostRoute {
    /// The host name in lower case; `*.example.org`: any with one label before it. `None`: any that leads nowhere else.
    pub host: Option<String>,
    /// The path, beginning with `/`.
    pub path: String,
    /// That path alone; `false`: all paths whose parts between slashes begin with its parts, too.
    pub exact: bool,
    /// The port in the replica.
    pub port: u16,
}

impl ServiceSpec {
    /// How many replicas a revision with these settings begins with, where the service has `now`: what is scaled keeps what it
    /// needs. `None`: it is new.
    pub fn replicas_beside(&self, now: Option<u32>) -> u32 {
        match &self.autoscale {
            Some(policy) => policy.clamp(now.unwrap_or(self.replicas)),
            None => self.replicas,
        }
    }
}

/// A service of the same app that a rollout waits for (Compose `depends_on`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Which.
    pub service: ServiceName,
    /// Until when.
    pub condition: Condition,
    /// If it fails, so does what waits for it; `false`: that goes on without it.
    pub required: bool,
    /// A new revision of it makes one of what waits for it, too.
    pub restart: bool,
}

/// Until when a dependency is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// A process of it runs, or it rests.
    Started,
    /// It is live.
    Healthy,
    /// It has ended with exit code 0.
    Completed,
}

/// What is done when a container of a service ends (Compose `restart`, Kubernetes `restartPolicy`): one that has others beside it
/// is started again alone ([`ServiceSpec::ends_apart`]), else its replica is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It is started again, with growing pauses while it keeps ending (the default of a service).
    #[default]
    Always,
    /// Only if it ended with another exit code than 0, at most so often in a row.
    OnFailure {
        /// `None`: without end.
        max_retries: Option<u32>,
    },
    /// It is left as it ended: the service has one replica less until it is deployed or woken again.
    Never,
}

/// A port of a service's virtual address (a Kubernetes Service's `port`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The port of the virtual address.
    pub port: u16,
    /// The port in the replica.
    pub target: u16,
    /// What is spoken on it, where that was declared (appProtocol, an HTTP probe, `x-layby`, `/udp`).
    pub protocol: Protocol,
}

/// How the next revision takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The new one is ready before the old one goes (the default).
    StartFirst,
    /// The old one is gone before the new one starts.
    StopFirst,
}

/// When a service goes down the ladder; both count from its last use. `None` means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SleepPolicy {
    /// Idle milliseconds until it dozes.
    pub doze_after_ms: Option<u64>,
    /// Idle milliseconds until it is put to sleep.
    pub sleep_after_ms: Option<u64>,
}

impl Default for SleepPolicy {
    /// 5 minutes until dozing, 1 hour until asleep.
    fn default() -> Self {
        Self {
            doze_after_ms: Some(300_000),
            sleep_after_ms: Some(3_600_000),
        }
    }
}

/// A port of the machine that leads to a port in the replicas (Compose `ports`, Kubernetes NodePort).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The address to listen on; `None`: the node's `--publish-on`.
    pub host: Option<IpAddr>,
    /// The port to listen on. 0: any free one.
    pub port: u16,
    /// The port in the replica.
    pub target: u16,
    /// Both are of UDP; else of TCP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub udp: bool,
}

/// One container of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name in the replica.
    pub name: String,
    /// The image reference as written in the manifest; may be empty where only `build` is given.
    pub image: String,
    /// Where and how to build the image.
    pub build: Option<BuildSpec>,
    /// Replaces the image's ENTRYPOINT (Compose `entrypoint`, Kubernetes `command`).
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's CMD (Compose `command`, Kubernetes `args`).
    pub command: Option<Vec<String>>,
    /// Added to the image's environment.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are secrets. No name is in two of `env`, `secret_env` and `composed_env`
    /// ([`ContainerSpec::set_env`]).
    #[serde(default)]
    pub secret_env: BTreeMap<String, SecretRef>,
    /// Variables that are put together, one part after another, when a replica is made.
    #[serde(default)]
    pub composed_env: BTreeMap<String, Vec<ValueSource>>,
    /// Secrets that all become variables (Kubernetes `envFrom`); never in what is deployed.
    #[serde(default)]
    pub secret_env_from: Vec<SecretGroup>,
    /// Replaces the image's WORKDIR.
    pub working_dir: Option<String>,
    /// Replaces the image's USER.
    pub user: Option<String>,
    /// Limits and requests.
    pub resources: Resources,
    /// TCP ports that it says it listens on, in the manifest's order.
    pub ports: Vec<u16>,
    /// When it may be given requests.
    pub readiness: Option<Probe>,
    /// When it is to be restarted.
    pub liveness: Option<Probe>,
    /// Until it first succeeds, the other two wait.
    pub startup: Option<Probe>,
    /// `Some(true)`: the image's HEALTHCHECK is switched off (Compose `healthcheck: {disable: true}`).
    pub no_healthcheck: bool,
    /// The signal that asks it to stop; `None`: the image's STOPSIGNAL, else SIGTERM.
    pub stop_signal: Option<String>,
    /// How long it may take to stop before it is killed, in milliseconds.
    pub stop_grace_ms: u64,
    /// When its image is pulled.
    #[serde(default)]
    pub pull: PullPolicy,
    /// The platform of the image to pull or build (`linux/amd64`); `None`: the machine's.
    #[serde(default)]
    pub platform: Option<String>,
    /// Files from elsewhere.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Fences and devices.
    #[serde(default)]
    pub options: ContainerOptions,
    /// What is done, in order, once it was started: before the next container is, and before it may be given requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<Hook>,
    /// What is done, in order, before it is asked to stop, within `stop_grace_ms`. Not where it ended by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<Hook>,
    /// It is started before the container of this number in the service's `init` (their count: after all of them, before
    /// the others), and stopped after all that were started later (Kubernetes: an init container whose `restartPolicy` is
    /// Always).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<u32>,
}

impl ContainerSpec {
    /// A container that runs an image just as it is, without limits and probes.
    pub fn new(name: &str, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            build: None,
            entrypoint: None,
            command: None,
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            composed_env: BTreeMap::new(),
            secret_env_from: Vec::new(),
            working_dir: None,
            user: None,
            resources: Resources::default(),
            ports: Vec::new(),
            readiness: None,
            liveness: None,
            startup: None,
            no_healthcheck: false,
            stop_signal: None,
            stop_grace_ms: STOP_GRACE_MS,
            pull: PullPolicy::default(),
            platform: None,
            mounts: Vec::new(),
            options: ContainerOptions::default(),
            post_start: Vec::new(),
            pre_stop: Vec::new(),
            sidecar: None,
        }
    }

    /// Sets a variable to a text, whatever it was before.
    pub fn set_env(&mut self, name: String, value: String) {
        self.unset_env(&name);
        self.env.insert(name, value);
    }

    /// Takes a variable away, wherever its value comes from; whether there was one. The image may still have one of this
    /// name.
    pub fn unset_env(&mut self, name: &str) -> bool {
        let was_text = self.env.remove(name).is_some();
        let was_secret = self.secret_env.remove(name).is_some();
        was_text || was_secret || self.composed_env.remove(name).is_some()
    }
}

/// When an image is pulled (Compose `pull_policy`, Kubernetes `imagePullPolicy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// When the node does not have it (the default).
    #[default]
    Missing,
    /// At every deploy; where the registry cannot be reached, the one that the node has is used, with a warning.
    Always,
    /// Never: it must be there.
    Never,
}

/// How to build an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// The context's folder, relative to the manifest's.
    pub context: String,
    /// The Dockerfile, relative to the context; `None`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// The stage to build; `None`: the last.
    pub target: Option<String>,
    /// Build at every deploy (Compose `build:`; the cache makes that quick). `false`: only when the image
    /// is not in the node's store (the annotation `layby.dev/build`).
    pub always: bool,
    /// The Dockerfile itself, instead of a file (Compose `dockerfile_inline`).
    #[serde(default)]
    pub dockerfile_inline: Option<String>,
    /// Secrets that `RUN --mount=type=secret` may read: never in a layer, the history or a log.
    #[serde(default)]
    pub secrets: Vec<BuildSecret>,
    /// SSH agents that `RUN --mount=type=ssh` may ask, while its step runs.
    #[serde(default)]
    pub ssh: Vec<BuildAgent>,
    /// Further contexts that `FROM` and `--from` may name: a folder relative to the manifest's, or `docker-image://REF`.
    #[serde(default)]
    pub contexts: BTreeMap<String, String>,
    /// Labels to add to the image.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The network of `RUN`: `default`, `none` or `host`; `None`: `default`.
    #[serde(default)]
    pub network: Option<String>,
    /// Take nothing from the cache.
    #[serde(default)]
    pub no_cache: bool,
    /// Further names to give to the image.
    #[serde(default)]
    pub tags: Vec<String>,
}

impl BuildSpec {
    /// The build of a folder with a Dockerfile in it, at every deploy.
    pub fn new(context: &str) -> Self {
        Self {
            context: context.to_owned(),
            dockerfile: None,
            args: BTreeMap::new(),
            target: None,
            always: true,
            dockerfile_inline: None,
            secrets: Vec::new(),
            ssh: Vec::new(),
            contexts: BTreeMap::new(),
            labels: BTreeMap::new(),
            network: None,
            no_cache: false,
            tags: Vec::new(),
        }
    }
}

/// Where the value of a build secret comes from, on the side of the one who asks for the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSecret {
    /// What `RUN --mount=type=secret,id=` names.
    pub id: String,
    /// A file, relative to the manifest's folder.
    pub file: Option<String>,
    /// A variable of the environment.
    pub env: Option<String>,
}

/// An SSH agent on the side of the one who asks for the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildAgent {
    /// What `RUN --mount=type=ssh,id=` names.
    pub id: String,
    /// The agent's socket, or a file with a key, relative to the manifest's folder; `None`: the agent of `SSH_AUTH_SOCK`.
    pub source: Option<String>,
}

/// What a container may use. `None`: not limited, or not requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Most memory, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Most CPU, in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// Most processes and threads.
    pub pids_limit: Option<u32>,
    /// Memory that it asks for, in bytes.
    pub memory_request_bytes: Option<u64>,
    /// CPU that it asks for, in thousandths of a core.
    pub cpu_request_milli: Option<u64>,
}

/// What a manifest says of how much a replica may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// A power by its name.
    pub power: Option<String>,
    /// What its first container may use.
    pub resources: Resources,
}

/// A probe, with the words of Kubernetes (`v1.Probe`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is done.
    pub action: ProbeAction,
    /// Not asked before this, in milliseconds (only after the first success was seen once: until then it is skipped).
    pub initial_delay_ms: u64,
    /// From one to the next, in milliseconds.
    pub period_ms: u64,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// So many in a row to be seen as well.
    pub success_threshold: u32,
    /// So many in a row to be seen as failed.
    pub failure_threshold: u32,
    /// How long a container may take to stop that failed it for good, in milliseconds; `None`: as long as ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_ms: Option<u64>,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeAction {
    /// `GET path`; 200 to 399 is a success.
    Http {
        /// The port in the replica.
        port: u16,
        /// The path, beginning with `/`.
        path: String,
        /// The Host header; `None`: the replica's address.
        host: Option<String>,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// Over TLS, whatever certificate is shown.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
    },
    /// The gRPC health check (`grpc.health.v1.Health/Check`), without TLS; `SERVING` is a success.
    Grpc {
        /// The port in the replica.
        port: u16,
        /// The service whose health is asked for; empty: the whole server's.
        #[serde(default)]
        service: String,
    },
    /// A TCP connection that is accepted.
    Tcp {
        /// The port in the replica.
        port: u16,
    },
    /// A command in the container that exits with 0.
    Exec {
        /// The command and its arguments.
        argv: Vec<String>,
    },
}
