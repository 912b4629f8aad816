//! Kernel settings of a sandbox: only those that a namespace of its own has.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result, Trying};
use crate::spec::SandboxSpec;

/// Those of the IPC namespace (ipc_namespaces(7)), beside `fs.mqueue.*`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses those that are the whole machine's.
pub(crate) fn check(spec: &SandboxSpec) -> Result<()> {
    for name in spec.sysctls.keys() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_/".contains(&b);
        let known = (is_net(name) || is_ipc(name) || name == "kernel.domainname")
            && name.bytes().all(plain)
            && (is_net(name) || !name.contains('/'))
            && stays_below(&below_sys(name));
        if !known {
            return Err(Error::Fatal(format!(
                "the kernel setting {name} is the whole machine's, not a container's: set it with sysctl(8) there; a \
                 service may set net.*, fs.mqueue.*, {}",
                IPC.join(", ")
            )));
        }
        if is_ipc(name) && spec.host_ipc {
            return Err(Error::Fatal(format!(
                "the kernel setting {name} cannot be set in the machine's own IPC namespace"
            )));
        }
    }
    Ok(())
}

/// Its path below `/proc/sys`. A dot in an interface's name is written as a slash (sysctl.d(5)).
fn below_sys(name: &str) -> String {
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

/// Whether a path leads on downwards with each of its parts. Only the path tells: `net.//.kernel` is `net/../kernel`.
fn stays_below(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_net(name: &str) -> bool {
    name.starts_with("net.")
}

fn is_ipc(name: &str) -> bool {
    IPC.contains(&name) || name.starts_with("fs.mqueue.")
}

/// Those that each container's init sets, in the namespaces that are its own.
pub(crate) fn of_init(spec: &SandboxSpec) -> HashMap<String, String> {
    let own = spec.sysctls.iter().filter(|(name, _)| !is_net(name));
    own.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Sets those of the network namespace that this process is in.
pub(crate) fn set_network(spec: &SandboxSpec) -> Result<()> {
    for (name, value) in spec.sysctls.iter().filter(|(name, _)| is_net(name)) {
        let path = Path::new("/proc/sys").join(below_sys(name));
        fs::write(&path, value).trying(|| format!("set {name} to {value:?} for the sandbox"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_have_a_namespace_are_taken() {
        let spec = |name: &str| SandboxSpec {
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            ..SandboxSpec::default()
        };
        for good in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.eth0/1.forwarding",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
        ] {
            assert!(check(&spec(good)).is_ok(), "{good}");
        }
        for bad in [
            "vm.overcommit_memory",
            "kernel.core_pattern",
            "net/../kernel.core_pattern",
            "net..kernel",
            "net.//.kernel.core_pattern",
            "net.ipv4.//.//.kernel.core_pattern",
            "net./.core.somaxconn",
            "net.core.",
            "fs.mqueue.//.//.kernel.core_pattern",
            "kernel.hostname",
            "net.\0",
        ] {
            let error = check(&spec(bad)).expect_err(bad);
            assert!(error.fatal(), "{bad}");
        }
    }
}
