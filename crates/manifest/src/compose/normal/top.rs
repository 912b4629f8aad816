//! The top of a Compose file, and what its services and the rest of it have to do with each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::compose::project::Project;
use crate::compose::{env_file, pairs};
use crate::fields::{Fields, truth};
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value, cut};

use super::keys::{SERVICE, TOP};
use super::service::add;
use super::shape::{Shape, shaped};
use super::{Surroundings, map, plain, sort, text};

/// The order of what stands at the top; all else follows by its name.
const ORDER: [&str; 7] = [
    "name", "services", "networks", "volumes", "configs", "secrets", "models",
];

/// Brings a whole file into its normal form.
pub(super) fn normal(top: &mut Vec<Entry>, around: &Surroundings<'_>) {
    top.retain(|entry| entry.key != "version" && entry.key != "name");
    let place = top
        .first()
        .map_or(Place::whole(""), |entry| entry.place.clone());
    let mut used = BTreeSet::new();
    for entry in top.iter_mut() {
        let value = std::mem::replace(&mut entry.value, text("", &entry.place));
        entry.value = match entry.key.as_str() {
            "services" => services(value, &mut used, around),
            key => {
                let shape = TOP.iter().find(|(known, _)| *known == key);
                shape.map_or(value.clone(), |(_, shape)| shaped(value, *shape, around))
            }
        };
    }
    if used.contains("default") {
        let at = match top.iter().position(|entry| entry.key == "networks") {
            Some(at) => at,
            None => {
                top.push(Entry {
                    key: "networks".to_owned(),
                    place: place.clone(),
                    value: map(Vec::new(), &place),
                });
                top.len() - 1
            }
        };
        add(
            &mut top[at].value,
            "default",
            Node::new(place.clone(), Value::Null),
        );
    }
    for entry in top.iter_mut() {
        if ["configs", "networks", "secrets", "volumes"].contains(&entry.key.as_str()) {
            named(&mut entry.value, &around.project);
        }
    }
    top.retain(|entry| !is_nothing(&entry.value));
    top.push(Entry {
        key: "name".to_owned(),
        value: text(&around.project, &place),
        place,
    });
    let rank = |key: &str| {
        ORDER
            .iter()
            .position(|known| *known == key)
            .unwrap_or(ORDER.len())
    };
    top.sort_by(|one, other| (rank(&one.key), &one.key).cmp(&(rank(&other.key), &other.key)));
}

fn is_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Map(entries) => entries.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Scalar { .. } => false,
    }
}

/// Gives what is declared at the top the name that it has on the node: `<app>_<key>`, or the key alone where it is there already.
fn named(node: &mut Node, project: &str) {
    let Value::Map(entries) = &mut node.value else {
        return;
    };
    for entry in entries.iter_mut() {
        if entry.value.value == Value::Null {
            entry.value.value = Value::Map(Vec::new());
        }
        external(&mut entry.value);
        let external = entry.value.get("external").map(|node| &node.value);
        let name = match external {
            Some(Value::Scalar { text, .. }) if truth(text) == Some(true) => entry.key.clone(),
            _ => format!("{project}_{}", entry.key),
        };
        let name = text(name, &entry.place);
        add(&mut entry.value, "name", name);
    }
    sort(entries);
}

/// The older form of what is there already, which has its name in it: as the newer one has it.
fn external(node: &mut Node) {
    let external = node.get("external");
    let Some(name) = external.and_then(|external| external.get("name")).cloned() else {
        return;
    };
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|entry| entry.key != "external");
    }
    add(node, "external", plain(true, &name.place));
    add(node, "name", name);
}

/// The services; puts the networks that they are in into `used`.
fn services(node: Node, used: &mut BTreeSet<String>, around: &Surroundings<'_>) -> Node {
    let Value::Map(mut services) = node.value else {
        return node;
    };
    for service in &mut services {
        let value = std::mem::replace(&mut service.value, text("", &service.place));
        service.value = one(&service.key, value, around);
        let networks = service.value.get("networks").map(|node| &node.value);
        match networks {
            Some(Value::Map(entries)) => used.extend(entries.iter().map(|entry| entry.key.clone())),
            Some(Value::Null | Value::Scalar { .. } | Value::List(_)) | None => {}
        }
    }
    sort(&mut services);
    Node::new(node.place, Value::Map(services))
}

fn one(key: &str, mut node: Node, around: &Surroundings<'_>) -> Node {
    if node.value == Value::Null {
        node.value = Value::Map(Vec::new());
    }
    if !around.no_interpolate {
        environment(key, &mut node, around);
    }
    let place = node.place.clone();
    let mut service = shaped(node, Shape::Map(SERVICE), around);
    let Value::Map(entries) = &mut service.value else {
        return service;
    };
    entries.retain(|entry| !is_nothing(&entry.value) || is_telling(&entry.key));
    let alone = ["network_mode", "provider"];
    if entries
        .iter()
        .all(|entry| !alone.contains(&entry.key.as_str()))
    {
        let default = Node::new(place.clone(), Value::Null);
        let networks = map(vec![("default".to_owned(), default)], &place);
        add(&mut service, "networks", networks);
    }
    service
}

/// Whether an empty value says something: to run nothing of the image's own.
fn is_telling(key: &str) -> bool {
    matches!(key, "command" | "entrypoint")
}

/// Puts what the env files say into the environment, and what the caller's own has for keys without a value.
fn environment(key: &str, node: &mut Node, around: &Surroundings<'_>) {
    let place = node.place.clone();
    let named = named_files(node, around);
    let has_keys = ["env_file", "environment"]
        .iter()
        .any(|key| node.get(key).is_some());
    let (Some(named), true) = (named, has_keys) else {
        return;
    };
    let project = Project::new(around.options, around.variables, Some(&named));
    // What else is wrong shows when the file is read.
    let mut report = Report::default();
    let what = format!("service {:?}", cut(key));
    let Some(mut fields) = Fields::open(node.clone(), what, &mut report) else {
        return;
    };
    let mut of_files = Report::default();
    let mut env = env_file::read(&mut fields, &project, &mut of_files).env;
    let failed = of_files.failed();
    around.of_env_files.borrow_mut().add(of_files);
    let mut unset = Vec::new();
    if let Some(written) = fields.take("environment") {
        for pair in pairs::list(written, "", &mut report) {
            match pair
                .value
                .or_else(|| around.variables.get(&pair.key).cloned())
            {
                Some(value) => drop(env.insert(pair.key, value)),
                None => {
                    env.remove(&pair.key);
                    unset.push(pair.key);
                }
            }
        }
    }
    if failed || report.failed() {
        return;
    }
    let set = env
        .into_iter()
        .map(|(key, value)| (key, text(value, &place)));
    let unset = unset
        .into_iter()
        .map(|key| (key, Node::new(place.clone(), Value::Null)));
    let mut all: BTreeMap<String, Node> = unset.collect();
    all.extend(set);
    let Value::Map(entries) = &mut node.value else {
        return;
    };
    entries.retain(|entry| entry.key != "env_file" && entry.key != "environment");
    if !all.is_empty() {
        entries.push(Entry {
            key: "environment".to_owned(),
            value: map(all.into_iter().collect(), &place),
            place,
        });
    }
}

/// What is in the env files of a service. `None`: some are not known yet.
fn named_files(node: &Node, around: &Surroundings<'_>) -> Option<BTreeMap<String, Vec<u8>>> {
    let Some(files) = node.get("env_file") else {
        return Some(BTreeMap::new());
    };
    let one = [files.clone()];
    let items = match &files.value {
        Value::List(items) => items.as_slice(),
        Value::Null | Value::Scalar { .. } | Value::Map(_) => &one[..],
    };
    let paths = items.iter().filter_map(|item| {
        let path = item.scalar().or_else(|| item.get("path")?.scalar());
        path.filter(|path| !path.is_empty())
    });
    let mut known = BTreeMap::new();
    let mut is_whole = true;
    for path in paths {
        match around.load.bytes(path) {
            Some(bytes) => drop(known.insert(path.to_owned(), bytes.to_vec())),
            None => is_whole &= around.options.absent.contains(path),
        }
    }
    is_whole.then_some(known)
}
