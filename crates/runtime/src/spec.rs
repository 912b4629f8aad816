//! What a sandbox is to be: plain data, written to `spec.json` in its bundle.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One sandbox: containers that share a network namespace and a parent cgroup, under one shim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its name on this machine; only for people and logs.
    pub id: String,
    /// The host name that its containers see.
    pub hostname: String,
    /// The network namespace to join: the path of its mount. Empty: a new one, with only `lo` up.
    pub netns: PathBuf,
    /// Lines of `/etc/hosts` beside localhost: address, name.
    pub hosts: Vec<(String, String)>,
    /// Name servers for `/etc/resolv.conf`. Empty: the file is left without any.
    pub dns: Vec<String>,
    /// The parent cgroup, relative to the root of each hierarchy: below every mounted v1 controller,
    /// or below the v2 root on a unified machine. Each container gets a child named after it.
    pub cgroup: String,
    /// Where the shim listens; a short path (at most 107 bytes, `unix(7)`).
    pub socket: PathBuf,
    /// The containers, started in this order and stopped together.
    pub containers: Vec<ContainerConfig>,
    /// A user namespace: (first host id, count). Root inside is the first id outside. `None`: ids
    /// inside are ids outside.
    #[serde(default)]
    pub id_map: Option<(u32, u32)>,
}

/// One container of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Its name within the sandbox: a DNS label.
    pub name: String,
    /// The unpacked layers of its image, topmost first. They are only read.
    pub lower: Vec<PathBuf>,
    /// What its init executes: the program (looked up in its PATH when without a `/`) and its arguments.
    pub argv: Vec<String>,
    /// Its environment; a PATH is added when there is none.
    pub env: Vec<(String, String)>,
    /// Where init starts; made when it does not exist. Empty: `/`.
    pub cwd: String,
    /// Whom it runs as: empty (root), `uid`, `uid:gid`, or names, which are looked up in the
    /// `/etc/passwd` and `/etc/group` of its own root.
    pub user: String,
    /// Limit of its memory; it gets no swap beside it.
    pub memory_bytes: Option<u64>,
    /// Limit of its CPU time, in thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Limit of its processes and threads.
    pub pids: Option<u32>,
    /// The signal that asks it to end: `SIGTERM`, `TERM` or `15`. Empty: SIGTERM.
    pub stop_signal: String,
    /// How long it may take to end after that signal, before it is killed.
    pub stop_grace_ms: u64,
}

/// The files of a bundle: the directory that holds one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    root: PathBuf,
}

impl Bundle {
    /// The bundle in `root`; nothing is made.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The spec it was made from.
    pub fn spec(&self) -> PathBuf {
        self.root.join("spec.json")
    }

    /// The number of the shim's process, written when the sandbox is prepared.
    pub fn pid(&self) -> PathBuf {
        self.root.join("shim.pid")
    }

    /// What the shim itself had to say.
    pub fn shim_log(&self) -> PathBuf {
        self.root.join("shim.log")
    }

    /// The directory of the containers' logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log of one container.
    pub fn log(&self, container: &str) -> PathBuf {
        self.logs().join(format!("{container}.log"))
    }

    /// The directory of one container: `upper`, `work`, `rootfs`.
    pub fn container(&self, name: &str) -> PathBuf {
        self.root.join("containers").join(name)
    }

    /// Where libcontainer keeps its state.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }
}
