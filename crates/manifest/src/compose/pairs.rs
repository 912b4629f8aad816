//! `environment`, `args`, `labels` and the like: a map, or a list of `KEY=VALUE`.

use std::collections::BTreeMap;

use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

/// A key and its value, if it has one.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
    pub(crate) place: Place,
}

/// Reads either form, in the order of the file.
pub(crate) fn list(node: Node, name: &str, report: &mut Report) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut put = |key: &str, value: Option<String>, place: Place, report: &mut Report| {
        if key.is_empty() {
            report.error(&place, format!("{name} has an item without a name"));
            return;
        }
        let key = key.to_owned();
        pairs.push(Pair { key, value, place });
    };
    match node.value {
        Value::Map(entries) => {
            for entry in entries {
                match &entry.value.value {
                    Value::Null => put(&entry.key, None, entry.place, report),
                    Value::Scalar { text, .. } => {
                        put(&entry.key, Some(text.clone()), entry.place, report);
                    }
                    Value::List(_) | Value::Map(_) => {
                        let shown = entry.value.shown();
                        let message =
                            format!("{:?} of {name} must be text, not {shown}", cut(&entry.key));
                        report.error(&entry.value.place, message);
                    }
                }
            }
        }
        Value::List(items) => {
            for item in items {
                match item.scalar() {
                    Some(text) => match text.split_once('=') {
                        Some((key, value)) => {
                            put(key, Some(value.to_owned()), item.place.clone(), report);
                        }
                        None => put(text, None, item.place.clone(), report),
                    },
                    None => {
                        let message =
                            format!("an item of {name} must be KEY=VALUE, not {}", item.shown());
                        report.error(&item.place, message);
                    }
                }
            }
        }
        Value::Null => {}
        Value::Scalar { .. } => {
            let message = format!(
                "{name} must be a map or a list of KEY=VALUE, not {}",
                node.shown()
            );
            report.error(&node.place, message);
        }
    }
    pairs
}

/// Lays variables over `env`. A key without a value takes it from `variables`; without one there either, it is left
/// out, also if `env` has it.
pub(crate) fn variables(
    node: Node,
    name: &str,
    variables: &BTreeMap<String, String>,
    env: &mut BTreeMap<String, String>,
    report: &mut Report,
) {
    for pair in list(node, name, report) {
        match pair.value.or_else(|| variables.get(&pair.key).cloned()) {
            Some(value) => {
                env.insert(pair.key, value);
            }
            None => {
                env.remove(&pair.key);
                report.warn(
                    &pair.place,
                    format!(
                        "{name} takes {:?} from the caller, where it is not set: it is left out",
                        cut(&pair.key)
                    ),
                );
            }
        }
    }
}

/// Reads labels: a key without a value has an empty one.
pub(crate) fn labels(node: Node, name: &str, report: &mut Report) -> BTreeMap<String, String> {
    list(node, name, report)
        .into_iter()
        .map(|pair| (pair.key, pair.value.unwrap_or_default()))
        .collect()
}
