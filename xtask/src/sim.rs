//! `cargo xtask sim`: many more random worlds for the model than the tests take the time for.

use crate::command::{cargo, run};

/// Runs the model's simulation; it prints the seed of a world that breaks a property.
///
/// # Errors
/// When a property does not hold.
pub(crate) fn sim(runs: u64, seed: Option<u64>) -> anyhow::Result<()> {
    let mut cargo = cargo(&[
        "test",
        "--release",
        "--package",
        "layby-model",
        "--test",
        "sim",
    ]);
    cargo.args(["--", "--nocapture"]);
    cargo.env("LAYBY_SIM_RUNS", runs.to_string());
    if let Some(seed) = seed {
        cargo.env("LAYBY_SIM_SEED", seed.to_string());
    }
    run(&mut cargo)
}
