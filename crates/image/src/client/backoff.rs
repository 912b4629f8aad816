//! When something is tried again: growing pauses, spread by chance that the caller brings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::error::{Again, Failure};

/// The longest pause that a registry may ask for (Retry-After).
const MAX_ASKED: Duration = Duration::from_secs(60);
/// How soon a cancelled pause ends.
const LOOK: Duration = Duration::from_millis(50);

/// How often something is tried, and how long the pauses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all without any headway between them; at least 1.
    pub attempts: u32,
    /// The first pause, in milliseconds; it doubles.
    pub base_ms: u64,
    /// The longest pause, in milliseconds.
    pub max_ms: u64,
    /// Where the chance comes from that keeps many clients from coming back at the same moment.
    pub seed: u64,
}

impl Default for Retry {
    /// 5 attempts within some 5 seconds.
    fn default() -> Self {
        Self {
            attempts: 5,
            base_ms: 300,
            max_ms: 10_000,
            seed: 0,
        }
    }
}

impl Retry {
    /// The pause after the `attempt`-th failure (from 1): half of it for certain, half by chance.
    pub fn pause(&self, attempt: u32) -> Duration {
        let doubled = self
            .base_ms
            .saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let most = doubled.min(self.max_ms);
        let chance = mixed(self.seed.wrapping_add(attempt.into())) % (most / 2 + 1);
        Duration::from_millis(most - most / 2 + chance)
    }

    /// The pause before another attempt; `None` when there is to be none.
    pub(super) fn next(&self, failure: &Failure, failed: u32) -> Option<Duration> {
        let Failure::Registry { again, .. } = failure else {
            return None;
        };
        match again {
            Again::No => None,
            _ if failed >= self.attempts => None,
            Again::Yes => Some(self.pause(failed)),
            Again::After(asked) if *asked <= MAX_ASKED => Some((*asked).max(self.pause(failed))),
            Again::After(_) => None,
        }
    }

    /// Tries until it works or another attempt makes no sense; `told` hears of each failure that is passed over.
    pub(super) fn run<T>(
        &self,
        cancel: &AtomicBool,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut failed = 0;
        loop {
            let failure = match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            failed += 1;
            match self.next(&failure, failed) {
                Some(pause) => wait(pause, cancel)?,
                None => return Err(failure),
            }
        }
    }
}

/// Sleeps, unless it is broken off.
pub(super) fn wait(pause: Duration, cancel: &AtomicBool) -> Result<(), Failure> {
    let mut left = pause;
    while !left.is_zero() {
        if cancel.load(Ordering::Relaxed) {
            return Err(Failure::cancelled());
        }
        let nap = left.min(LOOK);
        thread::sleep(nap);
        left -= nap;
    }
    Ok(())
}

/// Spreads the bits of a number (the finaliser of SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Fault;

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_within_their_half() {
        let retry = Retry {
            attempts: 9,
            base_ms: 100,
            max_ms: 1_000,
            seed: 7,
        };
        for (attempt, most) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (5, 1_000),
            (60, 1_000),
        ] {
            let pause = retry.pause(attempt).as_millis() as u64;
            assert!((most / 2..=most).contains(&pause), "{attempt}: {pause}");
        }
        let other = Retry { seed: 8, ..retry };
        assert!((1..9).any(|n| retry.pause(n) != other.pause(n)));
    }

    #[test]
    fn what_would_end_the_same_is_not_tried_again() {
        let retry = Retry {
            attempts: 3,
            base_ms: 1,
            max_ms: 1,
            seed: 0,
        };
        let cancel = AtomicBool::new(false);
        let mut tries = 0;
        let mut run = |failure: fn() -> Failure| {
            tries = 0;
            let ended: Result<(), Failure> = retry.run(&cancel, || {
                tries += 1;
                Err(failure())
            });
            assert!(ended.is_err());
            tries
        };
        assert_eq!(run(|| Failure::passing(Fault::Busy, "is busy")), 3);
        assert_eq!(run(|| Failure::final_(Fault::Denied, "said no")), 1);
        assert_eq!(
            run(|| Failure::Registry {
                fault: Fault::Busy,
                reason: String::new(),
                again: Again::After(Duration::from_secs(3_600)),
            }),
            1,
            "nobody waits an hour"
        );
    }
}
