//! Trees written out as YAML or JSON, so that they are read as the same values again.

use std::fmt::Write as _;

use crate::tree::{Entry, Node, Value};

/// Writes a tree as a YAML document (YAML 1.2; what YAML 1.1 would take for something else than text is quoted too).
pub(crate) fn yaml(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => map(entries, 0, &mut out),
        Value::List(items) if !items.is_empty() => list(items, 0, &mut out),
        _ => {
            inline(node, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

/// Writes a tree as JSON, indented by two spaces.
pub(crate) fn json(node: &Node) -> String {
    let mut out = String::new();
    json_at(node, 0, &mut out);
    out
}

fn map(entries: &[Entry], indent: usize, out: &mut String) {
    for (index, entry) in entries.iter().enumerate() {
        // The first stands behind the dash of a list, where there is one.
        if index > 0 || !out.ends_with("- ") {
            pad(indent, out);
        }
        out.push_str(&key(&entry.key));
        out.push(':');
        below(&entry.value, indent, out);
    }
}

/// What stands behind a key.
fn below(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            map(entries, indent + 2, out);
        }
        Value::List(items) if !items.is_empty() => {
            out.push('\n');
            list(items, indent + 2, out);
        }
        Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_) => {
            out.push(' ');
            inline(node, indent + 2, out);
            out.push('\n');
        }
    }
}

fn list(items: &[Node], indent: usize, out: &mut String) {
    for item in items {
        pad(indent, out);
        out.push_str("- ");
        match &item.value {
            Value::Map(entries) if !entries.is_empty() => map(entries, indent + 2, out),
            Value::List(inner) if !inner.is_empty() => {
                // On a line of its own: two dashes in one are hard to read.
                out.truncate(out.len() - 1);
                out.push('\n');
                list(inner, indent + 2, out);
            }
            Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_) => {
                inline(item, indent + 2, out);
                out.push('\n');
            }
        }
    }
}

fn inline(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::List(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
        // A variable may have left nothing of it: that is text all the same.
        Value::Scalar { text, plain: true } => match is_special(text) && !is_nothing(text) {
            true => out.push_str(text),
            false => out.push_str(&scalar(text, indent)),
        },
        Value::Scalar { text, plain: false } => out.push_str(&scalar(text, indent)),
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn key(text: &str) -> String {
    match is_plain(text) && !is_special(text) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

/// Text: as it is, as a block, or in quotes.
fn scalar(text: &str, indent: usize) -> String {
    if is_plain(text) && !is_special(text) {
        return text.to_owned();
    }
    match is_block(text) {
        true => block(text, indent),
        false => quoted(text),
    }
}

/// Several lines, none of which a reader could take for anything else.
fn is_block(text: &str) -> bool {
    let lines = text.trim_end_matches('\n');
    let is_usual = |c: char| !c.is_control() || c == '\n' || c == '\t';
    lines.contains('\n')
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\t', '\n'])
        && lines.lines().all(|line| !line.ends_with([' ', '\t']))
        && text.chars().all(|c| is_usual(c) && !is_line_end(c))
}

/// What some readers take for the end of a line, and a byte order mark.
fn is_line_end(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn block(text: &str, indent: usize) -> String {
    let mut block = String::from(if text.ends_with('\n') { "|" } else { "|-" });
    for line in text.lines() {
        block.push('\n');
        if !line.is_empty() {
            pad(indent, &mut block);
            block.push_str(line);
        }
    }
    block
}

/// Whether text needs no quotes wherever it stands in a block.
fn is_plain(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || "/._".contains(c);
    let inner = |c: char| !c.is_control() && !is_line_end(c) && !"#:,[]{}\"'\\&*!|>%@`".contains(c);
    let mut chars = text.chars().peekable();
    let mut all_fit = text.starts_with(first) && !text.starts_with("..") && !text.ends_with(' ');
    while let Some(c) = chars.next() {
        // A colon is only one of a map where a space follows.
        all_fit &= inner(c) || c == ':' && chars.peek().is_some_and(|next| *next != ' ');
    }
    all_fit
}

/// Whether a reader of YAML 1.1 or 1.2 would take it for a number, a truth, a date or nothing.
fn is_special(text: &str) -> bool {
    const WORDS: [&str; 11] = [
        "null", "~", "true", "false", "yes", "no", "on", "off", "y", "n", "",
    ];
    let lower = text.to_ascii_lowercase();
    if WORDS.contains(&lower.as_str())
        || matches!(lower.as_str(), ".nan" | ".inf" | "-.inf" | "+.inf")
    {
        return true;
    }
    let digits = lower.trim_start_matches(['-', '+', '.']);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits
            .chars()
            .all(|c| c.is_ascii_hexdigit() || "_.:-+xot t".contains(c))
}

/// Whether a reader of YAML would take it for nothing.
fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// In double quotes, by the escapes that YAML and JSON share.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() || is_line_end(c) => {
                // Writing to text cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn json_at(node: &Node, indent: usize, out: &mut String) {
    let many = |open: char,
                close: char,
                count: usize,
                out: &mut String,
                each: &dyn Fn(usize, &mut String)| {
        out.push(open);
        for index in 0..count {
            out.push_str(if index == 0 { "\n" } else { ",\n" });
            pad(indent + 2, out);
            each(index, out);
        }
        if count > 0 {
            out.push('\n');
            pad(indent, out);
        }
        out.push(close);
    };
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Scalar { text, plain: true } if is_json(text) => out.push_str(text),
        Value::Scalar { text, .. } => out.push_str(&quoted(text)),
        Value::List(items) => many('[', ']', items.len(), out, &|index, out| {
            json_at(&items[index], indent + 2, out);
        }),
        Value::Map(entries) => many('{', '}', entries.len(), out, &|index, out| {
            out.push_str(&quoted(&entries[index].key));
            out.push_str(": ");
            json_at(&entries[index].value, indent + 2, out);
        }),
    }
}

/// Whether a plain scalar is a number or a truth of JSON as it stands.
fn is_json(text: &str) -> bool {
    if matches!(text, "true" | "false") {
        return true;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all(whole) && all(fraction) && (whole == "0" || !whole.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Place;
    use crate::yaml::parse;

    fn node(value: Value) -> Node {
        Node::new(Place::whole("x"), value)
    }

    fn text(text: &str) -> Node {
        let text = text.to_owned();
        node(Value::Scalar { text, plain: false })
    }

    fn back(text: &str) -> Node {
        let mut documents = parse("x", text.as_bytes()).expect(text);
        documents.remove(0)
    }

    #[test]
    fn every_text_is_read_as_the_same_text_again() {
        for case in [
            "a",
            "",
            " ",
            "a b ",
            "yes",
            "No",
            "1",
            "1.5",
            "0x1F",
            "1e3",
            "12:30",
            "2024-01-01",
            "null",
            "~",
            "a: b",
            "a:b",
            "a:",
            "# c",
            "a #b",
            "- a",
            "-",
            "?",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "'",
            "\"",
            "{a}",
            "[a]",
            "a,b",
            "|",
            ">",
            "=",
            "<<",
            "a\nb",
            "a\nb\n",
            "a\n\nb",
            "a\n b\n",
            " a\nb",
            "a \nb",
            "a\n\n",
            "\n",
            "\ta",
            "a\tb",
            "\u{85}",
            "\u{feff}a",
            "\u{7f}",
            "$A ${B}",
            "--- a",
            "...",
            "/a/b:/c",
            "echo \"a\" && true\nif x; then\n  y\nfi\n",
            ".5",
            "._",
            "é",
            "#",
            ":",
            "a\r\nb",
            "0o17",
            "1_000",
        ] {
            let tree = node(Value::Map(vec![Entry {
                key: case.to_owned(),
                place: Place::whole("x"),
                value: node(Value::List(vec![
                    text(case),
                    node(Value::List(vec![text(case)])),
                ])),
            }]));
            for written in [yaml(&tree), json(&tree)] {
                let read = back(&written);
                let Value::Map(entries) = &read.value else {
                    panic!("{written}");
                };
                assert_eq!(entries[0].key, case, "{written}");
                let Value::List(items) = &entries[0].value.value else {
                    panic!("{written}");
                };
                let Value::List(inner) = &items[1].value else {
                    panic!("{written}");
                };
                for item in [&items[0], &inner[0]] {
                    assert_eq!(item.scalar(), Some(case), "{written}");
                }
            }
        }
    }

    #[test]
    fn numbers_and_truths_are_written_as_such_and_their_like_as_text() {
        let plain = |text: &str| {
            let text = text.to_owned();
            node(Value::Scalar { text, plain: true })
        };
        assert_eq!(yaml(&plain("80")), "80\n");
        assert_eq!(yaml(&plain("")), "\"\"\n");
        assert_eq!(yaml(&text("80")), "\"80\"\n");
        assert_eq!(yaml(&text("on")), "\"on\"\n");
        assert_eq!(json(&plain("0.5")), "0.5");
        assert_eq!(json(&plain("007")), "\"007\"");
        assert_eq!(json(&text("true")), "\"true\"");
    }
}
