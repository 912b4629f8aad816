//! What follows when one container has ended by itself: pure rules.

use std::time::Duration;

use crate::protocol::Exit;
use crate::spec::{After, AgainConfig};

/// A container as far as it matters whether its sandbox goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// It is there for the others.
    pub(super) sidecar: bool,
    /// It runs.
    pub(super) runs: bool,
    /// It has ended, and is to be started again.
    pub(super) down: bool,
}

/// How long a container lies that has ended, before it is started again; `None`: it is left as it ended. `in_a_row`: so many
/// ends up to this one came too soon after their starts.
pub(super) fn pause(config: &AgainConfig, exit: Exit, in_a_row: u32) -> Option<Duration> {
    let is_due = match config.after {
        After::AnyEnd => true,
        After::Failure => failed(exit) && config.most.is_none_or(|most| in_a_row.max(1) <= most),
        After::NoEnd => false,
    };
    // Most ends are single: the first is not waited for.
    let ms = match in_a_row {
        0 => 0,
        n => config
            .pause_ms
            .saturating_mul(1 << (n - 1).min(16))
            .min(config.max_pause_ms),
    };
    is_due.then_some(Duration::from_millis(ms))
}

/// Whether a sandbox that has been started is over: all containers that it is there for have ended, for good.
pub(super) fn is_over(all: impl IntoIterator<Item = Standing>) -> bool {
    let mut mains = all.into_iter().filter(|one| !one.sidecar);
    mains.all(|one| !one.runs && !one.down)
}

/// Whether it ended in another way than it was to.
pub(super) fn failed(exit: Exit) -> bool {
    exit.code != 0 || exit.oom
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn exit(code: i32) -> Exit {
        Exit { code, oom: false }
    }

    const fn config(after: After) -> AgainConfig {
        AgainConfig {
            after,
            pause_ms: 100,
            max_pause_ms: 60_000,
            most: None,
        }
    }

    #[test]
    fn the_policy_says_after_which_ends_one_is_started_again() {
        let starts = |after, code| pause(&config(after), exit(code), 0).is_some();
        assert!(starts(After::AnyEnd, 0) && starts(After::AnyEnd, 3));
        assert!(!starts(After::Failure, 0) && starts(After::Failure, 3));
        assert!(!starts(After::NoEnd, 0) && !starts(After::NoEnd, 3));
        // One whose child was killed for want of memory may have ended well all the same.
        let oom = Exit { code: 0, oom: true };
        assert!(pause(&config(After::Failure), oom, 0).is_some());
    }

    #[test]
    fn one_that_fails_too_often_in_a_row_is_left_as_it_ended() {
        let after = |after, most, in_a_row| {
            let config = AgainConfig {
                most: Some(most),
                ..config(after)
            };
            pause(&config, exit(1), in_a_row).is_some()
        };
        assert!((0..=3).all(|n| after(After::Failure, 3, n)));
        assert!(!after(After::Failure, 3, 4) && !after(After::Failure, 0, 0));
        assert!(after(After::AnyEnd, 3, 4));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let after = |n| pause(&config(After::AnyEnd), exit(1), n).map(|pause| pause.as_millis());
        assert_eq!(after(0), Some(0));
        assert_eq!(after(1), Some(100));
        assert_eq!(after(4), Some(800));
        assert_eq!(after(11), Some(60_000));
        assert_eq!(after(u32::MAX), Some(60_000));
    }

    #[test]
    fn a_sandbox_is_over_when_nothing_that_it_is_there_for_runs_or_is_to_run_again() {
        let main = |runs, down| Standing {
            sidecar: false,
            runs,
            down,
        };
        let sidecar = Standing {
            sidecar: true,
            ..main(true, false)
        };
        assert!(!is_over([main(true, false), main(false, false)]));
        assert!(!is_over([main(false, true), main(false, false)]));
        assert!(is_over([main(false, false), main(false, false), sidecar]));
        let gone = Standing {
            runs: false,
            ..sidecar
        };
        assert!(!is_over([main(true, false), gone]));
    }
}
