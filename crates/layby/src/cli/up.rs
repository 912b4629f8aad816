//! `layby up` and `layby watch`.

use clap::Args;

use super::{Canary, Manifest, not_empty};

/// What follows the help of both.
const TARGETS: &str = "A name that the manifest here gives a service means that service, also where a folder is called so: write \
    ./NAME for the folder. A StatefulSet's name means all of its pods.";

/// `layby up`.
#[derive(Debug, Args)]
#[command(after_help = TARGETS)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) what: What,
    /// Build images again that are there.
    #[arg(long)]
    pub(crate) build: bool,
    /// Print the steps that would be taken, and take none.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// All or nothing: if one service fails, those that went live go back to where they were, and new ones are removed.
    #[arg(long, conflicts_with_all = ["detach", "dry_run"])]
    pub(crate) atomic: bool,
    /// Take services of the app down that the manifest does not name (any more); their volumes stay.
    #[arg(long)]
    pub(crate) remove_orphans: bool,
    #[command(flatten)]
    pub(crate) canary: Canary,
    /// So many more attempts a failed rollout gets; otherwise what the manifest says, or 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(crate) retries: Option<u32>,
    /// Do not wait until live or failed.
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Go on once it is done: do what the services say of files that change (Compose, `develop: {watch: ...}`), until Ctrl-C. The
    /// services go on after that.
    #[arg(long, conflicts_with_all = ["detach", "dry_run", "Canary"])]
    pub(crate) watch: bool,
}

/// `layby watch`.
#[derive(Debug, Args)]
#[command(after_help = TARGETS)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) what: What,
    /// Deploy nothing first: the services are there.
    #[arg(long)]
    pub(crate) no_up: bool,
    /// Say only what went wrong.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What of which manifest is meant.
#[derive(Debug, Default, Args)]
pub(crate) struct What {
    #[command(flatten)]
    pub(crate) manifest: Manifest,
    /// A manifest or its folder first (otherwise the current folder, or the next one above it that has a Compose file), then
    /// services: only these and what they depend on are deployed, and the others of the app left as they are.
    #[arg(value_name = "PATH|SERVICE", value_parser = not_empty)]
    pub(crate) targets: Vec<String>,
    /// Only the services that are named, without what they depend on.
    #[arg(long)]
    pub(crate) no_deps: bool,
    /// So many replicas this service gets, whatever the manifest says; may be given several times.
    #[arg(long, value_name = "SERVICE=N", value_parser = scaled)]
    pub(crate) scale: Vec<(String, u32)>,
}

/// `web=3`.
fn scaled(text: &str) -> Result<(String, u32), String> {
    let (name, number) = text.split_once('=').unwrap_or((text, ""));
    match number.parse() {
        Ok(number) if !name.is_empty() => Ok((name.to_owned(), number)),
        Ok(_) | Err(_) => Err("write it as SERVICE=N".to_owned()),
    }
}
