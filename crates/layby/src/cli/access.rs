//! Arguments of `layby token`.

use clap::{Subcommand, ValueEnum};
use layby_control::Role;

use super::{Json, not_empty, seconds};

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
        /// Only with this app; may be given several times.
        #[arg(long = "app", value_name = "APP", value_parser = not_empty, requires = "role")]
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
