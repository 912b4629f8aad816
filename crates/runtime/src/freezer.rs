//! Freezing and thawing a sandbox's cgroup. Needs no shim: nothing is in the way of a wake.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cgroup::Group;
use crate::error::{Error, Result, Trying};

/// How long freezing may take. A process in an uninterruptible wait delays it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Freezes all processes in the group and below, and returns when the last one stands still.
///
/// # Errors
/// When it does not come to a stop within two seconds; then it is thawed again.
pub fn freeze(cgroup: &str) -> Result<()> {
    freeze_group(&Group::new(cgroup)?)
}

/// Lets all processes in the group and below go on. Nothing happens to those that run.
///
/// # Errors
/// When the kernel refuses, for instance because the group is gone.
pub fn thaw(cgroup: &str) -> Result<()> {
    thaw_group(&Group::new(cgroup)?)
}

/// Whether the group was told to freeze and has.
///
/// # Errors
/// When the group is gone.
pub fn is_frozen(cgroup: &str) -> Result<bool> {
    let (file, v2) = Group::new(cgroup)?.freezer_file()?;
    stands_still(&file, v2)
}

fn freeze_group(group: &Group) -> Result<()> {
    let (file, v2) = group.freezer_file()?;
    write(&file, if v2 { "1" } else { "FROZEN" })?;
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    while !stands_still(&file, v2)? {
        if Instant::now() > deadline {
            thaw_group(group)?;
            return Err(Error::Failed(format!(
                "the processes below {} did not come to a stop within {} s and go on running",
                file.display(),
                PATIENCE.as_secs()
            )));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
        if !v2 {
            // v1 gives up on a process that forks just then; asking again makes it look again.
            write(&file, "FROZEN")?;
        }
    }
    Ok(())
}

pub(crate) fn thaw_group(group: &Group) -> Result<()> {
    let (file, v2) = group.freezer_file()?;
    write(&file, if v2 { "0" } else { "THAWED" })
}

fn stands_still(file: &Path, v2: bool) -> Result<bool> {
    if v2 {
        let events = file.with_file_name("cgroup.events");
        Ok(read(&events)?.lines().any(|line| line == "frozen 1"))
    } else {
        Ok(read(file)?.trim() == "FROZEN")
    }
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).trying(|| format!("write {value:?} to {}", file.display()))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).trying(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::hierarchy::Hierarchies;

    /// The machine's v2 tree, wherever it is mounted: on the hybrid layout it freezes as well as alone.
    fn v2() -> Option<&'static Hierarchies> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let hierarchies = Hierarchies::V2(line.split(' ').nth(4)?.into());
        Some(Box::leak(Box::new(hierarchies)))
    }

    #[test]
    fn a_v2_group_freezes_thaws_and_is_killed_frozen() {
        let Some(hierarchies) = v2().filter(|_| nix::unistd::geteuid().is_root()) else {
            println!("SKIPPED: needs root and a cgroup2 mount");
            return;
        };
        let name = format!("layby-test-v2-{}/one", std::process::id());
        let group = Group::on(hierarchies, &name).expect("a group");
        group.create().expect("create");
        let mut process = Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep runs");
        let (file, v2) = group.freezer_file().expect("a file");
        let joined = fs::write(
            file.with_file_name("cgroup.procs"),
            process.id().to_string(),
        );
        freeze_group(&group).expect("freeze");
        let frozen = stands_still(&file, v2);
        thaw_group(&group).expect("thaw");
        let thawed = stands_still(&file, v2);
        freeze_group(&group).expect("freeze");
        group.signal_all();
        let status = process.wait().expect("it ends");
        group.kill_all().expect("nothing is left");
        group.remove().expect("remove");
        joined.expect("it joined");
        assert!(v2 && frozen.expect("frozen") && !thawed.expect("thawed"));
        assert!(!status.success());
        assert!(!file.exists() && !file.ancestors().nth(2).expect("a parent").exists());
    }
}
