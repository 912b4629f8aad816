//! Docker doing the same: `docker start` and `docker unpause` up to the first byte of the same image.
//!
//! It is asked at the container's own address on its bridge (a published port goes through docker-proxy, which accepts
//! before the container does).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::beside::Beside;
use crate::dockerd::Dockerd;
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
        move || Docker::start(&archive, &reference, port),
        Docker::round,
    )
}

struct Docker {
    dockerd: Dockerd,
    reference: String,
    /// Of its only container: always the first of the bridge.
    address: SocketAddr,
}

impl Docker {
    fn start(archive: &Path, reference: &str, port: u16) -> Result<Self> {
        let mut docker = Self {
            dockerd: Dockerd::start(archive)?,
            reference: reference.to_owned(),
            address: SocketAddr::from(([0, 0, 0, 0], port)),
        };
        let dockerd = &docker.dockerd;
        dockerd.docker(&["run", "-d", "--name", "bench", reference])?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ip = dockerd.docker(&["inspect", "-f", format, "bench"])?;
        docker.address.set_ip(ip.trim().parse()?);
        first_answer(docker.address, "bench", "/healthz")?;
        Ok(docker)
    }

    fn round(&self) -> Result<Round> {
        let dockerd = &self.dockerd;
        dockerd.docker(&["pause", "bench"])?;
        let unpause = self.until_first_answer(&["unpause", "bench"])?;
        dockerd.docker(&["stop", "-t", "1", "bench"])?;
        // Asked before it is up, the kernel looks for its address in vain, and again only after a second.
        let started = Instant::now();
        dockerd.docker(&["start", "bench"])?;
        first_answer(self.address, "bench", "/healthz")?;
        let start = started.elapsed();
        dockerd.docker(&["rm", "-f", "bench"])?;
        let started = Instant::now();
        dockerd.docker(&["run", "-d", "--name", "bench", &self.reference])?;
        first_answer(self.address, "bench", "/healthz")?;
        let run = started.elapsed();
        let started = Instant::now();
        dockerd.docker(&["ps", "--quiet"])?;
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
        let mut command = self.dockerd.command(args);
        let mut child = command.stdout(Stdio::null()).spawn()?;
        let answered = first_answer(self.address, "bench", "/healthz").map(|()| started.elapsed());
        let status = child.wait()?;
        if !status.success() {
            bail!("docker {} failed", args.join(" "));
        }
        answered
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.dockerd.docker(&["rm", "-f", "bench"]);
    }
}
