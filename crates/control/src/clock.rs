//! The control plane's clock: milliseconds since its start, on tokio's monotonic time (which tests can pause).
//! Beside it what people's clocks say.

use std::time::{SystemTime, UNIX_EPOCH};

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
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
