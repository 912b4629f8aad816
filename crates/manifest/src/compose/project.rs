//! What the services of a Compose file refer to: where it lies, its variables, and what it declares at the top.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use layby_model::AppName;

use crate::ReadOptions;
use crate::compose::files::{Source, Used};
use crate::compose::profiles::Profiles;
use crate::compose::select::Selection;
use crate::compose::volumes::Volume;
use crate::compose::{env_file, interpolate};
use crate::draft::label_of;
use crate::fields::Expected;
use crate::mount::on_machine;
use crate::tree::Node;

/// The variable that names the app, and that means its name in the files.
pub(crate) const NAME: &str = "COMPOSE_PROJECT_NAME";

/// The app's name as the variable has it, if it does.
pub(crate) fn named(variables: &BTreeMap<String, String>) -> Option<&String> {
    variables.get(NAME).filter(|name| !name.is_empty())
}

/// Sets the variable to the app's name, for the files to be filled in with it. What is wrong with the name shows later.
pub(crate) fn name_variable(
    documents: &[Node],
    options: &ReadOptions,
    variables: &mut BTreeMap<String, String>,
) {
    let written = || {
        let mut names = documents.iter().rev();
        let name = names.find_map(|document| document.get("name")?.scalar())?;
        interpolate::expand(name, variables)
            .ok()
            .map(|name| name.text)
    };
    let name = options.app.clone().or_else(|| named(variables).cloned());
    let name = name.or_else(written);
    // What is no label is made one, as for the app itself.
    let label = |name: String| label_of(&name).unwrap_or(name);
    if let Some(name) = name.map(label).or_else(|| label_of(&options.folder)) {
        variables.insert(NAME.to_owned(), name);
    }
}

/// A Compose file's surroundings.
#[derive(Debug)]
pub(crate) struct Project<'a> {
    /// The app's name, which the names of its volumes begin with. `None`: the report says why.
    pub(crate) name: Option<AppName>,
    pub(crate) options: &'a ReadOptions,
    /// What is in the files that services name; `None`: not known yet.
    pub(crate) named_files: Option<&'a BTreeMap<String, Vec<u8>>>,
    /// The profiles that are switched on.
    pub(crate) profiles: Profiles,
    /// The services that are asked for.
    pub(crate) selection: Selection,
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

impl<'a> Project<'a> {
    /// One that declares nothing at the top.
    pub(crate) fn new(
        options: &'a ReadOptions,
        variables: &'a BTreeMap<String, String>,
        named_files: Option<&'a BTreeMap<String, Vec<u8>>>,
    ) -> Self {
        Self {
            name: None,
            options,
            named_files,
            profiles: Profiles::of(options, variables),
            selection: Selection::default(),
            variables,
            volumes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            used: RefCell::default(),
            left_bytes: Cell::new(env_file::MAX_ALL_BYTES),
        }
    }

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
