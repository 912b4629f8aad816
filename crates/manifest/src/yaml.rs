//! YAML text -> tree. Built on the parser's events, since these carry the lines that types would lose.
//!
//! Everything is bounded: the size of the file, the depth, and the number of nodes after aliases are
//! filled in (a few lines of nested aliases can otherwise ask for billions of them).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag, options};

use crate::diagnostic::Diagnostic;
use crate::tree::{Entry, Laid, Node, Place, Value, cut};

/// The largest file that is read.
pub(crate) const MAX_FILE_BYTES: usize = 1 << 20;
/// The most nodes of one file, aliases filled in.
const MAX_NODES: usize = 100_000;
/// So many bytes of a text count as one more node: a long one behind an alias is copied as often as it is named.
const TEXT_BYTES: usize = 256;
/// The deepest nesting, aliases filled in. Trees are walked by recursion: this bounds the stack.
const MAX_DEPTH: usize = 64;

/// Reads all documents of a file; empty ones are left out.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Node>, Diagnostic> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Diagnostic::new(
            file,
            0,
            0,
            format!(
                "is {} bytes long; a manifest may have {MAX_FILE_BYTES} (1 MiB) at most",
                bytes.len()
            ),
        ));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| not_text(file, bytes, error.valid_up_to()))?;
    let options = options! {
        block_nesting_limit: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        emit_comments: false,
    };
    let mut builder = Builder {
        file: file.into(),
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        documents: Vec::new(),
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            bad_yaml(file, text, line, column, &error.info())
        })?;
        builder.event(event, span).map_err(|(place, message)| {
            bad_yaml(
                file,
                text,
                place.line as usize,
                place.column as usize,
                &message,
            )
        })?;
    }
    builder
        .documents
        .retain(|document| document.value != Value::Null);
    Ok(builder.documents)
}

/// The error for a place of a file, with the text of the line.
fn bad_yaml(file: &str, text: &str, line: usize, column: usize, message: &str) -> Diagnostic {
    let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
    Diagnostic::new(
        file,
        u32::try_from(line).unwrap_or(u32::MAX),
        u32::try_from(column).unwrap_or(u32::MAX),
        format!(
            "bad YAML: {message}, in the line {:?}",
            cut(shown.trim_end())
        ),
    )
}

/// The error for a file that is not UTF-8.
fn not_text(file: &str, bytes: &[u8], valid_up_to: usize) -> Diagnostic {
    let before = String::from_utf8_lossy(&bytes[..valid_up_to]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Diagnostic::new(
        file,
        u32::try_from(line).unwrap_or(u32::MAX),
        u32::try_from(column).unwrap_or(u32::MAX),
        format!(
            "bad YAML: the byte 0x{:02x} is not UTF-8 text",
            bytes[valid_up_to]
        ),
    )
}

type Wrong = (Place, String);

/// What a subtree costs when an alias copies it.
#[derive(Debug, Clone, Copy)]
struct Weight {
    nodes: usize,
    depth: usize,
}

/// A list or map that is not closed yet.
struct Frame {
    place: Place,
    laid: Laid,
    anchor: usize,
    weight: Weight,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        keys: HashSet<String>,
        key: Option<Key>,
        merged: Vec<Node>,
    },
}

struct Key {
    text: String,
    place: Place,
    /// It is `<<`.
    merge: bool,
}

struct Builder {
    file: Rc<str>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, Weight)>,
    nodes: usize,
    documents: Vec<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Wrong> {
        let place = Place {
            file: Rc::clone(&self.file),
            line: u32::try_from(span.start.line()).unwrap_or(u32::MAX),
            column: u32::try_from(span.start.col() + 1).unwrap_or(u32::MAX),
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let laid = laid(tag.as_deref(), &place)?;
                let value = scalar(&text, style, tag.as_deref(), &place)?;
                let nodes = 1 + text.len() / TEXT_BYTES;
                let weight = Weight { nodes, depth: 1 };
                self.count(nodes, &place)?;
                self.add(Node { place, value, laid }, anchor, weight)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(place, anchor, tag.as_deref(), Open::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                let open = Open::Map {
                    entries: Vec::new(),
                    keys: HashSet::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.open(place, anchor, tag.as_deref(), open)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => {
                let Some(weight) = self.anchors.get(&id).map(|(_, weight)| *weight) else {
                    return Err((place, "an alias stands inside of what it names".to_owned()));
                };
                self.count(weight.nodes, &place)?;
                let node = self.anchors[&id].0.clone();
                self.add(node, 0, weight)
            }
            // Stream and document borders say nothing that the nodes do not; the rest is switched off above.
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
        open: Open,
    ) -> Result<(), Wrong> {
        let laid = laid(tag, &place)?;
        self.count(1, &place)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err((
                place,
                format!("it is nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.stack.push(Frame {
            place,
            laid,
            anchor,
            weight: Weight { nodes: 1, depth: 1 },
            open,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Wrong> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let value = match frame.open {
            Open::List(items) => Value::List(items),
            Open::Map {
                mut entries,
                mut keys,
                merged,
                ..
            } => {
                for node in merged {
                    merge_into(&mut entries, &mut keys, node)?;
                }
                Value::Map(entries)
            }
        };
        let node = Node {
            place: frame.place,
            value,
            laid: frame.laid,
        };
        self.add(node, frame.anchor, frame.weight)
    }

    /// Counts nodes before they are made.
    fn count(&mut self, nodes: usize, place: &Place) -> Result<(), Wrong> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let message = format!(
                "it has more than {MAX_NODES} values, aliases filled in and long ones counted by their length"
            );
            return Err((place.clone(), message));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, anchor: usize, weight: Weight) -> Result<(), Wrong> {
        if self.stack.len() + weight.depth > MAX_DEPTH {
            return Err((
                node.place,
                format!("it is nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        if anchor > 0 {
            self.count(weight.nodes, &node.place)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        frame.weight.nodes += weight.nodes;
        frame.weight.depth = frame.weight.depth.max(weight.depth + 1);
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map {
                key,
                merged,
                entries,
                keys,
            } => match key.take() {
                None => *key = Some(as_key(node)?),
                Some(key) if key.merge => merged.push(node),
                Some(key) => {
                    if !keys.insert(key.text.clone()) {
                        let first = entries.iter().find(|entry| entry.key == key.text);
                        let line = first.map_or(0, |entry| entry.place.line);
                        let message = format!(
                            "the key {:?} is there twice, first in line {line}",
                            cut(&key.text)
                        );
                        return Err((key.place, message));
                    }
                    entries.push(Entry {
                        key: key.text,
                        place: key.place,
                        value: node,
                    });
                }
            },
        }
        Ok(())
    }
}

/// What a scalar holds, by the core schema of YAML 1.2 (section 10.3).
fn scalar(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    place: &Place,
) -> Result<Value, Wrong> {
    if text.contains('\0') {
        // Neither a command, a variable nor a name can hold it: all end there.
        return Err((place.clone(), "the character NUL cannot be used".to_owned()));
    }
    let core = tag.and_then(Tag::core_suffix);
    let plain = match core {
        Some("str") => false,
        Some(_) => true,
        None => style == ScalarStyle::Plain,
    };
    if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Ok(Value::Null);
    }
    Ok(Value::Scalar {
        text: text.to_owned(),
        plain,
    })
}

/// What Compose's own tags say. Any other that would change what a value means is refused.
fn laid(tag: Option<&Tag>, place: &Place) -> Result<Laid, Wrong> {
    let Some(tag) = tag.filter(|tag| tag.is_custom() && tag.original() != "!") else {
        return Ok(Laid::Usual);
    };
    match tag.original().as_str() {
        "!reset" => Ok(Laid::Gone),
        "!override" => Ok(Laid::Alone),
        other => Err((
            place.clone(),
            format!("the tag {} is not supported", cut(other)),
        )),
    }
}

fn as_key(node: Node) -> Result<Key, Wrong> {
    match node.value {
        Value::Scalar { text, plain } => Ok(Key {
            merge: plain && text == "<<",
            text,
            place: node.place,
        }),
        _ => {
            let message = format!("a key must be text, not {}", node.shown());
            Err((node.place, message))
        }
    }
}

/// Adds what `<<` names: keys that are there already win (YAML merge key, working draft 2005).
fn merge_into(
    entries: &mut Vec<Entry>,
    keys: &mut HashSet<String>,
    node: Node,
) -> Result<(), Wrong> {
    match node.value {
        Value::Map(merged) => {
            for entry in merged {
                if keys.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Value::List(maps) if maps.iter().all(|map| matches!(map.value, Value::Map(_))) => maps
            .into_iter()
            .try_for_each(|map| merge_into(entries, keys, map)),
        _ => {
            let message = format!("<< must name a map or a list of maps, not {}", node.shown());
            Err((node.place, message))
        }
    }
}
