//! `${VAR}` in Compose files, by the Compose Specification's chapter "Interpolation".

use std::collections::{BTreeMap, BTreeSet};

use crate::report::Report;
use crate::tree::{Node, Place, Value};

/// How deep defaults may be nested in each other.
const MAX_DEPTH: u32 = 16;
/// The longest that one value may grow: variables can be long and come often.
const MAX_VALUE_BYTES: usize = 1 << 20;
/// The most that all values of a file may grow to.
pub(crate) const MAX_FILLED_BYTES: usize = 16 << 20;

/// Fills in every value of a tree; keys are left as they are. Gives the variables whose values are in it then.
pub(crate) fn fill(
    node: &mut Node,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> BTreeSet<String> {
    let (mut left_bytes, mut filled_in) = (MAX_FILLED_BYTES, BTreeSet::new());
    fill_within(node, variables, &mut left_bytes, &mut filled_in, report);
    filled_in
}

/// Takes the length of `text` off what is left; an error, once, if it is not enough.
pub(crate) fn spend(
    left_bytes: &mut usize,
    text: &str,
    place: &Place,
    report: &mut Report,
) -> bool {
    if let Some(left) = left_bytes.checked_sub(text.len()) {
        *left_bytes = left;
        return true;
    }
    if *left_bytes > 0 {
        *left_bytes = 0;
        report.error(
            place,
            "the variables of this file come to more than 16 MiB once they are filled in",
        );
    }
    false
}

fn fill_within(
    node: &mut Node,
    variables: &BTreeMap<String, String>,
    left_bytes: &mut usize,
    filled_in: &mut BTreeSet<String>,
    report: &mut Report,
) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar { text, .. } => {
            if text.contains('$') {
                match expand(text, variables) {
                    Ok(expanded) => {
                        warn_unset(&node.place, &expanded.unset, report);
                        if spend(left_bytes, &expanded.text, &node.place, report) {
                            *text = expanded.text;
                            filled_in.extend(expanded.filled_in);
                        }
                    }
                    Err(reason) => report.error(&node.place, reason.text()),
                }
            }
        }
        Value::List(items) => {
            for item in items {
                fill_within(item, variables, left_bytes, filled_in, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                fill_within(&mut entry.value, variables, left_bytes, filled_in, report);
            }
        }
    }
}

/// Says which variables were not set.
pub(crate) fn warn_unset(place: &Place, unset: &[String], report: &mut Report) {
    for name in unset {
        report.warn(
            place,
            format!("the variable {name} is not set: it is taken to be empty"),
        );
    }
}

/// A value with its variables filled in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// Variables without a value and without a default.
    pub(crate) unset: Vec<String>,
    /// Variables whose values, if they are not empty, are in it.
    pub(crate) filled_in: Vec<String>,
}

/// Why a value cannot be filled in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfilled {
    /// A variable that has to be set (`${NAME:?MESSAGE}`) is not.
    Required {
        name: String,
        /// What is said of that, as it is written.
        written: String,
        /// The same, filled in.
        message: String,
    },
    /// The value is not written as it has to be, or too long, in a sentence that may have parts of it.
    Wrong(String),
}

impl Unfilled {
    /// It as a sentence.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Required { name, message, .. } => must_be_set(name, message),
            Self::Wrong(text) => text.clone(),
        }
    }

    /// The same without the value of any variable and any part of what is filled in; `None`: there is no such sentence.
    pub(crate) fn without_values(&self) -> Option<String> {
        match self {
            Self::Required { name, written, .. } => Some(must_be_set(name, written)),
            Self::Wrong(_) => None,
        }
    }
}

fn must_be_set(name: &str, message: &str) -> String {
    let reason = if message.is_empty() { "" } else { ": " };
    format!("the variable {name} must be set{reason}{message}")
}

/// Fills in one value.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn expand(
    text: &str,
    variables: &BTreeMap<String, String>,
) -> Result<Expanded, Unfilled> {
    expand_at(text, variables, 0)
}

fn expand_at(
    text: &str,
    variables: &BTreeMap<String, String>,
    depth: u32,
) -> Result<Expanded, Unfilled> {
    if depth > MAX_DEPTH {
        return Err(Unfilled::Wrong(format!(
            "the defaults of variables are nested deeper than {MAX_DEPTH} levels"
        )));
    }
    let mut expanded = Expanded::default();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        expanded.text.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        if let Some(after) = after.strip_prefix('$') {
            expanded.text.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing_brace(after).ok_or_else(|| {
                let shown = crate::tree::cut(after);
                Unfilled::Wrong(format!("\"${{{shown}\" is not closed by a }}"))
            })?;
            braced(&after[..end], variables, depth, &mut expanded)?;
            rest = &after[end + 1..];
        } else {
            // One that no name follows stands for itself, as Docker's Compose has it.
            let name = name_of(after);
            match name.is_empty() {
                true => expanded.text.push('$'),
                false => put(name, variables, &mut expanded),
            }
            rest = &after[name.len()..];
        }
        if expanded.text.len() > MAX_VALUE_BYTES {
            let text = "the value is longer than 1 MiB once its variables are filled in";
            return Err(Unfilled::Wrong(text.to_owned()));
        }
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// What stands between `${` and `}`.
fn braced(
    inner: &str,
    variables: &BTreeMap<String, String>,
    depth: u32,
    expanded: &mut Expanded,
) -> Result<(), Unfilled> {
    let name = name_of(inner);
    let operator = &inner[name.len()..];
    if name.is_empty() {
        return Err(Unfilled::Wrong(format!(
            "\"${{{}}}\" names no variable; a ${{ that is to stay is written $${{",
            crate::tree::cut(inner)
        )));
    }
    let value = variables.get(name);
    let full = value.filter(|value| !value.is_empty());
    let (value, default) = if let Some(default) = operator.strip_prefix(":-") {
        (full, default)
    } else if let Some(default) = operator.strip_prefix('-') {
        (value, default)
    } else if let Some(message) = operator.strip_prefix(":?") {
        return required(name, full, message, variables, depth, expanded);
    } else if let Some(message) = operator.strip_prefix('?') {
        return required(name, value, message, variables, depth, expanded);
    } else if let Some(replacement) = operator.strip_prefix(":+") {
        return replaced(full, replacement, variables, depth, expanded);
    } else if let Some(replacement) = operator.strip_prefix('+') {
        return replaced(value, replacement, variables, depth, expanded);
    } else if operator.is_empty() {
        put(name, variables, expanded);
        return Ok(());
    } else {
        return Err(Unfilled::Wrong(format!(
            "\"${{{}}}\" is not understood: use ${{VAR}}, or :- - :? ? :+ + after the name",
            crate::tree::cut(inner)
        )));
    };
    match value {
        Some(value) => push(name, value, expanded),
        None => append(expand_at(default, variables, depth + 1)?, expanded),
    }
    Ok(())
}

fn required(
    name: &str,
    value: Option<&String>,
    message: &str,
    variables: &BTreeMap<String, String>,
    depth: u32,
    expanded: &mut Expanded,
) -> Result<(), Unfilled> {
    let Some(value) = value else {
        return Err(Unfilled::Required {
            name: name.to_owned(),
            written: message.to_owned(),
            message: expand_at(message, variables, depth + 1)?.text,
        });
    };
    push(name, value, expanded);
    Ok(())
}

fn replaced(
    value: Option<&String>,
    replacement: &str,
    variables: &BTreeMap<String, String>,
    depth: u32,
    expanded: &mut Expanded,
) -> Result<(), Unfilled> {
    if value.is_some() {
        append(expand_at(replacement, variables, depth + 1)?, expanded);
    }
    Ok(())
}

fn append(part: Expanded, expanded: &mut Expanded) {
    expanded.text.push_str(&part.text);
    expanded.unset.extend(part.unset);
    expanded.filled_in.extend(part.filled_in);
}

fn push(name: &str, value: &str, expanded: &mut Expanded) {
    expanded.text.push_str(value);
    if !value.is_empty() {
        expanded.filled_in.push(name.to_owned());
    }
}

fn put(name: &str, variables: &BTreeMap<String, String>, expanded: &mut Expanded) {
    match variables.get(name) {
        Some(value) => push(name, value, expanded),
        None => expanded.unset.push(name.to_owned()),
    }
}

/// The variable's name that `text` begins with; empty if it begins with none.
fn name_of(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    &text[..end]
}

/// Where the `}` stands that closes what was opened before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    let mut before = ' ';
    for (index, c) in text.char_indices() {
        match c {
            '{' if before == '$' => depth += 1,
            '}' if depth == 0 => return Some(index),
            '}' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("SET", "value"), ("EMPTY", ""), ("_x1", "y")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn every_form_of_the_specification_is_filled_in() {
        let cases = [
            ("no variable", "no variable"),
            ("$SET-${SET}", "value-value"),
            ("$_x1.z", "y.z"),
            ("$$SET ${SET}$$", "$SET value$"),
            ("${SET:-d}${EMPTY:-d}${UNSET:-d}", "valuedd"),
            ("${SET-d}${EMPTY-d}${UNSET-d}", "valued"),
            ("${SET:+a}${EMPTY:+a}${UNSET:+a}", "a"),
            ("${SET+a}${EMPTY+a}${UNSET+a}", "aa"),
            ("${SET:?m}${EMPTY?m}", "value"),
            ("${UNSET:-${EMPTY:-${SET}}}", "value"),
            ("${UNSET:-a}b}", "ab}"),
            ("${UNSET:-{\"a\"}}", "{\"a\"}"),
            ("5$", "5$"),
            ("user:$(id -u) \"$@\" $1", "user:$(id -u) \"$@\" $1"),
            ("${UNSET:-$2a$14$1.x}", "$2a$14$1.x"),
        ];
        for (text, expected) in cases {
            let expanded = expand(text, &variables()).unwrap();
            assert_eq!(
                (expanded.text.as_str(), expanded.unset.len()),
                (expected, 0),
                "{text}"
            );
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_empty_and_named() {
        let expanded = expand("a${UNSET}b$OTHER${EMPTY:+$SET}", &variables()).unwrap();
        assert_eq!(expanded.text, "ab");
        assert!(expanded.filled_in.is_empty());
        assert_eq!(expanded.unset, ["UNSET", "OTHER"]);
    }

    #[test]
    fn what_is_no_variable_is_an_error() {
        for bad in [
            "${",
            "${}",
            "${1}",
            "${SET",
            "${SET!x}",
            "${UNSET:?}",
            "${EMPTY:?why}",
        ] {
            assert!(expand(bad, &variables()).is_err(), "{bad}");
        }
        let error = expand("${EMPTY:?say $SET}", &variables()).unwrap_err();
        assert_eq!(error.text(), "the variable EMPTY must be set: say value");
        let without = error.without_values();
        assert_eq!(
            without.as_deref(),
            Some("the variable EMPTY must be set: say $SET")
        );
        let error = expand("pa${ss", &variables()).unwrap_err();
        assert_eq!(error.without_values(), None);
        let deep = "${U:-".repeat(40) + &"}".repeat(40);
        assert!(expand(&deep, &variables()).is_err());
    }
}
