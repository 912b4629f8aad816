//! Arguments of the commands that look at a service's revisions, and go back and forth among them.

use clap::Args;

use super::{Json, Name};

/// `layby history`.
#[derive(Debug, Args)]
#[command(
    after_help = "OUTCOME: live: it went live (* is live now); failed; rolling; superseded: a newer one overtook it \
    before it was live; aborted: it was called off."
)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// `layby diff`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  layby diff web 3 5    what has changed from revision 3 to revision 5
  layby diff web 3      what has changed from revision 3 to the one that is live")]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The revision to look at first.
    #[arg(value_name = "A")]
    pub(crate) from: u32,
    /// The other; otherwise the live one.
    #[arg(value_name = "B")]
    pub(crate) to: Option<u32>,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// `layby rollback`.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    pub(crate) name: Name,
    /// The revision to go back to; otherwise the one that was live before.
    #[arg(long, value_name = "N")]
    pub(crate) to: Option<u32>,
    /// Do not wait until live or failed.
    #[arg(long, short)]
    pub(crate) detach: bool,
}

/// `layby redeploy`.
#[derive(Debug, Args)]
pub(crate) struct Redeploy {
    #[command(flatten)]
    pub(crate) name: Name,
    /// Ask the registries for its images by their names again; otherwise they are the same.
    #[arg(long)]
    pub(crate) pull: bool,
    /// Do not wait until live or failed.
    #[arg(long, short)]
    pub(crate) detach: bool,
}
