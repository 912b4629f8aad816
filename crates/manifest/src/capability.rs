//! Capabilities by their names (capabilities(7)).

use layby_model::options::{NetworkMode, SandboxOptions};
use layby_model::spec::ContainerSpec;

use crate::fields::Expected;
use crate::report::Report;
use crate::tree::Place;

/// All that Linux 6.12 knows, without `CAP_`.
const NAMES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A capability as the model writes it: `NET_ADMIN`, of `net_admin` or `CAP_NET_ADMIN`; or `ALL`.
pub(crate) fn capability(text: &str) -> Result<String, Expected> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" || NAMES.contains(&name) {
        Ok(name.to_owned())
    } else {
        Err("a capability such as NET_ADMIN, or ALL".to_owned())
    }
}

/// Those with power over what belongs to the machine: its network devices, raw sockets, clock, modules, mounts. From inside
/// a user namespace the kernel grants none of it.
const OF_THE_MACHINE: [&str; 10] = [
    "ALL",
    "BPF",
    "NET_ADMIN",
    "NET_RAW",
    "PERFMON",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
];

/// Where a container adds capabilities, as `name`, and what the manifest has to say for a replica without a user namespace.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) way_out: &'static str,
}

/// Warns of capabilities that a container adds in vain. `all`: the containers of its service.
pub(crate) fn warn_in_vain(
    container: &ContainerSpec,
    added: &Added,
    all: &[ContainerSpec],
    sandbox: &SandboxOptions,
    report: &mut Report,
) {
    let shared = sandbox.host_users
        || sandbox.host_pid
        || sandbox.host_ipc
        || sandbox.network == NetworkMode::Host;
    if shared || all.iter().any(|container| container.options.privileged) {
        return; // it has no user namespace
    }
    let mut in_vain: Vec<&str> = container
        .options
        .cap_add
        .iter()
        .map(String::as_str)
        .collect();
    in_vain.retain(|name| OF_THE_MACHINE.contains(name));
    in_vain.sort_unstable();
    in_vain.dedup();
    if in_vain.is_empty() {
        return;
    }
    let message = format!(
        "{} adds {}, without effect on the network or the machine from inside a user namespace: \
         write {:?} if it is needed, which the node's operator has to allow",
        added.name,
        in_vain.join(", "),
        added.way_out
    );
    report.warn(&added.place, message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_read_with_and_without_its_prefix() {
        for text in ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_net_admin"] {
            assert_eq!(capability(text).as_deref(), Ok("NET_ADMIN"), "{text}");
        }
        assert_eq!(capability("all").as_deref(), Ok("ALL"));
        for bad in ["", "CAP_", "ADMIN", "NET ADMIN"] {
            assert!(capability(bad).is_err(), "{bad}");
        }
    }
}
