//! `layby config`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Manifest, Place};

/// `layby config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) manifest: Manifest,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) only: Only,
    /// How the file is written.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    pub(crate) format: Format,
    /// Print JSON: the file as with `--format json`, or what is printed instead of it as a list, hashes by service.
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Leave `${VAR}` and env files as they are.
    #[arg(long)]
    pub(crate) no_interpolate: bool,
    /// Write to this file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What is printed instead of the file.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Only {
    /// Print nothing but what is wrong.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Print the names of the services, one a line.
    #[arg(long)]
    pub(crate) services: bool,
    /// Print the images.
    #[arg(long)]
    pub(crate) images: bool,
    /// Print the names of the volumes.
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Print the names of the networks.
    #[arg(long)]
    pub(crate) networks: bool,
    /// Print the profiles, also those that are not switched on.
    #[arg(long = "profiles", id = "print_profiles")]
    pub(crate) profiles: bool,
    /// Print a hash of each service's settings: of the one that is named, or of all (`*`).
    #[arg(long, value_name = "SERVICE")]
    pub(crate) hash: Option<String>,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// As YAML.
    Yaml,
    /// As JSON.
    Json,
}
