//! Arguments of `layby completions` and `layby man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// `layby completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(layby completions bash)                                         for this shell
  layby completions bash > /usr/share/bash-completion/completions/layby   for everybody
  layby completions zsh > \"${fpath[1]}/_layby\"
  layby completions fish > ~/.config/fish/completions/layby.fish")]
pub(crate) struct Completions {
    /// For which shell.
    pub(crate) shell: Shell,
}

/// `layby man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  layby man | man -l -                       read it now
  layby man deploy | man -l -                of one command
  layby man --dir /usr/local/share/man/man1  for everybody")]
pub(crate) struct Man {
    /// The command; otherwise all of Layby. Several words for one below another: `image pull`.
    pub(crate) command: Vec<String>,
    /// Write a page for every command into this folder instead.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) dir: Option<PathBuf>,
}
