//! Arguments of `layby secret`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use layby_model::secret::is_value_name;

use super::Json;

/// `layby secret`.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Set a secret: what is typed at the prompt, or comes by standard input or from a file. Services that use it get a
    /// new revision.
    #[command(after_help = "Examples:
  layby secret set db_password                    asks for it, without showing it
  pwgen 32 1 | layby secret set --app shop api_key
  layby secret set tls_key --file key.pem --no-deploy")]
    Set(SecretSet),
    /// Set a secret for each KEY=VALUE line of a file, all or none.
    #[command(after_help = "Examples:
  layby secret import --app shop .env             secrets A, B, ...
  layby secret import --app shop --as db .env     secrets db/A, db/B, ...: the keys of the Kubernetes Secret db")]
    Import(SecretImport),
    /// List the secrets, never their values.
    Ls {
        /// Only those of this app.
        #[arg(long)]
        app: Option<String>,
        #[command(flatten)]
        json: Json,
    },
    /// Remove a secret with all its versions; one that a service uses stays.
    Rm {
        /// The secret.
        #[arg(value_parser = secret_name)]
        name: String,
        /// Whose it is; left out: the node's.
        #[arg(long)]
        app: Option<String>,
    },
    /// Encrypt all secrets with a new key.
    RotateKey,
}

/// `layby secret set`.
#[derive(Debug, Args)]
pub(crate) struct SecretSet {
    /// Its name.
    #[arg(value_parser = secret_name)]
    pub(crate) name: String,
    /// Read the value from this file, as it is.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) to: SecretFor,
}

/// `layby secret import`.
#[derive(Debug, Args)]
pub(crate) struct SecretImport {
    /// The file; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Make them the keys of this group: GROUP/KEY.
    #[arg(long = "as", value_name = "GROUP")]
    pub(crate) group: Option<String>,
    #[command(flatten)]
    pub(crate) to: SecretFor,
}

/// Whose secrets are set, and what comes of it.
#[derive(Debug, Args)]
pub(crate) struct SecretFor {
    /// Whose they are; left out: the node's, which every app may use.
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Leave the services that use them as they are: they get the new values with their next deploy.
    #[arg(long)]
    pub(crate) no_deploy: bool,
    /// Do not wait for the outcome.
    #[arg(long)]
    pub(crate) detach: bool,
}

fn secret_name(text: &str) -> Result<String, String> {
    match is_value_name(text) {
        true => Ok(text.to_owned()),
        false => Err(
            "use up to 253 letters, digits, '_', '.' and '-', not beginning with a point (GROUP/KEY for a key of a group)"
                .to_owned(),
        ),
    }
}
