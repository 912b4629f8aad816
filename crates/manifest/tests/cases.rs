//! Reads every folder of `tests/cases` as a manifest and compares what comes of it with `expected.txt`.
//!
//! A case may hold an `args.txt`, one option a line: `-f FILE`, `--app NAME`, `--profile NAME`, `folder NAME` (the
//! manifest's folder; otherwise `demo`, in `/srv`), `service NAME`, `no-deps`, `scale NAME=N`, `env KEY=VALUE`, `include PATH` (a file of this repository
//! that is read as if it lay in the case), `far` (the folder is not on the node's machine) and `pending` (files that
//! the manifest names are not sent yet; otherwise they are those of the case). `UPDATE_EXPECTED=1 cargo test -p layby-manifest` writes what
//! came out: read the diff.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use layby_manifest::{Files, ReadOptions, read};
use serde_json::Value;

#[test]
fn every_case_reads_as_its_expected_file_says() {
    let cases = cases();
    assert!(cases.len() >= 40, "only {} cases were found", cases.len());
    let update = env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for case in cases {
        let (files, options) = load(&case);
        let shown = show(&files, &options);
        let expected = case.join("expected.txt");
        if update {
            fs::write(&expected, &shown).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != shown {
            wrong.push(format!("--- {} reads as\n{shown}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_example_is_read_without_a_warning() {
    let case = root().join("crates/manifest/tests/cases/kubernetes-example-mnist");
    let (files, options) = load(&case);
    let manifest = read(&files, &options).unwrap();
    assert_eq!(manifest.warnings, []);
}

#[test]
fn the_example_of_a_stack_is_read_without_a_warning_and_scaled_from_none_to_four() {
    let text = fs::read(root().join("examples/labels/compose.yaml")).unwrap();
    let files = Files([("compose.yaml".to_owned(), text)].into());
    let options = ReadOptions {
        folder: "labels".to_owned(),
        folder_path: Some("/srv/labels".to_owned()),
        named_files: Some(files.0.clone()),
        ..ReadOptions::default()
    };
    let manifest = read(&files, &options).unwrap();
    assert_eq!(manifest.warnings, []);
    let service = |name: &str| {
        let services = &manifest.app.services;
        services
            .iter()
            .find(|one| one.name.as_str() == name)
            .unwrap()
    };
    let scale = service("mapi").autoscale.as_ref().unwrap();
    assert_eq!((scale.min, scale.max, scale.concurrency), (0, 4, Some(1)));
    // It has a queue to work through.
    let sleep = service("webapp").sleep;
    assert_eq!((sleep.doze_after_ms, sleep.sleep_after_ms), (None, None));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

fn load(case: &Path) -> (Files, ReadOptions) {
    let mut files = Files::default();
    for entry in fs::read_dir(case).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name != "args.txt" && name != "expected.txt" {
            files.0.insert(name, fs::read(&path).unwrap());
        }
    }
    let mut options = ReadOptions {
        folder: "demo".to_owned(),
        folder_path: Some("/srv/demo".to_owned()),
        named_files: Some(files.0.clone()),
        ..ReadOptions::default()
    };
    let args = fs::read_to_string(case.join("args.txt")).unwrap_or_default();
    for line in args.lines() {
        let (option, value) = line.split_once(' ').unwrap_or((line, ""));
        match option {
            "-f" => options.files.push(value.to_owned()),
            "--app" => options.app = Some(value.to_owned()),
            "folder" => options.folder = value.to_owned(),
            "env" => {
                let (key, value) = value.split_once('=').unwrap();
                options.env.insert(key.to_owned(), value.to_owned());
            }
            "--profile" => options.profiles.push(value.to_owned()),
            "service" => options.services.push(value.to_owned()),
            "no-deps" => options.no_deps = true,
            "scale" => {
                let (name, number) = value.split_once('=').unwrap();
                options
                    .scale
                    .insert(name.to_owned(), number.parse().unwrap());
            }
            "far" => options.folder_path = None,
            "pending" => options.named_files = None,
            "include" => {
                let name = value.rsplit('/').next().unwrap().to_owned();
                files.0.insert(name, fs::read(root().join(value)).unwrap());
            }
            _ => panic!("{}: unknown option {option}", case.display()),
        }
    }
    (files, options)
}

/// What was read, as text: the diagnostics, then the app without what is empty or not said.
fn show(files: &Files, options: &ReadOptions) -> String {
    let mut shown = String::new();
    match read(files, options) {
        Ok(manifest) => {
            for warning in &manifest.warnings {
                writeln!(shown, "warning: {warning}").unwrap();
            }
            writeln!(shown, "files: {}", manifest.files.join(" ")).unwrap();
            if !manifest.named_files.is_empty() {
                writeln!(shown, "named: {}", manifest.named_files.join(" ")).unwrap();
            }
            if !manifest.others.is_empty() {
                let others: Vec<&str> = manifest.others.iter().map(|name| name.as_str()).collect();
                writeln!(shown, "others: {}", others.join(" ")).unwrap();
            }
            for watch in &manifest.watches {
                for rule in &watch.rules {
                    writeln!(shown, "watch {}: {rule:?}", watch.service).unwrap();
                }
            }
            for value in &manifest.values {
                let (kind, name, value) = (value.kind, &value.name, &value.value);
                writeln!(shown, "{kind:?} {name}: {value:?}").unwrap();
            }
            yaml(&serde_json::to_value(&manifest.app).unwrap(), 0, &mut shown);
        }
        Err(faults) => {
            assert!(!faults.errors.is_empty(), "refused without a reason");
            for error in &faults.errors {
                writeln!(shown, "error: {error}").unwrap();
            }
            for warning in &faults.warnings {
                writeln!(shown, "warning: {warning}").unwrap();
            }
        }
    }
    shown
}

fn yaml(value: &Value, indent: usize, out: &mut String) {
    let Value::Object(map) = value else {
        unreachable!("only maps are shown")
    };
    for (key, value) in map {
        let pad = " ".repeat(indent);
        match value {
            value if is_usual(key, value) => {}
            Value::Object(_) => {
                writeln!(out, "{pad}{key}:").unwrap();
                yaml(value, indent + 2, out);
            }
            Value::Array(items) if items.iter().all(Value::is_object) => {
                for item in items {
                    writeln!(out, "{pad}{key}:").unwrap();
                    yaml(item, indent + 2, out);
                }
            }
            value => writeln!(out, "{pad}{key}: {value}").unwrap(),
        }
    }
}

/// Whether a value is empty, or what holds where nothing is said.
fn is_usual(key: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(_) if key == "restart" => false,
        Value::Object(map) => map.iter().all(|(key, value)| is_usual(key, value)),
        Value::String(text) => matches!(
            (key, text.as_str()),
            ("pull", "missing") | ("restart", "always")
        ),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
