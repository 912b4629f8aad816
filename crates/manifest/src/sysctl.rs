//! Kernel settings that a sandbox has for itself (sysctl(8)).

use crate::fields::Expected;

/// Those of `kernel.` that belong to an IPC namespace (ipc_namespaces(7)).
const KERNEL: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// The name of a setting, with points. One of the whole machine is refused: it would be every service's.
pub(crate) fn sysctl(text: &str) -> Result<String, Expected> {
    // With a slash first, slashes part it, and points are part of a device's name.
    let name = match (text.find('/'), text.find('.')) {
        (Some(slash), Some(point)) if slash < point => text.replace('/', "."),
        (Some(_), None) => text.replace('/', "."),
        _ => text.to_owned(),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
    // A slash stands for a point in a device's name: a word of slashes alone would lead upwards from where it is.
    let is_name = name
        .split('.')
        .all(|word| !word.chars().all(|c| c == '/') && word.chars().all(is_word));
    let is_own = ["net.", "fs.mqueue."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || KERNEL.contains(&name.as_str());
    if is_name && is_own {
        Ok(name)
    } else {
        Err("a setting of the network or IPC namespace such as net.core.somaxconn (others are the whole machine's)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_namespace_can_be_set() {
        for good in ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max"] {
            assert_eq!(sysctl(good).as_deref(), Ok(good));
        }
        assert_eq!(
            sysctl("net/ipv4/ip_forward").as_deref(),
            Ok("net.ipv4.ip_forward")
        );
        for bad in [
            "vm.swappiness",
            "kernel.hostname",
            "net.",
            "net..x",
            "net.//.kernel.core_pattern",
            "net./.core.somaxconn",
            "net/../kernel/core_pattern",
            "net/./core/somaxconn",
            "net.a b",
            "",
        ] {
            assert!(sysctl(bad).is_err(), "{bad}");
        }
    }
}
