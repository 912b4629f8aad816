//! How closely a container is fenced in, and what of the machine it gets: the rarer settings of `docker run`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Settings of one container. The default is what Docker's is, in a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerOptions {
    /// Capabilities beside Docker's default ones, without `CAP_`, in upper case; `ALL` is one.
    pub cap_add: Vec<String>,
    /// Capabilities to go without; `ALL` is one. Taken off before `cap_add` adds.
    pub cap_drop: Vec<String>,
    /// All capabilities and devices, no filter, no masks. Only where the node's operator allows it.
    pub privileged: bool,
    /// The root file system cannot be written to.
    pub read_only: bool,
    /// `Some(false)`: programs may gain privileges by set-user-id files (`allowPrivilegeEscalation: true`). `None`: they may not.
    pub no_new_privileges: Option<bool>,
    /// The system call filter: `None`: Docker's default one; `unconfined`: none. Nothing else is known.
    pub seccomp: Option<String>,
    /// Limits of a process (setrlimit(2)): the name without `RLIMIT_`, in lower case, such as `nofile`.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// The size of `/dev/shm`, in bytes; `None`: 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// A small init reaps the container's orphans and passes signals on (`docker run --init`).
    pub init: bool,
    /// No program is executed: a small init keeps the container open for commands, and ends them when it is to end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Devices of the machine. Only where the node's operator allows it.
    pub devices: Vec<Device>,
    /// Devices by the Container Device Interface: `vendor.com/class=name`.
    pub cdi_devices: Vec<String>,
    /// Further groups of its user: names or ids.
    pub group_add: Vec<String>,
    /// Its standard input and outputs are a terminal (Compose `tty: true`).
    pub tty: bool,
    /// Adjusts whom the kernel kills first for want of memory, -1000 to 1000; below 0 only where the node's operator
    /// allows it.
    pub oom_score_adj: Option<i32>,
    /// CPUs that it may run on (`0-1,3`).
    pub cpuset: Option<String>,
    /// Its share of the CPU against others where it is short; 1024 is the usual one.
    pub cpu_shares: Option<u64>,
}

/// A limit of a process. `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The one in force.
    pub soft: Option<u64>,
    /// The one up to which the process itself may raise it.
    pub hard: Option<u64>,
}

/// A device of the machine (`docker run --device`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its path on the machine.
    pub source: String,
    /// Its path in the container.
    pub target: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// Whose network a replica is in (Compose `network_mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// One with an address of its own, in the networks of its service.
    #[default]
    Own,
    /// None: it has loopback alone, and nothing leads to it.
    None,
    /// The machine's. What leads to it leads to loopback. Only where the node's operator allows it.
    Host,
}

impl NetworkMode {
    /// Whether it is what holds where nothing is said.
    pub fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// Settings that the containers of one replica share, since their namespaces are the sandbox's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxOptions {
    /// Whose network they are in.
    #[serde(skip_serializing_if = "NetworkMode::is_own")]
    pub network: NetworkMode,
    /// The host name that they see; `None`: the replica's id.
    pub hostname: Option<String>,
    /// Further lines of `/etc/hosts`: name, address. The address `host-gateway` is the machine's.
    pub extra_hosts: Vec<(String, String)>,
    /// Names for hosts elsewhere, by which all containers of the app find those (Kubernetes' Services of the type
    /// ExternalName).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub elsewhere: BTreeMap<String, String>,
    /// Name servers that Layby's own asks instead of the machine's, for names that are of nobody here; from where the
    /// containers are, so that `127.0.0.1` is theirs.
    pub dns: Vec<String>,
    /// They are asked after the machine's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dns_after_machines: bool,
    /// Domains to look short names up in (`search` of resolv.conf(5)).
    pub dns_search: Vec<String>,
    /// Options of the resolver (`options` of resolv.conf(5)).
    pub dns_options: Vec<String>,
    /// Kernel settings of its namespaces: `net.*`, and those of `kernel.*` and `fs.mqueue.*` that have a namespace.
    pub sysctls: BTreeMap<String, String>,
    /// The machine's process namespace instead of its own. Only where the node's operator allows it.
    pub host_pid: bool,
    /// The machine's IPC namespace instead of its own. Only where the node's operator allows it.
    pub host_ipc: bool,
    /// The containers of the replica share one process namespace (Kubernetes `shareProcessNamespace`).
    pub share_pid: bool,
    /// The group of the folders, volumes and files in memory that are made for its containers, who may write to them by it
    /// (Kubernetes `fsGroup`). A volume that is there already stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_group: Option<u32>,
    /// Without a user namespace: root inside is root outside (Compose `userns_mode: host`, Kubernetes
    /// `hostUsers: true` explicitly). Only where the node's operator allows it.
    pub host_users: bool,
}
