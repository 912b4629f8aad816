//! Builds the test binaries, and runs each: shown as it goes, kept in a log of its own, limited in
//! time, and run once more when it fails (shared machines are noisy).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::output::{Counts, Output};
use super::summary::{Failure, Outcome, Summary};
use crate::command::{CHECKS, cargo, command, read};
use crate::place;

/// How long one test binary may run.
const LIMIT: Duration = Duration::from_secs(900);

/// How long output is still read after a binary has ended: one that left a process behind, which
/// holds the pipe open, must not hold up the suite.
const AFTER_END: Duration = Duration::from_secs(2);

/// One test binary.
#[derive(Debug)]
pub(super) struct TestBinary {
    /// `package/test`, `package (lib)`, `package (bin)`.
    name: String,
    executable: PathBuf,
    /// The package's folder, in which cargo runs tests, too.
    folder: PathBuf,
    /// Whether it has Rust's own test harness, and so takes its options.
    harness: bool,
}

/// A line of `cargo test --message-format=json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Builds all test binaries of the workspace, and with them the programs that they start. All of it
/// by one command: the same crates built for another selection of packages would have other features,
/// and be built a second time.
///
/// # Errors
/// When something does not build.
pub(super) fn build() -> anyhow::Result<Vec<TestBinary>> {
    println!("$ cargo test --workspace --profile {CHECKS} --no-run");
    let messages = read(&mut cargo(&[
        "test",
        "--workspace",
        "--profile",
        CHECKS,
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    let binaries = test_binaries(&messages)?;
    ensure!(!binaries.is_empty(), "cargo built no test binary");
    Ok(binaries)
}

/// Runs all tests of the workspace, documentation included, and adds what came of them.
///
/// # Errors
/// When a binary cannot be started, or its log not written.
pub(super) fn run_all(
    binaries: &[TestBinary],
    filter: Option<&str>,
    programs: &[(&str, PathBuf)],
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let logs = place::target().join("test-logs");
    std::fs::create_dir_all(&logs)
        .with_context(|| format!("cannot make {}", place::shown(&logs)))?;
    for binary in binaries {
        let start = || {
            let mut command = command(&binary.executable);
            command
                .current_dir(&binary.folder)
                .env("CARGO_MANIFEST_DIR", &binary.folder)
                .args(filter);
            command.envs(
                programs
                    .iter()
                    .map(|(variable, program)| (variable, program)),
            );
            if binary.harness {
                // Also what passed tests print: a skipped one says so there.
                command.arg("--show-output");
            }
            command
        };
        summary.add(run_twice(&binary.name, start, &logs)?);
    }
    let documentation = || {
        let mut cargo = cargo(&[
            "test",
            "--workspace",
            "--profile",
            CHECKS,
            "--doc",
            "--no-fail-fast",
        ]);
        cargo.arg("--").args(filter);
        cargo
    };
    summary.add(run_twice("documentation", documentation, &logs)?);
    Ok(())
}

/// Finds the test binaries in what cargo said while it built them.
fn test_binaries(messages: &str) -> anyhow::Result<Vec<TestBinary>> {
    let mut binaries = Vec::new();
    for line in messages.lines() {
        let message: Message =
            serde_json::from_str(line).with_context(|| format!("cargo said {line:?}"))?;
        let (Some(target), Some(Profile { test: true }), Some(executable)) =
            (message.target, message.profile, message.executable)
        else {
            continue;
        };
        if message.reason != "compiler-artifact" {
            continue;
        }
        let manifest = std::fs::read_to_string(&message.manifest_path)
            .with_context(|| format!("cannot read {}", place::shown(&message.manifest_path)))?;
        let manifest: toml::Table = toml::from_str(&manifest)?;
        let folder = message.manifest_path.parent().map(Path::to_path_buf);
        binaries.push(TestBinary {
            name: shown_name(package_name(&manifest), &target),
            executable,
            folder: folder.unwrap_or_default(),
            harness: has_harness(&manifest, &target.name),
        });
    }
    binaries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(binaries)
}

fn package_name(manifest: &toml::Table) -> &str {
    let name = manifest.get("package").and_then(|table| table.get("name"));
    name.and_then(toml::Value::as_str).unwrap_or("?")
}

/// A package has one library, and mostly one binary of its own name: those are told apart by kind.
fn shown_name(package: &str, target: &Target) -> String {
    match target.kind.first().map(String::as_str) {
        Some("test") => format!("{package}/{}", target.name),
        Some(kind) if target.name.replace('-', "_") == package.replace('-', "_") => {
            format!("{package} ({kind})")
        }
        kind => format!("{package}/{} ({})", target.name, kind.unwrap_or("?")),
    }
}

/// Whether no `[[test]]` (or `[[bench]]`) of that name says `harness = false`.
fn has_harness(manifest: &toml::Table, target: &str) -> bool {
    let tables = ["test", "bench"].map(|kind| manifest.get(kind).and_then(toml::Value::as_array));
    !tables.into_iter().flatten().flatten().any(|table| {
        table.get("name").and_then(toml::Value::as_str) == Some(target)
            && table.get("harness").and_then(toml::Value::as_bool) == Some(false)
    })
}

/// Runs one test binary, and once more if it fails. What passes then was flaky; the second run counts.
fn run_twice(name: &str, start: impl Fn() -> Command, logs: &Path) -> anyhow::Result<Outcome> {
    let file = name.replace(['/', ' '], "-").replace(['(', ')'], "");
    let path = logs.join(format!("{file}.log"));
    let mut log =
        File::create(&path).with_context(|| format!("cannot write {}", place::shown(&path)))?;
    println!("\n== {name}");
    let mut counts = execute(start(), &mut log)?;
    let mut flaky = Vec::new();
    if !counts.failed.is_empty() {
        println!("== {name}: failed, and is run once more");
        let first = std::mem::replace(&mut counts, execute(start(), &mut log)?);
        flaky = first.failed;
        flaky.retain(|test| !counts.failed.contains(test));
    }
    let of_binary = |test: String| format!("{name}: {test}");
    let see = place::shown(&path);
    Ok(Outcome {
        passed: counts.passed,
        skipped: counts.skipped,
        reasons: counts.reasons.into_iter().map(of_binary).collect(),
        failed: counts
            .failed
            .into_iter()
            .map(|test| Failure {
                name: of_binary(test),
                see: see.clone(),
            })
            .collect(),
        flaky: flaky.into_iter().map(of_binary).collect(),
    })
}

/// Runs a command to its end: each line goes to the log, and, if worth showing, to the screen.
fn execute(mut command: Command, log: &mut File) -> anyhow::Result<Counts> {
    let (reader, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let program = command.get_program().to_owned();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    // The command holds the pipe's writing end, too: as long as it lives, the reader sees no end.
    drop(command);
    let (sender, lines) = sync_channel(1024);
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut output = Output::default();
    let status = follow(&mut child, &lines, |line| {
        writeln!(log, "{line}")?;
        if output.take(line) {
            println!("{line}");
        }
        Ok(())
    })?;
    Ok(output.counts(status.success()))
}

/// Hands on the lines until the child has ended and its output, too; kills it at the limit.
fn follow(
    child: &mut Child,
    lines: &Receiver<Vec<u8>>,
    mut take: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitStatus> {
    let begun = Instant::now();
    let mut ended: Option<Instant> = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => take(&String::from_utf8_lossy(&line))?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|at| at.elapsed() > AFTER_END) {
            take("(something that this test started still holds its output open)")?;
            break;
        }
        if ended.is_none() && begun.elapsed() > LIMIT {
            take(&format!("killed: it ran for over {} s", LIMIT.as_secs()))?;
            child.kill()?;
            ended = Some(Instant::now());
        }
    }
    Ok(child.wait()?)
}

#[cfg(test)]
mod tests {
    use super::{execute, has_harness, run_twice, test_binaries};
    use crate::command::command;

    /// A folder of this test's own, removed when it is dropped.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = format!("layby-xtask-{}-{name}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn shell(script: &str) -> std::process::Command {
        let mut shell = command("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn a_test_without_harness_is_known_by_its_manifest() {
        let manifest = "[[test]]\nname = \"contract\"\nharness = false\n[[test]]\nname = \"other\"";
        let manifest: toml::Table = toml::from_str(manifest).unwrap();
        assert!(!has_harness(&manifest, "contract"));
        assert!(has_harness(&manifest, "other"));
        assert!(has_harness(&manifest, "layby_engine"));
    }

    #[test]
    fn test_binaries_are_found_among_all_that_cargo_says() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let artifact = |name: &str, test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": manifest,
                "target": {"name": name, "kind": ["bin"]}, "profile": {"test": test}, "executable": "/x/y",
            })
            .to_string()
        };
        let messages = [
            artifact("xtask", false),
            artifact("xtask", true),
            "{\"reason\": \"build-finished\", \"success\": true}".to_owned(),
        ];
        let binaries = test_binaries(&messages.join("\n")).unwrap();
        assert_eq!(binaries.len(), 1);
        assert_eq!(binaries[0].name, "xtask (bin)");
        assert!(binaries[0].harness);
    }

    #[test]
    fn what_passes_on_its_second_run_is_flaky_and_not_failed() {
        let folder = Folder::new("flaky");
        let mark = folder.0.join("mark").display().to_string();
        let script = format!(
            "if [ -e {mark} ]; then echo 'test result: ok. 1 passed; 0 failed; 0 ignored'; \
             else touch {mark}; echo 'test it ... FAILED'; exit 101; fi"
        );
        let outcome = run_twice("net (lib)", || shell(&script), &folder.0).unwrap();
        assert_eq!(outcome.flaky, ["net (lib): it"]);
        assert!(outcome.failed.is_empty());
        assert_eq!(outcome.passed, 1);
        let log = std::fs::read_to_string(folder.0.join("net-lib.log")).unwrap();
        assert!(
            log.starts_with("test it ... FAILED\ntest result: ok."),
            "{log}"
        );
    }

    #[test]
    fn a_process_left_behind_does_not_hold_up_the_suite() {
        let folder = Folder::new("left");
        let mut log = std::fs::File::create(folder.0.join("log")).unwrap();
        // The shell's child outlives it and keeps its output open, until it is ended here.
        let pid = folder.0.join("pid");
        let script = format!(
            "sleep 600 & echo $! > {}; echo 'test result: ok. 1 passed; 0 failed'",
            pid.display()
        );
        let counts = execute(shell(&script), &mut log).unwrap();
        assert_eq!(counts.passed, 1);
        let pid = std::fs::read_to_string(pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
}
