//! How much there is to do at a time, and summed up over time: a level that goes up and down, and its integral.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use nix::time::{ClockId, clock_gettime};

/// A number of things that last, and how long all of them have lasted together. Nobody waits for anybody.
#[derive(Debug, Default)]
pub(crate) struct Level {
    count: AtomicU32,
    /// Until when the sum is right.
    until_us: AtomicU64,
    sum_us: AtomicU64,
}

impl Level {
    /// One more; gives how many there are now.
    pub(crate) fn raise(&self) -> u32 {
        self.settle();
        self.count.fetch_add(1, SeqCst) + 1
    }

    /// One less; gives how many there are now.
    pub(crate) fn lower(&self) -> u32 {
        self.settle();
        self.count.fetch_sub(1, SeqCst) - 1
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(SeqCst)
    }

    /// When it was read, how many there were then, and the sum of all times until then, in microseconds.
    pub(crate) fn read(&self) -> (u64, u32, u64) {
        let now_us = self.settle();
        (now_us, self.count(), self.sum_us.load(Relaxed))
    }

    /// Adds what has passed since the last change; gives now.
    ///
    /// Each moment is added once, by whoever swaps the time, and with a count of shortly before: who changes it at the
    /// same moment makes the sum wrong by no more than the time between the two lines.
    fn settle(&self) -> u64 {
        let count = u64::from(self.count.load(SeqCst));
        let now_us = now_us();
        let since_us = self.until_us.swap(now_us, Relaxed);
        let passed_us = now_us.saturating_sub(since_us);
        self.sum_us
            .fetch_add(passed_us.saturating_mul(count), Relaxed);
        now_us
    }
}

/// Microseconds on the monotonic clock.
fn now_us() -> u64 {
    // The clock always exists on Linux: without it nothing would be summed up.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        return 0;
    };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1_000
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_comes_and_goes_between_two_readings_counts_for_as_long_as_it_was_there() {
        let level = Level::default();
        let (from_us, _, before_us) = level.read();
        assert_eq!((level.raise(), level.raise()), (1, 2));
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(20));
        let least_us = begun.elapsed().as_micros() as u64 * 2;
        assert_eq!((level.lower(), level.lower()), (1, 0));
        let (until_us, count, after_us) = level.read();
        assert_eq!(count, 0);
        let sum_us = after_us - before_us;
        assert!(
            sum_us >= least_us - 10 && sum_us <= (until_us - from_us) * 2,
            "{sum_us} us"
        );
        thread::sleep(Duration::from_millis(2));
        assert_eq!(level.read().2, after_us, "nothing was there");
    }

    #[test]
    fn a_long_rest_is_not_counted_by_those_who_come_at_once_after_it() {
        let level = Arc::new(Level::default());
        let first_us = level.read().0;
        thread::sleep(Duration::from_millis(30));
        let begun = Instant::now();
        let threads = (0..4).map(|_| {
            let level = Arc::clone(&level);
            thread::spawn(move || {
                for _ in 0..1_000 {
                    level.raise();
                    level.lower();
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .for_each(|t| t.join().expect("no panic"));
        let most_us = begun.elapsed().as_micros() as u64 * 4;
        let (now_us, count, sum_us) = level.read();
        assert_eq!(count, 0);
        assert!(
            now_us > first_us && sum_us <= most_us,
            "{sum_us} > {most_us}"
        );
    }
}
