//! `extends`: a service that begins as another one (Compose Specification, "extends").

use std::collections::BTreeMap;

use crate::compose::load::Load;
use crate::compose::{merge, relocate};
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value, cut};

/// The longest row of services that extend each other.
const MAX_ROW: usize = 32;

/// Resolves every `extends` of a file: `file` is its path relative to the manifest's folder, `base` the folder that the paths
/// in it start from.
pub(crate) fn resolve(
    document: &mut Node,
    file: &str,
    base: &str,
    load: &Load<'_>,
    report: &mut Report,
) {
    let Value::Map(top) = &mut document.value else {
        return;
    };
    let Some(services) = top.iter_mut().find(|entry| entry.key == "services") else {
        return;
    };
    let Value::Map(entries) = &mut services.value.value else {
        return;
    };
    // As they are written, since any of them may be named by any other.
    let written: BTreeMap<String, Node> = entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.clone()))
        .collect();
    for entry in entries {
        let mut row = Row {
            load,
            seen: vec![(file.to_owned(), entry.key.clone())],
        };
        let service = std::mem::replace(
            &mut entry.value,
            Node::new(entry.place.clone(), Value::Null),
        );
        entry.value = row.extended(service, (file, base), &written, report);
    }
}

/// A row of services, each of which extends the next.
struct Row<'a> {
    load: &'a Load<'a>,
    /// The file and name of each.
    seen: Vec<(String, String)>,
}

impl Row<'_> {
    /// A service with what it extends below it. `at`: its file, and the folder that the paths there start from.
    fn extended(
        &mut self,
        mut service: Node,
        at: (&str, &str),
        written: &BTreeMap<String, Node>,
        report: &mut Report,
    ) -> Node {
        let Value::Map(entries) = &mut service.value else {
            return service;
        };
        let Some(index) = entries.iter().position(|entry| entry.key == "extends") else {
            return service;
        };
        let extends = entries.remove(index);
        let Some(base) = self.base(&extends, at, written, report) else {
            return service;
        };
        merge::merge(base, service)
    }

    /// What `extends` names, extended in its turn.
    fn base(
        &mut self,
        extends: &Entry,
        (file, folder): (&str, &str),
        written: &BTreeMap<String, Node>,
        report: &mut Report,
    ) -> Option<Node> {
        let place = &extends.place;
        let (name, other) = named(extends, report)?;
        let from = match &other {
            Some(other) => relocate::join(folder, other),
            None => file.to_owned(),
        };
        let this = (from.clone(), name.clone());
        if self.seen.contains(&this) {
            let message = format!("\"extends\" leads back to the service {:?}", cut(&name));
            report.error(place, message);
            return None;
        }
        if self.seen.len() >= MAX_ROW {
            report.error(
                place,
                format!("more than {MAX_ROW} services extend each other"),
            );
            return None;
        }
        self.seen.push(this);
        if other.is_none() {
            let base = find(written, &name, place, report)?;
            return Some(self.extended(base, (file, folder), written, report));
        }
        let document = self.load.document(&from, place, report)?;
        let written = services(&document);
        let base = find(&written, &name, place, report)?;
        let there = relocate::folder(&from);
        let mut base = self.extended(base, (&from, there), &written, report);
        relocate::service(&mut base, &relocate::relative(folder, there));
        Some(base)
    }
}

/// The service, and the file if it is another one, that `extends` names.
fn named(extends: &Entry, report: &mut Report) -> Option<(String, Option<String>)> {
    let text = |node: Option<&Node>| node.and_then(Node::scalar).map(str::to_owned);
    let (name, file) = match &extends.value.value {
        Value::Scalar { text, .. } => (Some(text.clone()), None),
        Value::Map(_) => {
            let value = &extends.value;
            (text(value.get("service")), text(value.get("file")))
        }
        Value::Null | Value::List(_) => (None, None),
    };
    if name.is_none() {
        let message = "\"extends\" must be the name of a service, or have \"service\" and \"file\"";
        report.error(&extends.place, message);
    }
    Some((name?, file))
}

fn find(
    written: &BTreeMap<String, Node>,
    name: &str,
    place: &Place,
    report: &mut Report,
) -> Option<Node> {
    let found = written.get(name).cloned();
    if found.is_none() {
        let message = format!(
            "\"extends\" names the service {:?}, which is not there",
            cut(name)
        );
        report.error(place, message);
    }
    found
}

fn services(document: &Node) -> BTreeMap<String, Node> {
    match document.get("services").map(|services| &services.value) {
        Some(Value::Map(entries)) => entries
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect(),
        Some(Value::Null | Value::Scalar { .. } | Value::List(_)) | None => BTreeMap::new(),
    }
}
