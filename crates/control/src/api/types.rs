//! The words of the HTTP API: what the socket says and takes, as JSON. The CLI reads the same types.

mod canary;
mod context;
mod deadline;
mod event;
mod history;
mod image;
mod job;
mod network;
mod outcome;
mod scaling;
mod secret;
mod sizes;
mod state;
mod token;

use std::collections::BTreeMap;

pub use canary::{AbortedView, CanaryView, GivenView};
pub use context::{
    ContextEntry, ContextList, ContextOffer, ContextsBody, ContextsView, KeptContext,
};
pub use deadline::DeadlineView;
pub use event::{EventKind, EventView};
pub use history::{ChangeView, DiffView, RevisionOutcome, RevisionView};
pub use image::{ImageDetail, ImageView, LayerView, PruneBody, PruneView, TransferEvent};
pub use job::{AttemptView, CommandBody, JobView, RunState, RunView};
use layby_model::RevisionId;
use layby_model::State;
use layby_model::Wakefulness;
use layby_model::replica::{Exit, Phase};
use layby_model::spec::{BuildAgent, BuildSecret};
use layby_model::state::Showing;
pub use network::{NetworkBody, NetworkView};
pub use outcome::Outcome;
pub use scaling::{PolicyView, RangeView, ScaleView, SeenView};
pub use secret::{KeptSecret, SetSecrets};
use serde::{Deserialize, Serialize};
pub use sizes::{AdviceView, PowerBody, PowerView, PresetBody, ScaleBody, SizeView};
pub use state::{ImportedView, StateImage, StateView};
pub use token::{NewToken, TokenBody, TokenView};
use utoipa::ToSchema;

/// Which node answers, and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// The version of Layby.
    pub version: String,
    /// The node's process.
    pub pid: u32,
    /// Where the gateway answers HTTP, as `address:port`.
    pub http: String,
    /// Where the registry listens, as `address:port`; `null`: it does not.
    #[serde(default)]
    pub registry: Option<String>,
    /// Where the API is on HTTPS, as `address:port`; `null`: it is on the socket alone.
    #[serde(default)]
    pub api: Option<String>,
    /// The SHA-256 of the certificate that it shows there, in hexadecimal digits.
    #[serde(default)]
    pub api_fingerprint: Option<String>,
    /// The address that published ports listen on.
    pub publish_on: String,
    /// The domain below which every service has its host names.
    pub domain: String,
    /// The node's data directory.
    pub data_dir: String,
}

/// What a manifest says, and what the node still needs to deploy it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestView {
    /// The app that it describes.
    pub app: String,
    /// The services in it, in the order of the manifest.
    pub services: Vec<String>,
    /// The build contexts to send along; the n-th one below `context/<n>/` (from 0).
    pub contexts: Vec<ContextView>,
    /// The build secrets to send along, before the contexts; the n-th one as `secret/<n>`.
    pub secrets: Vec<SecretView>,
    /// SSH agents that builds ask (see `/v1/agents`), by their places there.
    #[serde(default)]
    pub ssh: Vec<AgentView>,
    /// Further files that the manifest names: absolute paths, or relative to its folder. They are sent along as `file/<n>`, with
    /// their paths as a list in `manifest/.layby/files.json`; one that does not exist is left out of both.
    pub files: Vec<String>,
    /// Further files (Compose `include` and `extends`) without which nothing can be said yet: all else is empty then. They are sent
    /// along as `.layby/file/<n>`, with their paths as a list in `.layby/files.json`; one that does not exist is in the list only. It is
    /// asked again until there are none.
    #[serde(default)]
    pub more: Vec<String>,
    /// What the manifest says that is not honoured, each with its file and line.
    pub warnings: Vec<String>,
}

/// A folder that an image is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextView {
    /// The folder, relative to the manifest's.
    pub path: String,
    /// The Dockerfile, relative to the context; `null`: `Dockerfile`.
    pub dockerfile: Option<String>,
}

/// Where the value of a build secret is found, on the side of the one who asks for the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// A file, relative to the manifest's folder.
    pub file: Option<String>,
    /// A variable of the environment.
    pub env: Option<String>,
}

impl AgentView {
    pub(crate) fn of(agent: &BuildAgent) -> Self {
        Self {
            id: agent.id.clone(),
            source: agent.source.clone(),
        }
    }
}

impl SecretView {
    pub(crate) fn of(secret: &BuildSecret) -> Self {
        Self {
            file: secret.file.clone(),
            env: secret.env.clone(),
        }
    }
}

/// Where an SSH agent is found, on the side of the one who asks for the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// What the build calls it.
    pub id: String,
    /// Its socket, or a file with a key, relative to the manifest's folder; `null`: the agent of `SSH_AUTH_SOCK`.
    pub source: Option<String>,
}

/// What to build. It never holds a secret's value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildBody {
    /// What the context's folder is called in messages.
    pub folder: String,
    /// The Dockerfile, relative to the context; `null`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text, instead of a file of the context.
    pub dockerfile_inline: Option<String>,
    /// What the Dockerfile is called in messages, if not by its place.
    pub dockerfile_shown: Option<String>,
    /// Build arguments.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// The stage to build; `null`: the last.
    pub target: Option<String>,
    /// The names to give to the image.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Labels to add to it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Further contexts by name: `docker-image://NAME`, or `context/<n>` for one that is sent along.
    #[serde(default)]
    pub contexts: BTreeMap<String, String>,
    /// The ids of secrets; the value of the n-th is sent as `secret/<n>`. An empty one belongs to another build.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// The ids of SSH agents; the n-th stands at that place of the connection that lends them (see `/v1/agents`). An empty one
    /// belongs to another build.
    #[serde(default)]
    pub ssh: Vec<String>,
    /// The key of the connection that lends them.
    #[serde(default)]
    pub agents: Option<String>,
    /// The network of RUN: `default` or `none`.
    pub network: Option<String>,
    /// Whether every step is carried out, also one that the cache has.
    #[serde(default)]
    pub no_cache: bool,
    /// What to build for, such as `linux/amd64`; `null`: the machine.
    pub platform: Option<String>,
    /// The longest that a RUN may take, in milliseconds; `null`: an hour.
    #[serde(default)]
    pub step_timeout_ms: Option<u64>,
}

/// One line of the answer to a deploy or a build.
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to a socket"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Event {
    /// The manifest says something that is not honoured.
    Warning {
        /// What and where.
        text: String,
    },
    /// An image is being built.
    Build {
        /// For which service.
        service: String,
        /// A step as it begins and as it is done, or a note.
        text: String,
    },
    /// The command of a build step wrote a line.
    BuildOutput {
        /// For which service.
        service: String,
        /// The step's number.
        step: u32,
        /// The line, without its end.
        text: String,
    },
    /// The command of a build step failed; `error` follows.
    BuildFailed {
        /// For which service.
        service: String,
        /// The instruction.
        text: String,
        /// All that it wrote, at most the last 256 KiB.
        output: String,
    },
    /// An image that is for no service was built; `done` follows.
    Built {
        /// The names that it got.
        names: Vec<String>,
        /// The digest of its manifest, `sha256:...`.
        digest: String,
        /// What it takes in the store, in bytes.
        size_bytes: u64,
    },
    /// An image is being pulled from another registry.
    Pull {
        /// For which service.
        service: String,
        /// The image, as the manifest names it.
        image: String,
        /// How far it is.
        text: String,
    },
    /// A rollout moved on.
    Progress {
        /// The service.
        service: String,
        /// Its state.
        #[schema(value_type = String, example = "UPDATING")]
        state: State,
        /// What happened.
        text: String,
    },
    /// A secret was set.
    Secret {
        /// Whose it is; `null`: the node's.
        app: Option<String>,
        /// Its name.
        name: String,
        /// Its newest version.
        version: u32,
        /// It has another value than before, or is new; else nothing was changed.
        is_new: bool,
    },
    /// A step that would be taken (dry run).
    Step {
        /// The service.
        service: String,
        /// The step.
        text: String,
    },
    /// A service has reached its outcome.
    Service {
        /// How it stands now.
        service: ServiceView,
        /// What came of the deploy.
        outcome: Outcome,
        /// Why it is not live, with `failed`, `kept`, `overtaken` and `aborted`.
        failure: Option<Failure>,
    },
    /// What came of a job.
    Job {
        /// The job, as `app/job`.
        job: String,
        /// How it stands now.
        text: String,
    },
    /// The deploy could not go on; `done` follows.
    Error {
        /// What went wrong, where, and what to do.
        problem: Problem,
    },
    /// The last line.
    Done {
        /// The exit code: 0 all live, 1 failed, 3 failed and live kept, 4 an image is not there, 5 not decided in time,
        /// 6 overtaken by what was asked for since, or called off.
        code: i32,
    },
}

/// Why a revision failed, with what there is to find the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The revision.
    pub revision: u32,
    /// Why, in one sentence.
    pub reason: String,
    /// What the last probe said, if one was made.
    pub last_probe: Option<String>,
    /// How a container ended last, if one did.
    pub exit: Option<ExitView>,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Which attempt of its rollout failed so, from 1 on.
    #[serde(default = "first")]
    pub attempt: u32,
    /// How the live revision, which works, differs from it: `before` is live's; the first hundred settings, and
    /// of variables not their values.
    #[serde(default)]
    pub difference: Vec<ChangeView>,
    /// Who called it off; `null`: it failed by itself.
    #[serde(default)]
    pub aborted_by: Option<String>,
}

impl Failure {
    /// One of which nothing but the reason is known.
    pub(crate) fn plain(revision: RevisionId, reason: String, attempt: u32) -> Self {
        Self {
            revision: revision.0,
            reason,
            last_probe: None,
            exit: None,
            log: Vec::new(),
            hint: None,
            attempt,
            difference: Vec::new(),
            aborted_by: None,
        }
    }
}

/// Failures of older versions know of no attempts.
fn first() -> u32 {
    1
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExitView {
    /// The exit code; 128 + n if signal n ended it.
    pub code: i32,
    /// The kernel ended it for want of memory within its limit.
    pub oom: bool,
}

impl From<Exit> for ExitView {
    fn from(exit: Exit) -> Self {
        Self {
            code: exit.code,
            oom: exit.oom,
        }
    }
}

/// One service, as `layby ls` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Its app.
    pub app: String,
    /// Its name in the app.
    pub service: String,
    /// Its state: `DISABLED`, `DEPLOYING`, `READY`, `UPDATING` or `RUNNING`. READY, nothing of it is live, is also what never ran
    /// since its first revision failed or was called off: `failed_revision` or `aborted` says which.
    #[schema(value_type = String, example = "RUNNING")]
    pub state: State,
    /// How awake it is: `awake`, `dozing`, `asleep`, `waking` or `ended`; `null` unless RUNNING.
    #[schema(value_type = Option<String>, example = "dozing")]
    pub wakefulness: Option<Showing>,
    /// The revision deployed last, if it failed; what was live before it stays so.
    pub failed_revision: Option<u32>,
    /// The revision deployed last, if somebody called it off; what was live before it stays so.
    #[serde(default)]
    pub aborted: Option<AbortedView>,
    /// Replicas of the revision shown that are ready (running and answering their probe).
    pub replicas_ready: u32,
    /// Replicas that it has while awake.
    pub replicas_wanted: u32,
    /// Between which numbers what it has to do scales it; `null`: that does not, or somebody has said a number.
    #[serde(default)]
    pub scales: Option<RangeView>,
    /// The name of its power; `null`: its limits have none, or it has no limits.
    #[serde(default)]
    pub power: Option<String>,
    /// The live revision; if none is, the one deployed last.
    pub revision: u32,
    /// That revision's first image, as the manifest names it.
    pub image: String,
    /// Where it answers, the gateway's host name first, then the published ports.
    pub urls: Vec<String>,
    /// Where containers of its app reach it, by its name or this address; `null`: the node had none left.
    pub virtual_address: Option<String>,
    /// The revision that is tried out on a part of the requests; `null`: none is.
    #[serde(default)]
    pub canary: Option<CanaryView>,
    /// Starts of one of its replicas come to nothing again and again.
    #[serde(default)]
    pub crash_loop: bool,
    /// The StatefulSet of its app that it is a pod of; `null`: it is none.
    #[serde(default)]
    pub set: Option<String>,
}

/// One service in full, as `layby status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceDetail {
    /// The service.
    #[serde(flatten)]
    pub view: ServiceView,
    /// How large it is.
    #[serde(default)]
    pub size: SizeView,
    /// How long the next rollout may take.
    #[serde(default)]
    pub deadline: DeadlineView,
    /// Who or what made the revision shown: a push and who pushed, or the command; `null`: it is not known.
    #[serde(default)]
    pub cause: Option<String>,
    /// Its replicas, of all revisions, the oldest first.
    pub replicas: Vec<ReplicaView>,
    /// What is out of the ordinary, one sentence each.
    pub conditions: Vec<String>,
    /// The last time it was woken in this life of the node; `null`: never.
    pub last_wake: Option<LastWake>,
    /// Why the last revision that failed did, with what there is to find the cause; `null` once one went live since.
    pub last_failure: Option<Failure>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaView {
    /// Its id: 12 hexadecimal digits.
    pub id: String,
    /// Of which revision it is.
    pub revision: u32,
    /// Where it is in its life.
    #[schema(value_type = String, example = "ready")]
    pub phase: Phase,
    /// Its address on the node, once it has one.
    pub address: Option<String>,
    /// So many replicas in its place, one after another, failed their liveness probe before it was made.
    #[serde(default)]
    pub deaths: u32,
    /// What was said to the last one's probe.
    #[serde(default)]
    pub last_death: Option<String>,
    /// Its containers.
    pub containers: Vec<ContainerView>,
}

/// One container of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContainerView {
    /// Its name in the replica.
    pub name: String,
    /// It runs before the others, to its end.
    #[serde(default)]
    pub init: bool,
    /// Its init process on the host, while it runs.
    pub pid: Option<i32>,
    /// How often it was started again after it had ended without being asked to.
    pub restarts: u32,
    /// How it ended last, asked or not.
    pub last_exit: Option<ExitView>,
    /// When that was, in milliseconds since 1970.
    pub last_exit_ms: Option<u64>,
}

/// How the last waking went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LastWake {
    /// How awake it was before: `dozing` or `asleep`.
    #[schema(value_type = String, example = "dozing")]
    pub from: Wakefulness,
    /// How long the request that woke it was held, in milliseconds; `null`: woken by command.
    pub held_ms: Option<f64>,
    /// From the decision to wake until a replica was in the routing table, in milliseconds.
    pub ready_ms: f64,
}

/// What to change in the settings of a service; what is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployBody {
    /// Another image for its first container. Where only variables are changed, the images stay the very same; otherwise
    /// their names are looked up anew.
    #[serde(default)]
    pub image: Option<String>,
    /// Environment to add to its first container, or to replace there.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables to take away there.
    #[serde(default)]
    pub unset: Vec<String>,
    /// So many more attempts a failed rollout gets: 0 to 10.
    #[serde(default)]
    pub retries: Option<u32>,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogView {
    /// The service, as `app/service`.
    #[serde(default)]
    pub service: String,
    /// The replica that wrote it.
    pub replica: String,
    /// When it was read, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text, without its line end.
    pub text: String,
}

/// What one replica uses now: counters since it was made, and levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Its app.
    pub app: String,
    /// Its service.
    pub service: String,
    /// Which it is.
    pub replica: String,
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Memory, without what the kernel can drop at once, in bytes.
    pub memory_bytes: u64,
    /// Its limit; `null`: it has none.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that came in by its network device.
    pub network_in_bytes: u64,
    /// Bytes that went out.
    pub network_out_bytes: u64,
    /// Bytes read from disks.
    pub disk_read_bytes: u64,
    /// Bytes written to disks.
    pub disk_write_bytes: u64,
    /// What it has written beside its volumes takes so many bytes of the disk.
    pub disk_bytes: u64,
}

/// What is at a path of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileView {
    /// Where it is: absolute, without links.
    pub path: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// The replica that was looked at.
    pub replica: String,
}

/// How a command ended: a Kubernetes `Status` (`meta/v1`), with only what is said here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// `Success`: exit code 0; else `Failure`.
    pub status: String,
    /// `NonZeroExitCode`, or `InternalError`: its end is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What happened, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// With `NonZeroExitCode`: the cause `ExitCode`, whose message is the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
}

/// Why, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusDetails {
    /// The causes.
    pub causes: Vec<StatusCause>,
}

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusCause {
    /// Its kind.
    pub reason: String,
    /// More of it.
    pub message: String,
}

impl StatusView {
    /// A command that ended with this code.
    pub fn of_exit(code: i32) -> Self {
        if code == 0 {
            return Self {
                status: "Success".into(),
                reason: None,
                message: None,
                details: None,
            };
        }
        let cause = StatusCause {
            reason: "ExitCode".into(),
            message: code.to_string(),
        };
        Self {
            status: "Failure".into(),
            reason: Some("NonZeroExitCode".into()),
            message: Some(format!("command terminated with exit code {code}")),
            details: Some(StatusDetails {
                causes: vec![cause],
            }),
        }
    }

    /// A command whose end is not known, and why.
    pub fn of_failure(why: String) -> Self {
        Self {
            status: "Failure".into(),
            reason: Some("InternalError".into()),
            message: Some(why),
            details: None,
        }
    }

    /// The exit code that it tells; `None`: the end is not known.
    pub fn exit_code(&self) -> Option<i32> {
        if self.status == "Success" {
            return Some(0);
        }
        let causes = self.details.iter().flat_map(|details| &details.causes);
        let mut codes = causes.filter(|cause| cause.reason == "ExitCode");
        codes.next()?.message.parse().ok()
    }
}

/// What `DELETE /v1/apps/{app}` took down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedView {
    /// The services, as `app/service`.
    pub removed: Vec<String>,
    /// The volumes that went with it.
    pub volumes: Vec<String>,
}

/// One named volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// The app that it was made for.
    pub app: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made (RFC 3339).
    pub created: Option<String>,
    /// Where its files are, on the machine.
    pub path: String,
    /// The services that use it, as `app/service`.
    pub used_by: Vec<String>,
}

/// A volume to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeBody {
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A login at another registry. The password is shown to nobody.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct LoginBody {
    /// The registry's host, with a port if it has one.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password, or an access token in its place.
    pub password: String,
}

/// A registry that the node is logged in to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginView {
    /// The registry.
    pub registry: String,
    /// The user, where it can be told.
    pub user: Option<String>,
}

/// The `type` of a problem (RFC 9457, section 4.2.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ProblemType {
    /// It has no more meaning than its status.
    #[default]
    #[serde(rename = "about:blank")]
    Blank,
}

/// An error, as RFC 9457 has it (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem the status does not tell: none, see `code`.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong and where, in one sentence; one line each where a manifest has several errors. What else is to be said of
    /// that follows, in lines that begin with `warning: `.
    pub detail: String,
    /// The kind of error, for programs: `not-found`, `ambiguous`, `conflict`, `bad-manifest`, `image-not-found`, ...
    pub code: String,
    /// What to do next.
    pub hint: Option<String>,
}
