//! What a sandbox is to be: plain data, written to `spec.json` in its bundle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hook::{self, HookConfig};
use crate::mounts::{self, MountConfig};
use crate::options::{self, OptionsConfig};
use crate::values::Values;
use crate::{devices, rights, sysctls};

/// One sandbox: containers that share a network namespace and a parent cgroup, under one shim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its name on this machine; only for people and logs.
    pub id: String,
    /// The host name that its containers see.
    pub hostname: String,
    /// The network namespace to join: the path of its mount. Empty: a new one, with only `lo` up.
    pub netns: PathBuf,
    /// The machine's network instead; `netns` is empty then. Not in a user namespace.
    #[serde(default)]
    pub host_network: bool,
    /// Lines of `/etc/hosts` beside localhost: address, names with spaces between them. Those that the user adds (`extra_hosts`) are among them.
    pub hosts: Vec<(String, String)>,
    /// Name servers for `/etc/resolv.conf`. Empty: the file is left without any.
    pub dns: Vec<String>,
    /// The parent cgroup, relative to the root of each hierarchy: below every mounted v1 controller,
    /// or below the v2 root on a unified machine. Each container gets a child named after it.
    pub cgroup: String,
    /// Where the shim listens; a short path (at most 107 bytes, `unix(7)`).
    pub socket: PathBuf,
    /// The containers, started in this order (sidecars before the others) and stopped together (sidecars after).
    pub containers: Vec<ContainerConfig>,
    /// Containers that run before them, one after another, each to a good end, once in the life of the sandbox.
    #[serde(default)]
    pub init: Vec<ContainerConfig>,
    /// A user namespace: (first host id, count). Root inside is the first id outside. `None`: ids
    /// inside are ids outside.
    #[serde(default)]
    pub id_map: Option<(u32, u32)>,
    /// Domains to look short names up in (`search` of resolv.conf(5)).
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// Options of the resolver (`options` of resolv.conf(5)).
    #[serde(default)]
    pub dns_options: Vec<String>,
    /// Kernel settings of its namespaces, by name: `net.ipv4.ip_forward`, `kernel.shmmax`.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The machine's process namespace instead of an own one. Not in a user namespace.
    #[serde(default)]
    pub host_pid: bool,
    /// The machine's IPC namespace instead of an own one. Not in a user namespace.
    #[serde(default)]
    pub host_ipc: bool,
    /// The containers share one process namespace: the first one's init is its first process.
    #[serde(default)]
    pub share_pid: bool,
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
    /// Its environment; PATH (Docker's), HOME and HOSTNAME are added where they are missing.
    pub env: Vec<(String, String)>,
    /// Further variables, each with the number of its value among those that the shim is handed beside this spec
    /// ([`Values`](crate::Values)).
    #[serde(default)]
    pub secret_env: Vec<(String, usize)>,
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
    /// Files from elsewhere.
    #[serde(default)]
    pub mounts: Vec<MountConfig>,
    /// Fences and devices.
    #[serde(default)]
    pub options: OptionsConfig,
    /// What is done once it was started, before the next container is.
    #[serde(default)]
    pub post_start: Vec<HookConfig>,
    /// What is done before it is asked to end, within `stop_grace_ms`.
    #[serde(default)]
    pub pre_stop: Vec<HookConfig>,
    /// It is started before the container of this number in [`SandboxSpec::init`] (their count: after them), and ends after
    /// those that are started later.
    #[serde(default)]
    pub sidecar: Option<u32>,
    /// What is done when it ends by itself while others go on; `None`: they end with it.
    #[serde(default)]
    pub again: Option<AgainConfig>,
}

/// What is done when a container ends by itself and the others of its sandbox go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgainConfig {
    /// After which ends it is started again.
    pub after: After,
    /// The pause before it is, in milliseconds: after the first of several ends in a row that came too soon. It doubles with
    /// each further one. After an end that did not come too soon there is none.
    pub pause_ms: u64,
    /// The longest pause, in milliseconds.
    pub max_pause_ms: u64,
    /// So often in a row it is started again after ends that are no good ones and came too soon, where it is only after such; `None`:
    /// however often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
}

/// After which ends a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// All.
    AnyEnd,
    /// Those that are no good ones: not with exit code 0, or for want of memory.
    Failure,
    /// None.
    NoEnd,
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

    /// The system call filter of its containers.
    pub fn filter(&self) -> PathBuf {
        self.root.join("seccomp.bpf")
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

    /// What is only needed while the shim lives; seen by it alone, in memory: waking may not wait for the disk.
    pub fn memory(&self) -> PathBuf {
        self.root.join("memory")
    }

    /// Where libcontainer keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.memory().join("state")
    }

    /// The directory of a container's OCI spec.
    pub(crate) fn oci(&self, name: &str) -> PathBuf {
        self.memory().join("oci").join(name)
    }
}

impl SandboxSpec {
    /// Its containers, then those that run before them.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &ContainerConfig> {
        self.containers.iter().chain(&self.init)
    }

    /// Refuses what no later step could make sense of.
    pub(crate) fn check(&self) -> Result<()> {
        let fatal = |message: String| Err(Error::Fatal(message));
        if self.containers.is_empty() {
            return fatal(format!("sandbox {} has no container", self.id));
        }
        let all: Vec<&ContainerConfig> = self.all_containers().collect();
        for (index, config) in all.iter().enumerate() {
            let name = &config.name;
            let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if !(1..=63).contains(&name.len()) || !name.bytes().all(label) {
                return fatal(format!(
                    "{name:?} cannot name a container: use 1 to 63 of a-z, 0-9 and '-'"
                ));
            }
            if all[..index].iter().any(|other| other.name == *name) {
                return fatal(format!(
                    "two containers of sandbox {} are named {name}",
                    self.id
                ));
            }
            if config.argv.is_empty() {
                return fatal(format!(
                    "container {name} has no command: set one in the image or the manifest"
                ));
            }
            let zero = |text: &String| text.contains('\0');
            if config.argv.iter().any(zero) || config.env.iter().any(|(n, v)| zero(n) || zero(v)) {
                return fatal(format!(
                    "the command or environment of container {name} has a zero byte in it"
                ));
            }
            let secret = config.secret_env.iter().map(|(n, _)| n);
            let mut names = config.env.iter().map(|(n, _)| n).chain(secret);
            if names.any(|n| n.is_empty() || n.contains(['=', '\0'])) {
                return fatal(format!(
                    "a variable of container {name} has no name, or '=' in it"
                ));
            }
            if !config.cwd.is_empty() && !config.cwd.starts_with('/') {
                return fatal(format!(
                    "the working directory {:?} of container {name} does not begin with /",
                    config.cwd
                ));
            }
            config.signal()?;
            let ids = self.id_map.map(|(_, count)| count);
            mounts::check(name, &config.mounts, ids)?;
            options::check(name, &config.options)?;
            hook::check(name, &config.post_start)?;
            hook::check(name, &config.pre_stop)?;
            rights::check_ulimits(&config.options)?;
            devices::check(name, &config.options.devices)?;
            rights::capabilities(&config.options, self.id_map.is_some())?;
            if config.options.privileged && self.id_map.is_some() {
                return fatal(format!(
                    "container {name} is privileged, and cannot be so in a user namespace"
                ));
            }
        }
        if self.share_pid && self.host_pid {
            return fatal(format!(
                "the containers of sandbox {} share either the machine's processes or their own: ask for one",
                self.id
            ));
        }
        if (self.host_pid || self.host_ipc || self.host_network) && self.id_map.is_some() {
            return fatal(format!(
                "sandbox {} shares the machine's namespaces, and cannot do so in a user namespace",
                self.id
            ));
        }
        for (_, names) in &self.hosts {
            let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
            if let Some(name) = names.split(' ').find(|name| !is_name(name)) {
                return fatal(format!("{name:?} is no host name for /etc/hosts"));
            }
        }
        sysctls::check(self)?;
        Ok(())
    }
}

impl ContainerConfig {
    /// Whether its environment has a variable, whatever Layby adds.
    pub(crate) fn sets(&self, name: &str) -> bool {
        let secret = self.secret_env.iter().map(|(known, _)| known);
        let mut known = self.env.iter().map(|(known, _)| known).chain(secret);
        known.any(|known| known == name)
    }

    /// The numbers of the values that it needs at every start.
    pub(crate) fn lasting_values(&self) -> impl Iterator<Item = usize> {
        self.secret_env.iter().map(|(_, number)| *number)
    }

    /// Refuses values that are missing, or cannot be those of variables.
    pub(crate) fn check_values(&self, values: &Values) -> Result<()> {
        for (name, number) in &self.secret_env {
            let text = values.get(*number).map(std::str::from_utf8);
            let is_fit = matches!(text, Some(Ok(text)) if !text.contains('\0'));
            if !is_fit {
                return Err(Error::Fatal(format!(
                    "the value of the variable {name} of container {} is no text: mount it as a file",
                    self.name
                )));
            }
        }
        Ok(())
    }

    /// The signal that asks it to end.
    pub(crate) fn signal(&self) -> Result<Signal> {
        let text = self.stop_signal.trim();
        let named = || Signal::from_str(&format!("SIG{}", text.trim_start_matches("SIG"))).ok();
        let numbered = || {
            text.parse()
                .ok()
                .and_then(|number: i32| Signal::try_from(number).ok())
        };
        if text.is_empty() {
            return Ok(Signal::SIGTERM);
        }
        numbered().or_else(named).ok_or_else(|| {
            Error::Fatal(format!(
                "{text:?} is no signal to stop container {} with: use one like SIGTERM",
                self.name
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl Fn(&mut ContainerConfig)) -> SandboxSpec {
        let mut config = ContainerConfig {
            name: "web".into(),
            argv: vec!["/web".into()],
            ..Default::default()
        };
        change(&mut config);
        SandboxSpec {
            containers: vec![config],
            ..Default::default()
        }
    }

    #[test]
    fn a_plain_spec_is_taken_and_nonsense_is_not() {
        assert!(spec(|_| ()).check().is_ok());
        assert!(SandboxSpec::default().check().is_err());
        for change in [
            (|c: &mut ContainerConfig| c.name = "../web".into()) as fn(&mut ContainerConfig),
            |c| c.argv.clear(),
            |c| c.env = vec![("A=B".into(), String::new())],
            |c| c.cwd = "srv".into(),
            |c| c.stop_signal = "SIGNAL".into(),
        ] {
            assert!(spec(change).check().is_err());
        }
    }

    #[test]
    fn a_stop_signal_has_a_name_or_a_number() {
        for text in ["SIGINT", "INT", "2"] {
            let spec = spec(|c| c.stop_signal = text.into());
            assert_eq!(spec.containers[0].signal().expect(text), Signal::SIGINT);
        }
        assert_eq!(
            spec(|_| ()).containers[0].signal().expect("default"),
            Signal::SIGTERM
        );
    }
}
