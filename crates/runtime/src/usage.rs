//! What a sandbox uses: read from its cgroups, its network namespace and its folder, without a word to its shim.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cgroup::Group;
use crate::error::Result;
use crate::spec::Bundle;

/// How many files are counted at most; what lies beyond is left out.
const MAX_FILES: usize = 200_000;

/// A limit above this is none: v1 has no word for "unlimited" but the highest number of pages.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Counters since the sandbox was made, and levels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Memory charged to it, without what the kernel can drop at once (the inactive page cache), in bytes.
    pub memory_bytes: u64,
    /// The sum of its containers' limits; `None`: one has none.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that came in by its network devices, without loopback.
    pub network_in_bytes: u64,
    /// Bytes that went out.
    pub network_out_bytes: u64,
    /// Bytes read from disks.
    pub disk_read_bytes: u64,
    /// Bytes written to disks.
    pub disk_write_bytes: u64,
}

/// What the sandbox of `bundle` with the parent cgroup `cgroup` uses. What the kernel does not count is zero.
///
/// # Errors
/// When there are no cgroups on this machine.
pub fn read(bundle: &Path, cgroup: &str) -> Result<Usage> {
    let group = Group::new(cgroup)?;
    let mut usage = Usage {
        cpu_us: cpu_us(&group),
        pids: number(&group, "pids", "pids.current").unwrap_or(0),
        ..Usage::default()
    };
    (usage.disk_read_bytes, usage.disk_write_bytes) = disk(&group);
    // By container: without memory.use_hierarchy v1 does not add them up.
    let containers = containers(&group);
    let limits = containers.iter().map(memory_limit);
    let limit: Option<u64> = limits.sum();
    usage.memory_limit_bytes = limit.filter(|bytes| *bytes > 0);
    usage.memory_bytes = containers.iter().map(memory).sum();
    // The shim lives in its sandbox's network namespace.
    let pid = fs::read_to_string(Bundle::new(bundle).pid()).unwrap_or_default();
    let devices = fs::read_to_string(format!("/proc/{}/net/dev", pid.trim()));
    (usage.network_in_bytes, usage.network_out_bytes) = network(&devices.unwrap_or_default());
    Ok(usage)
}

/// How much of the disk the containers of a bundle take with what they have written, in bytes. Walks all of it.
pub fn disk_bytes(bundle: &Path) -> u64 {
    let containers = Bundle::new(bundle).root().join("containers");
    let mut found = Vec::new();
    for container in fs::read_dir(containers).into_iter().flatten().flatten() {
        found.push(container.path().join("upper"));
    }
    let mut bytes = 0;
    let mut files = 0;
    while let Some(dir) = found.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            // Of the entry itself: links are not followed.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            bytes += metadata.blocks() * 512;
            files += 1;
            if files >= MAX_FILES {
                return bytes;
            }
            if metadata.is_dir() {
                found.push(entry.path());
            }
        }
    }
    bytes
}

/// The groups of the containers.
fn containers(group: &Group) -> Vec<Group> {
    let dir = group.dir("memory");
    let children = dir.and_then(|dir| fs::read_dir(dir).ok());
    let children = children.into_iter().flatten().flatten();
    let dirs = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.filter_map(|entry| Some(group.child(entry.file_name().to_str()?)))
        .collect()
}

fn cpu_us(group: &Group) -> u64 {
    // v1 counts nanoseconds, v2 microseconds.
    let v1 = || Some(number(group, "cpuacct", "cpuacct.usage")? / 1000);
    let v2 = || field(&text(group, "cpu", "cpu.stat")?, "usage_usec");
    v1().or_else(v2).unwrap_or(0)
}

fn memory(group: &Group) -> u64 {
    let stat = text(group, "memory", "memory.stat").unwrap_or_default();
    let (used, droppable) = match number(group, "memory", "memory.usage_in_bytes") {
        Some(used) => (Some(used), field(&stat, "total_inactive_file")),
        None => (
            number(group, "memory", "memory.current"),
            field(&stat, "inactive_file"),
        ),
    };
    used.unwrap_or(0).saturating_sub(droppable.unwrap_or(0))
}

fn memory_limit(group: &Group) -> Option<u64> {
    let v1 = number(group, "memory", "memory.limit_in_bytes");
    let limit = v1.or_else(|| number(group, "memory", "memory.max"));
    limit.filter(|bytes| *bytes < NO_LIMIT_BYTES)
}

/// Bytes read and written.
fn disk(group: &Group) -> (u64, u64) {
    let v1 = text(group, "blkio", "blkio.throttle.io_service_bytes_recursive");
    match v1 {
        Some(text) => disk_v1(&text),
        None => disk_v2(&text(group, "io", "io.stat").unwrap_or_default()),
    }
}

/// Lines of `8:0 Read 4096` (cgroup-v1/blkio-controller).
fn disk_v1(text: &str) -> (u64, u64) {
    let sum = |what: &str| {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            (words.next() == Some(what)).then(|| words.next()?.parse::<u64>().ok())?
        });
        lines.sum()
    };
    (sum("Read"), sum("Write"))
}

/// Lines of `8:0 rbytes=4096 wbytes=0 ...` (cgroup-v2).
fn disk_v2(text: &str) -> (u64, u64) {
    let sum = |what: &str| {
        let words = text.split_ascii_whitespace();
        let numbers = words.filter_map(|word| word.strip_prefix(what)?.parse::<u64>().ok());
        numbers.sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// Bytes in and out of all devices but loopback, as /proc/net/dev has them: the first and the ninth number of a line.
fn network(text: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        let numbers: Vec<u64> = numbers
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if name.trim() != "lo"
            && let [received, _, _, _, _, _, _, _, sent, ..] = numbers[..]
        {
            sum = (sum.0 + received, sum.1 + sent);
        }
    }
    sum
}

fn text(group: &Group, controller: &str, file: &str) -> Option<String> {
    let path: PathBuf = group.dir(controller)?.join(file);
    fs::read_to_string(path).ok()
}

fn number(group: &Group, controller: &str, file: &str) -> Option<u64> {
    text(group, controller, file)?.trim().parse().ok()
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut found = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = found.find(|(known, _)| *known == name)?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_does_not_count_as_network() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  \
            eth0: 100 2 0 0 0 0 0 0 50 3 0 0 0 0 0 0\n";
        assert_eq!(network(text), (100, 50));
        assert_eq!(network(""), (0, 0));
    }

    #[test]
    fn disks_are_added_up_in_both_layouts() {
        let v1 = "8:0 Read 4096\n8:0 Write 10\n8:0 Sync 1\n254:0 Read 4\nTotal 4111\n";
        assert_eq!(disk_v1(v1), (4100, 10));
        let v2 =
            "8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n254:0 rbytes=4 wbytes=0\n";
        assert_eq!(disk_v2(v2), (4100, 10));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let stat = "inactive_file 7\ntotal_inactive_file 9\n";
        assert_eq!(field(stat, "inactive_file"), Some(7));
        assert_eq!(field(stat, "total_inactive_file"), Some(9));
        assert_eq!(field(stat, "file"), None);
    }
}
