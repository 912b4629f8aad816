//! What comes from elsewhere than the Compose file, and is written with the rest: it may be secret.

use std::collections::{BTreeMap, BTreeSet};

use crate::compose::pairs;
use crate::convert::said::Said;
use crate::draft::{AppDraft, Draft};
use crate::report::Report;
use crate::tree::Node;

/// So many names are told.
const NAMES: usize = 5;

/// Tells which values do. `filled_in`: the variables whose values are in `merged`, of all `variables`.
pub(crate) fn tell(
    draft: &AppDraft,
    merged: Option<&Node>,
    mut filled_in: BTreeSet<String>,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) {
    let Some(first) = draft.services.first() else {
        return;
    };
    let said = Said(merged);
    for one in &draft.services {
        let has_value = |name: &String| variables.get(name).is_some_and(|value| !value.is_empty());
        filled_in.extend(taken(said, one).filter(has_value));
    }
    let with_files = draft.services.iter();
    let with_files = with_files.filter(|one| said.of(one, "env_file").is_some());
    let values = list(filled_in.iter().map(|name| format!("${{{name}}}")));
    let files = list(with_files.map(|one| one.spec.name.to_string()));
    let what = match (values, files) {
        (None, None) => return,
        (Some(values), None) => {
            format!("the values that {values} have here are written as they stand")
        }
        (None, Some(services)) => {
            format!("what \"env_file\" of {services} says is written as it stands")
        }
        (Some(values), Some(services)) => format!(
            "the values that {values} have here, and what \"env_file\" of {services} says, are written as they stand"
        ),
    };
    let message = format!(
        "{what}: what of that is secret belongs under \"secrets\", of which no value is written"
    );
    report.warn(&first.place, message);
}

/// The variables that a service takes from the caller by their names alone.
fn taken(said: Said<'_>, draft: &Draft) -> impl Iterator<Item = String> {
    let node = said.of(draft, "environment").cloned();
    let all = node.map(|node| pairs::list(node, "", &mut Report::default()));
    let all = all.unwrap_or_default().into_iter();
    all.filter(|pair| pair.value.is_none()).map(|pair| pair.key)
}

/// `a, b and 3 others`.
fn list(names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<String> = names.collect();
    let shown = names[..names.len().min(NAMES)].join(", ");
    match names.len() {
        0 => None,
        n if n > NAMES => Some(format!("{shown} and {} others", n - NAMES)),
        _ => Some(shown),
    }
}
