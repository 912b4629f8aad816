//! `cargo xtask test`: everything that CI runs, with one summary at the end.
//!
//! Each check and each test binary ends in an [`Outcome`]; [`summary`] adds them up. The test
//! binaries are built by cargo and run from here, one after the other ([`run`]), so that each has a
//! log of its own, a limit of its own, and a second run when it fails.

mod output;
mod run;
mod summary;
mod tools;

use std::time::Instant;

use crate::command::{self, cargo};
use crate::suite::summary::{Outcome, Summary};
use crate::{example, labels, place, setup, tidy};

/// What tests measure Layby's answers against, and why. Sorted by name.
const PEERS: &[(&str, &str)] = &[
    ("bind9-dnsutils", "the tests ask the name server with `dig`"),
    (
        "buildah",
        "builds what the builder builds; pushes to the registry and pulls from it",
    ),
    (
        "busybox-static",
        "the shell of the Dockerfiles that both build",
    ),
    ("bzip2", "makes what ADD unpacks"),
    ("docker.io", "pushes to the registry and pulls from it"),
    (
        "docker-registry",
        "the registry that images are pulled from and pushed to",
    ),
    (
        "openssh-client",
        "the SSH agent that builds are lent, and what asks it in them",
    ),
    ("podman", "pushes to the registry and pulls from it"),
    (
        "python3-venv",
        "what schemathesis and kubernetes-validate are installed into",
    ),
    ("skopeo", "pushes to the registry and pulls from it"),
    ("xz-utils", "makes what ADD unpacks"),
];

/// Runs all checks and tests, or, with a filter, the tests whose names contain it.
///
/// # Errors
/// When this is not root, or anything failed; the summary has then said what.
pub(crate) fn test(filter: Option<&str>) -> anyhow::Result<()> {
    setup::require_root("cargo xtask test")?;
    let begun = Instant::now();
    setup::setup()?;
    setup::install(PEERS)?;
    let mut summary = Summary::default();
    if filter.is_none() {
        summary.add(check("format", || {
            command::run(&mut cargo(&["fmt", "--all", "--check"]))
        }));
        summary.add(check("tidy", tidy::tidy));
    }
    // What cannot be built cannot be tested, but the lint behind it still tells something.
    let mut binaries = Vec::new();
    summary.add(check("build", || {
        binaries = run::build()?;
        // The whole-binary tests deploy it.
        example::put_into_place("mnist", command::CHECKS)
    }));
    let mut programs = Vec::new();
    summary.add(check("tools", || {
        programs = tools::of_python()?;
        Ok(())
    }));
    if !binaries.is_empty() {
        run::run_all(&binaries, filter, &programs, &mut summary)?;
    }
    if filter.is_none() {
        summary.add(check("lint", lint));
    }
    println!("\n{}", summary.text(begun.elapsed()));
    if summary.is_good() {
        return Ok(());
    }
    // The last line says it all; an error message behind it would only hide it.
    std::process::exit(1);
}

/// What the examples' heavy tests need, and why. Sorted by name.
const FOR_EXAMPLES: &[(&str, &str)] = &[
    ("chromium", "opens the pages of examples/labels"),
    ("chromium-driver", "lets a test drive it"),
    ("docker-compose", "runs its compose.yaml as well"),
    ("docker.io", "has the containers that docker-compose runs"),
    (
        "fonts-dejavu-core",
        "what labels are drawn with, so that the truth is at hand",
    ),
    ("tesseract-ocr", "reads them"),
];

/// Runs the tests of the examples that CI leaves out, because they take minutes and large packages.
///
/// # Errors
/// When this is not root and packages are missing, or a test failed.
pub(crate) fn test_examples(filter: Option<&str>) -> anyhow::Result<()> {
    setup::setup()?;
    setup::install(FOR_EXAMPLES)?;
    command::run(&mut cargo(&[
        "build",
        "--workspace",
        "--profile",
        command::CHECKS,
        "--bin",
        "labels",
        "--bin",
        "layby",
    ]))?;
    labels::put_into_place(command::CHECKS)?;
    let mut test = cargo(&["test", "--workspace", "--test", "all", "--profile"]);
    test.args([command::CHECKS, "--"]);
    let layby = place::target().join(command::CHECKS).join("layby");
    test.env("LABELS_LAYBY", layby);
    test.args(["--ignored", "--nocapture", "--test-threads=1"])
        .args(filter);
    command::run(&mut test)
}

/// Lints all targets with clippy; a warning fails.
///
/// # Errors
/// When there is a warning.
pub(crate) fn lint() -> anyhow::Result<()> {
    command::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--profile",
        command::CHECKS,
        "--",
        "--deny=warnings",
    ]))
}

/// Runs one check and turns its result into an outcome.
fn check(name: &str, check: impl FnOnce() -> anyhow::Result<()>) -> Outcome {
    println!("\n== {name}");
    let begun = Instant::now();
    let result = check();
    let seconds = begun.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            println!("== {name}: ok, {seconds:.1} s");
            Outcome::of_check(name, None)
        }
        Err(error) => {
            println!("== {name}: FAILED, {seconds:.1} s: {error:#}");
            Outcome::of_check(name, Some(format!("{error:#}")))
        }
    }
}
