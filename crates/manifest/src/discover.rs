//! Which files make up a manifest, and of which kind they are.

use crate::report::Report;
use crate::tree::{Node, Place};
use crate::{Files, ReadOptions, yaml};

/// The names of a Compose file, the first that is there wins (Compose Specification, "The Compose file").
pub const COMPOSE_NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// What was found, read as YAML.
#[derive(Debug)]
pub(crate) enum Found {
    Compose(Vec<File>),
    Kubernetes(Vec<File>),
    /// Nothing that can be read: the report says why.
    Nothing,
}

/// A file and its documents.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) documents: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Compose,
    Kubernetes,
}

/// Finds the files and reads them as YAML.
pub(crate) fn find(files: &Files, options: &ReadOptions, report: &mut Report) -> Found {
    if options.files.is_empty() {
        discovered(files, options, report)
    } else {
        given(files, &options.files, report)
    }
}

/// The files of `-f`.
fn given(files: &Files, names: &[String], report: &mut Report) -> Found {
    let mut compose = Vec::new();
    let mut kubernetes = Vec::new();
    let mut empty = None;
    for name in names {
        let name = name.strip_prefix("./").unwrap_or(name);
        let Some(bytes) = files.0.get(name) else {
            report.error(&Place::whole(name), "there is no such file");
            continue;
        };
        match yaml::parse(name, bytes) {
            Ok(documents) => match kind(&documents) {
                Some(kind) => {
                    let file = File {
                        name: name.to_owned(),
                        documents,
                    };
                    match kind {
                        Kind::Compose => compose.push(file),
                        Kind::Kubernetes => kubernetes.push(file),
                    }
                }
                // There for somebody to write something into it.
                None if documents.is_empty() => {
                    report.warn(&Place::whole(name), "the file is empty");
                    empty = empty.or(Some(name));
                }
                None => report.error(
                    &Place::whole(name),
                    "is neither a Compose file (no \"services\") nor Kubernetes YAML (no \"apiVersion\" and \"kind\")",
                ),
            },
            Err(error) => report.push_error(error),
        }
    }
    match (compose.as_slice(), kubernetes.first()) {
        ([first, ..], Some(other)) => {
            let message = format!(
                "is Kubernetes YAML, but {} is a Compose file: give files of one kind",
                first.name
            );
            report.error(&Place::whole(&other.name), message);
            Found::Nothing
        }
        ([_, ..], None) if report.failed() => Found::Nothing,
        ([_, ..], None) => Found::Compose(compose),
        ([], Some(_)) => Found::Kubernetes(kubernetes),
        ([], None) => {
            if let Some(name) = empty {
                report.error(&Place::whole(name), "there is nothing to run in it");
            }
            Found::Nothing
        }
    }
}

/// Without `-f`: the Compose file, else the folder's Kubernetes YAML.
fn discovered(files: &Files, options: &ReadOptions, report: &mut Report) -> Found {
    if let Some(base) = COMPOSE_NAMES
        .iter()
        .find(|name| files.0.contains_key(**name))
    {
        return compose(files, base, report);
    }
    let mut found = Vec::new();
    let mut broken = false;
    for (name, bytes) in &files.0 {
        let is_json = name.ends_with(".json");
        if name.contains('/') || name.starts_with('.') || !(is_yaml(name) || is_json) {
            continue;
        }
        match yaml::parse(name, bytes) {
            Ok(documents) if kind(&documents) == Some(Kind::Kubernetes) => found.push(File {
                name: name.clone(),
                documents,
            }),
            // YAML of something else: it was not asked for.
            Ok(_) => {}
            // What is no JSON of Kubernetes is somebody else's.
            Err(_) if is_json => {}
            Err(error) if looks_like_kubernetes(bytes) => {
                broken = true;
                report.push_error(error);
            }
            Err(error) => report.warn(
                &Place {
                    file: error.file.as_str().into(),
                    line: error.line,
                    column: error.column,
                },
                format!("the file is left out: {}", error.message),
            ),
        }
    }
    if !found.is_empty() {
        return Found::Kubernetes(found);
    }
    if !broken {
        let message = format!(
            "no manifest in the folder {:?}: looked for {}, and for *.yaml, *.yml and *.json with Kubernetes' \"apiVersion\" and \"kind\"; name a file with -f",
            options.folder,
            COMPOSE_NAMES.join(", ")
        );
        report.error(&Place::whole(""), message);
    }
    Found::Nothing
}

/// The Compose file and what is laid over it.
fn compose(files: &Files, base: &str, report: &mut Report) -> Found {
    let over = base.replace("compose.y", "compose.override.y");
    let other_ending = match over.strip_suffix(".yaml") {
        Some(stem) => format!("{stem}.yml"),
        None => over.replace(".yml", ".yaml"),
    };
    let over = [over, other_ending]
        .into_iter()
        .find(|name| files.0.contains_key(name));
    let mut found = Vec::new();
    for name in [Some(base.to_owned()), over].into_iter().flatten() {
        match yaml::parse(&name, &files.0[&name]) {
            Ok(documents) => found.push(File { name, documents }),
            Err(error) => report.push_error(error),
        }
    }
    if report.failed() {
        return Found::Nothing;
    }
    if found.iter().all(|file| file.documents.is_empty()) {
        report.error(
            &Place::whole(base),
            "the Compose file is empty: there is nothing to run",
        );
        return Found::Nothing;
    }
    Found::Compose(found)
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// What a file is. `None`: neither.
fn kind(documents: &[Node]) -> Option<Kind> {
    let is_kubernetes =
        |document: &Node| document.get("apiVersion").is_some() && document.get("kind").is_some();
    if documents.iter().any(is_kubernetes) {
        return Some(Kind::Kubernetes);
    }
    let keys = ["services", "include", "name", "version"];
    let is_compose = |document: &Node| keys.iter().any(|key| document.get(key).is_some());
    documents.iter().any(is_compose).then_some(Kind::Compose)
}

/// Whether a file that is no YAML was meant to be Kubernetes'.
fn looks_like_kubernetes(bytes: &[u8]) -> bool {
    bytes
        .split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b"apiVersion:"))
}
