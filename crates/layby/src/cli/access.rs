//! Arguments of `layby token`, `login` and `context`, and of the listener for those who come from elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use layby_control::Role;

use super::{Json, not_empty, seconds};
use crate::tls::parse_fingerprint;

/// `layby token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token, and print its secret: for `layby login URL --token-stdin`, and as the password for `docker login -u
    /// NAME`. It is never shown again.
    #[command(after_help = "Examples:
  layby token create ann --role admin
  layby token create ci --role deploy --app shop --expires 30d
  layby token create puller --pull --repository 'team/*'")]
    Create {
        /// Its name, which clients give as the user.
        #[arg(value_parser = not_empty)]
        name: String,
        /// What it may do with the node: read (look, but at no secrets), deploy (change services, build, reach into
        /// containers) or admin (everything). Without one it is for the registry alone.
        #[arg(long, value_enum)]
        role: Option<TokenRole>,
        /// Only with this app; may be given several times, or name several with commas.
        #[arg(
            long = "app",
            value_name = "APP",
            value_delimiter = ',',
            value_parser = not_empty,
            requires = "role"
        )]
        apps: Vec<String>,
        /// At the registry it may push and delete; so may one with the role deploy or admin of which nothing is said.
        #[arg(long)]
        push: bool,
        /// At the registry it may pull; so may a token of which nothing is said.
        #[arg(long)]
        pull: bool,
        /// At the registry only in these repositories; each `*` stands for any characters. Otherwise in all, or in those
        /// that begin with its apps' names.
        #[arg(long, value_name = "PATTERN")]
        repository: Option<String>,
        /// For how long it is good, such as 90d, 12h or 30m; otherwise without end.
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires: Option<u64>,
        #[command(flatten)]
        json: Json,
    },
    /// List the tokens.
    Ls(Json),
    /// Take a token away: it is good for nothing from then on.
    Rm {
        /// The token.
        #[arg(value_parser = not_empty)]
        name: String,
    },
}

/// A role, as it is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Look, but at no secrets and no files of containers.
    Read,
    /// Change services, jobs, secrets and volumes, build and push, reach into containers.
    Deploy,
    /// Everything: tokens, logins, the node itself, folders of the machine.
    Admin,
}

impl TokenRole {
    /// As the API has it.
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Read => Role::Read,
            Self::Deploy => Role::Deploy,
            Self::Admin => Role::Admin,
        }
    }
}

/// `layby login`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  layby login https://node.example:8443            a node: asks for its token
  layby login https://10.0.0.5:8443 --fingerprint 3b1f... --token-stdin < token
  layby login registry.example -u ann              a registry, for the node")]
pub(crate) struct Login {
    /// The registry (Docker's if left out); or a node, by a URL that begins with https://.
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
    /// The user; otherwise it is asked for.
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Print the registries that the node is logged in to, and do nothing.
    #[arg(long, conflicts_with_all = ["user", "password_stdin", "token_stdin", "name", "fingerprint", "ca"])]
    pub(crate) list: bool,
    /// Print these as JSON.
    #[arg(long, requires = "list")]
    pub(crate) json: bool,
    /// Of a node: read the token from standard input.
    #[arg(long)]
    pub(crate) token_stdin: bool,
    /// Of a node: what to call it; otherwise its host.
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    pub(crate) name: Option<String>,
    /// Of a node: take the certificate with this SHA-256 and no other, and do not ask.
    #[arg(long, value_name = "SHA256", value_parser = parse_fingerprint, conflicts_with = "ca")]
    pub(crate) fingerprint: Option<String>,
    /// Of a node: take what these certificates (PEM) vouch for, and do not ask.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

impl Login {
    /// Whether something is said that is for nodes alone.
    pub(crate) fn is_for_a_node(&self) -> bool {
        self.token_stdin || self.name.is_some() || self.fingerprint.is_some() || self.ca.is_some()
    }
}

/// `layby context`.
#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// List the nodes that you are logged in to; the current one has a star.
    Ls(Json),
    /// Ask this node from now on.
    Use {
        /// Its name; `local` is the node on this machine.
        #[arg(value_parser = not_empty)]
        name: String,
    },
    /// Forget a node, and your token for it.
    Rm {
        /// Its name.
        #[arg(value_parser = not_empty)]
        name: String,
    },
}

/// `layby audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  layby audit                        the newest 100
  layby audit --since 7d --who ci --json")]
pub(crate) struct Audit {
    /// Only from then on: how long ago (10m, 1h30m, 2d) or when (2026-01-31T12:00:00Z); all of it, then.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only by this user or token.
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    pub(crate) who: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// Where the API listens for those who come from elsewhere.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiListener {
    /// Serve the API on HTTPS there too, for who has a token (`layby token create`); otherwise it is on the socket alone.
    #[arg(long, env = "LAYBY_API", value_name = "ADDR")]
    pub(crate) api: Option<SocketAddr>,
    /// The certificate for it (PEM, with its chain), read again when it changes; otherwise the node makes one of its own.
    #[arg(long, env = "LAYBY_API_CERT", value_name = "FILE", requires_all = ["api", "api_key"])]
    pub(crate) api_cert: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(
        long,
        env = "LAYBY_API_KEY",
        value_name = "FILE",
        requires = "api_cert"
    )]
    pub(crate) api_key: Option<PathBuf>,
}
