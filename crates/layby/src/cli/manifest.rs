//! Which manifests are meant: the same for every command that reads some.

use std::path::PathBuf;

use clap::Args;

use super::not_empty;

/// Which manifests are meant, and how they are read.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Manifest {
    /// A manifest or its folder ([`Place`]).
    #[arg(skip)]
    pub(crate) path: Option<PathBuf>,
    /// A manifest, `-` for standard input, or a folder of them; may be given several times, a later Compose file is laid over one before. Otherwise
    /// those of the variable COMPOSE_FILE.
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The app's name; otherwise the variable COMPOSE_PROJECT_NAME, the manifest's, the folder's.
    #[arg(long, short = 'p', value_name = "NAME", visible_alias = "project-name", value_parser = not_empty)]
    pub(crate) app: Option<String>,
    /// Switch on the services of this profile (Compose), or of all (`*`); may be given several times. Otherwise those of the
    /// variable COMPOSE_PROFILES.
    #[arg(long = "profile", value_name = "NAME", value_parser = not_empty)]
    pub(crate) profiles: Vec<String>,
    /// A file of variables for `${VAR}`, instead of `.env`; may be given several times, a later one goes over one before.
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// The folder that paths in the manifests start from; otherwise that of the first manifest.
    #[arg(long, value_name = "DIR")]
    pub(crate) project_directory: Option<PathBuf>,
}

/// Where a manifest is, for commands that take nothing else beside their options.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// A manifest, or a folder with compose.yaml or Kubernetes YAML in it; otherwise the current folder, or the next one above it
    /// that has a Compose file.
    #[arg(conflicts_with_all = ["files", "project_directory"])]
    pub(crate) path: Option<PathBuf>,
}

impl Manifest {
    /// The same at a place.
    pub(crate) fn at(self, place: Place) -> Self {
        Self {
            path: place.path,
            ..self
        }
    }
}
