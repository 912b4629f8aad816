//! Arguments of `layby state`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `layby state`.
#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Write all that the node is to be into one encrypted file: apps, services, revisions, jobs, secrets, tokens, logins.
    /// The node may run or not. What is in volumes is not in the file, nor are images unless asked for.
    #[command(after_help = "Examples:
  layby state export /backup/node.state                        asks for a passphrase
  layby state export node.state --images --passphrase-file key.txt
  layby --context prod state export prod.state                 a node elsewhere")]
    Export(Export),
    /// Put such a file into a node that has no apps and no secrets, or into an empty data directory on which no node runs:
    /// all of it, or nothing.
    #[command(after_help = "Examples:
  layby --data /srv/layby state import node.state --passphrase-file key.txt
  layby --context new state import prod.state")]
    Import(Import),
}

/// `layby state export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The file; `-` is standard output.
    pub(crate) file: PathBuf,
    /// With the images that services and jobs need, or would if they went back to a kept revision: they start from the
    /// file alone, with no registry and no build at hand.
    #[arg(long)]
    pub(crate) images: bool,
    /// Replace a file that is there; a symbolic link stays, and what it leads to is replaced.
    #[arg(long, short)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) keys: StateKeys,
}

/// `layby state import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file.
    pub(crate) file: PathBuf,
    /// Take down every app of the node first, and forget its secrets; volumes stay.
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) keys: StateKeys,
}

/// What opens the file, and the node's secrets.
#[derive(Debug, Args)]
pub(crate) struct StateKeys {
    /// Read the passphrase from this file, without the line's end; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Where no node runs: the file with the key of its secrets [default: master.key in the data directory].
    #[arg(long, env = "LAYBY_MASTER_KEY", value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
}
