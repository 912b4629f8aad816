//! Arguments of `layby events`.

use clap::Args;

use super::Json;

/// `layby events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  layby events                      the newest 100
  layby events -f shop/web          of one service, and what happens from now on
  layby events --since 1d --kind failed --kind crashed")]
pub(crate) struct Events {
    /// Only of this service (its name where that is unique, else `app/service`), or of this app.
    pub(crate) name: Option<String>,
    /// Go on with what happens from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only from then on: how long ago (10m, 1h30m, 2d) or when (2026-01-31T12:00:00Z).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only of this kind, such as live, failed or crashed; may be given several times.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Vec<String>,
    /// The newest so many, 1000 at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) tail: u32,
    #[command(flatten)]
    pub(crate) json: Json,
}
