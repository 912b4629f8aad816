//! A dockerd of its own: run by hand, with data, sockets and state below one folder, ended when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::beside::quiet;

/// How long it may take to answer.
const STARTING: Duration = Duration::from_secs(60);

/// It runs; what is left in it when it is dropped goes with it only if it was removed before.
#[derive(Debug)]
pub(crate) struct Dockerd {
    folder: tempfile::TempDir,
    process: Child,
}

impl Dockerd {
    /// Starts it, and loads the images of `archive`.
    pub(crate) fn start(archive: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("layby-bench-docker-")
            .tempdir_in("/tmp")?; // sockets' paths are short
        let path = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(path("dockerd.log"))?;
        let process = Command::new("dockerd")
            .arg("--host")
            .arg(host(folder.path()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .args(["--storage-driver", "overlay2"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run dockerd: is docker.io installed?")?;
        let mut dockerd = Self { folder, process };
        let started = Instant::now();
        while dockerd.docker(&["version"]).is_err() {
            if started.elapsed() > STARTING || dockerd.process.try_wait()?.is_some() {
                let log = std::fs::read_to_string(dockerd.folder.path().join("dockerd.log"))
                    .unwrap_or_default();
                bail!("dockerd does not answer; it said:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let archive = archive
            .to_str()
            .context("the archive's path is not UTF-8")?;
        dockerd.docker(&["load", "-i", archive])?;
        Ok(dockerd)
    }

    /// Where it listens, as `DOCKER_HOST` has it.
    pub(crate) fn host(&self) -> String {
        host(self.folder.path())
    }

    /// `docker ARGS`, not run yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(self.host())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs `docker ARGS` to its end; what it wrote.
    pub(crate) fn docker(&self, args: &[&str]) -> Result<String> {
        quiet(&mut self.command(args))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn host(folder: &Path) -> String {
    let socket: PathBuf = folder.join("docker.sock");
    format!("unix://{}", socket.display())
}
