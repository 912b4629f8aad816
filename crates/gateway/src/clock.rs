//! A clock that costs almost nothing to read: the kernel's coarse one, a few milliseconds exact.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds on the monotonic clock, never 0. Exact to a tick of the kernel (1 to 10 ms).
pub(crate) fn now_ms() -> u64 {
    // The clock always exists on Linux: without it nothing would expire, which is the safe way to fail.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) else {
        return 1;
    };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    (seconds * 1000 + nanoseconds / 1_000_000).max(1)
}
