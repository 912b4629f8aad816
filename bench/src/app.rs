//! The service where only Layby's own part is to be seen: this very program as an upstream, which answers at once.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http::first_answer;

/// Where it listens in its container.
pub(crate) const PORT: u16 = 8000;
/// Where it listens without one.
const BARE: &str = "127.77.0.2:18052";
/// It would not hear SIGTERM as the first process of its container.
const DOCKERFILE: &str = "FROM scratch
COPY bench /bench
COPY change /change
STOPSIGNAL SIGKILL
EXPOSE 8000
ENTRYPOINT [\"/bench\", \"upstream\", \"--listen\", \"0.0.0.0:8000\"]
";

/// The same of a service that says its revision.
const PATIENT: &str = "FROM scratch
COPY bench /bench
STOPSIGNAL SIGKILL
EXPOSE 8000
ENTRYPOINT [\"/bench\", \"patient\", \"--listen\", \"0.0.0.0:8000\"]
";

/// A folder to deploy from, which goes with this.
pub(crate) struct App(tempfile::TempDir);

impl App {
    /// Makes it with this `compose.yaml`.
    pub(crate) fn new(compose: &str) -> Result<Self> {
        let app = Self::empty(compose)?;
        app.change(600)?;
        Ok(app)
    }

    /// Makes one of the service that says its revision.
    pub(crate) fn patient(compose: &str) -> Result<Self> {
        let app = Self::empty(compose)?;
        fs::write(app.path().join("Dockerfile"), PATIENT)?;
        Ok(app)
    }

    fn empty(compose: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("layby-bench-").tempdir()?;
        fs::copy(std::env::current_exe()?, folder.path().join("bench"))?;
        fs::write(folder.path().join("compose.yaml"), compose)?;
        Ok(Self(folder))
    }

    /// Changes its last layer, and with it how many bytes it answers, by which one knows it.
    pub(crate) fn change(&self, body_bytes: usize) -> Result<()> {
        let command = format!("{DOCKERFILE}CMD [\"--body\", \"{body_bytes}\"]\n");
        fs::write(self.path().join("Dockerfile"), command)?;
        fs::write(self.path().join("change"), body_bytes.to_string())?;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// From fork and exec of the program to its first answer, with nothing around it.
pub(crate) fn bare() -> Result<Duration> {
    bare_of("upstream")
}

/// The same of the service that says its revision.
pub(crate) fn bare_patient() -> Result<Duration> {
    bare_of("patient")
}

fn bare_of(part: &str) -> Result<Duration> {
    let addr: SocketAddr = BARE.parse()?;
    let started = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args([part, "--listen", BARE])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let answered = first_answer(addr, "bare", "/");
    let taken = started.elapsed();
    child.kill()?;
    child.wait()?;
    answered.map(|()| taken)
}
