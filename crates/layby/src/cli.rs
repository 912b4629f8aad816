//! The command line, defined once: parser and help come from here.

mod access;
mod build;
mod canary;
mod config;
mod convert;
mod events;
mod history;
mod jobs;
mod manifest;
mod manual;
mod network;
mod power;
#[cfg(test)]
mod reads;
mod secret;
mod state;
mod switch;
mod up;

use std::env::VarError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub(crate) use access::{ApiListener, Audit, Context, Login, Token, TokenRole};
pub(crate) use build::{Build, Progress};
pub(crate) use canary::{Canary, Promote};
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use config::{Config, Format as ConfigFormat, Only as ConfigOnly};
pub(crate) use convert::Convert;
pub(crate) use events::Events;
pub(crate) use history::{Diff, History, Redeploy, Rollback};
pub(crate) use jobs::{Job, JobLogs, Run};
pub(crate) use manifest::{Manifest, Place};
pub(crate) use manual::{Completions, Man};
pub(crate) use network::Network;
pub(crate) use power::{Power, Powers, Scale};
pub(crate) use secret::{Secret, SecretFor, SecretImport, SecretSet};
pub(crate) use state::{Export, Import, State, StateKeys};
pub(crate) use switch::{Enable, Remove, Restart, Several};
pub(crate) use up::{Up, Watch, What};

/// Where the gateway listens when nothing is said.
pub(crate) const USUAL_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Runs a team's containerised services on a machine it owns.
///
/// Hand it a Compose file or Kubernetes manifests: Layby builds the images, runs them in real
/// containers, gives each service an address, and puts to sleep what nobody uses until a request comes.
#[derive(Debug, Parser)]
#[command(name = "layby", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// The data directory of a node on this machine; otherwise /var/lib/layby, or the node of the current context.
    #[arg(long, global = true, env = "LAYBY_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The node to ask: a context (`layby context ls`), or `local` for the one on this machine.
    #[arg(long, global = true, env = "LAYBY_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 the rollout failed and what was live is kept, \
    4 not found, 5 timed out, 6 overtaken by what was asked for since, or called off.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node in the foreground.
    Serve(Serve),
    /// Deploy a Compose file or Kubernetes manifests, or some of their services, and wait until they are live.
    Up(Up),
    /// Deploy a Compose file, then do what its services say of files that change (`develop: {watch: ...}`): copy, rebuild, restart.
    Watch(Watch),
    /// Print a Compose file as it is understood: one file, filled in, every value in its long form.
    Config(Config),
    /// Write a Compose file as Kubernetes YAML, and say what is lost.
    Convert(Convert),
    /// Build an image from a Dockerfile and a folder.
    Build(Build),
    /// List the services that are not disabled.
    Ls {
        /// Show the disabled ones, too.
        #[arg(long, short)]
        all: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Show one service whole: replicas, conditions, the last wake.
    Status {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        json: Json,
    },
    /// Run a command in a container of a service; a service that rests is woken.
    Exec(Exec),
    /// Run a command beside a service, in a container of its own; a service that rests is not woken.
    Run(Run),
    /// Look after jobs and their runs.
    #[command(subcommand)]
    Job(Job),
    /// Copy files between this machine and the containers of services.
    Cp(Cp),
    /// Show what services wrote.
    Logs(Logs),
    /// Show what happened to services: deploys, failures, crashes, who asked for what.
    Events(Events),
    /// Show who changed what, when and from where, and logins that failed.
    Audit(Audit),
    /// Show what services use, live: `q` ends it.
    Top(Top),
    /// Lead ports of this machine to ports of a service, until it is ended.
    PortForward(PortForward),
    /// Put a service to sleep: stopped, but prepared; the next request wakes it.
    Sleep(Name),
    /// Let a service doze: frozen in memory; the next request wakes it.
    Doze(Name),
    /// Wake a service.
    Wake(Name),
    /// Deploy a service that is there again, with another image or other settings.
    Deploy(Deploy),
    /// List the revisions of a service: who made each, when and why, and what became of it.
    History(History),
    /// Show how two revisions of a service differ.
    Diff(Diff),
    /// Go back to an earlier revision of a service: its settings and its images, as a new revision.
    Rollback(Rollback),
    /// Deploy the newest revision of a service anew.
    Redeploy(Redeploy),
    /// Restart the containers of services as they are, one replica after the other; no revision, and no request lost.
    Restart(Restart),
    /// Let a canary take all requests.
    Promote(Promote),
    /// Give up what is on its way to be live, canary or not; what is live goes on.
    Abort(Name),
    /// Disable services: nothing of them runs, requests are answered 503, settings and history stay.
    Disable(Several),
    /// Enable services that are disabled.
    Enable(Enable),
    /// Remove services with their histories; an app as a whole is taken down by `layby down`. Volumes stay.
    Rm(Remove),
    /// Give a service another number of replicas: no revision, and no request lost.
    Scale(Scale),
    /// Give a service another power: how much CPU and memory a replica of it may use.
    Power(Power),
    /// Take an app down: drained, stopped and removed, with its history.
    Down {
        /// The app.
        #[arg(value_parser = not_empty)]
        app: String,
        /// Remove the volumes that were made for it, with all that is in them.
        #[arg(long)]
        volumes: bool,
    },
    /// Look after the networks that apps share.
    #[command(subcommand)]
    Network(Network),
    /// Look after the node's volumes.
    #[command(subcommand)]
    Volume(Volume),
    /// Look after the node's images.
    #[command(subcommand)]
    Image(Image),
    /// Look after the secrets that services use: encrypted on the disk, and never shown again.
    #[command(subcommand)]
    Secret(Secret),
    /// Look after the tokens by which people and programs use the node over the network, and its registry.
    #[command(subcommand)]
    Token(Token),
    /// Log in to a node elsewhere (`https://HOST[:PORT]`), or log the node in to another registry, for pulls and pushes.
    Login(Login),
    /// Look after the nodes elsewhere that you are logged in to.
    #[command(subcommand)]
    Context(Context),
    /// Forget a node elsewhere (`https://HOST[:PORT]`), or a registry's user and password.
    Logout {
        /// The registry (Docker's if left out), or the node's URL.
        #[arg(default_value = "docker.io")]
        registry: String,
    },
    /// Take the whole state of the node out, or put it back.
    #[command(subcommand)]
    State(State),
    /// Look after the node itself.
    #[command(subcommand)]
    Node(Node),
    /// Print what makes a shell complete the command line.
    Completions(Completions),
    /// Print the manual (roff), or write it as pages.
    Man(Man),
    /// Print the versions of this program and of the node.
    Version(Json),
}

/// A service by its name.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The service: its name where that is unique, else `app/service`.
    #[arg(value_parser = not_empty)]
    pub(crate) name: String,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Json {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `layby serve`. Each option can be given by an environment variable too, which `layby up` passes on to a node that it
/// starts in the background.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Where the gateway listens.
    #[arg(
        long,
        env = "LAYBY_HTTP",
        default_value_t = USUAL_HTTP,
        value_name = "ADDR"
    )]
    pub(crate) http: SocketAddr,
    /// The address that node ports and published ports listen on.
    #[arg(
        long,
        env = "LAYBY_PUBLISH_ON",
        default_value = "0.0.0.0",
        value_name = "ADDR"
    )]
    pub(crate) publish_on: IpAddr,
    /// Where the registry listens; otherwise 127.0.0.1:5000, or any free port of 127.0.0.1 when that is taken.
    #[arg(long, env = "LAYBY_REGISTRY", value_name = "ADDR")]
    pub(crate) registry: Option<SocketAddr>,
    /// Let anybody who reaches the registry pull from it, without a token.
    #[arg(long, env = "LAYBY_REGISTRY_ANONYMOUS_PULL", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) registry_anonymous_pull: bool,
    /// Every hour, if images and build caches take more than this (such as 20G), remove those that no service needs,
    /// the longest unused first; otherwise none is removed for its size.
    #[arg(long, env = "LAYBY_IMAGE_BUDGET", value_name = "SIZE", value_parser = bytes)]
    pub(crate) image_budget: Option<u64>,
    /// How much may then be left; otherwise 80 % of the budget.
    #[arg(
        long,
        env = "LAYBY_IMAGE_LOW",
        value_name = "SIZE",
        value_parser = bytes,
        requires = "image_budget"
    )]
    pub(crate) image_low: Option<u64>,
    /// Keep what was used in the last so many days, whatever the budget.
    #[arg(long, env = "LAYBY_IMAGE_KEEP_DAYS", value_name = "D")]
    pub(crate) image_keep_days: Option<u32>,
    /// Keep so many earlier revisions of each service to go back to, of the 50 that are kept otherwise.
    #[arg(long, env = "LAYBY_KEEP_REVISIONS", value_name = "N")]
    pub(crate) keep_revisions: Option<u32>,
    #[command(flatten)]
    pub(crate) https: ApiListener,
    /// The domain that services are names of.
    #[arg(
        long,
        env = "LAYBY_DOMAIN",
        default_value = "localhost",
        value_name = "NAME"
    )]
    pub(crate) domain: String,
    /// Let services ask for what makes them as good as root on this machine: `privileged`, its devices, its process, IPC
    /// and user namespaces, mounts of its own places and sockets (/etc, /dev, /run, docker.sock), builds in its network.
    #[arg(long, env = "LAYBY_ALLOW_PRIVILEGED", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) allow_privileged: bool,
    /// Another registry that may be spoken to by plain HTTP, or with a certificate that nobody signed; may be given
    /// several times.
    #[arg(
        long,
        env = "LAYBY_INSECURE_REGISTRY",
        value_delimiter = ',',
        value_name = "HOST[:PORT]"
    )]
    pub(crate) insecure_registry: Vec<String>,
    /// Certificates (PEM) of an authority that registries may be signed by; may be given several times.
    #[arg(
        long,
        env = "LAYBY_REGISTRY_CA",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    pub(crate) registry_ca: Vec<PathBuf>,
    /// The file with the key that secrets are encrypted with: 64 hexadecimal digits, for root alone. It is made when it
    /// is first needed [default: systemd's credential layby-master-key where there is one, else master.key in the data
    /// directory]
    #[arg(long, env = "LAYBY_MASTER_KEY", value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
    /// Forget all secrets first: for a node whose key is lost. Services that use one wait for it to be set again
    #[arg(long)]
    pub(crate) forget_secrets: bool,
    /// Hold the listening sockets and run the node as a process below this one, which is started again when it dies:
    /// connections wait meanwhile.
    #[arg(long, env = "LAYBY_KEEP", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) keep: bool,
    /// Threads of the gateway; 0: one for each core.
    #[arg(long, default_value_t = 0, value_name = "N", hide = true)]
    pub(crate) workers: usize,
}

/// `layby deploy`.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The image to run instead; without it, --env and --unset keep the very same, and else its tag is looked up anew.
    #[arg(long, value_name = "REF", value_parser = not_empty)]
    pub(crate) image: Option<String>,
    /// A variable to set, as KEY=VALUE; may be given several times.
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// A variable to take away; may be given several times.
    #[arg(long, value_name = "K", value_parser = not_empty)]
    pub(crate) unset: Vec<String>,
    #[command(flatten)]
    pub(crate) canary: Canary,
    /// Deploy nothing: follow the newest rollout, such as one that a push began, to its end.
    #[arg(long, conflicts_with_all = ["image", "env", "unset", "detach", "Canary"])]
    #[arg(long, conflicts_with_all = ["image", "env", "unset", "retries", "detach"])]
    pub(crate) follow: bool,
    /// So many more attempts a failed rollout gets; otherwise what the manifest says, or 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) retries: Option<u32>,
    /// Do not wait until live or failed.
    #[arg(long, short)]
    pub(crate) detach: bool,
}

/// Which container is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct At {
    /// In this container; otherwise the first.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// In this replica; otherwise one that is ready.
    #[arg(long, value_name = "ID")]
    replica: Option<String>,
}

impl At {
    /// As the API takes it.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let container = self.container.clone().map(|name| ("container", name));
        let replica = self.replica.clone().map(|id| ("replica", id));
        container.into_iter().chain(replica).collect()
    }

    /// Whether it names the replica.
    pub(crate) fn is_replica(&self) -> bool {
        self.replica.is_some()
    }
}

/// `layby exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "Its exit code is that of the command; 126 or 127 if that cannot be executed or is not found."
)]
pub(crate) struct Exec {
    /// Pass the standard input on.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// A variable to set, as KEY=VALUE, or KEY to take it from the environment; may be given several times.
    #[arg(short, long, value_name = "K=V", value_parser = key_value_or_variable)]
    pub(crate) env: Vec<(String, Option<String>)>,
    /// Where it starts; otherwise where the container did.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Whom it runs as: a name or number, with a group after a colon; otherwise as the container.
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) at: At,
    /// The service: its name where that is unique, else `app/service`.
    #[arg(value_parser = not_empty)]
    pub(crate) name: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `layby cp`.
#[derive(Debug, Args)]
#[command(
    after_help = "One side is NAME:PATH in a container, the other a path of this machine, or - for a tar on standard input \
    or output. A folder that is there gets the copy in it; DIR/. means what is in a folder."
)]
pub(crate) struct Cp {
    /// Keep owners and groups, by number.
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// If the source is a link, copy what it leads to.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    #[command(flatten)]
    pub(crate) at: At,
    /// What to copy.
    pub(crate) source: String,
    /// Where to.
    pub(crate) target: String,
}

/// `layby top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Only these services, or apps of which all services are meant.
    #[arg(value_name = "NAME", value_parser = not_empty)]
    pub(crate) names: Vec<String>,
    /// Look once.
    #[arg(long)]
    pub(crate) once: bool,
    /// From one look to the next, in seconds.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub(crate) interval: f64,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// `layby port-forward`.
#[derive(Debug, Args)]
pub(crate) struct PortForward {
    /// The service: its name where that is unique, else `app/service`.
    #[arg(value_parser = not_empty)]
    pub(crate) name: String,
    /// TCP ports as [LOCAL:]REMOTE; LOCAL is the same if left out, and any free one if it is 0.
    #[arg(required = true, value_name = "PORTS", value_parser = ports)]
    pub(crate) ports: Vec<(u16, u16)>,
    /// The address of this machine to listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDR")]
    pub(crate) address: IpAddr,
    /// Of this replica; otherwise one that is ready.
    #[arg(long, value_name = "ID")]
    pub(crate) replica: Option<String>,
}

/// `layby logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The services, or apps of which all services are meant.
    #[arg(required = true, value_name = "NAME", value_parser = not_empty)]
    pub(crate) names: Vec<String>,
    /// Go on with new lines.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines from then on: how long ago (10m, 1h30m), or when (RFC 3339).
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only lines before then.
    #[arg(long, value_name = "WHEN")]
    pub(crate) until: Option<String>,
    /// Say when each line was written.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Print names without colours; so does the variable NO_COLOR.
    #[arg(long)]
    pub(crate) no_color: bool,
    /// Only of this replica.
    #[arg(long, value_name = "ID")]
    pub(crate) replica: Option<String>,
    /// Only so many of the last lines.
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// Only of this container; otherwise the first.
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// `layby image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// List the images.
    Ls(Json),
    /// Take in an image archive (OCI, or `docker save`).
    Load {
        /// The archive; standard input if left out or `-`.
        file: Option<PathBuf>,
    },
    /// Get an image from its registry.
    Pull {
        /// The image.
        #[arg(value_parser = not_empty)]
        reference: String,
        /// The platform, as os/architecture[/variant]; otherwise the machine's.
        #[arg(long, value_name = "PLATFORM")]
        platform: Option<String>,
        #[command(flatten)]
        transfer: Transfer,
    },
    /// Bring an image to a registry.
    Push {
        /// The image.
        #[arg(value_parser = not_empty)]
        reference: String,
        /// Under which name; otherwise its own.
        destination: Option<String>,
        #[command(flatten)]
        transfer: Transfer,
    },
    /// Print what an image says of itself, as JSON.
    Inspect {
        /// The image.
        #[arg(value_parser = not_empty)]
        reference: String,
        #[command(flatten)]
        json: Json,
    },
    /// Give an image a further name; one of the node's own registry (`registry/app:1`) can be pulled there.
    Tag {
        /// The image.
        #[arg(value_parser = not_empty)]
        reference: String,
        /// The name.
        #[arg(value_parser = not_empty)]
        name: String,
    },
    /// Write images into an archive.
    Save {
        /// The images.
        #[arg(required = true)]
        references: Vec<String>,
        /// Where to; standard output if left out.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The form of the archive.
        #[arg(long, value_enum, default_value_t = ArchiveFormat::Oci)]
        format: ArchiveFormat,
    },
    /// Remove what no service needs: never what runs, rolls or may be gone back to, nor what the registry's tags name.
    ///
    /// Without options, only content that nothing names.
    Prune(Prune),
    /// Forget names of images; by its id, an image loses all of its names.
    Rm {
        /// The names or ids.
        #[arg(required = true, value_parser = not_empty)]
        references: Vec<String>,
    },
}

/// How an image is transferred.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Transfer {
    /// Print only the digest.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Plain HTTP, or a certificate that nobody signed, will do.
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// `layby image prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Also the names of images that no revision names, and what is kept of build contexts; the build cache stays.
    #[arg(long)]
    pub(crate) all: bool,
    /// Also the build cache: what steps made, and the folders of `RUN --mount=type=cache`.
    #[arg(long)]
    pub(crate) cache: bool,
    /// Also manifests in the registry that no tag leads to.
    #[arg(long)]
    pub(crate) untagged: bool,
    /// Forget all but so many of each service's earlier revisions; one that is forgotten cannot be gone back to.
    #[arg(long, value_name = "N")]
    pub(crate) keep_revisions: Option<u32>,
    /// Keep what was used in the last so many days.
    #[arg(long, value_name = "D")]
    pub(crate) keep_days: Option<u32>,
    /// If there is more than this (such as 20G), remove unused images and build caches, the longest unused first.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) budget: Option<u64>,
    /// How much may then be left; otherwise 80 % of the budget.
    #[arg(long, value_name = "SIZE", value_parser = bytes, requires = "budget")]
    pub(crate) low: Option<u64>,
    /// Print what would go, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// The form of an image archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchiveFormat {
    /// The OCI image layout, in a tar.
    Oci,
    /// As `docker save` writes it.
    Docker,
}

/// `layby volume`.
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List the volumes.
    Ls(Json),
    /// Show a volume whole, as JSON.
    Inspect {
        /// The volume.
        #[arg(value_parser = not_empty)]
        name: String,
        #[command(flatten)]
        json: Json,
    },
    /// Make a volume, for manifests that take it from outside (`external`).
    Create {
        /// Its name.
        #[arg(value_parser = not_empty)]
        name: String,
        /// A label, as KEY=VALUE; may be given several times.
        #[arg(long, value_name = "K=V", value_parser = key_value)]
        label: Vec<(String, String)>,
    },
    /// Remove volumes with all that is in them; those in use are refused.
    Rm {
        /// The volumes.
        #[arg(required = true, value_parser = not_empty)]
        names: Vec<String>,
    },
    /// Remove every volume that no service uses.
    Prune {
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// `layby node`.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// End the node that runs in the background; its containers go on running.
    Stop {
        /// End the containers too, and remove the node's networks.
        #[arg(long)]
        all: bool,
    },
}

/// `20G`, `500M`, `64K` or plain bytes; a unit is 1,000 times the one before.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write it as a number with K, M, G or T, such as 20G".to_owned();
    let (number, factor) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        Some((at, 'T')) => (&text[..at], 1_000_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

/// `90d`, `12h`, `30m` or `45s` in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "write it as a number with d, h, m or s, such as 90d".to_owned();
    let (number, factor) = match text.char_indices().last() {
        Some((at, 'd')) => (&text[..at], 86_400),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 's')) => (&text[..at], 1),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(factor) {
        Some(seconds) if seconds > 0 => Ok(seconds),
        _ => Err(wrong()),
    }
}

/// `None`: the environment has no such variable.
fn key_value_or_variable(text: &str) -> Result<(String, Option<String>), String> {
    if text.contains('=') {
        return key_value(text).map(|(key, value)| (key, Some(value)));
    }
    match std::env::var(text) {
        Ok(value) => Ok((text.to_owned(), Some(value))),
        Err(VarError::NotPresent) => Ok((text.to_owned(), None)),
        Err(VarError::NotUnicode(_)) => Err(format!("{text} in the environment is not UTF-8")),
    }
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().ok();
    let found = match text.split_once(':') {
        Some(("", remote)) => port(remote).map(|remote| (0, remote)),
        Some((local, remote)) => port(local).zip(port(remote)),
        None => port(text).map(|port| (port, port)),
    };
    let found = found.filter(|(_, remote)| *remote > 0);
    found.ok_or_else(|| "write it as PORT or LOCAL:REMOTE; only TCP is carried".to_owned())
}

fn not_empty(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_an_error_of_usage() {
        for line in [
            &["layby", "deploy", "web", "--image", ""][..],
            &["layby", "status", ""],
            &["layby", "top", ""],
            &["layby", "down", ""],
            &["layby", "image", "push", ""],
        ] {
            let error = Cli::try_parse_from(line).expect_err("empty");
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.to_string().contains("it is empty"), "{error}");
        }
    }

    #[test]
    fn sizes_may_have_a_unit() {
        assert_eq!(bytes("20G"), Ok(20_000_000_000));
        assert_eq!(bytes("7"), Ok(7));
        for bad in ["", "G", "-1", "1.5G", "20GB", "99999999999T", "1é"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(seconds("90d"), Ok(7_776_000));
        assert_eq!(seconds("45s"), Ok(45));
        for bad in [
            "",
            "d",
            "90",
            "0h",
            "-1h",
            "1w",
            "99999999999999999999d",
            "9é",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
