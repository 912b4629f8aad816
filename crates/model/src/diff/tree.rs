//! Settings as a tree of texts, by way of serde: a field that is added to them is in it without a word here.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::ser::{self, Serialize};

/// A value without its types. What is not set (`None`, an empty list or map) is [`Tree::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    Nothing,
    Text(String),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    /// The tree of a value; one that cannot be told (a map whose keys are no texts) is its error.
    pub(super) fn of(value: &impl Serialize) -> Self {
        value
            .serialize(Writer)
            .unwrap_or_else(|error| Self::Text(error.0))
    }

    /// Every text with the path that leads to it. Items of a list are known by their name or target, else by their place; a
    /// list of texts is one text.
    pub(super) fn flatten(&self, path: &str, out: &mut BTreeMap<String, String>) {
        match self {
            Self::Nothing => {}
            Self::Text(text) => {
                out.insert(path.to_owned(), text.clone());
            }
            Self::Map(map) => {
                for (key, value) in map {
                    value.flatten(&below(path, key), out);
                }
            }
            Self::List(items) => {
                let texts: Option<Vec<String>> = items.iter().map(Self::quoted).collect();
                if let Some(texts) = texts {
                    out.insert(path.to_owned(), format!("[{}]", texts.join(", ")));
                    return;
                }
                for (place, item) in items.iter().enumerate() {
                    let key = item.key().unwrap_or_else(|| place.to_string());
                    item.flatten(&below(path, &key), out);
                }
            }
        }
    }

    fn quoted(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(format!("{text:?}")),
            Self::Nothing | Self::List(_) | Self::Map(_) => None,
        }
    }

    fn key(&self) -> Option<String> {
        let Self::Map(map) = self else {
            return None;
        };
        let texts = ["name", "target"]
            .into_iter()
            .filter_map(|key| map.get(key));
        texts
            .filter_map(|tree| match tree {
                Self::Text(text) => Some(text.clone()),
                Self::Nothing | Self::List(_) | Self::Map(_) => None,
            })
            .next()
    }
}

fn below(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// Why a value cannot be told.
#[derive(Debug)]
pub(super) struct Untold(String);

impl Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Untold {}

impl ser::Error for Untold {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Makes a tree of whatever is serialized.
struct Writer;

/// A list under way; with the variant's name, if it is an enum's.
struct List(Vec<Tree>, Option<&'static str>);

/// A map under way, and the key that waits for its value; with the variant's name, if it is an enum's.
struct Map(BTreeMap<String, Tree>, String, Option<&'static str>);

impl List {
    fn push(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Untold> {
        self.0.push(value.serialize(Writer)?);
        Ok(())
    }

    fn whole(self) -> Tree {
        let list = match self.0.is_empty() {
            true => Tree::Nothing,
            false => Tree::List(self.0),
        };
        named(self.1, list)
    }
}

impl Map {
    fn new(variant: Option<&'static str>) -> Self {
        Self(BTreeMap::new(), String::new(), variant)
    }

    fn put(&mut self, key: String, value: &(impl Serialize + ?Sized)) -> Result<(), Untold> {
        let value = value.serialize(Writer)?;
        if value != Tree::Nothing {
            self.0.insert(key, value);
        }
        Ok(())
    }

    fn whole(self) -> Tree {
        let map = match self.0.is_empty() {
            true => Tree::Nothing,
            false => Tree::Map(self.0),
        };
        named(self.2, map)
    }
}

/// A variant with what it holds.
fn named(variant: Option<&'static str>, tree: Tree) -> Tree {
    match (variant, tree) {
        (None, tree) => tree,
        (Some(variant), Tree::Nothing) => Tree::Text(variant.to_owned()),
        (Some(variant), tree) => Tree::Map(BTreeMap::from([(variant.to_owned(), tree)])),
    }
}

macro_rules! texts {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, value: $type) -> Result<Tree, Untold> {
            Ok(Tree::Text(value.to_string()))
        })*
    };
}

impl ser::Serializer for Writer {
    type Ok = Tree;
    type Error = Untold;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Map;
    type SerializeStruct = Map;
    type SerializeStructVariant = Map;

    texts!(
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
    );

    fn serialize_bytes(self, value: &[u8]) -> Result<Tree, Untold> {
        Ok(Tree::Text(format!("{} bytes", value.len())))
    }

    fn serialize_none(self) -> Result<Tree, Untold> {
        Ok(Tree::Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, Untold> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Tree, Untold> {
        Ok(Tree::Nothing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Tree, Untold> {
        Ok(Tree::Nothing)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Tree, Untold> {
        Ok(Tree::Text(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Tree, Untold> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Tree, Untold> {
        Ok(named(Some(variant), value.serialize(self)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List, Untold> {
        Ok(List(Vec::new(), None))
    }

    fn serialize_tuple(self, _: usize) -> Result<List, Untold> {
        Ok(List(Vec::new(), None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List, Untold> {
        Ok(List(Vec::new(), None))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List, Untold> {
        Ok(List(Vec::new(), Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Map, Untold> {
        Ok(Map::new(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Map, Untold> {
        Ok(Map::new(None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Map, Untold> {
        Ok(Map::new(Some(variant)))
    }
}

macro_rules! lists {
    ($($trait:ident: $method:ident),* $(,)?) => {
        $(impl ser::$trait for List {
            type Ok = Tree;
            type Error = Untold;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Untold> {
                self.push(value)
            }

            fn end(self) -> Result<Tree, Untold> {
                Ok(self.whole())
            }
        })*
    };
}

lists!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
);

macro_rules! maps {
    ($($trait:ident),* $(,)?) => {
        $(impl ser::$trait for Map {
            type Ok = Tree;
            type Error = Untold;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Untold> {
                self.put(key.to_owned(), value)
            }

            fn end(self) -> Result<Tree, Untold> {
                Ok(self.whole())
            }
        })*
    };
}

maps!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Map {
    type Ok = Tree;
    type Error = Untold;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Untold> {
        self.1 = match key.serialize(Writer)? {
            Tree::Text(text) => text,
            Tree::Nothing | Tree::List(_) | Tree::Map(_) => {
                return Err(Untold("a map whose keys are no texts".to_owned()));
            }
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Untold> {
        let key = std::mem::take(&mut self.1);
        self.put(key, value)
    }

    fn end(self) -> Result<Tree, Untold> {
        Ok(self.whole())
    }
}
