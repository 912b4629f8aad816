//! A small init for a container that asks for one: it passes signals on and reaps orphans (`docker run --init`), or only
//! keeps the container open for commands.
//!
//! It is the process that waited for the start, and goes on from the shim's sealed memory: no program of the image
//! takes its place, and nothing inside can trace it.

use std::convert::Infallible;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::sys;

/// How often it is looked whether others are left, in milliseconds.
const LOOK_MS: u8 = 20;

/// Returns in a child, which is to execute the program; the caller becomes the init and ends with the child's code.
pub(crate) fn stay() -> std::io::Result<()> {
    // From here on, so that no signal is lost: blocked, they wait to be taken, one after another.
    SigSet::all().thread_set_mask()?;
    match sys::fork()? {
        ForkResult::Child => Ok(SigSet::empty().thread_set_mask()?),
        ForkResult::Parent { child } => {
            // The report above all: it closes when the child has executed the program.
            sys::close_inherited();
            let _ = prctl::set_dumpable(false);
            let _ = prctl::set_name(c"init");
            sys::exit_now(watch(child))
        }
    }
}

/// The caller becomes an init without a program. Told to end, it passes that on to all processes of its namespace, and
/// ends when the last of them has.
pub(crate) fn hold() -> std::io::Result<Infallible> {
    SigSet::all().thread_set_mask()?;
    // The report above all: it closes as if a program were executed.
    sys::close_inherited();
    let _ = prctl::set_dumpable(false);
    let _ = prctl::set_name(c"init");
    sys::exit_now(keep())
}

/// Until it was told to end, and nobody is left.
fn keep() -> i32 {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let Ok(signals) = SignalFd::with_flags(&SigSet::all(), flags) else {
        return 128;
    };
    let mut ending = false;
    loop {
        // Commands are children of who runs them: their ends are not told here.
        let patience = match ending {
            true => PollTimeout::from(LOOK_MS),
            false => PollTimeout::NONE,
        };
        let _ = poll(
            &mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)],
            patience,
        );
        while let Ok(Some(info)) = signals.read_signal() {
            match i32::try_from(info.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => {
                    let _ = reap(Pid::this());
                }
                Ok(Ok(signal)) => {
                    ending = true;
                    let _ = tell_all(Some(signal));
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        if ending && tell_all(None) == Err(Errno::ESRCH) {
            return 0;
        }
    }
}

/// Signals all other processes of this namespace; `None`: only asks whether there are any (`ESRCH`: none). Where this
/// process shares the namespace with others, they are not its own to end.
fn tell_all(signal: Option<Signal>) -> nix::Result<()> {
    match Pid::this().as_raw() {
        1 => kill(Pid::from_raw(-1), signal),
        _ => Err(Errno::ESRCH),
    }
}

/// Until the child ends: its exit code.
///
/// Signals are read and not waited for (sigwait(3)): while that waits, they do not show as blocked, and the shim takes
/// this process for one that does not hear them.
fn watch(child: Pid) -> i32 {
    let Ok(signals) = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC) else {
        return 128;
    };
    loop {
        let Ok(Some(info)) = signals.read_signal() else {
            continue;
        };
        match i32::try_from(info.ssi_signo).map(Signal::try_from) {
            Ok(Ok(Signal::SIGCHLD)) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            // It may have ended just now.
            Ok(Ok(signal)) => {
                let _ = kill(child, signal);
            }
            // One of the real-time ones, which it has no name for.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Takes note of all that have ended; the child's exit code if it has.
fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, found)) if pid == child => code = Some(found),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => {}
        }
    }
}
