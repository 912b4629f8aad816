//! `cargo xtask chaos`: every failure that the chaos tests know, one after another, against the real binary. Takes minutes.

use crate::command::{CHECKS, cargo, run};

/// Runs all cases, or those whose names contain one of `only`; prints a line for each.
///
/// # Errors
/// When something acknowledged is lost, something is left behind, or the load sees a wrong answer.
pub(crate) fn chaos(only: &[String]) -> anyhow::Result<()> {
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
    if !only.is_empty() {
        cargo.env("LAYBY_CHAOS_ONLY", only.join(","));
    }
    run(&mut cargo)
}
