//! Apps for tests: a folder with the web program, its Dockerfile and a manifest.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::node::web_program;

/// A folder to `up`, with the name that the app gets.
pub(crate) struct App {
    dir: TempDir,
}

impl App {
    /// The web program with this Compose file.
    pub(crate) fn compose(text: &str) -> Self {
        let app = Self::empty();
        app.write("compose.yaml", text);
        app
    }

    /// The web program, with no manifest yet.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("app-")
            .tempdir()
            .expect("a temporary directory");
        fs::copy(web_program(), dir.path().join("web")).expect("the program");
        let app = Self { dir };
        // The kernel keeps SIGTERM from a first process that has no handler for it.
        app.write(
            "Dockerfile",
            "FROM scratch\nCOPY web /web\nSTOPSIGNAL SIGKILL\nEXPOSE 8000\nENTRYPOINT [\"/web\"]\n",
        );
        app
    }

    /// Writes a file of the app.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("a file");
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A service that answers on port 8000, awake until told otherwise.
pub(crate) const WEB: &str = "\
name: shop
services:
  web:
    build: .
    image: shop-web:1
    ports: [\"8100:8000\"]
    x-layby: {sleep: {doze_after: never, sleep_after: never}}
";
