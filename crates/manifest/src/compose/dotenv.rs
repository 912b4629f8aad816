//! The file `.env` beside a Compose file, and the files of `env_file`: `KEY=VALUE` lines (Compose Specification,
//! "Env_file format").

use std::collections::BTreeMap;

use crate::compose::interpolate;
use crate::report::Report;
use crate::tree::Place;
use crate::yaml::MAX_FILE_BYTES;
use crate::{Diagnostic, Files, ReadOptions};

/// The file's name.
pub(crate) const FILE: &str = ".env";

/// For a line that says nothing. What it is stays out of the message: such files hold secrets.
const NO_PAIR: &str = "the line is not KEY=VALUE and is ignored";

/// What `${VAR}` means in a manifest: what the files of variables say, with the caller's environment over it.
pub(crate) fn of(
    files: &Files,
    options: &ReadOptions,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut sources: Vec<(&str, &[u8])> = Vec::new();
    for name in &options.env_files {
        match files.0.get(name) {
            Some(bytes) => sources.push((name, bytes)),
            None => report.error(&Place::whole(name), "there is no such file of variables"),
        }
    }
    if options.env_files.is_empty() {
        sources.extend(files.0.get(FILE).map(|bytes| (FILE, bytes.as_slice())));
    }
    variables(&sources, &options.env, report)
}

/// The variables of files, each with its name; a later one goes over those before it, and `env` over all.
pub(crate) fn variables(
    sources: &[(&str, &[u8])],
    env: &BTreeMap<String, String>,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut variables = env.clone();
    let mut left_bytes = interpolate::MAX_FILLED_BYTES;
    for (file, bytes) in sources {
        for line in lines(file, bytes, report) {
            let Some(value) = &line.value else {
                report.warn(&line.place, NO_PAIR);
                continue;
            };
            if env.contains_key(&line.key) {
                continue;
            }
            let value = value.filled(&variables, &line.place, report);
            if !interpolate::spend(&mut left_bytes, &value, &line.place, report) {
                return variables;
            }
            variables.insert(line.key, value);
        }
    }
    variables
}

/// Reads the `KEY=VALUE` lines of a file by the same rules; `${VAR}` means what the file itself says before.
///
/// # Errors
/// What is wrong with it, by line; values are in none of the sentences.
pub fn read_env_file(
    file: &str,
    bytes: &[u8],
) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    let mut report = Report::default();
    let mut env = BTreeMap::new();
    if bytes.len() > MAX_FILE_BYTES {
        report.error(&Place::whole(file), "the file is larger than 1 MiB");
    } else {
        add(file, bytes, &BTreeMap::new(), &mut env, &mut report);
        // A name alone takes its value from nowhere here.
        for line in lines(file, bytes, &mut Report::default()) {
            if line.value.is_none() {
                report.error(&line.place, "the line is not KEY=VALUE");
            }
        }
    }
    report
        .finish()
        .and_then(|warnings| match warnings.is_empty() {
            true => Ok(env),
            false => Err(warnings),
        })
}

/// Lays the variables of an `env_file` over `env`. Values are filled in from `known`, and from what the file itself
/// says before; a line without `=` takes its value from `known`, and without one there takes the variable away.
pub(crate) fn add(
    file: &str,
    bytes: &[u8],
    known: &BTreeMap<String, String>,
    env: &mut BTreeMap<String, String>,
    report: &mut Report,
) {
    let mut known = known.clone();
    let mut left_bytes = interpolate::MAX_FILLED_BYTES;
    for line in lines(file, bytes, report) {
        let value = match &line.value {
            Some(value) => Some(value.filled(&known, &line.place, report)),
            None => known.get(&line.key).cloned(),
        };
        let Some(value) = value else {
            env.remove(&line.key);
            continue;
        };
        if !interpolate::spend(&mut left_bytes, &value, &line.place, report) {
            break;
        }
        known
            .entry(line.key.clone())
            .or_insert_with(|| value.clone());
        env.insert(line.key, value);
    }
}

/// Lays the variables of an `env_file` of the format `raw` over `env`: values are what stands after the `=`.
pub(crate) fn add_raw(
    file: &str,
    bytes: &[u8],
    env: &mut BTreeMap<String, String>,
    report: &mut Report,
) {
    if !is_short_enough(file, bytes, report) {
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        let is_comment = line.trim_start().starts_with('#') || line.trim().is_empty();
        match line.split_once('=') {
            _ if is_comment => {}
            Some((key, value)) if !key.trim().is_empty() => {
                env.insert(key.trim().to_owned(), value.to_owned());
            }
            _ => {
                report.warn(&at(file, number), NO_PAIR);
            }
        }
    }
}

/// A line of a file.
struct Line {
    key: String,
    /// `None`: there is no `=`.
    value: Option<Raw>,
    place: Place,
}

/// A value without its quotes and comment.
enum Raw {
    /// It stood in single quotes: it is meant as it is.
    Literal(String),
    /// Its variables are still to be filled in.
    Open(String),
}

impl Raw {
    fn filled(
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
            Err(_) => {
                report.error(
                    place,
                    "the variables in this value cannot be filled in, or make it longer than 1 MiB: a $ that is no variable is written $$, or the value in single quotes",
                );
                text.clone()
            }
        }
    }
}

fn lines(file: &str, bytes: &[u8], report: &mut Report) -> Vec<Line> {
    let mut lines = Vec::new();
    if !is_short_enough(file, bytes, report) {
        return lines;
    }
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut number = 1;
    while !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let (line, after) = rest.split_at(end);
        let place = at(file, number);
        let (line_start, this) = (rest, number);
        rest = after;
        number += 1;
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            let key = line.to_owned();
            lines.push(Line {
                key,
                value: None,
                place,
            });
            continue;
        };
        let key = key.trim_end().to_owned();
        if key.is_empty() {
            report.warn(&place, NO_PAIR);
            continue;
        }
        let value = value.trim();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                // What is in quotes may go over several lines.
                let from = line_start.find('=').map_or(0, |at| at + 1);
                let opened = line_start[from..].trim_start();
                match quoted(&opened[1..], quote) {
                    Some((inner, length)) => {
                        let closed = &opened[1 + length..];
                        let end = closed.find('\n').map_or(closed.len(), |end| end + 1);
                        let used = line_start.len() - closed.len();
                        number = this + 1 + count_lines(&line_start[..used]);
                        rest = &closed[end..];
                        match quote {
                            '"' => Raw::Open(inner),
                            _ => Raw::Literal(inner),
                        }
                    }
                    None => Raw::Open(value.to_owned()),
                }
            }
            _ if value.starts_with('#') => Raw::Open(String::new()),
            _ => match value.find(" #") {
                Some(comment) => Raw::Open(value[..comment].trim_end().to_owned()),
                None => Raw::Open(value.to_owned()),
            },
        };
        let value = Some(value);
        lines.push(Line { key, value, place });
    }
    lines
}

fn count_lines(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

/// What stands before the closing quote, and how long it is with that one. In double quotes `\n`, `\t`, `\r`, `\"` and
/// `\\` are read; in single ones, `\'`.
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
                ('"', c @ ('"' | '\\')) | ('\'', c @ '\'') => inner.push(c),
                (_, c) => inner.extend(['\\', c]),
            },
            (_, c) => inner.push(c),
        }
    }
}

fn is_short_enough(file: &str, bytes: &[u8], report: &mut Report) -> bool {
    let size_bytes = bytes.len();
    if size_bytes > MAX_FILE_BYTES {
        let message =
            format!("is {size_bytes} bytes long; it may have {MAX_FILE_BYTES} (1 MiB) at most");
        report.error(&Place::whole(file), message);
        return false;
    }
    true
}

fn at(file: &str, line: u32) -> Place {
    Place {
        file: file.into(),
        line,
        column: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_quotes_and_comments() {
        let file =
            b"# c\nA=1\nexport B = two words # c\nC='$A'\nD=\"x\\n$A\"\nE=${A}#no\nF=\nwrong\nG='it\\'s' # c\nH=\"a\nb\"\nI=1\nJ='open\n";
        let env = BTreeMap::from([("A".to_owned(), "caller".to_owned())]);
        let mut report = Report::default();
        let variables = variables(&[(".env", file)], &env, &mut report);
        let get = |key: &str| variables.get(key).map(String::as_str);
        assert_eq!(get("A"), Some("caller"), "the caller's environment wins");
        assert_eq!(get("B"), Some("two words"));
        assert_eq!(get("C"), Some("$A"));
        assert_eq!(get("D"), Some("x\ncaller"));
        assert_eq!(get("E"), Some("caller#no"));
        assert_eq!(get("F"), Some(""));
        assert_eq!(get("G"), Some("it's"));
        assert_eq!(get("H"), Some("a\nb"), "over two lines");
        assert_eq!(get("I"), Some("1"));
        assert_eq!(get("J"), Some("'open"));
        let warnings = report.finish().unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            warnings[0].to_string(),
            ".env:8:1: the line is not KEY=VALUE and is ignored"
        );
    }

    #[test]
    fn a_later_file_of_variables_goes_over_one_before() {
        let sources: [(&str, &[u8]); 2] = [("a.env", b"A=1\nB=1\n"), ("b.env", b"B=${A}2\nC=\n")];
        let env = BTreeMap::from([("C".to_owned(), "caller".to_owned())]);
        let mut report = Report::default();
        let variables = variables(&sources, &env, &mut report);
        let all: Vec<_> = variables.values().map(String::as_str).collect();
        assert_eq!(all, ["1", "12", "caller"]);
    }

    #[test]
    fn an_env_file_is_laid_over_what_was_there_before() {
        let known = BTreeMap::from([("A".to_owned(), "caller".to_owned())]);
        let mut env = BTreeMap::from(
            [("B", "before"), ("C", "before")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let mut report = Report::default();
        add(
            "x.env",
            b"A\nB\nC=$A-$D\nD=1\nE=${D}\n",
            &known,
            &mut env,
            &mut report,
        );
        let all: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            all,
            [("A", "caller"), ("C", "caller-"), ("D", "1"), ("E", "1")]
        );
        let warnings = report.finish().unwrap();
        assert_eq!(
            warnings[0].to_string(),
            "x.env:3:1: the variable D is not set: it is taken to be empty"
        );
    }

    #[test]
    fn a_raw_file_is_taken_as_it_is() {
        let mut env = BTreeMap::new();
        let mut report = Report::default();
        add_raw(
            "x.env",
            b"# c\nA=\"$B\" # no\n\nwrong\n",
            &mut env,
            &mut report,
        );
        assert_eq!(env["A"], "\"$B\" # no");
        assert_eq!(report.finish().unwrap().len(), 1);
    }
}
