//! Compose files, by the Compose Specification (compose-spec.io).

use std::collections::{BTreeMap, BTreeSet};

use layby_model::AppName;

use crate::draft::{AppDraft, Placed, label_of};
use crate::fields::Fields;
use crate::report::Report;
use crate::tree::{Entry, Node, Place, cut};
use crate::{Files, ReadOptions, app};
use load::Load;
use networks::Member;
use project::Project;
use select::Selection;

pub(crate) mod dotenv;
pub(crate) mod interpolate;
pub(crate) mod networks;
pub(crate) mod ports;

mod build;
mod command;
mod containers;
mod depends;
mod deploy;
mod devices;
mod env_file;
mod extends;
mod files;
mod healthcheck;
mod hooks;
mod image;
mod include;
mod layby;
mod leftover;
mod load;
mod merge;
mod mode;
mod mounts;
pub(crate) mod normal;
mod options;
pub(crate) mod pairs;
mod pods;
mod profiles;
mod project;
mod relocate;
mod restart;
mod sandbox;
mod select;
mod service;
mod shell;
mod tmpfs;
mod volumes;
mod volumes_from;
pub(crate) mod watch;

/// Keys at the top that would be dangerous to ignore.
const REFUSED: [(&str, &str); 1] = [("models", "the services would miss them")];

/// Reads the documents of one or more Compose files: a later one is laid over those before it.
pub(crate) fn read(
    documents: Vec<Node>,
    files: &Files,
    mut variables: BTreeMap<String, String>,
    options: &ReadOptions,
    report: &mut Report,
) -> AppDraft {
    // A variable may be what Compose allows and is no label.
    let of_variable =
        || project::named(&variables).map(|name| label_of(name).unwrap_or(name.clone()));
    let asked = options.app.clone().or_else(of_variable);
    project::name_variable(&documents, options, &mut variables);
    let variables = &variables;
    let load = Load::new(files, options, Some(variables));
    let mut merged = merged(documents, &load, report);
    if let Some(document) = &mut merged {
        containers::settle(document);
    }
    let selection = Selection::of(merged.as_ref(), options, report);
    let Some(mut top) =
        merged.and_then(|document| Fields::open(document, "the Compose file", report))
    else {
        return AppDraft::default();
    };
    top.accept(&["version"]);
    top.accept_extensions();
    let name = name(&mut top, asked.as_ref(), &options.folder, report);
    let mut project = Project {
        name: name.clone(),
        secrets: files::declared(&mut top, "secrets", report),
        configs: files::declared(&mut top, "configs", report),
        selection,
        ..Project::new(options, variables, options.named_files.as_ref())
    };
    project.profiles.add(project.selection.profiles());
    volumes::read(&mut top, &mut project, report);
    let networks = networks::declared(&mut top, report);
    top.refuse(&REFUSED, report);
    let (mut members, left_out) = services(&mut top, &project, report);
    volumes_from::join(&mut members, report);
    pods::join(&mut members, report);
    depends::join(&mut members, &left_out, report);
    top.finish(report);
    let (values, named_files) = files::values(&project, report);
    let asked = members
        .iter()
        .filter(|member| project.selection.has(&member.key));
    let asked = asked.map(|member| member.draft.spec.name.clone()).collect();
    let mut left_out = std::mem::take(&mut project.selection.others);
    left_out.retain(|name| members.iter().all(|member| member.draft.spec.name != *name));
    let watches = members.iter_mut().filter_map(Member::watch).collect();
    let secret_paths = files::secret_paths(&project);
    AppDraft {
        name,
        services: networks::join(&networks, members, report),
        chosen: project.selection.is_partial().then_some(asked),
        left_out,
        watches,
        values,
        named_files,
        secret_paths,
    }
}

/// The files that the documents name, and that nothing is known of yet.
pub(crate) fn needed(
    documents: Vec<Node>,
    files: &Files,
    mut variables: BTreeMap<String, String>,
    options: &ReadOptions,
) -> Vec<String> {
    project::name_variable(&documents, options, &mut variables);
    let load = Load::new(files, options, Some(&variables));
    // What is wrong shows when all is there.
    merged(documents, &load, &mut Report::default());
    load.missing()
}

/// The documents as one, for the places of what they say, and the variables whose values are in it beside the app's name. What is
/// wrong with them shows when they are read.
pub(crate) fn whole(
    documents: Vec<Node>,
    files: &Files,
    mut variables: BTreeMap<String, String>,
    options: &ReadOptions,
) -> (Option<Node>, BTreeSet<String>) {
    project::name_variable(&documents, options, &mut variables);
    let load = Load::new(files, options, Some(&variables));
    let whole = merged(documents, &load, &mut Report::default());
    let mut filled_in = load.filled_in();
    filled_in.remove(project::NAME);
    (whole, filled_in)
}

/// The documents as one: filled in, with all that they extend and include. `None`: there are none.
fn merged(documents: Vec<Node>, load: &Load<'_>, report: &mut Report) -> Option<Node> {
    let whole = documents.into_iter().map(|mut document| {
        let file = document.place.file.clone();
        if let Some(variables) = load.variables {
            load.fill(&mut document, variables, report);
        }
        // Whatever folders they lie in, their paths start from the manifest's.
        extends::resolve(&mut document, &file, "", load, report);
        include::resolve(
            &mut document,
            (&file, ""),
            &[],
            load,
            load.variables,
            report,
        );
        document
    });
    whole.reduce(merge::merge).map(|mut merged| {
        merge::settle(&mut merged);
        merged
    })
}

fn name(
    top: &mut Fields,
    asked: Option<&String>,
    folder: &str,
    report: &mut Report,
) -> Option<AppName> {
    let written = top.entry("name").and_then(|entry| {
        let place = entry.value.place.clone();
        let value = entry.value.scalar().map(str::to_owned);
        if value.is_none() {
            report.error(&place, "\"name\" in the Compose file must be text");
        }
        value.map(|value| Placed { value, place })
    });
    let written = written.map(|written| labelled(written, report));
    app::name(asked, folder, written.as_slice(), report)
}

/// The app's name as a DNS label: Compose allows more.
fn labelled(written: Placed<String>, report: &mut Report) -> Placed<String> {
    let label = label_of(&written.value).filter(|label| *label != written.value);
    let Some(value) = label else {
        return written;
    };
    let message = format!(
        "the app is called {value:?} here, since {:?} is no DNS label",
        cut(&written.value)
    );
    report.warn(&written.place, message);
    Placed { value, ..written }
}

/// The services that are run, and of those that are left out the profile that would switch each on.
fn services(
    top: &mut Fields,
    project: &Project<'_>,
    report: &mut Report,
) -> (Vec<Member>, BTreeMap<String, String>) {
    let place = top.place.clone();
    let mut map = match top.entry("services") {
        Some(entry) => match Fields::open(entry.value, "\"services\"", report) {
            Some(map) => map,
            None => return Default::default(),
        },
        None => {
            nothing_to_run(&place, report);
            return Default::default();
        }
    };
    let entries = map.rest();
    if entries.is_empty() {
        nothing_to_run(&place, report);
    }
    let off = |entry: &Entry| Some((entry.key.clone(), project.profiles.missing(&entry.value)?));
    let left_out = entries.iter().filter_map(off).collect();
    let members = entries.into_iter().filter_map(|mut entry| {
        if project.selection.has(&entry.key) {
            return service::read(entry, project, report);
        }
        select::strip(&mut entry.value);
        // What is wrong with it keeps the file from being used; what is not honoured of it is nothing to those asked for.
        let mut own = Report::default();
        let member = service::read(entry, project, &mut own);
        report.add_errors(own);
        member
    });
    (members.collect(), left_out)
}

fn nothing_to_run(place: &Place, report: &mut Report) {
    report.error(
        place,
        "the Compose file has no services: there is nothing to run",
    );
}
