//! Tables with the columns that people know from `podman images` and `docker history`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        let mut table = Table { rows: Vec::new() };
        table.row(head);
        table
    }

    pub fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(sandcell::printable).collect());
    }

    pub fn text(&self) -> Vec<u8> {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += &format!("{cell:width$}  ");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text.into()
    }
}

/// Decimal units, as `podman images` has them.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            let decimals = match value {
                _ if unit == "B" => 0,
                value if value < 9.995 => 2,
                value if value < 99.95 => 1,
                _ => 0,
            };
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `3 weeks ago`; the date itself where it is none; empty where there is none.
pub fn ago(date: Option<&str>) -> String {
    match date {
        None | Some("") => String::new(),
        Some(date) => parse(date).map_or_else(|| date.to_owned(), since),
    }
}

pub fn since(time: SystemTime) -> String {
    let Ok(age) = SystemTime::now().duration_since(time) else { return "in the future".to_owned() };
    let seconds = age.as_secs();
    let units = [
        ("second", 1),
        ("minute", 60),
        ("hour", 3600),
        ("day", 86_400),
        ("week", 7 * 86_400),
        ("month", 30 * 86_400),
        ("year", 365 * 86_400),
    ];
    let (unit, length) = units.iter().rev().find(|(_, length)| seconds >= 2 * length).unwrap_or(&units[0]);
    match seconds / length {
        0 | 1 if *unit == "second" => "just now".to_owned(),
        count => format!("{count} {unit}s ago"),
    }
}

/// RFC 3339 to the second; an offset other than Z only as `+hh:mm`.
fn parse(date: &str) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| date.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone = date.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970 in the Gregorian calendar, years beginning with March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let days_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + days_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_images_are_read_to_the_second() {
        let seconds = |date| parse(date).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:34:56.789012345Z"), Some(1_709_210_096));
        assert_eq!(seconds("2026-01-02T03:04:05+02:30"), Some(1_767_323_045 - 9000));
        for wrong in ["", "yesterday", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.50 kB"),
            (77_800_000, "77.8 MB"),
            (999_400_000, "999 MB"),
            (999_600_000, "1.00 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
