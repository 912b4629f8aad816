//! How closely a container is fenced in, and what of the machine it gets: plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Settings of one container. The default is what Docker's is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptionsConfig {
    /// Capabilities beside Docker's default ones, with or without `CAP_`; `ALL` is one.
    pub cap_add: Vec<String>,
    /// Capabilities to go without; `ALL` is one. Taken off before `cap_add` adds.
    pub cap_drop: Vec<String>,
    /// All capabilities and devices, no filter, no masks.
    pub privileged: bool,
    /// The root file system cannot be written to.
    pub read_only: bool,
    /// Programs may gain privileges by set-user-id files.
    pub new_privileges: bool,
    /// No system call filter instead of Docker's default one.
    pub seccomp_unconfined: bool,
    /// Limits of a process (setrlimit(2)): the name without `RLIMIT_`, in lower case, such as `nofile`.
    pub ulimits: BTreeMap<String, UlimitConfig>,
    /// The size of `/dev/shm`, in bytes; `None`: 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// A small init reaps the container's orphans and passes signals on.
    pub init: bool,
    /// No program is executed: a small init keeps the container open for commands, and ends them when it is to end.
    pub hold: bool,
    /// Devices of the machine.
    pub devices: Vec<DeviceConfig>,
    /// Devices by the Container Device Interface: `vendor.com/class=name`.
    pub cdi_devices: Vec<String>,
    /// Further groups of its user: names or ids.
    pub group_add: Vec<String>,
    /// Its standard input and outputs are a terminal.
    pub tty: bool,
    /// Adjusts whom the kernel kills first for want of memory, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// CPUs that it may run on (`0-1,3`).
    pub cpuset: Option<String>,
    /// Its share of the CPU against others where it is short; 1024 is the usual one.
    pub cpu_shares: Option<u64>,
}

/// A limit of a process. `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UlimitConfig {
    /// The one in force.
    pub soft: Option<u64>,
    /// The one up to which the process itself may raise it.
    pub hard: Option<u64>,
}

/// A device of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceConfig {
    /// Its path on the machine.
    pub source: String,
    /// Its path in the container.
    pub target: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// Refuses what cannot be understood.
pub(crate) fn check(container: &str, options: &OptionsConfig) -> Result<()> {
    let fatal = |text: String| Err(Error::Fatal(format!("container {container}: {text}")));
    if let Some(adjust) = options
        .oom_score_adj
        .filter(|n| !(-1000..=1000).contains(n))
    {
        return fatal(format!(
            "oom_score_adj is {adjust}, and not from -1000 to 1000"
        ));
    }
    if let Some(cpus) = &options.cpuset {
        let known = cpus
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'-' || b == b',');
        if cpus.is_empty() || !known {
            return fatal(format!("{cpus:?} is no list of CPUs: write one like 0-1,3"));
        }
    }
    Ok(())
}
