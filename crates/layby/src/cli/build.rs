//! `layby build`, as it is written.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{key_value, key_value_or_variable, seconds};

/// `layby build`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The build context: the folder that COPY takes files from.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// A name for the image; may be given several times.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,
    /// The Dockerfile; otherwise `Dockerfile` in the context. `-`: standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A build argument, as KEY=VALUE, or KEY to take it from the environment.
    #[arg(long, value_name = "K=V", value_parser = key_value_or_variable)]
    pub(crate) build_arg: Vec<(String, Option<String>)>,
    /// A secret for `RUN --mount=type=secret`: id=NAME,src=FILE or id=NAME,env=VARIABLE.
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// An SSH agent for `RUN --mount=type=ssh`: default (the one of SSH_AUTH_SOCK), ID=SOCKET or ID=KEYFILE. No key leaves this machine.
    #[arg(long, value_name = "ID[=PATH]")]
    pub(crate) ssh: Vec<String>,
    /// The stage to build; otherwise the last.
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// A label for the image, as KEY=VALUE.
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub(crate) label: Vec<(String, String)>,
    /// A further context that FROM and --from may name: NAME=FOLDER or NAME=docker-image://IMAGE.
    #[arg(long, value_name = "NAME=PATH", value_parser = key_value)]
    pub(crate) build_context: Vec<(String, String)>,
    /// Carry out every step, also those that the cache has.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// What to build for; otherwise this machine. Only its own can have RUN.
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// The network of RUN: default or none.
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// The longest that a RUN may take, such as 90m; otherwise an hour.
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(crate) timeout: Option<u64>,
    /// How to show what happens.
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,
}

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// In place on a terminal, as plain lines elsewhere.
    Auto,
    /// As plain lines, the output of commands among them.
    Plain,
    /// Only what went wrong, and the image's digest.
    Quiet,
}
