//! Commands and copies with a client at their other end: bounded, and ended when that one goes.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;

use super::connection::Asked;
use crate::attach::Attached;
use crate::error::{Error, Result};
use crate::protocol::{ExecResult, MAX_ATTACHED};

/// How long a command may go on whose client is gone: a shell that was hung up writes its history.
const HANG_UP: Duration = Duration::from_secs(1);

/// Those that are under way.
#[derive(Default)]
pub(super) struct Attended(Vec<One>);

struct One {
    asked: Asked,
    attached: Attached,
    /// When it is ended: its client is gone.
    end_at: Option<Instant>,
}

impl Attended {
    /// Whether one more may begin.
    pub(super) fn room(&self) -> Result<()> {
        if self.0.len() < MAX_ATTACHED {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "{MAX_ATTACHED} commands and copies are under way in this replica already: end one first"
        )))
    }

    pub(super) fn add(&mut self, asked: Asked, attached: Attached) {
        self.0.push(One {
            asked,
            attached,
            end_at: None,
        });
    }

    /// Gives those whose clients are gone a moment.
    pub(super) fn keep(&mut self, is_here: impl Fn(u64) -> bool, now: Instant) {
        for one in &mut self.0 {
            if one.end_at.is_none() && !is_here(one.asked.client) {
                one.end_at = Some(now + HANG_UP);
            }
        }
    }

    /// When [`Attended::tick`] has something to do next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|one| one.end_at).min()
    }

    /// Ends those whose moment is over. The command dies with its helper.
    pub(super) fn tick(&mut self, now: Instant) {
        for one in &mut self.0 {
            if one.end_at.is_some_and(|at| at <= now) {
                let _ = kill(one.attached.helper(), Signal::SIGKILL);
                // In a frozen cgroup it dies with the thaw; nobody waits for it.
                one.end_at = Some(now + HANG_UP);
            }
        }
    }

    /// Takes note of a process that has ended; if it was one of these: who asked, and what came of it.
    pub(super) fn ended(&mut self, status: WaitStatus) -> Option<(Asked, Result<ExecResult>)> {
        let (code, signal) = match status {
            WaitStatus::Exited(_, code) => (code, None),
            WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, Some(signal)),
            _ => return None,
        };
        let mut all = self.0.iter();
        let index = all.position(|one| Some(one.attached.helper()) == status.pid())?;
        let One {
            asked, attached, ..
        } = self.0.swap_remove(index);
        Some((asked, attached.finish(code, signal)))
    }
}
