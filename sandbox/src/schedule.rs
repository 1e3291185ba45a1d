//! When a program is to run, as crontab(5) writes it.

use std::time::{Duration, SystemTime};

use crate::error::{Failure, Result};
use crate::sys;

/// Times at which a program runs: the five fields of crontab(5), `minute hour day month weekday`, or `@hourly` and the like.
///
/// A field is `*`, a number, a range, a list, each with a step (`*/15`, `9-17/2`, `mon-fri`); months and weekdays have names, and 7 is
/// Sunday as 0 is. Where day and weekday both say something one of them is enough, as in cron. Times are local ones, or UTC after `CRON_TZ=UTC`.
/// A local time that the clock skips in spring is left out, one that comes twice in autumn counts twice.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// let schedule = sandcell::Schedule::parse("CRON_TZ=UTC 30 9 * * mon-fri")?;
/// let friday_noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_385_600);
/// let next = schedule.next_after(friday_noon).unwrap();
/// assert_eq!(next.duration_since(friday_noon).unwrap(), Duration::from_secs(2 * 86_400 + 21 * 3600 + 1800));
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    utc: bool,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day and weekday both restrict: either is enough.
    either: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DAY: i64 = 86_400;
/// The 29th of February on a certain weekday comes once in forty years, around a century without a leap day.
const LOOK_AHEAD: i64 = 41 * 366;

struct Field {
    name: &'static str,
    first: u64,
    last: u64,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: &MONTHS },
    Field { name: "weekday", first: 0, last: 7, names: &WEEKDAYS },
];

impl Schedule {
    /// Reads it.
    ///
    /// # Errors
    /// `Config` for what is no schedule, and for one that never comes.
    pub fn parse(text: &str) -> Result<Schedule> {
        let text = text.trim();
        let (utc, rest) = zone(text)?;
        let fields = match rest.strip_prefix('@') {
            Some(word) => nickname(text, word)?,
            None => rest,
        };
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(wrong(text, &format!("it has {} fields and not five", fields.len())));
        }
        let mut sets = [0; 5];
        for ((set, field), told) in sets.iter_mut().zip(&FIELDS).zip(&fields) {
            *set = field.read(told).map_err(|what| wrong(text, &what))?;
        }
        let [minutes, hours, days, months, weekdays] = sets;
        let either = !fields[2].starts_with('*') && !fields[4].starts_with('*');
        // Sunday is 0 and 7.
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let schedule = Schedule { text: text.to_owned(), utc, minutes, hours, days, months, weekdays, either };
        // Whatever the zone: some day has such a date.
        match (0..LOOK_AHEAD).any(|day| schedule.has_day(day)) {
            true => Ok(schedule),
            false => Err(wrong(text, "there is no such day")),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first of its times after that one.
    pub fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let offset = |at| if self.utc { 0 } else { sys::offset_of_local_time(at) };
        let next = self.next(i64::try_from(since.as_secs()).ok()?, &offset)?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(next.try_into().ok()?))
    }

    /// The same in seconds since 1970. `offset`: by how many seconds local time is ahead at such a moment.
    fn next(&self, after: i64, offset: &dyn Fn(i64) -> i64) -> Option<i64> {
        let first = (after.div_euclid(60) + 1) * 60;
        let today = (first + offset(first)).div_euclid(DAY);
        for day in (today..today + LOOK_AHEAD).filter(|day| self.has_day(*day)) {
            // Local midnight is within a day of that of UTC; which minutes the local day has, only the zone knows.
            let begin = ((day - 1) * DAY).max(first);
            for at in (begin..(day + 2) * DAY).step_by(60) {
                let local = at + offset(at);
                if local.div_euclid(DAY) == day && self.has_minute(local.rem_euclid(DAY) / 60) {
                    return Some(at);
                }
            }
        }
        None
    }

    fn has_minute(&self, minute: i64) -> bool {
        self.hours >> (minute / 60) & 1 == 1 && self.minutes >> (minute % 60) & 1 == 1
    }

    /// Whether it runs on this day since 1970.
    fn has_day(&self, day: i64) -> bool {
        let (month, date) = month_and_date(day);
        let weekday = (day + 4).rem_euclid(7);
        let (of_month, of_week) = (self.days >> date & 1 == 1, self.weekdays >> weekday & 1 == 1);
        let fits = if self.either { of_month || of_week } else { of_month && of_week };
        self.months >> month & 1 == 1 && fits
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Field {
    /// The numbers that a field names, as bits.
    fn read(&self, told: &str) -> std::result::Result<u64, String> {
        let mut set = 0;
        for part in told.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, step.parse::<u64>().ok().filter(|step| *step > 0)),
                None => (part, Some(1)),
            };
            let bounds = match (range, range.split_once('-')) {
                ("*", _) => Some((self.first, if self.last == 7 { 6 } else { self.last })),
                (_, Some((first, last))) => self.number(first).zip(self.number(last)),
                // `5/10` is from 5 on, as other crons have it.
                (one, None) => self.number(one).map(|one| (one, if part.contains('/') { self.last } else { one })),
            };
            let (Some((first, last)), Some(step)) = (bounds, step) else {
                return Err(format!("{part:?} is no {}: {} to {}", self.name, self.first, self.last));
            };
            if first > last {
                return Err(format!("{part:?} runs backwards in the field of the {}", self.name));
            }
            (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)).for_each(|number| set |= 1 << number);
        }
        Ok(set)
    }

    fn number(&self, text: &str) -> Option<u64> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let number = named.map(|at| at as u64 + self.first).or(digits)?;
        (self.first..=self.last).contains(&number).then_some(number)
    }
}

/// Whether the times are UTC, and what follows.
fn zone(text: &str) -> Result<(bool, &str)> {
    let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) else {
        return Ok((false, text));
    };
    match rest.split_once(char::is_whitespace) {
        Some(("UTC", fields)) => Ok((true, fields.trim_start())),
        _ => Err(wrong(text, "times are local ones or UTC")),
    }
}

fn nickname(text: &str, word: &str) -> Result<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "yearly" | "annually" => Ok("0 0 1 1 *"),
        "monthly" => Ok("0 0 1 * *"),
        "weekly" => Ok("0 0 * * 0"),
        "daily" | "midnight" => Ok("0 0 * * *"),
        "hourly" => Ok("0 * * * *"),
        _ => Err(wrong(text, "is none of @hourly, @daily, @weekly, @monthly and @yearly")),
    }
}

fn wrong(text: &str, what: &str) -> crate::Error {
    Failure::new("option", "schedule", format!("{text:?} is no schedule: {what}"))
        .hint("Write five fields as crontab(5) has them, such as \"*/15 9-17 * * mon-fri\", or @hourly; CRON_TZ=UTC before them for UTC.")
        .config()
}

/// Month and date of a day since 1970, of the Gregorian calendar.
fn month_and_date(day: i64) -> (i64, i64) {
    // Days since the first of March of a year 0, in eras of 400 years.
    let day = (day + 719_468).rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (if month < 10 { month + 3 } else { month - 9 }, of_year - (153 * month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a time in UTC.
    fn at(text: &str) -> i64 {
        let numbers: Vec<i64> = text.split(['-', ' ', ':']).map(|number| number.parse().unwrap()).collect();
        let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
        let new_year = (numbers[0] - 1970) * 365 + leap_days(numbers[0] - 1) - leap_days(1969);
        let day = (new_year..).find(|day| month_and_date(*day) == (numbers[1], numbers[2])).unwrap();
        day * DAY + numbers[3] * 3600 + numbers[4] * 60
    }

    fn next(schedule: &str, after: &str) -> i64 {
        Schedule::parse(schedule).unwrap().next(at(after), &|_| 0).unwrap()
    }

    #[test]
    fn the_next_time_is_the_first_that_all_fields_name() {
        let cases = [
            ("* * * * *", "2026-11-30 08:15", "2026-11-30 08:16"),
            ("*/15 * * * *", "2026-11-30 08:15", "2026-11-30 08:30"),
            ("5/20 * * * *", "2026-11-30 08:26", "2026-11-30 08:45"),
            ("10-20/5,59 8 * * *", "2026-11-30 08:15", "2026-11-30 08:20"),
            ("10-20/5,59 8 * * *", "2026-11-30 08:20", "2026-11-30 08:59"),
            ("@hourly", "2026-12-31 23:00", "2027-01-01 00:00"),
            ("@weekly", "2026-11-30 08:15", "2026-12-06 00:00"),
            ("@Monthly", "2026-11-30 08:15", "2026-12-01 00:00"),
            ("@yearly", "2026-11-30 08:15", "2027-01-01 00:00"),
            ("0 9 * * mon-FRI", "2026-12-04 09:00", "2026-12-07 09:00"),
            ("0 0 * * 7", "2026-11-30 08:15", "2026-12-06 00:00"),
            ("0 0 * * 5-7", "2026-12-05 08:15", "2026-12-06 00:00"),
            ("0 0 29 feb *", "2026-11-30 08:15", "2028-02-29 00:00"),
            ("0 0 29 feb *", "2097-01-01 00:00", "2104-02-29 00:00"),
            // Either is enough; a field that begins with a star restricts only what the other one leaves.
            ("0 0 13 * fri", "2026-11-30 08:15", "2026-12-04 00:00"),
            ("0 0 13 * */5", "2026-11-30 08:15", "2026-12-13 00:00"),
            ("CRON_TZ=UTC 0 5 * * *", "2026-11-30 08:15", "2026-12-01 05:00"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after), at(expected), "{schedule} after {after}");
        }
    }

    #[test]
    fn local_times_that_are_skipped_are_left_out_and_those_that_come_twice_count_twice() {
        // As in Berlin in 2027: two hours ahead from 28 March, 1:00 UTC, to 31 October, 1:00 UTC.
        let summer = (at("2027-03-28 01:00"), at("2027-10-31 01:00"));
        let offset = move |time: i64| if (summer.0..summer.1).contains(&time) { 7200 } else { 3600 };
        let schedule = Schedule::parse("30 2 * * *").unwrap();
        let after = |time: &str| schedule.next(at(time), &offset).unwrap();
        assert_eq!(after("2027-03-27 12:00"), at("2027-03-29 00:30"), "there is no 2:30 on the 28th");
        assert_eq!(after("2027-10-30 12:00"), at("2027-10-31 00:30"));
        assert_eq!(after("2027-10-31 00:30"), at("2027-10-31 01:30"), "again");
        assert_eq!(after("2027-10-31 01:30"), at("2027-11-01 01:30"));
        let far = Schedule::parse("0 0 * * *").unwrap();
        assert_eq!(far.next(at("2026-11-30 08:15"), &|_| 14 * 3600), Some(at("2026-11-30 10:00")));
        assert_eq!(far.next(at("2026-11-30 08:15"), &|_| -12 * 3600), Some(at("2026-11-30 12:00")));
        assert_eq!(far.next(at("2026-11-30 08:15"), &|_| 20_700), Some(at("2026-11-30 18:15")), "Nepal");
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        let cases = [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 * * * * *", "6 fields"),
            ("60 * * * *", "\"60\" is no minute"),
            ("* 24 * * *", "no hour"),
            ("* * 0 * *", "no day"),
            ("* * * 13 *", "no month"),
            ("* * * * 8", "no weekday"),
            ("* * * * fry", "no weekday"),
            ("*/0 * * * *", "no minute"),
            ("+5 * * * *", "no minute"),
            ("1,, * * * *", "no minute"),
            ("20-10 * * * *", "backwards"),
            ("* * L * *", "no day"),
            ("99999999999999999999 * * * *", "no minute"),
            ("0 0 30 2 *", "no such day"),
            ("@reboot", "none of @hourly"),
            ("@", "none of @hourly"),
            ("TZ=Europe/Berlin 0 0 * * *", "local ones or UTC"),
            ("CRON_TZ=UTC", "local ones or UTC"),
        ];
        for (text, message) in cases {
            let error = Schedule::parse(text).unwrap_err();
            assert!(error.to_string().contains(message) && error.hint().contains("crontab"), "{text}: {error}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (day, expected) in [
            (0, (1, 1)),
            (58, (2, 28)),
            (59, (3, 1)),
            (789, (2, 29)),
            (11_016, (2, 29)),
            (47_540, (2, 28)),
            (47_541, (3, 1)),
        ] {
            assert_eq!(month_and_date(day), expected, "{day}");
        }
    }
}
