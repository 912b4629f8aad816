//! What the services of a Compose file refer to: where it lies, its variables, and what it declares at the top.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use layby_model::AppName;

use crate::ReadOptions;
use crate::compose::files::{Source, Used};
use crate::compose::profiles::Profiles;
use crate::compose::volumes::Volume;
use crate::fields::Expected;
use crate::mount::on_machine;

/// A Compose file's surroundings.
#[derive(Debug)]
pub(crate) struct Project<'a> {
    /// The app's name, which the names of its volumes begin with. `None`: the report says why.
    pub(crate) name: Option<AppName>,
    pub(crate) options: &'a ReadOptions,
    /// The profiles that are switched on.
    pub(crate) profiles: Profiles,
    /// What `${VAR}` means.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// The top-level `volumes`. `None` for one that is not right, as the report says.
    pub(crate) volumes: BTreeMap<String, Option<Volume>>,
    /// The top-level `secrets`.
    pub(crate) secrets: BTreeMap<String, Source>,
    /// The top-level `configs`.
    pub(crate) configs: BTreeMap<String, Source>,
    /// Those of both that services have files of.
    pub(crate) used: RefCell<Used>,
    /// So much may still be read of `env_file`s: each service that names one reads it anew.
    pub(crate) left_bytes: Cell<usize>,
}

impl Project<'_> {
    /// A path on the caller's side, with its home folder in the place of `~`.
    pub(crate) fn at_home(&self, text: &str) -> String {
        match (text.strip_prefix("~/"), self.variables.get("HOME")) {
            (Some(below), Some(home)) if home.starts_with('/') => format!("{home}/{below}"),
            _ => text.to_owned(),
        }
    }

    /// A path on the machine: absolute, below the home folder (`~`), or relative to the Compose file's folder.
    pub(crate) fn path(&self, text: &str) -> Result<String, Expected> {
        if text.starts_with('/') {
            return on_machine("", text);
        }
        if let Some(below) = text.strip_prefix('~') {
            if !below.is_empty() && !below.starts_with('/') {
                return Err("a path, absolute or below your own home folder (~/)".to_owned());
            }
            return match self.variables.get("HOME") {
                Some(home) if home.starts_with('/') => on_machine(home, below),
                _ => Err(
                    "an absolute path (~ is the variable HOME, which the caller has not set)"
                        .to_owned(),
                ),
            };
        }
        match &self.options.folder_path {
            Some(folder) => on_machine(folder, text),
            None => Err(
                "an absolute path (the Compose file's folder is not on the node's machine)"
                    .to_owned(),
            ),
        }
    }
}
