//! The control plane's clocks: milliseconds since its start, on tokio's monotonic time (which tests can pause), for all that
//! is decided; and the wall clock, for what is written down.

use jiff::{SignedDuration, Timestamp};
use layby_model::fail;
use tokio::time::Instant;

/// A clock that begins at 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant at which [`Clock::now_ms`] says `ms`.
    pub(crate) fn at(self, ms: u64) -> Instant {
        self.0 + std::time::Duration::from_millis(ms)
    }
}

/// The machine's clock, as people set it: milliseconds since 1970-01-01T00:00:00Z.
pub(crate) fn wall_ms() -> u64 {
    u64::try_from(wall().as_millisecond()).unwrap_or(0)
}

/// What the wall clock says. It may jump, either way: nothing that runs may depend on it.
pub(crate) fn wall() -> Timestamp {
    let shift = SignedDuration::from_secs(fail::clock_shift_s());
    let now = Timestamp::now();
    now.checked_add(shift).unwrap_or(now)
}
