//! Runs other programs: in the repository's root, without standard input, plain when nobody watches.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};

use crate::place;

/// The profile of tests, lints and this program (Cargo.toml says why); also the folder that it is built into.
pub(crate) const CHECKS: &str = "checks";

/// A command that is run in the repository's root and reads no input.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(place::root()).stdin(Stdio::null());
    if !is_watched() {
        command
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never");
    }
    command
}

/// Cargo, the very one that runs this. What it told us about this package must not reach others.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = command(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name.as_ref());
        }
    }
    command.args(arguments);
    command
}

/// Whether a person sees the output as it comes: not in CI, not in a file.
pub(crate) fn is_watched() -> bool {
    std::env::var_os("CI").is_none() && std::io::stdout().is_terminal()
}

/// Prints the command and runs it.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}): its own messages stand above");
    }
    Ok(())
}

/// Runs the command and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let Output { status, stdout, .. } = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    String::from_utf8(stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
