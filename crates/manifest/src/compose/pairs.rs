//! `environment` and `args`: a map, or a list of `KEY=VALUE`.

use std::collections::BTreeMap;

use crate::report::Report;
use crate::tree::{Node, Place, Value, cut};

/// Reads either form. A key without a value takes it from `variables`; without one there either, it is left out.
pub(crate) fn read(
    node: Node,
    name: &str,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let mut put = |key: &str, value: Option<String>, place: &Place, report: &mut Report| {
        if key.is_empty() {
            report.error(place, format!("{name} has a variable without a name"));
            return;
        }
        match value.or_else(|| variables.get(key).cloned()) {
            Some(value) => {
                pairs.insert(key.to_owned(), value);
            }
            None => report.warn(
                place,
                format!(
                    "{name} takes {:?} from the caller, where it is not set: it is left out",
                    cut(key)
                ),
            ),
        }
    };
    match node.value {
        Value::Map(entries) => {
            for entry in entries {
                match &entry.value.value {
                    Value::Null => put(&entry.key, None, &entry.place, report),
                    Value::Scalar { text, .. } => {
                        put(&entry.key, Some(text.clone()), &entry.place, report);
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
                        Some((key, value)) => put(key, Some(value.to_owned()), &item.place, report),
                        None => put(text, None, &item.place, report),
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
