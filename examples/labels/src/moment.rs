//! Moments, in milliseconds since 1970, and how they are written.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Now.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// For machines: `2026-11-30T07:26:35Z` (RFC 3339).
pub fn rfc3339(at_ms: u64) -> String {
    timestamp(at_ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// For people: `30 Nov 2026, 07:26 UTC`.
pub fn shown(at_ms: u64) -> String {
    timestamp(at_ms)
        .strftime("%-d %b %Y, %H:%M UTC")
        .to_string()
}

fn timestamp(at_ms: u64) -> Timestamp {
    i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::{rfc3339, shown};

    #[test]
    fn a_moment_is_written_for_machines_and_for_people() {
        assert_eq!(rfc3339(1_796_023_595_123), "2026-11-30T07:26:35Z");
        assert_eq!(shown(1_796_023_595_123), "30 Nov 2026, 07:26 UTC");
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
    }
}
