//! Where control groups are mounted on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::unistd::Pid;

use crate::error::{Error, Result, Trying};

/// The controllers whose v1 trees are used.
const V1_CONTROLLERS: [&str; 11] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "perf_event",
    "net_cls",
];

/// The cgroup mounts of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// v1 trees, each with the controllers on it. A v2 tree beside them is not used.
    V1(Vec<(Vec<String>, PathBuf)>),
    /// One v2 tree.
    V2(PathBuf),
}

impl Hierarchies {
    /// The machine's, looked up once: they do not change while it runs.
    pub(crate) fn get() -> Result<&'static Self> {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        let text = fs::read_to_string("/proc/self/mountinfo")
            .trying(|| "read /proc/self/mountinfo".into())?;
        let found = Self::parse(&text).ok_or_else(|| {
            Error::Failed("no cgroups are mounted: mount them at /sys/fs/cgroup".to_owned())
        })?;
        Ok(FOUND.get_or_init(|| found))
    }

    /// Reads `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    fn parse(mountinfo: &str) -> Option<Self> {
        let mut v1: Vec<(Vec<String>, PathBuf)> = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut left = left.split(' ');
            // Only mounts of a hierarchy's own root: others are bind mounts of a part of it.
            let (Some("/"), Some(point)) = (left.nth(3), left.next()) else {
                continue;
            };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| V1_CONTROLLERS.contains(option))
                        .map(str::to_owned)
                        .collect();
                    let known = v1.iter().any(|(seen, _)| *seen == controllers);
                    if !controllers.is_empty() && !known {
                        v1.push((controllers, PathBuf::from(point)));
                    }
                }
                (Some("cgroup2"), _) if v2.is_none() => v2 = Some(PathBuf::from(point)),
                _ => {}
            }
        }
        if v1.is_empty() {
            v2.map(Self::V2)
        } else {
            Some(Self::V1(v1))
        }
    }

    /// Every tree.
    pub(crate) fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1(trees) => trees.iter().map(|(_, root)| root.as_path()).collect(),
            Self::V2(root) => vec![root],
        }
    }

    /// The tree with this controller; on v2 always the one tree.
    pub(crate) fn root(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(trees) => trees
                .iter()
                .find(|(controllers, _)| controllers.iter().any(|c| c == controller))
                .map(|(_, root)| root.as_path()),
            Self::V2(root) => Some(root),
        }
    }

    /// Whether devices can be fenced here: on v1 by the devices controller, on v2 by a program.
    pub(crate) fn fences_devices(&self) -> bool {
        match self {
            Self::V1(_) => self.root("devices").is_some(),
            Self::V2(_) => true,
        }
    }

    /// The directories of a process in each tree, except where it is in the tree's root.
    pub(crate) fn of_process(&self, pid: Pid) -> Result<Vec<PathBuf>> {
        let places = self.places(pid)?.into_iter();
        Ok(places
            .filter(|(_, path)| !path.as_os_str().is_empty())
            .map(|(root, path)| root.join(path))
            .collect())
    }

    /// Where a process is: the root of each tree, and its group there, relative to that (empty: the root itself).
    pub(crate) fn places(&self, pid: Pid) -> Result<Vec<(&Path, PathBuf)>> {
        let file = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&file).trying(|| format!("read {file}"))?;
        let mut found = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let root = match self {
                Self::V2(root) if controllers.is_empty() => Some(root.as_path()),
                Self::V1(_) => controllers.split(',').next().and_then(|c| self.v1_root(c)),
                Self::V2(_) => None,
            };
            if let Some(root) = root {
                found.push((root, PathBuf::from(path.trim_start_matches('/'))));
            }
        }
        Ok(found)
    }

    fn v1_root(&self, controller: &str) -> Option<&Path> {
        if controller.is_empty() {
            None
        } else {
            self.root(controller)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
38 31 0:34 /a /mnt/part rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn on_the_hybrid_layout_the_v1_trees_count() {
        let found = Hierarchies::parse(HYBRID).expect("hierarchies");
        assert_eq!(
            found.root("cpuacct"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))
        );
        assert_eq!(
            found.root("freezer"),
            Some(Path::new("/sys/fs/cgroup/freezer"))
        );
        assert_eq!(found.roots().len(), 2);
        assert!(!found.fences_devices());
    }

    #[test]
    fn on_a_unified_machine_the_v2_tree_counts() {
        let line =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            Hierarchies::parse(line),
            Some(Hierarchies::V2("/sys/fs/cgroup".into()))
        );
        assert_eq!(Hierarchies::parse(""), None);
    }
}
