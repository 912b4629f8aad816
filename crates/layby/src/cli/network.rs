//! Arguments of `layby network`.

use clap::Subcommand;

use super::Json;

/// `layby network`.
#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// List the networks that apps share.
    Ls(Json),
    /// Show one whole, as JSON.
    Inspect {
        /// The network.
        name: String,
        #[command(flatten)]
        json: Json,
    },
    /// Make a network that apps share, for manifests that name it as `external`; of one that is there, say anew who may join.
    #[command(after_help = "Examples:
  layby network create proxy                        any app may join it; whose token is limited to apps joins none of these
  layby network create proxy --app shop --app blog  these two alone, whoever may deploy them")]
    Create {
        /// Its name.
        name: String,
        /// Let this app join; may be given several times, or name several with commas: those that are not named may not. Left out:
        /// any may.
        #[arg(long, value_name = "APP", value_delimiter = ',')]
        app: Vec<String>,
    },
    /// Remove networks that nothing is in.
    Rm {
        /// The networks.
        #[arg(required = true)]
        names: Vec<String>,
    },
}
