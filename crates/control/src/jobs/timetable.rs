//! When a schedule is due: cron expressions on the clocks of a time zone.
//!
//! An hour that summer time skips: what is due in it is due right after it. An hour that comes twice: what is due at a fixed
//! hour is due the first time only; what is due in every hour, or in every n-th, goes by the hours as they are.

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use layby_model::job::Schedule;

/// A schedule looks over so many changes of the clocks at most: one for the 29th of February passes sixteen.
const MAX_CHANGES: usize = 64;

/// A schedule that is understood.
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    cron: Cron,
    zone: TimeZone,
    /// It is due in every hour, or in every n-th.
    is_hourly: bool,
}

impl Timetable {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub(crate) fn new(schedule: &Schedule) -> Result<Self, String> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(&schedule.cron).map_err(|error| {
            format!(
                "the schedule {:?} is not understood ({error}): write minute, hour, day of the month, month and day of the week",
                schedule.cron
            )
        })?;
        let zone = match &schedule.time_zone {
            None => TimeZone::try_system().unwrap_or(TimeZone::UTC),
            Some(name) => TimeZone::get(name).map_err(|_| {
                format!(
                    "this machine knows no time zone {name:?}: write one like Europe/Berlin, or install its tzdata"
                )
            })?,
        };
        let hour = schedule.cron.split_whitespace().nth(1);
        Ok(Self {
            cron,
            zone,
            is_hourly: hour.map_or(schedule.cron == "@hourly", |hour| hour.starts_with('*')),
        })
    }

    /// The first due time after a moment; both in milliseconds since 1970. `None`: there is none.
    pub(crate) fn next(&self, after_ms: u64) -> Option<u64> {
        let at = self.after(Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?)?;
        u64::try_from(at.as_millisecond()).ok()
    }

    fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let mut offset = self.zone.to_offset(moment);
        let (mut wall, mut inclusive) = (offset.to_datetime(moment), false);
        let mut changes = self.zone.following(moment).take(MAX_CHANGES);
        loop {
            let found = self.on_wall(wall, inclusive)?;
            let at = offset.to_timestamp(found).ok()?;
            let Some(change) = changes.next().filter(|change| change.timestamp() <= at) else {
                return Some(at);
            };
            // The clocks change before it is due by the clocks of now.
            let (before, change_at) = (offset, change.timestamp());
            offset = change.offset();
            let (old_wall, new_wall) =
                (before.to_datetime(change_at), offset.to_datetime(change_at));
            if found < new_wall && !self.is_hourly {
                return Some(change_at);
            }
            let comes_again = new_wall < old_wall && !self.is_hourly;
            wall = if comes_again { old_wall } else { new_wall };
            inclusive = true;
        }
    }

    /// The first time after `wall` (or at it) that the expression names, on clocks that never change.
    fn on_wall(&self, wall: civil::DateTime, inclusive: bool) -> Option<civil::DateTime> {
        let date = NaiveDate::from_ymd_opt(
            wall.year().into(),
            u32::try_from(wall.month()).ok()?,
            u32::try_from(wall.day()).ok()?,
        )?;
        let time = date.and_hms_opt(
            u32::try_from(wall.hour()).ok()?,
            u32::try_from(wall.minute()).ok()?,
            u32::try_from(wall.second()).ok()?,
        )?;
        let from: DateTime<Utc> = time.and_utc();
        let found = self.cron.find_next_occurrence(&from, inclusive).ok()?;
        civil::DateTime::new(
            i16::try_from(found.year()).ok()?,
            i8::try_from(found.month()).ok()?,
            i8::try_from(found.day()).ok()?,
            i8::try_from(found.hour()).ok()?,
            i8::try_from(found.minute()).ok()?,
            0,
            0,
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cron: &str, zone: &str) -> Timetable {
        let schedule = Schedule {
            cron: cron.to_owned(),
            time_zone: Some(zone.to_owned()),
        };
        Timetable::new(&schedule).expect("a schedule")
    }

    /// The first so many due times after a moment.
    fn due(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let table = of(cron, zone);
        let mut at: Timestamp = after.parse().expect("a moment");
        let mut all = Vec::new();
        for _ in 0..count {
            let Some(next) = table.after(at) else { break };
            all.push(next.to_string());
            at = next;
        }
        all
    }

    #[test]
    fn a_schedule_is_meant_in_its_time_zone() {
        assert_eq!(
            due("0 3 * * *", "UTC", "2026-01-01T03:00:00Z", 2),
            ["2026-01-02T03:00:00Z", "2026-01-03T03:00:00Z"]
        );
        assert_eq!(
            due("30 3 * * 1", "Europe/Berlin", "2026-07-01T00:00:00Z", 1),
            ["2026-07-06T01:30:00Z"]
        );
        assert_eq!(
            due("*/20 * * * *", "UTC", "2026-01-01T00:05:30Z", 2),
            ["2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z"]
        );
        assert_eq!(
            due("0 0 29 2 *", "Europe/Berlin", "2026-03-01T00:00:00Z", 1),
            ["2028-02-28T23:00:00Z"]
        );
        assert_eq!(due("0 0 30 2 *", "UTC", "2026-03-01T00:00:00Z", 1), [""; 0]);
    }

    #[test]
    fn an_hour_that_is_skipped_moves_what_is_due_in_it_behind_it() {
        // On 29 March 2026 it is 3 o'clock right after 1:59 (UTC 01:00).
        assert_eq!(
            due("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            due("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
            [
                "2026-03-29T00:30:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-29T02:30:00Z"
            ]
        );
    }

    #[test]
    fn an_hour_that_comes_twice_is_due_once_where_the_hour_is_fixed() {
        // On 25 October 2026 it is 2 o'clock again after 2:59 (UTC 01:00).
        assert_eq!(
            due("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            due("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 1),
            ["2026-10-25T02:00:00Z"]
        );
        assert_eq!(
            due("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:30:00Z"
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let of = |cron: &str, zone: Option<&str>| {
            let schedule = Schedule {
                cron: cron.to_owned(),
                time_zone: zone.map(str::to_owned),
            };
            Timetable::new(&schedule).map(drop)
        };
        assert!(of("@daily", None).is_ok() && of("0 9 * * MON-FRI", None).is_ok());
        for (cron, zone) in [
            ("* * *", None),
            ("61 * * * *", None),
            ("0 0 * * * *", None),
            ("0 3 * * *", Some("Mars/Olympus")),
        ] {
            assert!(of(cron, zone).is_err(), "{cron} {zone:?}");
        }
    }
}
