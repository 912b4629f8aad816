//! Tools of the tests that no Debian package has.

use std::path::PathBuf;

use anyhow::bail;

use crate::command::{self, command};
use crate::place;

/// What holds the API's answers to its document, and the very version: others find other things.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Installs schemathesis from PyPI into a folder of the target's, once, and gives its program. `None`: no package index
/// can be reached, and this is not CI; the test that needs it says that it was skipped.
///
/// # Errors
/// In CI, when it cannot be installed.
pub(super) fn schemathesis() -> anyhow::Result<Option<PathBuf>> {
    let folder = place::target().join("tools").join(SCHEMATHESIS);
    let program = folder.join("bin/schemathesis");
    if program.exists() {
        return Ok(Some(program));
    }
    let installed =
        command::run(command("python3").args(["-m", "venv"]).arg(&folder)).and_then(|()| {
            let pip = folder.join("bin/pip");
            command::run(command(pip).args(["install", "--quiet", SCHEMATHESIS]))
        });
    match installed {
        Ok(()) => Ok(Some(program)),
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("{SCHEMATHESIS} is not installed: {error:#}");
            Ok(None)
        }
        Err(error) => bail!("{SCHEMATHESIS} cannot be installed: {error:#}"),
    }
}
