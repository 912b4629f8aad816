//! The shapes that values have in the normal form, and how a value is brought into its own.

use crate::compose::{pairs, shell};
use crate::fields::truth;
use crate::report::Report;
use crate::tree::{Entry, Node, Value};
use crate::units::{compose_bytes, duration_ms};

use super::{Surroundings, list, map, plain, sort, text};
use crate::compose::relocate::join;

/// What a value is.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Text, whatever it looks like.
    Text,
    /// `true` or `false`, quoted or not.
    Flag,
    /// A number, quoted or not; else text.
    Number,
    /// A size, in bytes.
    Bytes,
    /// A length of time, as Go writes it.
    Duration,
    /// A list of text, or one text alone.
    Words,
    /// A map of text, or a list of `KEY=VALUE`.
    Pairs,
    /// A list of words, or a line that is split into them.
    Command,
    /// A path on the caller's side.
    Path,
    /// A list of these, or one of them alone.
    Paths,
    /// As it is.
    Kept,
    /// A map with these keys; what is not among them is as it is.
    Map(&'static [(&'static str, Shape)]),
    /// A map of names, each to such a value.
    Named(&'static Shape),
    /// A list, or one alone.
    Each(&'static Shape),
    /// Something of its own.
    Own(fn(Node, &Surroundings<'_>) -> Node),
}

/// Brings a value into its shape. What has another one is left as it is.
pub(super) fn shaped(node: Node, shape: Shape, around: &Surroundings<'_>) -> Node {
    let place = node.place.clone();
    match shape {
        Shape::Kept => node,
        Shape::Own(own) => own(node, around),
        Shape::Text => of_text(node, |value| text(value, &place)),
        Shape::Flag => of_text(node, |value| match truth(value) {
            Some(truth) => plain(truth, &place),
            None => text(value, &place),
        }),
        Shape::Number => of_text(node, |value| match is_number(value) {
            true => plain(value, &place),
            false => text(value, &place),
        }),
        Shape::Bytes => of_text(node, |value| match compose_bytes(value) {
            Ok(bytes) => text(bytes.to_string(), &place),
            Err(_) => text(value, &place),
        }),
        Shape::Duration => of_text(node, |value| match duration_ms(value) {
            Ok(ms) if !value.contains(['n', 'u', 'µ', 'μ']) => text(duration(ms), &place),
            Ok(_) | Err(_) => text(value, &place),
        }),
        Shape::Path => of_text(node, |value| text(path(value, around), &place)),
        Shape::Paths => several(node, |item| shaped(item, Shape::Path, around)),
        Shape::Words => several(node, |item| shaped(item, Shape::Text, around)),
        Shape::Each(each) => several(node, |item| shaped(item, *each, around)),
        Shape::Pairs => pairs_of(node),
        Shape::Command => command(node, around),
        Shape::Map(keys) => entries_of(
            node,
            |entry| {
                let known = keys.iter().find(|(key, _)| *key == entry.key);
                known.map_or(Shape::Kept, |(_, shape)| *shape)
            },
            around,
        ),
        Shape::Named(each) => entries_of(node, |_| *each, around),
    }
}

fn of_text(node: Node, read: impl FnOnce(&str) -> Node) -> Node {
    match &node.value {
        Value::Scalar { text, .. } => read(text),
        Value::Null | Value::List(_) | Value::Map(_) => node,
    }
}

/// The items of a list, each changed; a value alone becomes a list of it.
fn several(node: Node, each: impl Fn(Node) -> Node) -> Node {
    let place = node.place.clone();
    match node.value {
        Value::List(items) => list(items.into_iter().map(each).collect(), &place),
        Value::Scalar { .. } | Value::Map(_) => list(vec![each(node)], &place),
        Value::Null => node,
    }
}

fn entries_of(node: Node, shape: impl Fn(&Entry) -> Shape, around: &Surroundings<'_>) -> Node {
    let Value::Map(entries) = node.value else {
        return node;
    };
    let mut entries: Vec<Entry> = entries
        .into_iter()
        .map(|entry| {
            let shape = shape(&entry);
            let value = shaped(entry.value, shape, around);
            Entry { value, ..entry }
        })
        .collect();
    sort(&mut entries);
    Node::new(node.place, Value::Map(entries))
}

/// A map of text or nothing, from either form.
pub(super) fn pairs_of(node: Node) -> Node {
    let place = node.place.clone();
    if matches!(node.value, Value::Null | Value::Scalar { .. }) {
        return node;
    }
    let mut report = Report::default();
    let mut pairs: Vec<(String, Node)> = Vec::new();
    for pair in pairs::list(node.clone(), "", &mut report) {
        let value = match pair.value {
            Some(value) => text(value, &pair.place),
            None => Node::new(pair.place.clone(), Value::Null),
        };
        // Of two with one name the last holds.
        pairs.retain(|(key, _)| *key != pair.key);
        pairs.push((pair.key, value));
    }
    match report.failed() {
        true => node,
        false => map(pairs, &place),
    }
}

fn command(node: Node, around: &Surroundings<'_>) -> Node {
    let place = node.place.clone();
    if around.no_interpolate && node.scalar().is_some_and(|line| line.contains('$')) {
        return node; // what it is once it is filled in decides where words end
    }
    match node.scalar().map(shell::split) {
        Some(Ok(split)) => {
            let words = split.words.into_iter();
            list(words.map(|word| text(word, &place)).collect(), &place)
        }
        Some(Err(_)) => node,
        None => shaped(node, Shape::Words, around),
    }
}

/// A path: absolute where the folder is known, else relative to it.
pub(super) fn path(value: &str, around: &Surroundings<'_>) -> String {
    let home = around
        .variables
        .get("HOME")
        .filter(|_| !around.no_interpolate);
    if let (Some(below), Some(home)) = (value.strip_prefix("~/"), home) {
        return format!("{home}/{below}");
    }
    if value.is_empty() || value.starts_with(['/', '~', '$']) || value.contains("://") {
        return value.to_owned();
    }
    let folder = around.options.folder_path.as_deref().unwrap_or_default();
    match join(folder, value) {
        path if path.is_empty() => ".".to_owned(),
        path if path.starts_with(['/', '.']) => path,
        path => format!("./{path}"),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all(whole) && all(fraction) && (whole == "0" || !whole.starts_with('0'))
}

/// Milliseconds as Go's `time.Duration` writes them, such as `1m30s`.
pub(super) fn duration(ms: u64) -> String {
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let (seconds, left) = (ms / 1000 % 60, ms % 1000);
    let fraction = format!("{left:03}");
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    match (hours, minutes) {
        (0, 0) if seconds == 0 && left > 0 => format!("{left}ms"),
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (ms, written) in [
            (0, "0s"),
            (500, "500ms"),
            (1_500, "1.5s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(duration(ms), written);
            assert_eq!(duration_ms(written), Ok(ms));
        }
    }
}
