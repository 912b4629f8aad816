//! Time stamps in images.

/// The first second of the year 10000: RFC 3339 ends there. A tar header's field ends later.
pub(super) const MAX_EPOCH_S: u64 = 253_402_300_800;

/// Seconds since 1970 as RFC 3339, by the civil-from-days method (Howard Hinnant, chrono-compatible date algorithms).
pub(super) fn rfc3339(epoch_s: u64) -> String {
    let (days, second) = (epoch_s / 86_400 + 719_468, epoch_s % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_rfc_3339() {
        for (epoch_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (MAX_EPOCH_S - 1, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(epoch_s), text);
        }
    }
}
