//! Whether a container's first process can take note of a signal at all.

use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Whether `signal` reaches the first process of a PID namespace: the kernel keeps from it what it neither
/// handles nor blocks, to take it later (`pid_namespaces(7)`, "The namespace init process"). One that ignores it
/// on purpose may be finishing its work, and has its time. A process that is not the first of its namespace hears all.
pub(super) fn may_hear(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.map_or(true, |status| heeds(&status, signal))
}

/// The same by the text of `/proc/PID/status`.
fn heeds(status: &str, signal: Signal) -> bool {
    if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
        return true; // from outside of the namespace these always arrive
    }
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    if numbers.is_some_and(|numbers| numbers.split_whitespace().last() != Some("1")) {
        return true;
    }
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let masks = [mask("SigCgt:"), mask("SigBlk:"), mask("SigIgn:")];
    masks
        .iter()
        .any(|mask| mask.is_none_or(|bits| bits >> (signal as u32 - 1) & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_heeded_when_it_is_handled_or_blocked() {
        let status = |caught: &str, blocked: &str| {
            format!("Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t0\nSigCgt:\t{caught}\n")
        };
        let (none, term) = ("0000000000000000", "0000000000004000"); // bit 14: SIGTERM, 15
        assert!(!heeds(&status(none, none), Signal::SIGTERM));
        assert!(heeds(&status(term, none), Signal::SIGTERM));
        assert!(heeds(&status(none, term), Signal::SIGTERM));
        assert!(!heeds(&status(term, none), Signal::SIGINT));
        assert!(heeds(&status(none, none), Signal::SIGKILL));
        assert!(heeds("", Signal::SIGTERM)); // not known: give it its time
        let second = format!("NSpid:\t4711\t2\n{}", status(none, none));
        assert!(heeds(&second, Signal::SIGTERM));
        let first = format!("NSpid:\t4711\t1\n{}", status(none, none));
        assert!(!heeds(&first, Signal::SIGTERM));
    }
}
