//! Docker doing the same: `docker start` and `docker unpause` up to the first byte of the same image.
//!
//! dockerd runs by hand with data of its own; it is asked at the container's own address on its bridge (a published
//! port goes through docker-proxy, which accepts before the container does).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::beside::Beside;
use crate::http::first_answer;

/// One measurement of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// From `docker start` to the first answer.
    pub(crate) start: Duration,
    /// From `docker unpause` to the first answer.
    pub(crate) unpause: Duration,
    /// From `docker run` of a container that is not there to the first answer.
    pub(crate) run: Duration,
    /// A command that only asks the daemon.
    pub(crate) client: Duration,
}

/// Starts dockerd, on a thread of its own, and creates a container from the image `reference` in `archive`.
pub(crate) fn start(archive: &Path, reference: &str, port: u16) -> Beside<Round> {
    let (archive, reference) = (archive.to_owned(), reference.to_owned());
    Beside::start(
        move || Daemon::start(&archive, &reference, port),
        Daemon::round,
    )
}

struct Daemon {
    folder: tempfile::TempDir,
    process: Child,
    reference: String,
    /// Of its only container: always the first of the bridge.
    address: SocketAddr,
}

impl Daemon {
    fn start(archive: &Path, reference: &str, port: u16) -> Result<Self> {
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
        let mut daemon = Self {
            folder,
            process,
            reference: reference.to_owned(),
            address: SocketAddr::from(([0, 0, 0, 0], port)),
        };
        let started = Instant::now();
        while daemon.docker(&["version"]).is_err() {
            if started.elapsed() > Duration::from_secs(60) || daemon.process.try_wait()?.is_some() {
                let log = std::fs::read_to_string(daemon.folder.path().join("dockerd.log"))
                    .unwrap_or_default();
                bail!("dockerd does not answer; it said:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let archive = archive
            .to_str()
            .context("the archive's path is not UTF-8")?;
        daemon.docker(&["load", "-i", archive])?;
        daemon.docker(&["run", "-d", "--name", "bench", reference])?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip = daemon.docker(&["inspect", "-f", format, "bench"])?;
        daemon.address = SocketAddr::new(ip.trim().parse()?, port);
        first_answer(daemon.address, "bench", "/healthz")?;
        Ok(daemon)
    }

    fn round(&self) -> Result<Round> {
        self.docker(&["pause", "bench"])?;
        let unpause = self.until_first_answer(&["unpause", "bench"])?;
        self.docker(&["stop", "-t", "1", "bench"])?;
        // Asked before it is up, the kernel looks for its address in vain, and again only after a second.
        let started = Instant::now();
        self.docker(&["start", "bench"])?;
        first_answer(self.address, "bench", "/healthz")?;
        let start = started.elapsed();
        self.docker(&["rm", "-f", "bench"])?;
        let started = Instant::now();
        self.docker(&["run", "-d", "--name", "bench", &self.reference])?;
        first_answer(self.address, "bench", "/healthz")?;
        let run = started.elapsed();
        let started = Instant::now();
        self.docker(&["ps", "--quiet"])?;
        Ok(Round {
            start,
            unpause,
            run,
            client: started.elapsed(),
        })
    }

    /// The command runs beside the asking: the answer counts, not the command's end.
    fn until_first_answer(&self, args: &[&str]) -> Result<Duration> {
        let started = Instant::now();
        let mut child = self.command(args).stdout(Stdio::null()).spawn()?;
        let answered = first_answer(self.address, "bench", "/healthz").map(|()| started.elapsed());
        let status = child.wait()?;
        if !status.success() {
            bail!("docker {} failed", args.join(" "));
        }
        answered
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(host(self.folder.path()))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn docker(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output()?;
        if !output.status.success() {
            bail!(
                "docker {} failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.docker(&["rm", "-f", "bench"]);
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn host(folder: &Path) -> String {
    let socket: PathBuf = folder.join("docker.sock");
    format!("unix://{}", socket.display())
}
