//! A map whose keys are taken off as they are read: what is left over is a warning.

use std::ops::RangeInclusive;

use crate::draft::Placed;
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value, cut};

/// For so many unknown keys of a map it is looked for what was meant: more are no typing errors.
const MAX_SUGGESTIONS: usize = 100;

/// The keys of a map that are not read yet.
#[derive(Debug)]
pub(crate) struct Fields {
    /// Where the map begins.
    pub(crate) place: Place,
    /// What the map is, such as `service "web"`.
    pub(crate) what: String,
    entries: Vec<Entry>,
    /// Every key that was asked for: what a misspelt one may have meant.
    asked: Vec<&'static str>,
}

/// The most items of a list of words.
const MAX_ITEMS: usize = 1_000;

/// Why a scalar is refused: what it must be instead.
pub(crate) type Expected = String;

impl Fields {
    /// Opens a map to be read. Anything else is an error; nothing at all is an empty map.
    pub(crate) fn open(node: Node, what: impl Into<String>, report: &mut Report) -> Option<Self> {
        let what = what.into();
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null => Vec::new(),
            Value::Scalar { .. } | Value::List(_) => {
                let message = format!("{what} must be a map, not {}", node.shown());
                report.error(&node.place, message);
                return None;
            }
        };
        Some(Self {
            place: node.place,
            what,
            entries,
            asked: Vec::new(),
        })
    }

    /// Takes a key off, with its place. A value of nothing (`key:`) counts as not given.
    pub(crate) fn entry(&mut self, key: &'static str) -> Option<Entry> {
        self.asked.push(key);
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(index);
        (entry.value.value != Value::Null).then_some(entry)
    }

    /// Takes a key off.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.entry(key).map(|entry| entry.value)
    }

    /// Whether a key is there and not taken off yet. Nothing, and empty text, count as not given.
    pub(crate) fn has(&self, key: &str) -> bool {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.is_some_and(|entry| match &entry.value.value {
            Value::Null => false,
            Value::Scalar { text, .. } => !text.is_empty(),
            Value::List(_) | Value::Map(_) => true,
        })
    }

    /// Where the value of a key stands that is there and not taken off yet.
    pub(crate) fn place_of(&self, key: &str) -> Option<Place> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(entry.value.place.clone())
    }

    /// The keys of a map below this one that is not taken off yet, and where they stand.
    pub(crate) fn keys_of(&self, path: &[&str]) -> Vec<(String, Place)> {
        let [first, below @ ..] = path else {
            return Vec::new();
        };
        let entry = self.entries.iter().find(|entry| entry.key == *first);
        let mut node = entry.map(|entry| &entry.value);
        for key in below {
            node = node.and_then(|node| node.get(key));
        }
        match node.map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                let keys = entries.iter();
                keys.map(|entry| (entry.key.clone(), entry.place.clone()))
                    .collect()
            }
            Some(Value::Null | Value::Scalar { .. } | Value::List(_)) | None => Vec::new(),
        }
    }

    /// `"key" in service "web"`, for messages.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{key:?} in {}", self.what)
    }

    /// Takes a scalar off and reads it with `parse`, which says what it must be.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Option<T> {
        let node = self.take(key)?;
        parsed(&node, &self.name(key), report, parse)
    }

    /// Takes text off.
    pub(crate) fn text(&mut self, key: &'static str, report: &mut Report) -> Option<String> {
        self.parsed(key, report, |text| Ok(text.to_owned()))
    }

    /// Takes text off, with its place.
    pub(crate) fn placed(
        &mut self,
        key: &'static str,
        report: &mut Report,
    ) -> Option<Placed<String>> {
        let place = self.place_of(key)?;
        let value = self.text(key, report)?;
        Some(Placed { value, place })
    }

    /// Takes a whole number off.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        report: &mut Report,
    ) -> Option<u64> {
        self.parsed(key, report, |text| number(text, &range))
    }

    /// Takes a count off.
    pub(crate) fn count(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        report: &mut Report,
    ) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.number(key, range, report)
            .and_then(|number| u32::try_from(number).ok())
    }

    /// Takes a port off.
    pub(crate) fn port(&mut self, key: &'static str, report: &mut Report) -> Option<u16> {
        self.parsed(key, report, port)
    }

    /// Takes a boolean off. Quoted ones count: `${VAR}` has to be quoted in places.
    pub(crate) fn flag(&mut self, key: &'static str, report: &mut Report) -> Option<bool> {
        self.parsed(key, report, |text| {
            truth(text).ok_or_else(|| "true or false".to_owned())
        })
    }

    /// Takes a list off.
    pub(crate) fn list(&mut self, key: &'static str, report: &mut Report) -> Option<Vec<Node>> {
        let node = self.take(key)?;
        list(node, &self.name(key), report)
    }

    /// Takes a list of text off.
    pub(crate) fn texts(&mut self, key: &'static str, report: &mut Report) -> Option<Vec<String>> {
        let name = self.name(key);
        let items = self.list(key, report)?;
        Some(texts(&items, &name, report))
    }

    /// Takes off a list of text, or one text alone.
    pub(crate) fn text_or_texts(
        &mut self,
        key: &'static str,
        report: &mut Report,
    ) -> Option<Vec<Placed<String>>> {
        let node = self.take(key)?;
        Some(one_or_more(node, &self.name(key), report))
    }

    /// Takes off a list of text, each read with `parse`.
    pub(crate) fn parsed_list<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        parse: impl Fn(&str) -> Result<T, Expected>,
    ) -> Vec<T> {
        let name = format!("an item of {}", self.name(key));
        let items = self.list(key, report).unwrap_or_default();
        few(items, &self.name(key), report)
            .iter()
            .filter_map(|node| parsed(node, &name, report, &parse))
            .collect()
    }

    /// Takes a map off, to be read in its turn.
    pub(crate) fn map(&mut self, key: &'static str, report: &mut Report) -> Option<Fields> {
        let node = self.take(key)?;
        Fields::open(node, format!("{key} of {}", self.what), report)
    }

    /// Takes off keys that need no word: they change nothing that Layby does.
    pub(crate) fn accept(&mut self, keys: &[&'static str]) {
        for key in keys {
            let _ = self.entry(key);
        }
    }

    /// Takes off extensions (`x-...`): they are anybody's, and change nothing.
    pub(crate) fn accept_extensions(&mut self) {
        self.entries.retain(|entry| !entry.key.starts_with("x-"));
    }

    /// Puts back what was taken off.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Takes off keys that are known, but not honoured in this version.
    pub(crate) fn unsupported(&mut self, keys: &[&'static str], report: &mut Report) {
        for key in keys {
            if let Some(entry) = self.entry(key) {
                let message = format!("{} is not supported yet and is ignored", self.name(key));
                report.warn(&entry.place, message);
            }
        }
    }

    /// Takes off keys that have no meaning here, each with why.
    pub(crate) fn ignored(&mut self, keys: &[(&'static str, &str)], report: &mut Report) {
        for (key, why) in keys {
            if let Some(entry) = self.entry(key) {
                let message = format!("{} is ignored: {why}", self.name(key));
                report.warn(&entry.place, message);
            }
        }
    }

    /// Takes off keys that would be dangerous to ignore, each with what would come of it.
    pub(crate) fn refuse(&mut self, keys: &[(&'static str, &str)], report: &mut Report) {
        for (key, consequence) in keys {
            if let Some(entry) = self.entry(key)
                && !is_empty(&entry.value)
            {
                let message = format!("{} is not supported yet: {consequence}", self.name(key));
                report.error(&entry.place, message);
            }
        }
    }

    /// Hands out what is left, for maps whose keys are names.
    pub(crate) fn rest(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Warns of all that is left.
    pub(crate) fn finish(self, report: &mut Report) {
        for (index, entry) in self.entries.iter().enumerate() {
            let meant = (index < MAX_SUGGESTIONS)
                .then(|| similar(&entry.key, &self.asked))
                .flatten()
                .map(|key| format!("; did you mean {key:?}?"))
                .unwrap_or_default();
            let message = format!(
                "unknown key {:?} in {} is ignored{meant}",
                cut(&entry.key),
                self.what
            );
            report.warn(&entry.place, message);
        }
    }
}

/// Reads a scalar with `parse`.
pub(crate) fn parsed<T>(
    node: &Node,
    name: &str,
    report: &mut Report,
    parse: impl Fn(&str) -> Result<T, Expected>,
) -> Option<T> {
    let read = match node.scalar() {
        Some(text) => parse(text),
        None => Err("text".to_owned()),
    };
    match read {
        Ok(value) => Some(value),
        Err(expected) => {
            let message = format!("{name} must be {expected}, not {}", node.shown());
            report.error(&node.place, message);
            None
        }
    }
}

/// A boolean, as Docker Compose and Kubernetes take it: also in the words of YAML 1.1 (yaml.org/type/bool.html).
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The items of a list.
pub(crate) fn list(node: Node, name: &str, report: &mut Report) -> Option<Vec<Node>> {
    match node.value {
        Value::List(items) => Some(items),
        Value::Null | Value::Scalar { .. } | Value::Map(_) => {
            let message = format!("{name} must be a list, not {}", node.shown());
            report.error(&node.place, message);
            None
        }
    }
}

/// The items of a list of text.
pub(crate) fn texts(items: &[Node], name: &str, report: &mut Report) -> Vec<String> {
    let item = format!("an item of {name}");
    items
        .iter()
        .filter_map(|node| parsed(node, &item, report, |text| Ok(text.to_owned())))
        .collect()
}

/// The items of a list of text, or one text alone, each with its place.
pub(crate) fn one_or_more(node: Node, name: &str, report: &mut Report) -> Vec<Placed<String>> {
    let items = match node.value {
        Value::List(items) => items,
        Value::Null => Vec::new(),
        Value::Scalar { .. } => vec![node],
        Value::Map(_) => {
            let message = format!("{name} must be text or a list, not {}", node.shown());
            report.error(&node.place, message);
            Vec::new()
        }
    };
    let item = format!("an item of {name}");
    few(items, name, report)
        .into_iter()
        .filter_map(|node| {
            let value = parsed(&node, &item, report, |text| Ok(text.to_owned()))?;
            let place = node.place;
            Some(Placed { value, place })
        })
        .collect()
}

/// As many items as there may be.
fn few(mut items: Vec<Node>, name: &str, report: &mut Report) -> Vec<Node> {
    if let Some(item) = items.get(MAX_ITEMS) {
        report.error(
            &item.place,
            format!("{name} has more than {MAX_ITEMS} items"),
        );
        items.truncate(MAX_ITEMS);
    }
    items
}

/// A whole number in `range`.
pub(crate) fn number(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Expected> {
    let expected = || format!("a whole number from {} to {}", range.start(), range.end());
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(expected()),
    }
}

/// A port that can be connected to.
pub(crate) fn port(text: &str) -> Result<u16, Expected> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("a port from 1 to 65535".to_owned()),
    }
}

/// Whether a value asks for nothing: `[]`, `{}`, `false` or empty text.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar { text, .. } => text.is_empty() || text == "false",
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}

/// The known key that a misspelt one most likely meant: at most two edits away, and fewer than it is long.
pub(crate) fn similar<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = 2.min(key.chars().count().saturating_sub(2));
    known
        .iter()
        .map(|known| (edits(key, known, most), *known))
        .filter(|(edits, _)| *edits <= most)
        .min()
        .map(|(_, known)| known)
}

/// The edit distance (insert, delete, replace) of two words, in capital letters or not; `most + 1`
/// if their lengths alone say that it is more.
fn edits(one: &str, other: &str, most: usize) -> usize {
    let one: Vec<char> = one.to_lowercase().chars().collect();
    let other: Vec<char> = other.to_lowercase().chars().collect();
    if one.len().abs_diff(other.len()) > most {
        return most + 1;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replace = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_what_it_meant() {
        let known = ["environment", "image", "ports", "cpus"];
        assert_eq!(similar("enviroment", &known), Some("environment"));
        assert_eq!(similar("Image", &known), Some("image"));
        assert_eq!(similar("port", &known), Some("ports"));
        assert_eq!(similar("foo", &known), None);
        assert_eq!(similar("x", &known), None);
    }
}
