//! The file `.env` beside a Compose file: `KEY=VALUE` lines.

use std::collections::BTreeMap;

use crate::compose::interpolate;
use crate::report::Report;
use crate::tree::{Place, cut};
use crate::yaml::MAX_FILE_BYTES;

/// The file's name.
pub(crate) const FILE: &str = ".env";

/// The variables of `bytes`, with those of `env` over them.
pub(crate) fn variables(
    bytes: Option<&[u8]>,
    env: &BTreeMap<String, String>,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut variables = env.clone();
    let size_bytes = bytes.map_or(0, <[u8]>::len);
    if size_bytes > MAX_FILE_BYTES {
        let message =
            format!("is {size_bytes} bytes long; it may have {MAX_FILE_BYTES} (1 MiB) at most");
        report.error(&Place::whole(FILE), message);
        return variables;
    }
    let mut left_bytes = interpolate::MAX_FILLED_BYTES;
    let text = String::from_utf8_lossy(bytes.unwrap_or_default());
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        let place = Place {
            file: FILE.into(),
            line: number,
            column: 1,
        };
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            let message = format!("{:?} is not KEY=VALUE and is ignored", cut(line));
            report.warn(&place, message);
            continue;
        };
        let key = key.trim_end();
        if env.contains_key(key) {
            continue;
        }
        let value = unquoted(value.trim(), &variables, &place, report);
        if !interpolate::spend(&mut left_bytes, &value, &place, report) {
            break;
        }
        variables.insert(key.to_owned(), value);
    }
    variables
}

/// A value without its quotes and comment. Variables are filled in unless it is in single quotes.
fn unquoted(
    value: &str,
    known: &BTreeMap<String, String>,
    place: &Place,
    report: &mut Report,
) -> String {
    if let Some(rest) = value.strip_prefix('\'')
        && let Some((inner, _)) = rest.split_once('\'')
    {
        return inner.to_owned();
    }
    let inner = match value.strip_prefix('"').and_then(double_quoted) {
        Some(inner) => inner,
        None => match value.find(" #") {
            Some(comment) => value[..comment].trim_end().to_owned(),
            None => value.to_owned(),
        },
    };
    match interpolate::expand(&inner, known) {
        Ok(expanded) => {
            interpolate::warn_unset(place, &expanded.unset, report);
            expanded.text
        }
        Err(message) => {
            report.error(place, message);
            inner
        }
    }
}

/// What stands before the closing `"`, with `\n`, `\t`, `\"` and `\\` read.
fn double_quoted(text: &str) -> Option<String> {
    let mut inner = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some(inner),
            '\\' => match chars.next()? {
                'n' => inner.push('\n'),
                't' => inner.push('\t'),
                'r' => inner.push('\r'),
                c @ ('"' | '\\') => inner.push(c),
                c => inner.extend(['\\', c]),
            },
            c => inner.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_quotes_and_comments() {
        let file =
            b"# c\nA=1\nexport B = two words # c\nC='$A'\nD=\"x\\n$A\"\nE=${A}#no\nF=\nwrong\n";
        let env = BTreeMap::from([("A".to_owned(), "caller".to_owned())]);
        let mut report = Report::default();
        let variables = variables(Some(file), &env, &mut report);
        let get = |key: &str| variables.get(key).map(String::as_str);
        assert_eq!(get("A"), Some("caller"), "the caller's environment wins");
        assert_eq!(get("B"), Some("two words"));
        assert_eq!(get("C"), Some("$A"));
        assert_eq!(get("D"), Some("x\ncaller"));
        assert_eq!(get("E"), Some("caller#no"));
        assert_eq!(get("F"), Some(""));
        let warnings = report.finish().unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            warnings[0].to_string(),
            ".env:8:1: \"wrong\" is not KEY=VALUE and is ignored"
        );
    }
}
