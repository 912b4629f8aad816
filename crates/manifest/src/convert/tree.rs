//! Trees as they are built up to be written: what is empty is left out.

use crate::tree::{Entry, Node, Place, Value};

/// A map that grows key by key, in the order in which it is written.
#[derive(Debug, Default)]
pub(super) struct Map(Vec<Entry>);

impl Map {
    /// One without keys.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a value, unless it is empty.
    pub(super) fn put(self, key: &str, value: impl Into<Node>) -> Self {
        let value = value.into();
        let is_empty = match &value.value {
            Value::Null => true,
            Value::Scalar { .. } => false,
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        };
        match is_empty {
            true => self,
            false => self.always(key, value),
        }
    }

    /// Adds a value, empty or not.
    pub(super) fn always(mut self, key: &str, value: impl Into<Node>) -> Self {
        self.0.push(Entry {
            key: key.to_owned(),
            place: Place::whole(""),
            value: value.into(),
        });
        self
    }

    /// Adds text.
    pub(super) fn text(self, key: &str, value: impl Into<String>) -> Self {
        self.always(key, text(value))
    }

    /// Adds a number or a truth.
    pub(super) fn plain(self, key: &str, value: impl ToString) -> Self {
        self.always(key, plain(value))
    }

    /// Adds `true`, or nothing.
    pub(super) fn flag(self, key: &str, is_on: bool) -> Self {
        match is_on {
            true => self.plain(key, true),
            false => self,
        }
    }

    /// Adds text, if there is any.
    pub(super) fn some_text(self, key: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    /// Adds a number, if there is one.
    pub(super) fn some_plain(self, key: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.plain(key, value),
            None => self,
        }
    }

    /// Adds all keys of another one.
    pub(super) fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl From<Map> for Node {
    fn from(map: Map) -> Self {
        Self::new(Place::whole(""), Value::Map(map.0))
    }
}

impl From<Vec<Node>> for Node {
    fn from(items: Vec<Node>) -> Self {
        Self::new(Place::whole(""), Value::List(items))
    }
}

/// Maps as a list.
pub(super) fn maps(items: impl IntoIterator<Item = Map>) -> Node {
    let items: Vec<Node> = items.into_iter().map(Node::from).collect();
    items.into()
}

/// Texts as a list.
pub(super) fn texts<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Node {
    let items: Vec<Node> = items.into_iter().map(text).collect();
    items.into()
}

/// Text.
pub(super) fn text(text: impl Into<String>) -> Node {
    let text = text.into();
    Node::new(Place::whole(""), Value::Scalar { text, plain: false })
}

/// A number or a truth.
pub(super) fn plain(value: impl ToString) -> Node {
    let text = value.to_string();
    Node::new(Place::whole(""), Value::Scalar { text, plain: true })
}
