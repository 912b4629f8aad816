//! Commands: a list of words, or a line that is split into them.

use crate::compose::shell;
use crate::fields::{Fields, parsed, texts};
use crate::report::Report;
use crate::tree::Value;

/// Takes a command off.
pub(crate) fn read(
    fields: &mut Fields,
    key: &'static str,
    report: &mut Report,
) -> Option<Vec<String>> {
    let node = fields.take(key)?;
    let name = fields.name(key);
    if let Value::List(items) = &node.value {
        return Some(texts(items, &name, report));
    }
    let split = parsed(&node, &name, report, |line| {
        shell::split(line).map_err(|problem| format!("a command line or a list ({problem})"))
    })?;
    if let Some(operator) = split.operator {
        let message = format!(
            "{name} is not read by a shell: {operator:?} is handed to the program as a word; write [\"sh\", \"-c\", \"...\"] if a shell is meant"
        );
        report.warn(&node.place, message);
    }
    Some(split.words)
}
