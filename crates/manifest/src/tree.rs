//! The YAML tree that both formats are read from: every node and every key knows its place.

use std::rc::Rc;

/// Where something stands. Cheap to clone: a tree of a large file names its file once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: Rc<str>,
    /// From 1; 0: the file as a whole.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
}

impl Place {
    /// The file as a whole.
    pub(crate) fn whole(file: &str) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
        }
    }

    /// `file:line`, to point from one message to another place.
    pub(crate) fn short(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
    pub(crate) laid: Laid,
}

/// What becomes of the value that a file says over that of a file before it (Compose Specification, "Merge").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Laid {
    /// As its key has it: merged, joined or replaced.
    #[default]
    Usual,
    /// `!override`: this stands alone.
    Alone,
    /// `!reset`: neither is left.
    Gone,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing after the colon, `~` or `null`.
    Null,
    /// Text, a number or a boolean: which one it is to be, its reader knows. `plain` is false if
    /// it was quoted, and so can only be text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file; no key comes twice.
    Map(Vec<Entry>),
}

/// A key of a map and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) place: Place,
    pub(crate) value: Node,
}

impl Node {
    /// A value that is laid over others as usual.
    pub(crate) fn new(place: Place, value: Value) -> Self {
        Self {
            place,
            value,
            laid: Laid::Usual,
        }
    }

    /// The text of a scalar.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The value of a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.value),
            Value::Null | Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// The first value below this one that is laid over others otherwise than usual.
    pub(crate) fn unusual(&self) -> Option<&Node> {
        if self.laid != Laid::Usual {
            return Some(self);
        }
        match &self.value {
            Value::Null | Value::Scalar { .. } => None,
            Value::List(items) => items.iter().find_map(Node::unusual),
            Value::Map(entries) => entries.iter().find_map(|entry| entry.value.unusual()),
        }
    }

    /// What this is, as messages say it.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, .. } => format!("{:?}", cut(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// `text`, cut to what a message can show.
pub(crate) fn cut(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
