//! A node to measure: on data, ports and networks of its own, taken down at the end.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Where published ports of the measured node listen: out of the way of everything else.
pub(crate) const PUBLISH_ON: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// A node in the foreground.
#[derive(Debug)]
pub(crate) struct Node {
    layby: PathBuf,
    data: tempfile::TempDir,
    child: Child,
}

impl Node {
    /// Starts `layby serve` and waits until it answers.
    pub(crate) fn start(layby: &Path) -> Result<Self> {
        Self::serve(layby, &["--http", "127.0.0.1:0"])
    }

    /// Starts one below a keeper, which starts it again when it dies: on the same port.
    pub(crate) fn kept(layby: &Path) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::serve(layby, &["--keep", "--http", &free.to_string()])
    }

    fn serve(layby: &Path, options: &[&str]) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("layby-bench-").tempdir()?;
        let log = std::fs::File::create(data.path().join("bench.log"))?;
        let child = Command::new(layby)
            .args(["serve", "--publish-on", &PUBLISH_ON.to_string()])
            .args(options)
            .env("LAYBY_DATA", data.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", layby.display()))?;
        let node = Self {
            layby: layby.to_owned(),
            data,
            child,
        };
        let started = Instant::now();
        while !node.json(&["version", "--json"])?["node"].is_object() {
            if started.elapsed() > Duration::from_secs(30) {
                bail!(
                    "the node does not answer; see {}",
                    node.data.path().join("bench.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(node)
    }

    /// The node's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Where its gateway answers.
    pub(crate) fn gateway(&self) -> Result<SocketAddr> {
        let version = self.json(&["version", "--json"])?;
        Ok(version["node"]["http"]
            .as_str()
            .context("the node does not say where its gateway is")?
            .parse()?)
    }

    /// Runs `layby ARGS` against it, from the folder `dir`.
    pub(crate) fn run(&self, dir: &Path, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.layby)
            .args(args)
            .current_dir(dir)
            .env("LAYBY_DATA", self.data.path())
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "layby {} failed: {}{}",
                args.join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it and reads its output as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(Path::new("/"), args)?)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.run(Path::new("/"), &["node", "stop", "--all"]) {
            eprintln!("the measured node was not taken down: {error:#}");
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
