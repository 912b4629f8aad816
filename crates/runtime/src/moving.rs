//! Making the next move of a process into a control group a quick one.
//!
//! The kernel moves processes under a lock whose first taker waits for a grace period of RCU: 10 to 20 ms on a machine
//! where little else happens. For about as long after it others need not wait (the kernel's `kernel/rcu/sync.c`, as
//! `cgroup_threadgroup_rwsem` of `kernel/cgroup/cgroup.c` uses it).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::Pid;

use crate::error::{Result, Trying};
use crate::hierarchy::Hierarchies;

/// Waits for that grace period, while the caller's other threads do what comes before the move: this process is moved to
/// where it is. A refusal costs nothing but the time that would have been won.
pub fn hasten() {
    static WAITING: AtomicBool = AtomicBool::new(false);
    // One is enough for all that come meanwhile.
    if !WAITING.swap(true, Ordering::AcqRel) {
        let _ = stay();
        WAITING.store(false, Ordering::Release);
    }
}

fn stay() -> Result<()> {
    let places = Hierarchies::get()?.places(Pid::this())?;
    let Some((root, path)) = places.first() else {
        return Ok(());
    };
    let file = root.join(path).join("cgroup.procs");
    fs::write(&file, "0").trying(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves() {
        let before = fs::read_to_string("/proc/self/cgroup").expect("the groups of this process");
        hasten();
        let after = fs::read_to_string("/proc/self/cgroup").expect("the groups of this process");
        assert_eq!(before, after);
    }
}
