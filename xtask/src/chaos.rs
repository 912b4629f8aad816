//! `cargo xtask chaos`: every failure that the chaos tests know, one after another, against the real binary. Takes minutes.

use crate::command::{CHECKS, cargo, run};

/// Runs all cases, or those whose names contain `only`; prints a line for each.
///
/// # Errors
/// When something acknowledged is lost, something is left behind, or the load sees a wrong answer.
pub(crate) fn chaos(only: Option<&str>) -> anyhow::Result<()> {
    let mut cargo = cargo(&[
        "test",
        "--profile",
        CHECKS,
        "--package",
        "layby",
        "--test",
        "e2e",
    ]);
    cargo.args(["--", "chaos::all_failures", "--ignored", "--nocapture"]);
    if let Some(only) = only {
        cargo.env("LAYBY_CHAOS_ONLY", only);
    }
    run(&mut cargo)
}
