//! `include`: the services and the rest of other Compose files, with their own folders and variables (Compose
//! Specification, "Include").

use std::collections::BTreeMap;

use crate::compose::load::Load;
use crate::compose::{dotenv, extends, merge, relocate};
use crate::fields::{Fields, one_or_more, parsed};
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value, cut};

/// The deepest that files may include others.
const MAX_DEPTH: usize = 16;
/// What of an included file becomes part of the one that includes it.
const PARTS: [&str; 5] = ["configs", "networks", "secrets", "services", "volumes"];

/// One item: files that are laid over each other.
struct Included {
    paths: Vec<String>,
    folder: String,
    env_files: Vec<String>,
    place: Place,
}

/// Takes `include` off a file and puts in what it names. `base`: the folder that the paths in the file start from; `above`: the
/// files that include this one.
pub(crate) fn resolve(
    document: &mut Node,
    (file, base): (&str, &str),
    above: &[String],
    load: &Load<'_>,
    variables: Option<&BTreeMap<String, String>>,
    report: &mut Report,
) {
    let Value::Map(top) = &mut document.value else {
        return;
    };
    let Some(at) = top.iter().position(|entry| entry.key == "include") else {
        return;
    };
    let include = top.remove(at);
    let mut row = above.to_vec();
    row.push(file.to_owned());
    if row.len() > MAX_DEPTH {
        report.error(
            &include.place,
            format!("files include each other more than {MAX_DEPTH} deep"),
        );
        return;
    }
    for included in items(include, base, report) {
        if let Some(path) = included.paths.iter().find(|path| row.contains(path)) {
            let message = format!("\"include\" leads back to {:?}", cut(path));
            report.error(&included.place, message);
            continue;
        }
        let variables = surroundings(&included, load, variables, report);
        let variables = variables.as_ref();
        let folder = included.folder.as_str();
        let merged = included.paths.iter().filter_map(|path| {
            let mut other = load.document_with(path, variables, &included.place, report)?;
            extends::resolve(&mut other, path, folder, load, report);
            resolve(&mut other, (path, folder), &row, load, variables, report);
            Some(other)
        });
        let merged: Vec<Node> = merged.collect();
        let Some(mut other) = merged.into_iter().reduce(merge::merge) else {
            continue;
        };
        let way = relocate::relative(base, folder);
        if !way.is_empty() {
            relocate::document(&mut other, &way);
        }
        add(document, other, &included.place, report);
    }
}

/// The items of `include`, with paths relative to the manifest's folder.
fn items(include: Entry, folder: &str, report: &mut Report) -> Vec<Included> {
    let Value::List(items) = include.value.value else {
        report.error(&include.place, "\"include\" must be a list of files");
        return Vec::new();
    };
    let items = items
        .into_iter()
        .filter_map(|item| one(item, folder, report));
    items.collect()
}

fn one(item: Node, folder: &str, report: &mut Report) -> Option<Included> {
    let place = item.place.clone();
    let what = "an item of \"include\"";
    if item.scalar().is_some() {
        let path = parsed(&item, what, report, |text| Ok(text.to_owned()))?;
        let path = relocate::join(folder, &path);
        return Some(Included {
            folder: relocate::folder(&path).to_owned(),
            paths: vec![path],
            env_files: Vec::new(),
            place,
        });
    }
    let mut fields = Fields::open(item, what, report)?;
    let mut paths = |key: &'static str, report: &mut Report| -> Vec<String> {
        let name = fields.name(key);
        let node = fields.take(key);
        let texts = node.map(|node| one_or_more(node, &name, report));
        let texts = texts.unwrap_or_default().into_iter();
        texts
            .map(|text| relocate::join(folder, &text.value))
            .collect()
    };
    let (files, env_files) = (paths("path", report), paths("env_file", report));
    let directory = fields.text("project_directory", report);
    fields.finish(report);
    let Some(first) = files.first() else {
        report.error(&place, "an item of \"include\" has no \"path\"");
        return None;
    };
    let directory = directory.map(|directory| relocate::join(folder, &directory));
    Some(Included {
        folder: directory.unwrap_or_else(|| relocate::folder(first).to_owned()),
        paths: files,
        env_files,
        place,
    })
}

/// What `${VAR}` means in included files: what it means outside, and beside that what their own files say.
fn surroundings(
    included: &Included,
    load: &Load<'_>,
    outer: Option<&BTreeMap<String, String>>,
    report: &mut Report,
) -> Option<BTreeMap<String, String>> {
    let outer = outer?;
    let own = [relocate::join(&included.folder, dotenv::FILE)];
    let files = match included.env_files.is_empty() {
        true => &own[..],
        false => &included.env_files[..],
    };
    let mut sources = Vec::new();
    for file in files {
        match load.bytes(file) {
            Some(bytes) => sources.push((file.as_str(), bytes)),
            None if included.env_files.is_empty() => {}
            None => {
                let message = format!("the file {:?} is not there", cut(file));
                report.error(&included.place, message);
            }
        }
    }
    Some(dotenv::variables(&sources, outer, report))
}

/// Adds what an included file declares. The same twice is once; anything else of one name is an error.
fn add(document: &mut Node, other: Node, place: &Place, report: &mut Report) {
    let (Value::Map(top), Value::Map(more)) = (&mut document.value, other.value) else {
        return;
    };
    for part in more {
        if !PARTS.contains(&part.key.as_str()) {
            continue;
        }
        let Value::Map(entries) = part.value.value else {
            continue;
        };
        let at = match top.iter().position(|entry| entry.key == part.key) {
            Some(at) => at,
            None => {
                top.push(Entry {
                    value: Node::new(part.place.clone(), Value::Map(Vec::new())),
                    key: part.key.clone(),
                    place: part.place.clone(),
                });
                top.len() - 1
            }
        };
        let known = &mut top[at].value;
        if known.value == Value::Null {
            known.value = Value::Map(Vec::new());
        }
        let Value::Map(known) = &mut known.value else {
            continue;
        };
        for entry in entries {
            match known.iter().find(|there| there.key == entry.key) {
                None => known.push(entry),
                Some(there) if same(&there.value, &entry.value) => {}
                Some(there) => {
                    let message = format!(
                        "{} {:?} is declared in {} and in {}: call one of them otherwise",
                        part.key.trim_end_matches('s'),
                        cut(&entry.key),
                        there.place.short(),
                        entry.place.short()
                    );
                    report.error(place, message);
                }
            }
        }
    }
}

/// Whether two values say the same, wherever they stand.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar { text, .. }, Value::Scalar { text: other, .. }) => text == other,
        (Value::List(items), Value::List(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(a, b)| same(a, b))
        }
        (Value::Map(entries), Value::Map(others)) => {
            let found = |entry: &Entry| {
                let other = others.iter().find(|other| other.key == entry.key);
                other.is_some_and(|other| same(&entry.value, &other.value))
            };
            entries.len() == others.len() && entries.iter().all(found)
        }
        (Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_), _) => false,
    }
}
