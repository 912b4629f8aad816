//! podman doing the same: `podman start` of the same image, up to the first byte at the container's own address.
//!
//! It has stores, networks (netavark's bridge) and a cgroup of its own, and writes cgroups itself: no systemd is needed.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::beside::{Beside, quiet};
use crate::http::first_answer;

/// Podman's own runtime, and what to take where that refuses: crun 1.8 wants no machine that mixes cgroup v1 and v2.
const RUNTIMES: [&str; 2] = ["crun", "runc"];
/// Its addresses must not change from one start to the next: who asks would look for the old ones.
const IP: &str = "10.88.0.77";
const MAC: &str = "02:00:00:00:00:77";

/// How long its monitor may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// From `podman start` to the first answer.
    pub(crate) start: Duration,
    /// From `podman run` of a container that is not there to the first answer.
    pub(crate) run: Duration,
    /// A command that starts nothing.
    pub(crate) client: Duration,
}

/// Creates a container from the image `reference` in `archive`. `run` is a short path: podman takes no longer one than 50
/// characters.
pub(crate) fn start(
    dir: &Path,
    run: &Path,
    archive: &Path,
    reference: &str,
    port: u16,
) -> Beside<Round> {
    let mut podman = Podman {
        dir: dir.join("podman"),
        run: run.join("podman"),
        cgroup: format!("layby-bench-{}", std::process::id()),
        runtime: RUNTIMES[0],
        reference: reference.to_owned(),
        address: SocketAddr::from(([0, 0, 0, 0], port)),
    };
    let archive = archive.to_owned();
    Beside::start(
        move || {
            podman.prepare(&archive)?;
            Ok(podman)
        },
        Podman::round,
    )
}

struct Podman {
    dir: PathBuf,
    run: PathBuf,
    cgroup: String,
    runtime: &'static str,
    reference: String,
    address: SocketAddr,
}

impl Podman {
    fn prepare(&mut self, archive: &Path) -> Result<()> {
        let archive = archive
            .to_str()
            .context("the archive's path is not UTF-8")?;
        self.podman(&["load", "--quiet", "--input", archive])?;
        self.address.set_ip(IP.parse()?);
        if let Err(error) = self.create() {
            eprintln!("podman with {}: {error:#}", self.runtime);
            self.remove();
            self.runtime = RUNTIMES[1];
            self.create()?;
        }
        println!("podman: {}, a bridge of netavark's", self.runtime);
        first_answer(self.address, "bench", "/")
    }

    fn create(&self) -> Result<String> {
        let parent = format!("/{}", self.cgroup);
        let mut run = vec!["run", "--detach", "--name", "bench", "--pull", "never"];
        run.extend(["--network", "podman", "--ip", IP, "--mac-address", MAC]);
        run.extend(["--cgroup-parent", &parent]);
        // Its own limits may be above what this process may set.
        run.extend(["--ulimit", "nofile=1024:1024"]);
        run.extend(["--ulimit", "nproc=4096:4096"]);
        run.push(&self.reference);
        self.podman(&run)
    }

    fn round(&self) -> Result<Round> {
        self.podman(&["stop", "--time", "1", "bench"])?;
        // As with Docker: asked only once it is up.
        let started = Instant::now();
        self.podman(&["start", "bench"])?;
        first_answer(self.address, "bench", "/")?;
        let start = started.elapsed();
        self.remove();
        let started = Instant::now();
        self.create()?;
        first_answer(self.address, "bench", "/")?;
        let run = started.elapsed();
        let started = Instant::now();
        self.podman(&["ps", "--quiet"])?;
        Ok(Round {
            start,
            run,
            client: started.elapsed(),
        })
    }

    fn podman(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.dir.join("root"));
        command.arg("--runroot").arg(self.run.join("root"));
        command.arg("--tmpdir").arg(self.run.join("tmp"));
        command.arg("--network-config-dir");
        command.arg(self.dir.join("networks"));
        command.args(["--storage-driver", "overlay"]);
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", self.runtime]);
        quiet(command.args(args))
    }

    fn remove(&self) {
        let _ = self.podman(&["rm", "--force", "--time", "0", "bench"]);
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.remove();
        // Version 1 of cgroups has a tree for each controller. The container's monitor may still be ending.
        let root = Path::new("/sys/fs/cgroup");
        let trees = fs::read_dir(root).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = trees.map(|tree| tree.path()).collect();
        folders.push(root.to_owned());
        let ended = Instant::now();
        for folder in folders.iter().map(|tree| tree.join(&self.cgroup)) {
            while folder.exists() && ended.elapsed() < ENDING {
                let _ = fs::remove_dir(folder.join("conmon"));
                if fs::remove_dir(&folder).is_err() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}
