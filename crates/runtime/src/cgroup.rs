//! Control groups: one sandbox's share of them.
//!
//! Both layouts are served: v1 controllers (also with an empty v2 tree beside them, the hybrid layout) and
//! v2 alone. A [`Group`] is one relative path below every hierarchy, because v1 has a tree per controller.
//! libcontainer puts processes into it; limits, freezing, counting and removing happen here, so that they
//! also work when no shim is left.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::devices::Devices;
use crate::error::{Error, Result, Trying};
use crate::fence;
use crate::hierarchy::Hierarchies;
use crate::spec::ContainerConfig;

/// The period of a CPU quota, the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// How long killing may take until the last process is gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// One path below every hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    hierarchies: &'static Hierarchies,
    path: PathBuf,
}

impl Group {
    /// The group `path`, relative to each root; nothing is made.
    pub(crate) fn new(path: &str) -> Result<Self> {
        Self::on(Hierarchies::get()?, path)
    }

    /// The same on hierarchies of the caller's choice.
    pub(crate) fn on(hierarchies: &'static Hierarchies, path: &str) -> Result<Self> {
        let relative = Path::new(path.trim_start_matches('/'));
        let plain = relative
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)));
        if relative.as_os_str().is_empty() || !plain {
            return Err(Error::Fatal(format!(
                "{path:?} is no cgroup path: name one below the root, without '..'"
            )));
        }
        Ok(Self {
            hierarchies,
            path: relative.to_owned(),
        })
    }

    /// The groups whose paths begin with `start`, wherever one of them stands.
    pub(crate) fn beginning(start: &str) -> Result<Vec<Self>> {
        let hierarchies = Hierarchies::get()?;
        let whole = Self::on(hierarchies, start)?.path;
        let (Some(above), Some(name)) = (whole.parent(), whole.file_name()) else {
            return Ok(Vec::new());
        };
        let name = name.to_string_lossy();
        let mut paths: Vec<PathBuf> = Vec::new();
        for root in hierarchies.roots() {
            for dir in children(&root.join(above)) {
                let found = dir
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned());
                if let Some(found) = found.filter(|found| found.starts_with(&*name)) {
                    paths.push(above.join(found));
                }
            }
        }
        paths.sort_unstable();
        paths.dedup();
        Ok(paths
            .into_iter()
            .map(|path| Self { hierarchies, path })
            .collect())
    }

    /// The group that this one is in; `None`: the root.
    pub(crate) fn above(&self) -> Option<Self> {
        let path = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty())?;
        Some(Self {
            hierarchies: self.hierarchies,
            path: path.to_owned(),
        })
    }

    /// A group below this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self {
            hierarchies: self.hierarchies,
            path: self.path.join(name),
        }
    }

    /// The path as OCI wants it.
    pub(crate) fn oci_path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Its directory in the tree of a controller.
    pub(crate) fn dir(&self, controller: &str) -> Option<PathBuf> {
        self.hierarchies
            .root(controller)
            .map(|root| root.join(&self.path))
    }

    /// What its processes may see of it: the name of each v1 tree and its directory there. `None` on v2, where
    /// a mount of the whole tree inside the cgroup namespace shows just that.
    pub(crate) fn views(&self) -> Option<Vec<(String, PathBuf)>> {
        let Hierarchies::V1(trees) = self.hierarchies else {
            return None;
        };
        let shown = |controllers: &[String]| {
            let wanted = ["memory", "cpu", "cpuacct", "pids"];
            controllers.iter().any(|c| wanted.contains(&c.as_str()))
        };
        let view = |root: &PathBuf| {
            let name = root.file_name()?.to_string_lossy().into_owned();
            Some((name, root.join(&self.path)))
        };
        Some(
            trees
                .iter()
                .filter(|(controllers, _)| shown(controllers))
                .filter_map(|(_, root)| view(root))
                .collect(),
        )
    }

    /// Whether it stands.
    pub(crate) fn exists(&self) -> bool {
        self.dir("memory")
            .or_else(|| self.dir("freezer"))
            .is_some_and(|dir| dir.is_dir())
    }

    /// Makes it in every tree, but for cpuset's: those need their CPUs filled in, which libcontainer does when it adds the first process.
    pub(crate) fn create(&self) -> Result<()> {
        match self.hierarchies {
            Hierarchies::V1(trees) => {
                for (controllers, root) in trees
                    .iter()
                    .filter(|(c, _)| !c.iter().any(|c| c == "cpuset"))
                {
                    let dir = root.join(&self.path);
                    make_dir(&dir).trying(|| {
                        format!(
                            "make the cgroup {} ({})",
                            dir.display(),
                            controllers.join(",")
                        )
                    })?;
                }
            }
            Hierarchies::V2(root) => self.create_v2(root)?,
        }
        Ok(())
    }

    /// On v2 a controller works in a group only when each group above hands it down.
    fn create_v2(&self, root: &Path) -> Result<()> {
        let mut dir = root.to_owned();
        for part in &self.path {
            for controller in ["+cpu", "+cpuset", "+memory", "+pids", "+io"] {
                // Refused where it does not exist or stands already: writing a limit would say so.
                let _ = fs::write(dir.join("cgroup.subtree_control"), controller);
            }
            dir.push(part);
            make_dir(&dir).trying(|| format!("make the cgroup {}", dir.display()))?;
        }
        Ok(())
    }

    /// Writes a container's limits. No limit asked: none written.
    pub(crate) fn limit(&self, config: &ContainerConfig, devices: &Devices) -> Result<()> {
        let v1 = matches!(self.hierarchies, Hierarchies::V1(_));
        if let Some(bytes) = config.memory_bytes {
            let (max, swap) = if v1 {
                (
                    "memory.limit_in_bytes",
                    ("memory.memsw.limit_in_bytes", bytes),
                )
            } else {
                ("memory.max", ("memory.swap.max", 0))
            };
            // A limit with swap may not be under the one without: the order matters when both shrink or
            // grow. These groups are new or unchanged, so the plain one comes first.
            self.write("memory", max, &bytes.to_string())?;
            // Swap accounting may be off; then there is no such file, and nothing to limit.
            match self.write("memory", swap.0, &swap.1.to_string()) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                other => other?,
            }
        }
        if let Some(milli) = config.cpu_milli {
            // The kernel takes no quota under 1 ms.
            let quota = (milli * CPU_PERIOD_US / 1000).max(1000);
            if v1 {
                self.write("cpu", "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                self.write("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
            } else {
                self.write("cpu", "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
            }
        }
        if let Some(pids) = config.pids {
            self.write("pids", "pids.max", &pids.to_string())?;
        }
        if let Some(shares) = config.options.cpu_shares {
            // The kernel takes 2 to 262144 shares, and 1 to 10000 of weight.
            let shares = shares.clamp(2, 262_144);
            if v1 {
                self.write("cpu", "cpu.shares", &shares.to_string())?;
            } else {
                let weight = 1 + (shares - 2) * 9999 / 262_142;
                self.write("cpu", "cpu.weight", &weight.to_string())?;
            }
        }
        if let Some(cpus) = &config.options.cpuset {
            self.pin(cpus)?;
        }
        self.fence_devices(config.options.privileged, devices)
    }

    /// Lets its processes run on some CPUs only.
    fn pin(&self, cpus: &str) -> Result<()> {
        if let (Hierarchies::V1(_), Some(root)) =
            (self.hierarchies, self.hierarchies.root("cpuset"))
        {
            // A new group has neither CPUs nor memory nodes, and what is below it can get none then.
            let mut dir = root.to_owned();
            for part in &self.path {
                let above = dir.clone();
                dir.push(part);
                make_dir(&dir).trying(|| format!("make the cgroup {}", dir.display()))?;
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
                    if own.trim().is_empty() {
                        let value = fs::read_to_string(above.join(file)).unwrap_or_default();
                        let path = dir.join(file);
                        fs::write(&path, value.trim())
                            .trying(|| format!("write to {}", path.display()))?;
                    }
                }
            }
        }
        self.write("cpuset", "cpuset.cpus", cpus).map_err(|error| {
            Error::Fatal(format!(
                "the container cannot be kept to the CPUs {cpus:?}: name some that this machine has ({})",
                error.sentence()
            ))
        })
    }

    /// Lets its processes use harmless devices, those given to it, or all.
    fn fence_devices(&self, all: bool, devices: &Devices) -> Result<()> {
        // A new group may do what the one above it may.
        if all || !self.hierarchies.fences_devices() {
            return Ok(());
        }
        let rules = DEVICE_RULES.into_iter().chain(devices.rules());
        match self.hierarchies {
            Hierarchies::V1(_) => {
                self.write("devices", "devices.deny", "a")?;
                for rule in rules {
                    self.write("devices", "devices.allow", rule)?;
                }
                Ok(())
            }
            Hierarchies::V2(root) => {
                let dir = root.join(&self.path);
                let what = || format!("fence devices from the cgroup {}", dir.display());
                let opened = fs::File::open(&dir).trying(what)?;
                match fence::attach(opened.as_fd(), rules) {
                    // A user namespace keeps its processes from making nodes anyway.
                    Err(_) if devices.mapped() => Ok(()),
                    other => other.trying(what),
                }
            }
        }
    }

    /// How many processes in it the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = match self.hierarchies {
            Hierarchies::V1(_) => "memory.oom_control",
            Hierarchies::V2(_) => "memory.events",
        };
        self.dir("memory")
            .and_then(|dir| fs::read_to_string(dir.join(file)).ok())
            .and_then(|text| {
                text.lines()
                    .find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok())
            })
            .unwrap_or(0)
    }

    /// The processes in it and below.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        for root in self.hierarchies.roots() {
            collect(&root.join(&self.path), &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Kills all in it and below, thawed first, again and again until none is left: one may fork meanwhile.
    pub(crate) fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_PATIENCE;
        loop {
            if !self.signal_all() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Failed(format!(
                    "processes of the cgroup {} do not end although killed; they may hang in a broken disk",
                    self.path.display()
                )));
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Sends SIGKILL to all in it and below, thawed first. Whether there were any.
    pub(crate) fn signal_all(&self) -> bool {
        // What a v1 freezer holds does not even die.
        let _ = crate::freezer::thaw_group(self);
        let processes = self.processes();
        for pid in &processes {
            // Gone meanwhile is fine.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        !processes.is_empty()
    }

    /// Removes it with all below, and those above that are empty then. It must hold no process.
    pub(crate) fn remove(&self) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        for root in self.hierarchies.roots() {
            let dir = root.join(&self.path);
            if let Err(source) = remove_tree(&dir) {
                errors.push(Error::Io {
                    what: format!("remove the cgroup {}", dir.display()),
                    source,
                });
                continue;
            }
            let mut above = self.path.parent();
            while let Some(path) = above.filter(|path| !path.as_os_str().is_empty()) {
                // Others may still be in there: then it stays.
                if fs::remove_dir(root.join(path)).is_err() {
                    break;
                }
                above = path.parent();
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// The file that freezes it, and whether it is v2's.
    pub(crate) fn freezer_file(&self) -> Result<(PathBuf, bool)> {
        let dir = self.dir("freezer").ok_or_else(|| {
            Error::Failed("the freezer is not mounted: mount it below /sys/fs/cgroup".to_owned())
        })?;
        Ok(match self.hierarchies {
            Hierarchies::V1(_) => (dir.join("freezer.state"), false),
            Hierarchies::V2(_) => (dir.join("cgroup.freeze"), true),
        })
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let dir = self.dir(controller).ok_or_else(|| {
            Error::Failed(format!(
                "the {controller} controller is not mounted, so its limit cannot be kept"
            ))
        })?;
        let path = dir.join(file);
        fs::write(&path, value).trying(|| format!("write {value:?} to {}", path.display()))
    }
}

/// What a container may do with devices, as Docker has it: make any node, use only harmless ones.
const DEVICE_RULES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// `mkdir -p` that survives another's `rmdir` of an empty parent in between.
fn make_dir(dir: &Path) -> io::Result<()> {
    for _ in 0..16 {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
    }
    fs::create_dir_all(dir)
}

fn collect(dir: &Path, found: &mut Vec<Pid>) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        found.extend(
            text.lines()
                .filter_map(|l| l.parse().ok())
                .map(Pid::from_raw),
        );
    }
    for child in children(dir) {
        collect(&child, found);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // A process that ended a moment ago may still be on its way out.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_never_leaves_its_tree() {
        let v2: &Hierarchies = Box::leak(Box::new(Hierarchies::V2("/sys/fs/cgroup".into())));
        for bad in ["", "/", "a/../../b", ".."] {
            assert!(Group::on(v2, bad).is_err(), "{bad}");
        }
    }
}
