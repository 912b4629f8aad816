//! Compose files, by the Compose Specification (compose-spec.io).

use std::collections::BTreeMap;

use crate::draft::{AppDraft, Placed};
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Node, Place};

pub(crate) mod dotenv;
pub(crate) mod interpolate;

mod build;
mod deploy;
mod healthcheck;
mod leftover;
mod merge;
mod pairs;
mod ports;
mod service;
mod shell;

/// Keys at the top that would be dangerous to ignore.
const REFUSED: [(&str, &str); 5] = [
    ("configs", "the services would miss their files"),
    ("include", "write its services into this file"),
    ("networks", "all apps of a node share one network"),
    ("secrets", "the services would miss their files"),
    ("volumes", "data written to them would be lost"),
];

/// Reads the documents of one or more Compose files: a later one is laid over those before it.
pub(crate) fn read(
    documents: Vec<Node>,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> AppDraft {
    let merged = documents
        .into_iter()
        .map(|mut document| {
            interpolate::fill(&mut document, variables, report);
            document
        })
        .reduce(merge::merge);
    let Some(mut top) =
        merged.and_then(|document| Fields::open(document, "the Compose file", report))
    else {
        return AppDraft::default();
    };
    top.accept(&["version"]);
    top.accept_extensions();
    let name = top.entry("name").and_then(|entry| {
        let place = entry.value.place.clone();
        let value = entry.value.scalar().map(str::to_owned);
        if value.is_none() {
            report.error(&place, "\"name\" in the Compose file must be text");
        }
        value.map(|value| Placed { value, place })
    });
    if let Some(entry) = top.entry("networks")
        && !leftover::is_default_network(&entry.value)
    {
        top.put_back(entry);
    }
    top.refuse(&REFUSED, report);
    let services = services(&mut top, variables, report);
    top.finish(report);
    AppDraft {
        names: name.into_iter().collect(),
        services,
    }
}

fn services(
    top: &mut Fields,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> Vec<crate::draft::Draft> {
    let place = top.place.clone();
    let mut map = match top.entry("services") {
        Some(entry) => match Fields::open(entry.value, "\"services\"", report) {
            Some(map) => map,
            None => return Vec::new(),
        },
        None => {
            nothing_to_run(&place, report);
            return Vec::new();
        }
    };
    let entries = map.rest();
    if entries.is_empty() {
        nothing_to_run(&place, report);
    }
    entries
        .into_iter()
        .filter_map(|entry| service::read(entry, variables, report))
        .collect()
}

fn nothing_to_run(place: &Place, report: &mut Report) {
    report.error(
        place,
        "the Compose file has no services: there is nothing to run",
    );
}
