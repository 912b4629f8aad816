//! Lays one Compose file over another, by the Compose Specification's chapter "Merge".

use std::collections::{HashMap, HashSet};

use crate::tree::{Entry, Laid, Node, Value};

/// Lays `over` over `base`: maps are merged key by key, lists are joined, anything else is replaced.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    merge_key("", base, over)
}

/// Takes off what `!reset` says, once nothing more is laid over it.
pub(crate) fn settle(node: &mut Node) {
    node.laid = Laid::Usual;
    match &mut node.value {
        Value::Null | Value::Scalar { .. } => {}
        Value::List(items) => {
            items.retain(|item| item.laid != Laid::Gone);
            items.iter_mut().for_each(settle);
        }
        Value::Map(entries) => {
            entries.retain(|entry| entry.value.laid != Laid::Gone);
            entries
                .iter_mut()
                .for_each(|entry| settle(&mut entry.value));
        }
    }
}

/// Merges the two values of `key`.
fn merge_key(key: &str, base: Node, over: Node) -> Node {
    match over.laid {
        Laid::Usual => {}
        // What a third file lays over it begins anew.
        Laid::Alone | Laid::Gone => return over,
    }
    if base.laid == Laid::Gone {
        return over;
    }
    let (base, over) = (normal(key, base), normal(key, over));
    let value = match (base.value, over.value) {
        (value, Value::Null) => {
            return Node::new(base.place, value);
        }
        (Value::Map(base), Value::Map(over))
            if key == "logging" && drivers_differ(&base, &over) =>
        {
            Value::Map(over)
        }
        (Value::Map(base), Value::Map(over)) => Value::Map(merge_maps(base, over)),
        (Value::List(items), Value::List(more)) if !is_replaced(key) => {
            Value::List(join_lists(key, items, more))
        }
        (_, value) => value,
    };
    Node::new(over.place, value)
}

fn merge_maps(base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    let index: HashMap<String, usize> = base
        .iter()
        .enumerate()
        .map(|(index, entry)| (entry.key.clone(), index))
        .collect();
    let mut merged: Vec<Option<Entry>> = base.into_iter().map(Some).collect();
    for entry in over {
        let known = index.get(&entry.key).copied();
        match known.and_then(|index| Some((index, merged[index].take()?))) {
            Some((index, known)) => {
                merged[index] = Some(Entry {
                    value: merge_key(&entry.key, known.value, entry.value),
                    key: known.key,
                    place: entry.place,
                });
            }
            None => merged.push(Some(entry)),
        }
    }
    merged.into_iter().flatten().collect()
}

/// Whether both name a driver, and not the same: the options of one mean nothing to another.
fn drivers_differ(base: &[Entry], over: &[Entry]) -> bool {
    let driver = |entries: &[Entry]| {
        let entry = entries.iter().find(|entry| entry.key == "driver");
        entry.and_then(|entry| entry.value.scalar().map(str::to_owned))
    };
    matches!((driver(base), driver(over)), (Some(base), Some(over)) if base != over)
}

/// Joins two lists; a scalar that is in both is kept once, and a mount goes over another at the same place. Other
/// maps are left to whoever reads them.
fn join_lists(key: &str, mut items: Vec<Node>, more: Vec<Node>) -> Vec<Node> {
    if key == "volumes" {
        let over: HashSet<String> = more.iter().filter_map(mount_target).collect();
        items.retain(|item| mount_target(item).is_none_or(|target| !over.contains(&target)));
    }
    let known: HashSet<String> = items
        .iter()
        .filter_map(|item| item.scalar().map(str::to_owned))
        .collect();
    let is_new = |item: &Node| item.scalar().is_none_or(|text| !known.contains(text));
    items.extend(more.into_iter().filter(is_new));
    items
}

/// Where a mount goes, in either syntax.
fn mount_target(item: &Node) -> Option<String> {
    let target = match item.scalar() {
        Some(text) => {
            let mut parts = text.split(':');
            let first = parts.next()?;
            parts.next().unwrap_or(first)
        }
        None => item.get("target")?.scalar()?,
    };
    Some(target.trim_end_matches('/').to_owned())
}

/// Lists that make sense only as a whole.
fn is_replaced(key: &str) -> bool {
    matches!(key, "command" | "entrypoint" | "test")
}

/// Brings the short form of a value into the long one, so that the two can be merged.
fn normal(key: &str, node: Node) -> Node {
    let (place, laid) = (node.place.clone(), node.laid);
    let value = match (key, node.value) {
        (
            "additional_contexts" | "args" | "environment" | "labels" | "sysctls",
            Value::List(items),
        ) => {
            // The first item that is no text keeps the list as it is: its reader says what is wrong.
            if items.iter().any(|item| item.scalar().is_none()) {
                Value::List(items)
            } else {
                merge_pairs(items)
            }
        }
        // One or several.
        ("dns" | "dns_opt" | "dns_search" | "env_file" | "tmpfs", value @ Value::Scalar { .. }) => {
            Value::List(vec![Node::new(place.clone(), value)])
        }
        ("networks" | "depends_on", Value::List(items))
            if items.iter().all(|item| item.scalar().is_some()) =>
        {
            merge_pairs(items)
        }
        ("build", Value::Scalar { text, plain }) => Value::Map(vec![Entry {
            key: "context".to_owned(),
            place: place.clone(),
            value: Node::new(place.clone(), Value::Scalar { text, plain }),
        }]),
        (_, value) => value,
    };
    Node { place, value, laid }
}

/// `[A=1, B]` as `{A: 1, B: }`; of two with one name, the last is kept.
fn merge_pairs(items: Vec<Node>) -> Value {
    let mut entries: Vec<Entry> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for item in items {
        let text = item.scalar().unwrap_or_default();
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (
                key,
                Value::Scalar {
                    text: value.to_owned(),
                    plain: false,
                },
            ),
            None => (text, Value::Null),
        };
        let entry = Entry {
            key: key.to_owned(),
            place: item.place.clone(),
            value: Node::new(item.place.clone(), value),
        };
        match index.get(&entry.key) {
            Some(index) => entries[*index] = entry,
            None => {
                index.insert(entry.key.clone(), entries.len());
                entries.push(entry);
            }
        }
    }
    Value::Map(entries)
}
