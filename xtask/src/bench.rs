//! `cargo xtask bench`: every figure of SPECIFICATION.md, measured on this machine, side by side with peers.

use std::path::Path;

use anyhow::Result;

use crate::command::{cargo, command, run};
use crate::{dist, example, place, setup};

/// What is measured beside Layby, and where it comes from.
const PEERS: [(&str, &str); 2] = [
    (
        "docker.io",
        "Docker's own start and unpause of the same image",
    ),
    ("nginx-light", "the gateway's peer"),
];

/// Measures and prints.
///
/// # Errors
/// Not root (said before anything is done), or the first step that failed.
pub(crate) fn bench(runs: u32, idle_seconds: u32) -> Result<()> {
    setup::require_root("cargo xtask bench")?;
    setup::setup()?;
    setup::install(&PEERS)?;
    dist::dist()?;
    example::example("mnist")?;
    run(&mut cargo(&[
        "build",
        "--profile",
        "dist",
        "--package",
        "layby-bench",
    ]))?;
    let built = place::target().join("dist");
    let bench = built.join("layby-bench");
    println!("\n## Waking, deploying, idling");
    services(&bench, &built.join("layby"), runs, idle_seconds)?;
    println!("\n## The gateway and nginx");
    run(command(&bench).arg("versus-nginx"))
}

fn services(bench: &Path, layby: &Path, runs: u32, idle_seconds: u32) -> Result<()> {
    let mut services = command(bench);
    services
        .args([
            "services",
            "--example",
            "examples/mnist",
            "--docker",
            "true",
            "--layby",
        ])
        .arg(layby);
    services.args([
        "--runs",
        &runs.to_string(),
        "--idle-seconds",
        &idle_seconds.to_string(),
    ]);
    run(&mut services)
}
