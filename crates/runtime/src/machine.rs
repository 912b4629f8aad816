//! What the machine has for containers.

use std::fs;

use crate::cgroup::Group;
use crate::hierarchy::Hierarchies;

/// The memory that sandboxes in the cgroup `path` may use together, in bytes: the machine's, or the least limit of the cgroups
/// that they are in. `None`: it could not be read.
pub fn memory_bytes(path: &str) -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let total = total(&meminfo)?;
    Some(limits(path).fold(total, u64::min))
}

/// The limits of a cgroup and of all above it, where there are such. A group that is not made yet has none.
fn limits(path: &str) -> impl Iterator<Item = u64> {
    let mut dirs = Vec::new();
    if let Ok(hierarchies) = Hierarchies::get() {
        dirs.extend(hierarchies.root("memory").map(std::path::Path::to_owned));
        let mut group = Group::new(path).ok();
        while let Some(this) = group {
            dirs.extend(this.dir("memory"));
            group = this.above();
        }
    }
    let files = ["memory.max", "memory.limit_in_bytes"];
    dirs.into_iter().flat_map(move |dir| {
        let read = move |file: &str| -> Option<u64> {
            // `max` is no number, and no limit.
            fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
        };
        files.into_iter().filter_map(read)
    })
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_bytes() {
        let text = "MemTotal:        8000000 kB\nMemFree:          1 kB\n";
        assert_eq!(total(text), Some(8_192_000_000));
        assert_eq!(total(""), None);
    }

    #[test]
    fn no_more_is_there_than_the_machine_has() {
        let meminfo = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
        let all = memory_bytes("layby/none").expect("it can be read");
        assert!(all > 0 && Some(all) <= total(&meminfo));
    }
}
