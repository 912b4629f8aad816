//! Arguments of `layby state`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `layby state`.
#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Write all that the node is to be into one encrypted file: apps, services, revisions, jobs, secrets, tokens, logins.
    /// The node may run. Volumes and images are not in it.
    Export(StateFile),
    /// Put such a file into an empty data directory, on which no node runs: all of it, or nothing. Then start the node.
    Import(StateFile),
}

/// Which file, and what opens it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  layby state export /backup/node.state                        asks for a passphrase
  layby --data /srv/layby state import node.state --passphrase-file key.txt")]
pub(crate) struct StateFile {
    /// The file.
    pub(crate) file: PathBuf,
    /// Read the passphrase from this file, without the line's end; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The file with the key of the node's secrets [default: master.key in the data directory].
    #[arg(long, env = "LAYBY_MASTER_KEY", value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
}
