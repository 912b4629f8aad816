//! The file `.env` beside a Compose file, and the files of `env_file`: `KEY=VALUE` lines (Compose Specification,
//! "Env_file format").

mod line;

use std::collections::BTreeMap;

use crate::compose::interpolate;
use crate::report::Report;
use crate::tree::Place;
use crate::yaml::MAX_FILE_BYTES;
use crate::{Diagnostic, Files, ReadOptions};
use line::{at, is_short_enough, lines};

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

/// What a file of variables says, with `env` over it, whatever else is wrong with the file: for whoever needs to know before
/// it is read as a whole.
pub fn env_file_variables(
    bytes: &[u8],
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    variables(&[("", bytes)], env, &mut Report::default())
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
    match report.finish() {
        Ok(warnings) if warnings.is_empty() => Ok(env),
        Ok(warnings) => Err(warnings),
        Err(faults) => Err(faults.errors),
    }
}

/// Lays the variables of an `env_file` over `env`. Values are filled in from `known`, else from what this file and those
/// before it said last; a name alone takes its value from `known`, and without one there takes the variable away.
pub(crate) fn add(
    file: &str,
    bytes: &[u8],
    known: &BTreeMap<String, String>,
    env: &mut BTreeMap<String, String>,
    report: &mut Report,
) {
    let mut all = env.clone();
    all.extend(known.clone());
    let mut left_bytes = interpolate::MAX_FILLED_BYTES;
    for line in lines(file, bytes, report) {
        let value = match &line.value {
            Some(value) => Some(value.filled(&all, &line.place, report)),
            None => known.get(&line.key).cloned(),
        };
        let Some(value) = value else {
            env.remove(&line.key);
            all.remove(&line.key);
            continue;
        };
        if !interpolate::spend(&mut left_bytes, &value, &line.place, report) {
            break;
        }
        if !known.contains_key(&line.key) {
            all.insert(line.key.clone(), value.clone());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_quotes_and_comments() {
        let file =
            b"# c\nA=1\nexport B = two words # c\nC='$A'\nD=\"x\\n$A\"\nE=${A}#no\nF=\nalone\nG='it\\'s' # c\nH=\"a\nb\"\nI=1\nJ: a: b\nexport\tK=\"\\$A\\\\\"\nL=1\nL=2\nM=$L\r\n";
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
        assert_eq!(get("J"), Some("a: b"), "as in YAML");
        assert_eq!(get("K"), Some("$A\\"), "escaped");
        assert_eq!(get("M"), Some("2"), "the last one counts");
        let warnings = report.finish().unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            warnings[0].to_string(),
            ".env:8:1: the line is not KEY=VALUE and is ignored"
        );
    }

    #[test]
    fn what_is_no_line_of_such_a_file_is_an_error_that_tells_nothing_of_it() {
        for (file, error) in [
            (
                "A B=x",
                "x.env:1:1: the name of a variable has a blank in it: lines are KEY=VALUE",
            ),
            (
                "A=1\ntwo words",
                "x.env:2:1: the name of a variable has a blank in it: lines are KEY=VALUE",
            ),
            (
                "=x",
                "x.env:1:1: there is no name before the \"=\": lines are KEY=VALUE",
            ),
            (
                "A=\"1\n\"\nb64/x==",
                "x.env:3:1: the name of a variable has letters, digits, _ . - [ and ] only: lines are KEY=VALUE",
            ),
            (
                "A='x\nB=1\n",
                "x.env:1:1: the quote that the value begins with is not closed",
            ),
            (
                "A=\"x\\\"\n",
                "x.env:1:1: the quote that the value begins with is not closed",
            ),
            (
                "A='x' y\n",
                "x.env:1:1: only a comment may stand behind the closing quote of a value",
            ),
            (
                "A=1\nB=${C:?set it, not to $A}\n",
                "x.env:2:1: the variable C must be set: set it, not to $A",
            ),
        ] {
            let errors = read_env_file("x.env", file.as_bytes()).unwrap_err();
            assert_eq!(errors.len(), 1, "{file}: {errors:?}");
            assert_eq!(errors[0].to_string(), error, "{file}");
        }
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
        let mut env =
            BTreeMap::from(["B", "C", "F"].map(|name| (name.to_owned(), "before".to_owned())));
        let mut report = Report::default();
        add(
            "x.env",
            b"A\nB\nC=$A-$G\nD=1\nD=2\nE=${D}$F\nA=file\nH=$A\n",
            &known,
            &mut env,
            &mut report,
        );
        let all: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            all,
            [
                ("A", "file"),
                ("C", "caller-"),
                ("D", "2"),
                ("E", "2before"),
                ("F", "before"),
                ("H", "caller")
            ]
        );
        let warnings = report.finish().unwrap();
        assert_eq!(
            warnings[0].to_string(),
            "x.env:3:1: the variable G is not set: it is taken to be empty"
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
