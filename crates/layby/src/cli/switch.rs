//! Arguments of the commands that switch services off and on, and remove them.

use clap::Args;

use super::not_empty;

/// Services, or all of the node.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Several {
    /// The services (each its name where that is unique, else `app/service`), StatefulSets of which all pods are meant, or apps of
    /// which all services are.
    #[arg(value_name = "NAME", value_parser = not_empty)]
    pub(crate) names: Vec<String>,
    /// All services of the node.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `layby enable`.
#[derive(Debug, Args)]
pub(crate) struct Enable {
    #[command(flatten)]
    pub(crate) several: Several,
    /// Do not wait until they are back.
    #[arg(long, short)]
    pub(crate) detach: bool,
}

/// `layby restart`.
#[derive(Debug, Args)]
#[command(
    after_help = "What the containers have written stays, as it does not with `layby redeploy`, which makes new replicas. \
    A service that rests is woken."
)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) several: Several,
    /// Do not wait until they have restarted.
    #[arg(long, short)]
    pub(crate) detach: bool,
}

/// `layby rm`.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The services: each its name where that is unique, else `app/service`.
    #[arg(required = true, value_name = "NAME", value_parser = not_empty)]
    pub(crate) names: Vec<String>,
}
