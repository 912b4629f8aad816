//! Debian's docker-registry on loopback, with storage of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// A registry that ends with this.
pub(crate) struct Registry {
    child: Child,
    /// Where it answers.
    pub(crate) addr: SocketAddr,
}

impl Registry {
    /// Starts it with its storage below `dir`.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
        let addr = free.local_addr()?;
        drop(free);
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{addr}\"}}\n",
            dir.join("registry").display()
        );
        std::fs::write(&config, text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run docker-registry: is it installed?")?;
        let mut registry = Self { child, addr };
        let end = Instant::now() + START;
        while TcpStream::connect(addr).is_err() {
            if registry.child.try_wait()?.is_some() || Instant::now() > end {
                bail!("docker-registry does not listen on {addr}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
