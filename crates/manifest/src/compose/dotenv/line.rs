//! The lines of such a file: what is a name, and what its value, by the rules that Docker Compose reads them by.

use std::collections::BTreeMap;

use crate::compose::interpolate;
use crate::report::Report;
use crate::tree::Place;
use crate::yaml::MAX_FILE_BYTES;

/// A line of a file.
pub(super) struct Line {
    pub(super) key: String,
    /// `None`: there is a name only.
    pub(super) value: Option<Raw>,
    pub(super) place: Place,
}

/// A value without its quotes and comment.
pub(super) enum Raw {
    /// It stood in single quotes: it is meant as it is.
    Literal(String),
    /// Its variables are still to be filled in.
    Open(String),
}

impl Raw {
    pub(super) fn filled(
        &self,
        known: &BTreeMap<String, String>,
        place: &Place,
        report: &mut Report,
    ) -> String {
        let text = match self {
            Self::Literal(text) => return text.clone(),
            Self::Open(text) => text,
        };
        match interpolate::expand(text, known) {
            Ok(expanded) => {
                interpolate::warn_unset(place, &expanded.unset, report);
                expanded.text
            }
            Err(reason) => {
                let usual = "the variables in this value cannot be filled in, or make it longer than 1 MiB: a ${ that begins no variable is written $${, or the value in single quotes";
                let message = reason.without_values().unwrap_or(usual.to_owned());
                report.error(place, message);
                text.clone()
            }
        }
    }
}

/// Reads all of them; those that are none are errors. What they say stays out of the messages: such files hold secrets.
pub(super) fn lines(file: &str, bytes: &[u8], report: &mut Report) -> Vec<Line> {
    let mut lines = Vec::new();
    if !is_short_enough(file, bytes, report) {
        return lines;
    }
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut number = 1;
    while !rest.is_empty() {
        let place = at(file, number);
        let (read, after) = statement(rest);
        number += count_lines(&rest[..rest.len() - after.len()]);
        rest = after;
        match read {
            Ok(None) => {}
            Ok(Some((key, value))) => lines.push(Line { key, value, place }),
            Err(reason) => report.error(&place, reason),
        }
    }
    lines
}

/// What a line says: a name, and its value if it has one. `None`: it is empty, or a comment.
type Said = Option<(String, Option<Raw>)>;

/// Reads what `text` begins with, one line or, in quotes, several; gives what is left behind it, too.
fn statement(text: &str) -> (Result<Said, &'static str>, &str) {
    let (line, after) = cut_line(text);
    let line = line.trim();
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        Some(_) | None => line,
    };
    if line.is_empty() || line.starts_with('#') {
        return (Ok(None), after);
    }
    // As in YAML, a colon does as well.
    let (key, value) = match line.split_once(['=', ':']) {
        Some((key, value)) => (key.trim_end(), Some(value.trim())),
        None => (line, None),
    };
    if let Err(reason) = check_name(key) {
        return (Err(reason), after);
    }
    let Some(value) = value else {
        return (Ok(Some((key.to_owned(), None))), after);
    };
    let (value, after) = match value.chars().next() {
        // What is in quotes may go over several lines.
        Some(quote @ ('"' | '\'')) => closed(text, quote),
        _ if value.starts_with('#') => (Ok(Raw::Open(String::new())), after),
        _ => {
            let length = value.find(" #").unwrap_or(value.len());
            (Ok(Raw::Open(value[..length].trim_end().to_owned())), after)
        }
    };
    (
        value.map(|value| Some((key.to_owned(), Some(value)))),
        after,
    )
}

/// A line without its end, and what is left behind that.
fn cut_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("there is no name before the \"=\": lines are KEY=VALUE");
    }
    if name.contains(char::is_whitespace) {
        return Err("the name of a variable has a blank in it: lines are KEY=VALUE");
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    match name.chars().all(fits) {
        true => Ok(()),
        false => Err(
            "the name of a variable has letters, digits, _ . - [ and ] only: lines are KEY=VALUE",
        ),
    }
}

/// What stands in the first quotes of `text`, and what follows the line in which they are closed. Where they are not, that
/// would be all there is.
fn closed(text: &str, quote: char) -> (Result<Raw, &'static str>, &str) {
    let opened = text.split_once(quote).map_or("", |(_, opened)| opened);
    let Some((inner, length)) = quoted(opened, quote) else {
        return (
            Err("the quote that the value begins with is not closed"),
            "",
        );
    };
    let (behind, after) = cut_line(&opened[length..]);
    let behind = behind.trim();
    if !behind.is_empty() && !behind.starts_with('#') {
        let reason = "only a comment may stand behind the closing quote of a value";
        return (Err(reason), after);
    }
    match quote {
        '"' => (Ok(Raw::Open(inner)), after),
        _ => (Ok(Raw::Literal(inner)), after),
    }
}

fn count_lines(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

/// What stands before the closing quote, and how long it is with that one. In double quotes `\n` and its like, `\$`, `\"`
/// and `\\` are read; in single ones, `\'`.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, c) if c == quote => return Some((inner, at + 1)),
            (_, '\\') => match (quote, chars.next()?.1) {
                ('"', 'n') => inner.push('\n'),
                ('"', 't') => inner.push('\t'),
                ('"', 'r') => inner.push('\r'),
                ('"', 'a') => inner.push('\u{7}'),
                ('"', 'b') => inner.push('\u{8}'),
                ('"', 'f') => inner.push('\u{c}'),
                ('"', 'v') => inner.push('\u{b}'),
                // Its variables are still to be filled in.
                ('"', '$') => inner.push_str("$$"),
                ('"', c @ ('"' | '\\')) | ('\'', c @ '\'') => inner.push(c),
                (_, c) => inner.extend(['\\', c]),
            },
            (_, c) => inner.push(c),
        }
    }
}

pub(super) fn is_short_enough(file: &str, bytes: &[u8], report: &mut Report) -> bool {
    let size_bytes = bytes.len();
    if size_bytes > MAX_FILE_BYTES {
        let message =
            format!("is {size_bytes} bytes long; it may have {MAX_FILE_BYTES} (1 MiB) at most");
        report.error(&Place::whole(file), message);
        return false;
    }
    true
}

pub(super) fn at(file: &str, line: u32) -> Place {
    Place {
        file: file.into(),
        line,
        column: 1,
    }
}
