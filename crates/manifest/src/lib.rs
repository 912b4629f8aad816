//! Compose and Kubernetes YAML, read into the model's [`AppSpec`] with every warning.
//!
//! Both formats are read as one YAML tree with lines. Keys are taken off as they are read; what is
//! left over is a warning that names its file, line and column, and an error where data, secrets or
//! the reach of the network are touched: nothing is dropped in silence. All errors are shown at once.
//!
//! Nothing here touches a disk: the files come in as bytes.
//!
//! # What is accepted without a word
//! What changes nothing that Layby does: labels and annotations that are not Layby's own, `version`
//! and `x-...` in Compose files, the `status` of Kubernetes objects, and what Kubernetes writes into
//! `metadata` by itself. Layby's own settings are `x-layby` in Compose services and the annotations
//! `layby.dev/...` of Deployments; a misspelt one of these is a warning.
//!
//! # Bounds
//! A file may have 1 MiB, 64 levels and 100,000 values with its aliases filled in; a manifest, 2,000
//! Kubernetes objects, and 64 MiB of what its services read from env files. Of more than 200 errors or warnings, the
//! first are handed out.

use std::collections::{BTreeMap, BTreeSet};

use layby_model::names::ServiceName;
use layby_model::spec::AppSpec;

use compose::dotenv;
use discover::Found;
use draft::AppDraft;
use report::Report;
use tree::Place;

mod app;
mod capability;
mod check;
mod compose;
mod convert;
mod device;
mod diagnostic;
mod discover;
mod draft;
mod fields;
mod host;
mod job;
mod kubernetes;
mod machine;
mod mount;
mod power;
mod report;
mod scale;
mod select;
mod signal;
mod sysctl;
mod tree;
mod units;
mod value;
mod write;
mod yaml;

pub use compose::dotenv::{env_file_variables, read_env_file};
pub use compose::normal::{Config, ConfigOptions};
pub use compose::watch::{Watch, WatchAction, WatchExec, WatchRule};
pub use convert::{BOUND_MAX_BYTES, Bound, ConvertOptions, Converted, Object};
pub use diagnostic::{Diagnostic, Faults};
pub use discover::COMPOSE_NAMES;
pub use draft::label_of;
pub use select::service_names;
pub use value::DeclaredValue;

/// The files that a manifest may be made of: path relative to the manifest's folder (with `/`; it may begin with `../`, or be
/// absolute) -> content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

/// What the caller asked for beside the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The files to read (`-f`), in order, relative to the manifest's folder. Empty: look for them.
    pub files: Vec<String>,
    /// The files of variables (`--env-file`), in order, as they are called among the files: a later one goes over one before.
    /// Empty: `.env`, if it is there.
    pub env_files: Vec<String>,
    /// Files that were asked for ([`needed`]) and do not exist.
    pub absent: BTreeSet<String>,
    /// The app's name (`--app`); `None`: as the manifest says, else `folder`.
    pub app: Option<String>,
    /// The name of the manifest's folder.
    pub folder: String,
    /// The absolute path of that folder on the node's machine, which relative paths of bind mounts start from.
    /// `None`: it is not there.
    pub folder_path: Option<String>,
    /// The caller's environment, for `${VAR}` in Compose files, and `HOME` for `~`. It wins over the file `.env`.
    pub env: BTreeMap<String, String>,
    /// The profiles whose services are switched on (Compose); `*`: all. Empty: those of the variable `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// Only these services, by name, and what they need; their profiles are switched on. Empty: all.
    pub services: Vec<String>,
    /// Not what those need.
    pub no_deps: bool,
    /// So many replicas these services get, whatever the manifest says.
    pub scale: BTreeMap<String, u32>,
    /// What is in the files of [`Manifest::named_files`], by the paths given there; one that is left out does not
    /// exist. `None`: they are not known yet, and what they would say is missing from the app.
    pub named_files: Option<BTreeMap<String, Vec<u8>>>,
    /// Only the names of the secrets of a Compose file are wanted: nothing is read for them, and their values are empty.
    pub secrets_apart: bool,
}

/// A manifest that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it says; of its services only those that were asked for.
    pub app: AppSpec,
    /// Its other services.
    pub others: Vec<ServiceName>,
    /// Those of `app` whose number of replicas was asked for ([`ReadOptions::scale`]).
    pub scaled: BTreeSet<ServiceName>,
    /// What is done when files of the developer change, of services that say so.
    pub watches: Vec<Watch>,
    /// The secrets and configs that it brings, each once. What is in files of [`Manifest::named_files`] is among them once
    /// those are known.
    pub values: Vec<DeclaredValue>,
    /// What it says that is not honoured, by file and line.
    pub warnings: Vec<Diagnostic>,
    /// The names of images as they are written (the messages), by file and line. Whether they can be names is not looked at here.
    pub images: Vec<Diagnostic>,
    /// The files that were read, in order.
    pub files: Vec<String>,
    /// Further files that have to be read to know all of it (Compose `env_file`), each once: paths as they are
    /// written, absolute or relative to the manifest's folder.
    pub named_files: Vec<String>,
}

impl Manifest {
    /// Whether it has a service of this name, whether that was asked for or not.
    pub fn names(&self, name: &ServiceName) -> bool {
        let asked = self.app.services.iter().map(|service| &service.name);
        asked.chain(&self.others).any(|known| known == name)
    }
}

/// Reads a manifest.
///
/// # Errors
/// Everything that is wrong with it, by file and line, if anything is.
pub fn read(files: &Files, options: &ReadOptions) -> Result<Manifest, Faults> {
    let mut report = Report::default();
    let found = discover::find(files, options, &mut report);
    let (names, mut draft) = match found {
        Found::Compose(found) => {
            let (names, documents) = split(found);
            let variables = dotenv::of(files, options, &mut report);
            let draft = compose::read(documents, files, variables, options, &mut report);
            (names, draft)
        }
        Found::Kubernetes(found) => {
            let names = found.iter().map(|file| file.name.clone()).collect();
            (names, kubernetes::read(found, options, &mut report))
        }
        Found::Nothing => return Err(report.finish().err().unwrap_or_default()),
    };
    check_whole(&draft, &names, &mut report);
    let (others, scaled) = select::split(&mut draft, options, &mut report);
    let images = report.take_images();
    let warnings = report.finish()?;
    let named_files = draft.named();
    // Without a name there is an error, which was handed out before.
    let name = draft.name.ok_or_else(Faults::default)?;
    Ok(Manifest {
        app: AppSpec {
            name,
            services: draft.services.into_iter().map(|draft| draft.spec).collect(),
        },
        others,
        scaled,
        watches: draft.watches,
        values: draft.values,
        warnings,
        images,
        files: names,
        named_files,
    })
}

/// What is wrong with a file none of whose services are switched on.
pub const ALL_LEFT_OUT: &str = "every service is left out: there is nothing to run";

/// What is wrong with an app as a whole.
fn check_whole(draft: &AppDraft, files: &[String], report: &mut Report) {
    if draft.services.is_empty() && !report.failed() {
        let file = files.first().map_or("", String::as_str);
        report.error(&Place::whole(file), ALL_LEFT_OUT);
    }
    check::check(&draft.services, draft.chosen.as_ref(), report);
}

/// Writes a Compose file as Kubernetes YAML. It may have to be asked again: with further files ([`Converted::more`]), and with what
/// paths of the machine lead to ([`Converted::bound`]).
///
/// # Errors
/// What keeps the file from being read, by file and line.
pub fn convert(
    files: &Files,
    options: &ReadOptions,
    how: &ConvertOptions,
) -> Result<Converted, Faults> {
    let more = needed(files, options);
    if !more.is_empty() {
        return Ok(Converted {
            more,
            ..Converted::default()
        });
    }
    let options = &ReadOptions {
        secrets_apart: true,
        ..options.clone()
    };
    let mut report = Report::default();
    let found = match discover::find(files, options, &mut report) {
        Found::Compose(found) => found,
        Found::Kubernetes(found) => {
            let file = found.first().map_or("", |file| file.name.as_str());
            let message = "is Kubernetes YAML already: this is for Compose files";
            report.error(&Place::whole(file), message);
            return Err(report.finish().err().unwrap_or_default());
        }
        Found::Nothing => return Err(report.finish().err().unwrap_or_default()),
    };
    let variables = dotenv::of(files, options, &mut report);
    let (names, documents) = split(found);
    let (merged, filled_in) = compose::whole(documents.clone(), files, variables.clone(), options);
    let draft = compose::read(documents, files, variables.clone(), options, &mut report);
    check_whole(&draft, &names, &mut report);
    let named = draft.named();
    if options.named_files.is_none() && !named.is_empty() && !report.failed() {
        return Ok(Converted {
            more: named,
            ..Converted::default()
        });
    }
    let bound = convert::bound(&draft);
    if how.bound.is_none() && !bound.is_empty() && !report.failed() {
        return Ok(Converted {
            bound,
            ..Converted::default()
        });
    }
    let merged = merged.as_ref();
    convert::tell_values(&draft, merged, filled_in, &variables, &mut report);
    let objects = convert::convert(&draft, merged, how, &mut report);
    Ok(Converted {
        objects,
        warnings: report.finish()?,
        files: names,
        ..Converted::default()
    })
}

/// The further files that have to be read before a manifest can be (Compose `include` and `extends`), as far as those that
/// are there name them: paths relative to the manifest's folder, or absolute. Once they are among the files, or among the
/// absent ones, they may name others in their turn: it is asked again until there are none.
pub fn needed(files: &Files, options: &ReadOptions) -> Vec<String> {
    // What is wrong shows when all is there.
    let mut report = Report::default();
    let Found::Compose(found) = discover::find(files, options, &mut report) else {
        return Vec::new();
    };
    let variables = dotenv::of(files, options, &mut report);
    let (_, documents) = split(found);
    compose::needed(documents, files, variables, options)
}

/// The normal form of a Compose file (`docker compose config`): filled in, merged, in long forms. Whether all of it is honoured
/// [`read`] says.
///
/// # Errors
/// What keeps it from being made, by file and line.
pub fn config(files: &Files, options: &ReadOptions, how: ConfigOptions) -> Result<Config, Faults> {
    let mut report = Report::default();
    let config = match discover::find(files, options, &mut report) {
        Found::Compose(found) => {
            let variables = dotenv::of(files, options, &mut report);
            let (_, documents) = split(found);
            let made =
                compose::normal::config(documents, files, variables, options, how, &mut report);
            // What is missing is asked for before anything is said of it.
            if !made.more.is_empty() {
                return Ok(made);
            }
            made
        }
        Found::Kubernetes(found) => {
            let file = found.first().map_or("", |file| file.name.as_str());
            let message = "is Kubernetes YAML, which has no other form: this is for Compose files";
            report.error(&Place::whole(file), message);
            Config::default()
        }
        Found::Nothing => Config::default(),
    };
    report.finish().map(|_| config)
}

/// The names of the files, and their documents in one row.
fn split(files: Vec<discover::File>) -> (Vec<String>, Vec<tree::Node>) {
    let mut names = Vec::new();
    let mut documents = Vec::new();
    for file in files {
        names.push(file.name);
        documents.extend(file.documents);
    }
    (names, documents)
}
