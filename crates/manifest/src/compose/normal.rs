//! The normal form of a Compose file, as `docker compose config` has it: one file, filled in, every value in its long form,
//! maps sorted, what holds where nothing is said added where others rely on it.
//!
//! What is wrong with a value shows when the file is read; here it is left as it is.

mod keys;
mod service;
mod shape;
mod top;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::compose::load::Load;
use crate::compose::profiles::Profiles;
use crate::compose::{merged, project};
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value};
use crate::{Diagnostic, Faults, Files, ReadOptions, write};

/// How it is written out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConfigOptions {
    /// Leave `${VAR}` and env files as they are.
    pub no_interpolate: bool,
    /// As JSON instead of YAML.
    pub json: bool,
}

/// A Compose file in its normal form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// It as text.
    pub text: String,
    /// The names of its services that are switched on, in order.
    pub services: Vec<String>,
    /// The images of these, each once, in order.
    pub images: Vec<String>,
    /// The names of its volumes.
    pub volumes: Vec<String>,
    /// The names of its networks.
    pub networks: Vec<String>,
    /// The profiles that its services name, each once, in order.
    pub profiles: Vec<String>,
    /// What is wrong in env files, which keeps it from being deployed; their services name them still.
    pub errors: Vec<Diagnostic>,
    /// What is to be told of env files.
    pub warnings: Vec<Diagnostic>,
    /// Further files that have to be read first: all else is empty then.
    pub more: Vec<String>,
}

/// What the normal form of a file depends on.
pub(super) struct Surroundings<'a> {
    pub(super) load: Load<'a>,
    pub(super) options: &'a ReadOptions,
    pub(super) variables: &'a BTreeMap<String, String>,
    /// The app's name.
    pub(super) project: String,
    pub(super) no_interpolate: bool,
    /// What there is to say of env files.
    pub(super) of_env_files: RefCell<Report>,
}

/// Makes the normal form of some documents.
pub(crate) fn config(
    documents: Vec<Node>,
    files: &Files,
    mut variables: BTreeMap<String, String>,
    options: &ReadOptions,
    how: ConfigOptions,
    report: &mut Report,
) -> Config {
    project::name_variable(&documents, options, &mut variables);
    let known = (!how.no_interpolate).then_some(&variables);
    let load = Load::new(files, options, known);
    let merged = merged(documents, &load, report);
    let around = Surroundings {
        load,
        options,
        variables: &variables,
        project: project::named(&variables).cloned().unwrap_or_default(),
        no_interpolate: how.no_interpolate,
        of_env_files: RefCell::default(),
    };
    let Some(Node {
        value: Value::Map(mut top),
        place,
        ..
    }) = merged
    else {
        return Config::default();
    };
    let profiles = switch_on(&mut top, options, &variables);
    top::normal(&mut top, &around);
    let mut node = Node::new(place, Value::Map(top));
    if !how.no_interpolate {
        escape(&mut node);
    }
    let names = |key: &str| names(&node, key);
    let mut config = Config {
        services: names("services"),
        images: images(&node, &around.project),
        volumes: names("volumes"),
        networks: names("networks"),
        profiles,
        text: match how.json {
            true => write::json(&node),
            false => write::yaml(&node),
        },
        ..Config::default()
    };
    match around.of_env_files.take().finish() {
        Ok(warnings) => config.warnings = warnings,
        Err(Faults { errors, warnings }) => {
            (config.errors, config.warnings) = (errors, warnings);
        }
    }
    let more = around.load.missing();
    if !more.is_empty() {
        config = Config {
            more,
            ..Config::default()
        };
    }
    config
}

/// Takes the services off that no profile switches on: hands out all profiles.
fn switch_on(
    top: &mut [Entry],
    options: &ReadOptions,
    variables: &BTreeMap<String, String>,
) -> Vec<String> {
    let on = Profiles::of(options, variables);
    let mut all = BTreeSet::new();
    let Some(services) = top.iter_mut().find(|entry| entry.key == "services") else {
        return Vec::new();
    };
    if let Value::Map(services) = &mut services.value.value {
        services.retain(|service| {
            let named = service.value.get("profiles").map(|node| &node.value);
            let Some(Value::List(items)) = named else {
                return true;
            };
            let names: Vec<&str> = items.iter().filter_map(Node::scalar).collect();
            all.extend(names.iter().map(|name| (*name).to_owned()));
            names.is_empty() || names.iter().any(|name| on.has(name))
        });
    }
    all.into_iter().collect()
}

fn names(node: &Node, key: &str) -> Vec<String> {
    match node.get(key).map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
        Some(Value::Null | Value::Scalar { .. } | Value::List(_)) | None => Vec::new(),
    }
}

fn images(node: &Node, project: &str) -> Vec<String> {
    let Some(Value::Map(services)) = node.get("services").map(|node| &node.value) else {
        return Vec::new();
    };
    let image = |service: &Entry| match service.value.get("image").and_then(Node::scalar) {
        Some(image) => image.to_owned(),
        None => format!("{project}-{}", service.key),
    };
    let images: BTreeSet<String> = services.iter().map(image).collect();
    images.into_iter().collect()
}

/// Writes each `$` as `$$`, for the text to be read as what it is.
fn escape(node: &mut Node) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar { text, .. } => *text = text.replace('$', "$$"),
        Value::List(items) => items.iter_mut().for_each(escape),
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| escape(&mut entry.value)),
    }
}

/// Text that stands where `place` says.
pub(super) fn text(text: impl Into<String>, place: &Place) -> Node {
    let text = text.into();
    Node::new(place.clone(), Value::Scalar { text, plain: false })
}

/// A number or a truth that stands where `place` says.
pub(super) fn plain(text: impl ToString, place: &Place) -> Node {
    let text = text.to_string();
    Node::new(place.clone(), Value::Scalar { text, plain: true })
}

/// A map that stands where `place` says, sorted by its keys.
pub(super) fn map(pairs: Vec<(String, Node)>, place: &Place) -> Node {
    let entries = pairs.into_iter().map(|(key, value)| Entry {
        key,
        place: place.clone(),
        value,
    });
    let mut entries: Vec<Entry> = entries.collect();
    sort(&mut entries);
    Node::new(place.clone(), Value::Map(entries))
}

/// A list that stands where `place` says.
pub(super) fn list(items: Vec<Node>, place: &Place) -> Node {
    Node::new(place.clone(), Value::List(items))
}

/// Sorts a map by its keys.
pub(super) fn sort(entries: &mut [Entry]) {
    entries.sort_by(|one, other| one.key.cmp(&other.key));
}
