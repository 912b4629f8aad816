//! A corpus of Compose files: each comes to one normal form, which is read as the same app, and which other programs agree
//! with. What they say is written down in `corpus/oracles` (`corpus/oracles.py` asks them).
//!
//! `UPDATE_EXPECTED=1 cargo test -p layby-manifest --test corpus` writes the normal forms anew (`corpus/normal.txt`): read the diff.

#[path = "corpus/converted.rs"]
mod converted;
#[path = "corpus/differences.rs"]
mod differences;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use differences::{DIFFERENCES, REMARKS, UNKNOWN_KEYS};
use layby_manifest::{Config, ConfigOptions, Files, ReadOptions, config, needed, read};
use serde_json::Value;

/// The variables of whoever calls.
const VARIABLES: [(&str, &str); 6] = [
    ("SET", "set"),
    ("EMPTY", ""),
    ("YES", "true"),
    ("TWO", "2"),
    ("HALF", "0.5"),
    ("HOME", "/home/me"),
];

struct Case {
    name: String,
    files: Files,
    options: ReadOptions,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

fn options() -> ReadOptions {
    let env = VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ReadOptions {
        app: Some("demo".to_owned()),
        folder: "demo".to_owned(),
        folder_path: Some("/srv/demo".to_owned()),
        env: env.into(),
        ..ReadOptions::default()
    }
}

/// All cases: files that stand alone, and folders. What a case names is taken from its folder as it is asked for, as the
/// command line does it.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let files = sorted(&root().join("files")).into_iter();
    for file in files.filter(|file| file.extension().is_some_and(|ending| ending == "yaml")) {
        let chosen = file.file_name().unwrap().to_str().unwrap().to_owned();
        let mut case = Case {
            name: name(&file),
            files: Files([(chosen.clone(), fs::read(&file).unwrap())].into()),
            options: options(),
        };
        case.options.files.push(chosen);
        complete(&mut case, file.parent().unwrap());
        cases.push(case);
    }
    for folder in sorted(&root().join("folders")) {
        let mut case = Case {
            name: name(&folder),
            files: Files::default(),
            options: options(),
        };
        for file in sorted(&folder).into_iter().filter(|file| file.is_file()) {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            case.files.0.insert(name, fs::read(&file).unwrap());
        }
        let args = case.files.0.remove("args").unwrap_or_default();
        for line in String::from_utf8(args).unwrap().lines() {
            match line.split_once(' ').unwrap() {
                ("-f", file) => case.options.files.push(file.to_owned()),
                ("--env-file", file) => case.options.env_files.push(file.to_owned()),
                ("--profile", name) => case.options.profiles.push(name.to_owned()),
                other => panic!("{}: unknown option {other:?}", case.name),
            }
        }
        complete(&mut case, &folder);
        cases.push(case);
    }
    cases
}

fn complete(case: &mut Case, folder: &Path) {
    loop {
        let mut more = needed(&case.files, &case.options);
        if more.is_empty() {
            let made = config(&case.files, &case.options, ConfigOptions::default());
            more = made.map(|made| made.more).unwrap_or_default();
        }
        if more.is_empty() {
            break;
        }
        for path in more {
            match fs::read(folder.join(&path)) {
                Ok(bytes) => drop(case.files.0.insert(path, bytes)),
                Err(_) => drop(case.options.absent.insert(path)),
            }
        }
    }
    case.options.named_files = Some(case.files.0.clone());
    // Files that are read only when it is deployed.
    let named = ["./token", "./site.conf", "./spec.json", "./key", "b/c.conf"];
    for path in named {
        let there = fs::read(folder.join(path)).unwrap_or_default();
        let files = case.options.named_files.as_mut().unwrap();
        files.insert(path.to_owned(), there.clone());
        files.insert(
            format!("/srv/demo/{}", path.trim_start_matches("./")),
            there,
        );
    }
}

fn made(files: &Files, options: &ReadOptions, json: bool) -> Result<Config, String> {
    let how = ConfigOptions {
        json,
        ..ConfigOptions::default()
    };
    config(files, options, how).map_err(|faults| faults.to_string())
}

/// The normal form of a text that stands alone.
fn again(text: &str, json: bool) -> Result<Config, String> {
    let files = Files([("compose.yaml".to_owned(), text.as_bytes().to_vec())].into());
    let mut options = options();
    options.env = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
    options.profiles = vec!["*".to_owned()];
    made(&files, &options, json)
}

/// The normal form of what another program made of a case; it may still name files.
fn of_others(case: &Case, text: &str) -> Result<Config, String> {
    let mut files = case.files.clone();
    let aside = "theirs.yaml".to_owned();
    files.0.insert(aside.clone(), text.as_bytes().to_vec());
    let options = ReadOptions {
        files: vec![aside],
        profiles: vec!["*".to_owned()],
        ..case.options.clone()
    };
    let made = made(&files, &options, true)?;
    match made.more.is_empty() {
        true => Ok(made),
        false => Err(format!("it names {:?}", made.more)),
    }
}

fn sections(file: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    let mut parts = BTreeMap::new();
    for part in text.split("=== ").skip(1) {
        let (name, body) = part.split_once('\n').unwrap();
        parts.insert(name.to_owned(), body.to_owned());
    }
    parts
}

#[test]
fn every_file_has_one_normal_form_that_is_the_normal_form_of_itself() {
    let cases = cases();
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let mut all = String::new();
    for case in &cases {
        let name = &case.name;
        let form = made(&case.files, &case.options, false);
        let form = form.unwrap_or_else(|errors| panic!("{name}: {errors}"));
        let once_more = again(&form.text, false)
            .unwrap_or_else(|errors| panic!("{name}: {errors}\n{}", form.text));
        assert_eq!(form.text, once_more.text, "{name}");
        let json = made(&case.files, &case.options, true).unwrap();
        serde_json::from_str::<Value>(&json.text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            again(&json.text, false).unwrap().text,
            form.text,
            "{name} as JSON"
        );
        write!(all, "=== {name}\n{}", form.text).unwrap();
    }
    let file = root().join("normal.txt");
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&file, &all).unwrap();
    }
    let expected = sections("normal.txt");
    for part in all.split("=== ").skip(1) {
        let (name, body) = part.split_once('\n').unwrap();
        assert_eq!(expected.get(name).map(String::as_str), Some(body), "{name}");
    }
}

/// What is deployed, without what differs by how it was written only.
fn deployed(files: &Files, options: &ReadOptions) -> Result<Value, BTreeSet<String>> {
    match read(files, options) {
        Ok(manifest) => {
            let mut app = serde_json::to_value(&manifest.app).unwrap();
            for service in app["services"].as_array_mut().unwrap() {
                let build = &mut service["containers"][0]["build"];
                absolute(&mut build["context"]);
                let contexts = build["contexts"].as_object_mut().into_iter().flatten();
                contexts.for_each(|(_, folder)| absolute(folder));
                let secrets = build["secrets"].as_array_mut().into_iter().flatten();
                secrets.for_each(|secret| absolute(&mut secret["file"]));
                if build["dockerfile"] == "Dockerfile" {
                    build["dockerfile"] = Value::Null;
                }
                let needs = service["depends_on"].as_array_mut().unwrap();
                needs.sort_by_key(|need| need["service"].to_string());
            }
            let services = app["services"].as_array_mut().unwrap();
            services.sort_by_key(|service| service["name"].as_str().unwrap().to_owned());
            Ok(app)
        }
        Err(faults) => Err((faults.errors.into_iter())
            .map(|error| error.message)
            .collect()),
    }
}

fn absolute(folder: &mut Value) {
    let Some(text) = folder
        .as_str()
        .filter(|text| !text.starts_with('/') && !text.contains("://"))
    else {
        return;
    };
    let below = text.trim_start_matches("./").trim_start_matches('.');
    *folder = format!("/srv/demo/{below}").trim_end_matches('/').into();
}

#[test]
fn a_normal_form_is_deployed_as_what_it_was_made_of() {
    let mut wrong = Vec::new();
    for case in cases() {
        let form = made(&case.files, &case.options, false).unwrap();
        let files = Files([("compose.yaml".to_owned(), form.text.clone().into_bytes())].into());
        let mut again = ReadOptions {
            profiles: vec!["*".to_owned()],
            named_files: case.options.named_files.clone(),
            ..options()
        };
        again.env = BTreeMap::from(VARIABLES.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let (one, other) = (
            deployed(&case.files, &case.options),
            deployed(&files, &again),
        );
        match (one, other) {
            (Ok(one), Ok(other)) => {
                let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
                flat(&one, "", &mut ours);
                flat(&other, "", &mut theirs);
                let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
                for path in paths
                    .into_iter()
                    .filter(|path| ours.get(*path) != theirs.get(*path))
                {
                    let (one, other) = (ours.get(path), theirs.get(path));
                    wrong.push(format!("{}: {path}: {one:?}, again {other:?}", case.name));
                }
            }
            // The words name the lines' values, which may be written otherwise.
            (Err(_), Err(_)) => {}
            (one, other) => {
                let errors = one.err().or(other.err());
                wrong.push(format!("{}: only one is taken: {errors:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every value of a document by its path.
fn flat(value: &Value, path: &str, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                flat(value, &format!("{path}.{key}"), all);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                flat(value, &format!("{path}[{index}]"), all);
            }
        }
        value => drop(all.insert(path.trim_start_matches('.').to_owned(), value.to_string())),
    }
}

fn values(config: &Config) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    flat(&serde_json::from_str(&config.text).unwrap(), "", &mut all);
    all
}

/// Whether `path` is what a pattern says: `*` stands for anything.
fn fits(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    for (at, part) in parts.iter().enumerate() {
        if at + 1 == parts.len() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(found) => rest = &rest[found + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[test]
fn others_understand_the_files_as_we_do() {
    let cases = cases();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for program in ["docker-compose", "podman-compose"] {
        let said = sections(&format!("oracles/{program}.txt"));
        let mut agreed = 0;
        for case in &cases {
            let name = &case.name;
            let Some(text) = said.get(name) else {
                wrong.push(format!("{program} was not asked for {name}"));
                continue;
            };
            if text.starts_with("refused:") {
                continue;
            }
            let ours = values(&made(&case.files, &case.options, true).unwrap());
            let theirs = match of_others(case, text) {
                Ok(config) => values(&config),
                Err(errors) => {
                    let known = DIFFERENCES.iter().position(|known| {
                        known.path == "*" && fits(known.program, program) && fits(known.case, name)
                    });
                    match known {
                        Some(known) => drop(used.insert(known)),
                        None => wrong.push(format!("{program}, {name}: {errors}")),
                    }
                    continue;
                }
            };
            agreed += 1;
            let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for path in paths {
                if ours.get(path) == theirs.get(path) {
                    continue;
                }
                let known = DIFFERENCES.iter().position(|known| {
                    fits(known.program, program) && fits(known.case, name) && fits(known.path, path)
                });
                match known {
                    Some(known) => drop(used.insert(known)),
                    None => wrong.push(format!(
                        "{program}, {name}, {path}: ours {:?}, theirs {:?}",
                        ours.get(path),
                        theirs.get(path)
                    )),
                }
            }
        }
        assert!(agreed >= 60, "{program} understood only {agreed} files");
    }
    for (index, known) in DIFFERENCES.iter().enumerate() {
        assert!(!known.reason.is_empty());
        if !used.contains(&index) {
            wrong.push(format!("no difference any more: {known:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_schema_and_a_linter_take_what_is_written_and_its_normal_form() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for program in ["schema", "compose-lens"] {
        let said = sections(&format!("oracles/{program}.txt"));
        for case in cases() {
            let Some(said) = said.get(&case.name) else {
                wrong.push(format!("{program} was not asked for {}", case.name));
                continue;
            };
            for line in said.lines() {
                let known = REMARKS.iter().position(|known| {
                    known.program == program
                        && fits(known.case, &case.name)
                        && fits(known.path, line)
                });
                match known {
                    Some(known) => drop(used.insert(known)),
                    None => wrong.push(format!("{program}, {}: {line}", case.name)),
                }
            }
        }
    }
    for (index, known) in REMARKS.iter().enumerate() {
        if !used.contains(&index) {
            wrong.push(format!("not said any more: {known:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_corpus_has_every_key_of_the_specification() {
    let mut there = BTreeSet::new();
    for case in cases() {
        let form = made(&case.files, &case.options, true).unwrap();
        shapes(&serde_json::from_str(&form.text).unwrap(), "", &mut there);
    }
    let keys = fs::read_to_string(root().join("oracles/keys.txt")).unwrap();
    let missing: Vec<&str> = keys
        .lines()
        .filter(|key| !UNKNOWN_KEYS.iter().any(|(known, _)| fits(known, key)))
        .filter(|key| !there.iter().any(|path| same_shape(key, path)))
        .collect();
    assert!(missing.is_empty(), "no file has: {missing:#?}");
}

/// The paths of all keys, with `[]` for items.
fn shapes(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}{}", key.replace('.', "_"));
                all.insert(path.clone());
                shapes(value, &format!("{path}."), all);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| shapes(item, &format!("{path}[]."), all)),
        _ => {}
    }
}

fn same_shape(key: &str, path: &str) -> bool {
    let (key, path): (Vec<&str>, Vec<&str>) = (key.split('.').collect(), path.split('.').collect());
    key.len() == path.len()
        && key
            .iter()
            .zip(path)
            .all(|(one, other)| *one == "*" || *one == other)
}
