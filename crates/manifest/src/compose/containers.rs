//! `container:NAME`: where the file itself calls a service's container so (`container_name`), that service is meant.

use std::collections::BTreeMap;

use crate::tree::{Node, Value};

/// Writes the service in the place of its container. Containers of others stay what they are.
pub(crate) fn settle(document: &mut Node) {
    let Some(services) = value_of(document, "services") else {
        return;
    };
    let Value::Map(entries) = &mut services.value else {
        return;
    };
    let named = entries.iter().filter_map(|entry| {
        let name = entry.value.get("container_name")?.scalar()?;
        Some((name.to_owned(), entry.key.clone()))
    });
    let named: BTreeMap<String, String> = named.collect();
    for entry in entries {
        let mode = value_of(&mut entry.value, "network_mode");
        replace(mode, &named, "service:");
        let Some(from) = value_of(&mut entry.value, "volumes_from") else {
            continue;
        };
        if let Value::List(items) = &mut from.value {
            for item in items {
                replace(Some(item), &named, "");
            }
        }
    }
}

/// `container:NAME[:MODE]`, with the service that is called so behind `prefix`.
fn replace(node: Option<&mut Node>, named: &BTreeMap<String, String>, prefix: &str) {
    let Some(Node {
        value: Value::Scalar { text, .. },
        ..
    }) = node
    else {
        return;
    };
    let Some(wanted) = text.strip_prefix("container:") else {
        return;
    };
    let (name, mode) = wanted.split_at(wanted.find(':').unwrap_or(wanted.len()));
    if let Some(service) = named.get(name) {
        *text = format!("{prefix}{service}{mode}");
    }
}

fn value_of<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    match &mut node.value {
        Value::Map(entries) => {
            let mut entries = entries.iter_mut();
            entries
                .find(|entry| entry.key == key)
                .map(|entry| &mut entry.value)
        }
        Value::Null | Value::Scalar { .. } | Value::List(_) => None,
    }
}
