//! Schemathesis, which asks every endpoint what the OpenAPI document allows and what it does not, and holds the answers to
//! the document. `cargo xtask test` installs it and says where it is.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{World, compose};

/// Where the program is.
const PROGRAM: &str = "LAYBY_SCHEMATHESIS";
/// It is held to a minute; the rest is for a machine that is busy.
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing_wrong() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        println!("SKIPPED: {PROGRAM} names no schemathesis (`cargo xtask test` installs it)");
        return;
    };
    let world = World::new().await;
    world.up(&compose("fake/ok", "")).await;
    let addr = world.serve().await;
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/schemathesis_hooks.py");
    let mut command = tokio::process::Command::new(program);
    command
        .args([
            "run",
            "--seed",
            "1",
            "--workers",
            "1",
            "--max-examples",
            "3",
        ])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--request-timeout", "10", "--no-color", "--checks", "all"])
        // That a name is taken, or none for what it is to name, stands in no schema.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--suppress-health-check", "all", "--continue-on-failure"])
        // Those reach other machines, and the last one goes on for as long as somebody listens.
        .args(["--exclude-path-regex", "^/v1/images/(pull|push)$"])
        .args(["--exclude-operation-id", "post_registries"])
        .args(["--exclude-operation-id", "get_services_app_service_hold"])
        .arg(format!("http://{addr}/v1/openapi.json"))
        .env("SCHEMATHESIS_HOOKS", hooks)
        .current_dir(world.dir.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.expect("in time").expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
