//! Sets of ids as ranges, and /etc/subuid and /etc/subgid, from which they come: subuid(5).

use std::fmt;
use std::path::Path;

use crate::error::{Failure, Result};

/// Ids `start .. end`. `u64`, because the last id of the kernel, 4,294,967,294, has a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub start: u64,
    pub end: u64,
}

impl Range {
    pub(crate) fn new(start: u32, count: u32) -> Range {
        Range { start: start.into(), end: u64::from(start) + u64::from(count) }
    }

    pub(crate) fn of(ids: std::ops::RangeInclusive<u32>) -> Range {
        Range { start: (*ids.start()).into(), end: u64::from(*ids.end()) + 1 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        (self.start..self.end).contains(&id.into())
    }

    pub(crate) fn overlaps(&self, other: &Range) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether all of it is in the set.
    pub(crate) fn is_within(&self, ids: &Ranges) -> bool {
        ids.0.iter().any(|r| r.start <= self.start && self.end <= r.end)
    }
}

/// A set of ids: sorted, disjoint ranges with gaps between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range>);

impl FromIterator<Range> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Ranges {
        let mut sorted: Vec<Range> = ranges.into_iter().filter(|r| r.start < r.end).collect();
        sorted.sort();
        let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Ranges(merged)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}-{}", range.start, range.end - 1)?;
        }
        Ok(())
    }
}

impl Ranges {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ids.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Range::len).sum()
    }

    /// The ids that are not in `other`.
    pub(crate) fn without(&self, other: &Ranges) -> Ranges {
        let mut left = Vec::new();
        for range in &self.0 {
            let mut start = range.start;
            for hole in other.0.iter().filter(|h| h.start < range.end && range.start < h.end) {
                left.push(Range { start, end: hole.start.max(start) });
                start = hole.end;
            }
            left.push(Range { start, end: range.end.max(start) });
        }
        left.into_iter().collect()
    }

    /// The ids that are in `other` too.
    pub(crate) fn within(&self, other: &Ranges) -> Ranges {
        self.without(&self.without(other))
    }

    /// At most the first `count` ranges.
    pub(crate) fn first(&self, count: usize) -> Ranges {
        Ranges(self.0.iter().copied().take(count).collect())
    }

    /// How many slices of `count` ids without overlap fit in; `slice` numbers them from 0.
    pub(crate) fn slices(&self, count: u32) -> u64 {
        self.0.iter().map(|r| r.len() / u64::from(count)).sum()
    }

    /// The first id of slice `number`.
    pub(crate) fn slice(&self, mut number: u64, count: u32) -> Option<u32> {
        let count = u64::from(count);
        for range in &self.0 {
            let here = range.len() / count;
            if number < here {
                return u32::try_from(range.start + number * count).ok();
            }
            number -= here;
        }
        None
    }
}

/// Whose lines are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Login name; `None` for a UID without an entry in passwd.
    pub name: Option<String>,
    /// UID, also where GIDs are looked for: /etc/subgid names users, not groups.
    pub uid: u32,
    /// The caller's own id of the kind that is looked for.
    pub own_id: u32,
}

impl Owner {
    fn is(&self, field: &str) -> bool {
        self.name.as_deref() == Some(field) || field.parse() == Ok(self.uid)
    }
}

/// The owner's ranges in a file of lines `name-or-UID:start:count`. A file that does not exist has none.
///
/// A line that cannot be read is an error only where it is the owner's: other users' lines are not the caller's to mend.
pub(crate) fn read_file(path: &Path, owner: &Owner) -> Result<Ranges> {
    let mut found = Vec::new();
    for (number, line) in lines(path)? {
        let mut fields = line.split(':');
        if !owner.is(fields.next().unwrap_or_default()) {
            continue;
        }
        let place = format!("{}:{number}", path.display());
        match (fields.next(), fields.next(), fields.next()) {
            (Some(start), Some(count), None) => found.push(range(start, count, owner, &place)?),
            _ => return Err(malformed(&place, "is not of the form name:first:count".to_owned())),
        }
    }
    Ok(found.into_iter().collect())
}

/// What is everybody's in such a file, so that nobody else's ids are taken. Lines that cannot be read give nothing.
pub(crate) fn read_all(path: &Path) -> Result<Ranges> {
    let range = |(_, line): (usize, String)| {
        let mut fields = line.split(':').skip(1).map(|field| field.parse::<u32>());
        Some(Range::new(fields.next()?.ok()?, fields.next()?.ok()?))
    };
    Ok(lines(path)?.into_iter().filter_map(range).collect())
}

/// The owner's ranges in the output of getsubids(1): lines `0: name 100000 65536`.
pub(crate) fn read_getsubids(output: &str, owner: &Owner, command: &str) -> Result<Ranges> {
    let mut found = Vec::new();
    for (number, line) in output.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{command}, line {}", number + 1);
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, _, start, count] => found.push(range(start, count, owner, &place)?),
            _ => return Err(malformed(&place, format!("is not of the form `0: name first count`: {line:?}"))),
        }
    }
    Ok(found.into_iter().collect())
}

/// The ids that exist in the caller's own user namespace, from its map: user_namespaces(7).
pub(crate) fn read_own_map(path: &Path) -> Result<Ranges> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::new("id-map", path.display().to_string(), "cannot be read").cause(&e).hint("Mount /proc.").setup()
    })?;
    let range = |line: &str| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
        let start = fields.next()??;
        Some(Range::new(start, fields.nth(1)??))
    };
    Ok(text.lines().filter_map(range).collect())
}

fn lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(Failure::new("sub-ids", path.display().to_string(), "cannot be read")
                .cause(&e)
                .hint("The file must be readable by everybody: chmod 644.")
                .setup());
        }
    };
    // Bytes that are no text can only stand in lines of others: our own name is text.
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect())
}

fn range(start: &str, count: &str, owner: &Owner, place: &str) -> Result<Range> {
    let number = |what: &str, field: &str| -> Result<u32> {
        // `parse` takes a sign, the file format does not.
        let digits = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
        match field.parse::<u32>() {
            Ok(number) if digits => Ok(number),
            _ if digits => Err(malformed(place, format!("the {what}, {field}, is above 4294967295"))),
            _ => Err(malformed(place, format!("the {what} is not a number: {field:?}"))),
        }
    };
    let (first, count) = (number("first id", start)?, number("count", count)?);
    let range = Range::new(first, count);
    if count == 0 {
        return Err(malformed(place, "the count is 0".to_owned()));
    }
    // 4294967295 is (uid_t)-1, "no id" for the kernel.
    if range.end > u64::from(u32::MAX) {
        return Err(malformed(place, format!("the range {first} + {count} reaches beyond the last id, 4294967294")));
    }
    if range.contains(0) || range.contains(owner.own_id) {
        let whose = if range.contains(0) { "root's id 0" } else { "the caller's own id" };
        let id = if range.contains(0) { 0 } else { owner.own_id };
        return Err(malformed(
            place,
            format!("the range {first}-{} overlaps {whose} ({id}), which sandboxes must not have", range.end - 1),
        ));
    }
    Ok(range)
}

fn malformed(place: &str, message: String) -> crate::Error {
    Failure::new("sub-ids", place, message)
        .hint(
            "Mend the line as root (usermod --add-subuids / --del-subuids, see subuid(5)), or ask for shared host ids.",
        )
        .config()
}
