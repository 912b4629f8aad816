//! `cargo xtask dist`: the binary that is handed out.

use crate::command::{cargo, run};
use crate::{binary, place};

/// Builds Layby with the profile `dist` and leaves it in `target/dist/layby`, stripped.
///
/// # Errors
/// When it does not build or its binary is not static.
pub(crate) fn dist() -> anyhow::Result<()> {
    run(&mut cargo(&[
        "build",
        "--profile",
        "dist",
        "--package",
        "layby",
    ]))?;
    let built = place::target().join("dist/layby");
    binary::require_static(&built)?;
    binary::install(&built, &built)
}
