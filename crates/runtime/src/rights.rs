//! What the processes of a container may: capabilities and limits, by its options.

use std::collections::HashSet;
use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType,
};

use crate::error::{Error, Result};
use crate::hierarchy::Hierarchies;
use crate::options::OptionsConfig;

/// The open files that a container may have, where the node itself may have as many.
const NOFILE: u64 = 1_048_576;

/// Every capability (capabilities(7)), in the order of their numbers, from 0.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's default ones.
const DEFAULT: &str = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID
    SETPCAP SETUID SYS_CHROOT";

/// The limits of a process, by the names that `docker run --ulimit` has for them.
const LIMITS: [(&str, Resource, PosixRlimitType); 16] = [
    ("as", Resource::RLIMIT_AS, PosixRlimitType::RlimitAs),
    ("core", Resource::RLIMIT_CORE, PosixRlimitType::RlimitCore),
    ("cpu", Resource::RLIMIT_CPU, PosixRlimitType::RlimitCpu),
    ("data", Resource::RLIMIT_DATA, PosixRlimitType::RlimitData),
    (
        "fsize",
        Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitFsize,
    ),
    (
        "locks",
        Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitLocks,
    ),
    (
        "memlock",
        Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitMemlock,
    ),
    (
        "msgqueue",
        Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitMsgqueue,
    ),
    ("nice", Resource::RLIMIT_NICE, PosixRlimitType::RlimitNice),
    (
        "nofile",
        Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitNofile,
    ),
    (
        "nproc",
        Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNproc,
    ),
    ("rss", Resource::RLIMIT_RSS, PosixRlimitType::RlimitRss),
    (
        "rtprio",
        Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRtprio,
    ),
    (
        "rttime",
        Resource::RLIMIT_RTTIME,
        PosixRlimitType::RlimitRttime,
    ),
    (
        "sigpending",
        Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitSigpending,
    ),
    (
        "stack",
        Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitStack,
    ),
];

/// The capabilities of a container by its options; `mapped`: it has a user namespace.
pub(crate) fn capabilities(options: &OptionsConfig, mapped: bool) -> Result<HashSet<Capability>> {
    if options.privileged {
        return every(mapped);
    }
    let mut set = named(DEFAULT.split_ascii_whitespace())?;
    // Where no cgroup fences devices, making a node would open the host's disks; a user namespace forbids it anyway.
    if !mapped && !Hierarchies::get().is_ok_and(Hierarchies::fences_devices) {
        set.remove(&Capability::Mknod);
    }
    for name in &options.cap_drop {
        if is_all(name) {
            set.clear();
        } else {
            set.remove(&capability(name)?);
        }
    }
    for name in &options.cap_add {
        if is_all(name) {
            set.extend(every(mapped)?);
        } else {
            set.insert(capability(name)?);
        }
    }
    Ok(set)
}

/// All that this process can give: in a user namespace of its own everything, else what the node was started with.
fn every(mapped: bool) -> Result<HashSet<Capability>> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let own = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    let given = own.filter(|_| !mapped).unwrap_or(u64::MAX);
    let names = ALL.iter().enumerate();
    named(
        names
            .filter(|(number, _)| given >> number & 1 == 1)
            .map(|(_, name)| *name),
    )
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL")
}

fn named<'a>(names: impl Iterator<Item = &'a str>) -> Result<HashSet<Capability>> {
    names.map(capability).collect()
}

fn capability(name: &str) -> Result<Capability> {
    serde_json::from_value(serde_json::Value::from(name)).map_err(|_| {
        Error::Fatal(format!(
            "there is no capability {name:?}: use one of capabilities(7), such as NET_ADMIN"
        ))
    })
}

/// The sets of a process. Only root holds them; another user may get them no more than files and no_new_privs let it.
pub(crate) fn sets(
    all: &HashSet<Capability>,
    uid: u32,
) -> std::result::Result<LinuxCapabilities, OciSpecError> {
    let held = if uid == 0 {
        all.clone()
    } else {
        HashSet::new()
    };
    LinuxCapabilitiesBuilder::default()
        .bounding(all.clone())
        .effective(held.clone())
        .permitted(held)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
}

/// The sets of an init that still has to load its filter without having given up new privileges (seccomp(2)), and to
/// take on the true sets after that.
pub(crate) fn loading_sets(
    all: &HashSet<Capability>,
) -> std::result::Result<LinuxCapabilities, OciSpecError> {
    let mut held = all.clone();
    held.extend([Capability::SysAdmin, Capability::Setpcap]);
    LinuxCapabilitiesBuilder::default()
        .bounding(held.clone())
        .effective(held.clone())
        .permitted(held)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
}

/// Refuses limits that there are not.
pub(crate) fn check_ulimits(options: &OptionsConfig) -> Result<()> {
    for (name, limit) in &options.ulimits {
        if !LIMITS.iter().any(|(known, _, _)| known == name) {
            let all: Vec<&str> = LIMITS.iter().map(|(known, _, _)| *known).collect();
            return Err(Error::Fatal(format!(
                "there is no ulimit {name:?}: use one of {}",
                all.join(", ")
            )));
        }
        let unlimited = |value: Option<u64>| value.unwrap_or(u64::MAX);
        if unlimited(limit.soft) > unlimited(limit.hard) {
            return Err(Error::Fatal(format!(
                "the ulimit {name} has a soft limit above its hard one"
            )));
        }
    }
    Ok(())
}

/// The limits of a container's processes. More than this process's own hard limit is refused by the kernel: that is
/// what they get then.
pub(crate) fn rlimits(
    options: &OptionsConfig,
) -> std::result::Result<Vec<PosixRlimit>, OciSpecError> {
    let mut found = Vec::new();
    for (name, resource, typ) in LIMITS {
        let own = getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
        let (soft, hard) = match options.ulimits.get(name) {
            Some(limit) => (
                limit.soft.unwrap_or(u64::MAX),
                limit.hard.unwrap_or(u64::MAX),
            ),
            None if name == "nofile" => (NOFILE, NOFILE),
            None => continue,
        };
        found.push(
            PosixRlimitBuilder::default()
                .typ(typ)
                .soft(soft.min(own))
                .hard(hard.min(own))
                .build()?,
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> HashSet<Capability> {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
        let options = OptionsConfig {
            cap_add: words(add),
            cap_drop: words(drop),
            ..OptionsConfig::default()
        };
        capabilities(&options, true).expect("known ones")
    }

    #[test]
    fn dropping_comes_before_adding() {
        assert_eq!(set(&[], &[]).len(), 14);
        assert_eq!(
            set(&["CAP_NET_ADMIN", "chown"], &["ALL"]),
            HashSet::from([Capability::NetAdmin, Capability::Chown])
        );
        assert_eq!(set(&["ALL"], &["CHOWN"]).len(), 41);
        assert!(!set(&[], &["NET_RAW"]).contains(&Capability::NetRaw));
    }

    #[test]
    fn what_does_not_exist_is_refused_by_name() {
        let mut options = OptionsConfig {
            cap_add: vec!["FLY".to_owned()],
            ..OptionsConfig::default()
        };
        let error = capabilities(&options, true).expect_err("none such");
        assert!(error.sentence().contains("FLY"), "{error:?}");
        options
            .ulimits
            .insert("wings".to_owned(), Default::default());
        let error = check_ulimits(&options).expect_err("none such");
        assert!(error.sentence().contains("wings"), "{error:?}");
    }
}
