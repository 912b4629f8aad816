//! Lays one Compose file over another, by the Compose Specification's chapter "Merge".

use crate::tree::{Entry, Node, Value};

/// Lays `over` over `base`: maps are merged key by key, lists are joined, anything else is replaced.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    merge_key("", base, over)
}

/// Merges the two values of `key`.
fn merge_key(key: &str, base: Node, over: Node) -> Node {
    let (base, over) = (normal(key, base), normal(key, over));
    let value = match (base.value, over.value) {
        (value, Value::Null) => {
            return Node {
                place: base.place,
                value,
            };
        }
        (Value::Map(base), Value::Map(over)) => Value::Map(merge_maps(base, over)),
        (Value::List(mut items), Value::List(more)) if !is_replaced(key) => {
            for item in more {
                if !items.iter().any(|known| same(known, &item)) {
                    items.push(item);
                }
            }
            Value::List(items)
        }
        (_, value) => value,
    };
    Node {
        place: over.place,
        value,
    }
}

fn merge_maps(mut base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    for entry in over {
        match base.iter().position(|known| known.key == entry.key) {
            Some(index) => {
                let known = base.remove(index);
                let merged = Entry {
                    value: merge_key(&entry.key, known.value, entry.value),
                    key: known.key,
                    place: entry.place,
                };
                base.insert(index, merged);
            }
            None => base.push(entry),
        }
    }
    base
}

/// Lists that make sense only as a whole.
fn is_replaced(key: &str) -> bool {
    matches!(key, "command" | "entrypoint" | "test")
}

/// Brings the short form of a value into the long one, so that the two can be merged.
fn normal(key: &str, node: Node) -> Node {
    let place = node.place.clone();
    let value = match (key, node.value) {
        ("args" | "environment", Value::List(items)) => {
            // The first item that is no text keeps the list as it is: its reader says what is wrong.
            if items.iter().any(|item| item.scalar().is_none()) {
                Value::List(items)
            } else {
                merge_pairs(items)
            }
        }
        ("build", Value::Scalar { text, plain }) => Value::Map(vec![Entry {
            key: "context".to_owned(),
            place: place.clone(),
            value: Node {
                place: place.clone(),
                value: Value::Scalar { text, plain },
            },
        }]),
        (_, value) => value,
    };
    Node { place, value }
}

/// `[A=1, B]` as `{A: 1, B: }`; of two with one name, the last is kept.
fn merge_pairs(items: Vec<Node>) -> Value {
    let mut entries: Vec<Entry> = Vec::new();
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
            value: Node {
                place: item.place.clone(),
                value,
            },
        };
        entries.retain(|known| known.key != entry.key);
        entries.push(entry);
    }
    Value::Map(entries)
}

/// Whether two nodes say the same, wherever they stand.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar { text: one, .. }, Value::Scalar { text: other, .. }) => one == other,
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| one.key == other.key && same(&one.value, &other.value))
        }
        _ => false,
    }
}
