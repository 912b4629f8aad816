//! Moments as people write them: how long ago, or when.

use anyhow::{Result, bail};
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

/// Reads `10m`, `1h30m` or `2d` (so long before `now_ms`), RFC 3339, or a date of this machine's time zone; gives
/// milliseconds since 1970.
///
/// # Errors
/// It is none of these.
pub(crate) fn parse(text: &str, now_ms: i64) -> Result<u64> {
    let zone = TimeZone::system();
    let dated = |text: &str| -> Option<Timestamp> {
        let at = text.parse::<civil::DateTime>();
        let at = at.or_else(|_| text.parse::<civil::Date>().map(civil::DateTime::from));
        zone.to_timestamp(at.ok()?).ok()
    };
    let at_ms = match ago_ms(text) {
        Some(ago_ms) => now_ms.saturating_sub(ago_ms),
        None => match text.parse::<Timestamp>().ok().or_else(|| dated(text)) {
            Some(at) => at.as_millisecond(),
            None => bail!(
                "{text:?} is no moment: write how long ago (10m, 1h30m, 2d) or when (2026-01-31T12:00:00Z)"
            ),
        },
    };
    Ok(u64::try_from(at_ms).unwrap_or(0))
}

/// A span of time in its greatest unit, for people: `3 h`.
pub(crate) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(length, _)| seconds >= *length);
    let (length, name) = unit.unwrap_or((1, "s"));
    format!("{} {name}", seconds / length)
}

/// Numbers with units, each unit once and the greatest first is usual but not asked for.
fn ago_ms(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [
            ("ms", 1),
            ("s", 1_000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        let (unit, ms) = units.into_iter().find(|(unit, _)| {
            let after = rest.strip_prefix(unit);
            after.is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphabetic()))
        })?;
        sum = sum.checked_add(count.checked_mul(ms)?)?;
        rest = &rest[unit.len()..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_lengths_or_dates() {
        let now_ms = 100 * 86_400_000;
        let cases = [
            ("10m", now_ms - 600_000),
            ("1h30m", now_ms - 5_400_000),
            ("2d", now_ms - 2 * 86_400_000),
            ("1500ms", now_ms - 1_500),
            ("1970-01-02T00:00:00Z", 86_400_000),
            ("1970-01-02T00:00:01.5+00:00", 86_401_500),
        ];
        for (text, wanted) in cases {
            let wanted = u64::try_from(wanted).expect("after 1970");
            assert_eq!(parse(text, now_ms).expect(text), wanted, "{text}");
        }
        assert!(parse("1970-01-03", now_ms).is_ok());
        for bad in [
            "",
            "m",
            "10",
            "10x",
            "yesterday",
            "-5m",
            "99999999999999999d",
        ] {
            assert!(parse(bad, now_ms).is_err(), "{bad}");
        }
    }
}
