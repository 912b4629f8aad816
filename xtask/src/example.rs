//! `cargo xtask example NAME`: the static binary that an example's Dockerfile copies.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::command::{cargo, run};
use crate::{binary, labels, place};

/// Builds `examples/NAME` in release and puts its binary into place. Cargo chooses the features of
/// shared crates by the packages selected: with the whole workspace selected, as the tests have it,
/// nothing is built twice.
///
/// # Errors
/// When there is no such example, it does not build, or its binary is not static.
pub(crate) fn example(name: &str) -> anyhow::Result<()> {
    ensure!(
        folder(name).join("Cargo.toml").exists(),
        "there is no example {name} with a Cargo.toml in examples/"
    );
    run(&mut cargo(&[
        "build",
        "--release",
        "--workspace",
        "--bin",
        name,
    ]))?;
    match name {
        "labels" => labels::put_into_place("release"),
        _ => put_into_place(name, "release"),
    }
}

/// Puts the binary that was built in `profile`, stripped, at `examples/NAME/dist/NAME`.
///
/// # Errors
/// When it is not built, not static, or cannot be written.
pub(crate) fn put_into_place(name: &str, profile: &str) -> anyhow::Result<()> {
    let built = place::target().join(profile).join(name);
    binary::require_static(&built)?;
    let dist = folder(name).join("dist");
    std::fs::create_dir_all(&dist)
        .with_context(|| format!("cannot make {}", place::shown(&dist)))?;
    binary::install(&built, &dist.join(name))
}

fn folder(name: &str) -> PathBuf {
    place::root().join("examples").join(name)
}
