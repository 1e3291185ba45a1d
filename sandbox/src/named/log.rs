//! Reading the log of a named cell, by byte offset: whoever comes back to an offset misses nothing.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::NamedCell;
use crate::error::{Failure, Result};
use crate::sys;

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// `2026-11-30T01:14:44.123456789Z stdout F `.
const HEAD: usize = 40;
const TIME: usize = 30;
/// No line is longer, with its head: a longer one comes in parts.
const MOST: usize = 32 * 1024;

/// A line of a log, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// Where it begins in the log, and where the next one does.
    pub offset: u64,
    /// See above: [`LogReader::seek`] takes it.
    pub next: u64,
    /// When it was written.
    pub time: SystemTime,
    /// The same as text: RFC 3339, UTC, with nanoseconds.
    pub stamp: String,
    /// 1 for standard output, 2 for standard error.
    pub stream: i32,
    /// Whether the line goes on in the next part of the same stream.
    pub partial: bool,
    /// What the program wrote, without the line's end. It is the program's: see [`printable`](crate::printable).
    pub text: Vec<u8>,
}

impl LogLine {
    /// A time as logs have it, in UTC: `2026-11-30T01:14:44Z`, with or without parts of a second.
    pub fn parse_time(text: &str) -> Option<SystemTime> {
        let (whole, part) = text.strip_suffix('Z')?.split_at_checked(19)?;
        let digits = match part.strip_prefix('.') {
            Some(digits) if (1..=9).contains(&digits.len()) => digits,
            None if part.is_empty() => "",
            _ => return None,
        };
        let form = |(at, byte): (usize, u8)| match at {
            4 | 7 => byte == b'-',
            10 => byte == b'T',
            13 | 16 => byte == b':',
            _ => byte.is_ascii_digit(),
        };
        let fits = whole.bytes().enumerate().all(form) && digits.bytes().all(|byte| byte.is_ascii_digit());
        if fits { time(&format!("{whole}.{digits:0<9}Z")) } else { None }
    }
}

/// Reads a log from an offset on. It reads files, so it holds up neither the keeper nor other readers.
#[derive(Debug)]
pub struct LogReader {
    name: String,
    dir: PathBuf,
    /// Closed when the cell has ended.
    keeper: Option<OwnedFd>,
    changes: Option<Inotify>,
    offset: u64,
    /// The file that is read, and where it begins.
    file: Option<(u64, File)>,
    buffer: Vec<u8>,
    at: usize,
    skipped: u64,
}

impl NamedCell {
    /// Its log, from the first line that is still there.
    ///
    /// # Errors
    /// `Io` where it cannot be read.
    pub fn log(&self) -> Result<LogReader> {
        let dir = self.place.log_dir().map_err(|e| self.place.failed("its log cannot be found", &e))?;
        Ok(LogReader {
            name: self.name().to_owned(),
            dir,
            keeper: self.place.connect()?,
            changes: None,
            offset: 0,
            file: None,
            buffer: Vec::new(),
            at: 0,
            skipped: 0,
        })
    }
}

impl LogReader {
    /// Goes on at this offset: that of a line, or its `next`.
    pub fn seek(&mut self, offset: u64) {
        (self.offset, self.file, self.at) = (offset, None, 0);
        self.buffer.clear();
    }

    /// Where the next line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that were not there any more when it was their turn.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Goes to where the last `count` lines begin.
    ///
    /// # Errors
    /// `Io` where the log cannot be read.
    pub fn tail(&mut self, count: usize) -> Result<()> {
        self.seek(0);
        // Offsets of the last lines: a ring.
        let mut last = std::collections::VecDeque::with_capacity(count.min(4096));
        let mut end = 0;
        let mut begun = true;
        while let Some(line) = self.next_line()? {
            end = line.next;
            if begun {
                last.push_back(line.offset);
                if last.len() > count {
                    last.pop_front();
                }
            }
            begun = !line.partial;
        }
        self.seek(last.front().copied().unwrap_or(end));
        Ok(())
    }

    /// The next line, if it is there by now.
    ///
    /// # Errors
    /// `Io` where the log cannot be read.
    pub fn next_line(&mut self) -> Result<Option<LogLine>> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = parse(&rest[..end], self.offset);
                self.at += end + 1;
                self.offset += end as u64 + 1;
                match line {
                    Some(line) => return Ok(Some(line)),
                    // An offset in the midst of a line.
                    None => continue,
                }
            }
            if rest.len() > MOST {
                return Err(Failure::new("cell-log", &self.name, "is no log").io());
            }
            if !self.fill().map_err(|e| self.failed(&e))? {
                return Ok(None);
            }
        }
    }

    /// Waits until there may be more. False where there is no more and nothing comes: the cell has ended, or the time has
    /// come.
    ///
    /// # Errors
    /// `Io` where the log cannot be watched.
    pub fn wait(&mut self, until: Option<Instant>) -> Result<bool> {
        if self.changes.is_none() {
            let watch = || {
                let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                changes.add_watch(&self.dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE)?;
                Ok(changes)
            };
            self.changes = Some(watch().map_err(|errno: Errno| self.failed(&errno.into()))?);
            // What has come before it was watched.
            return Ok(true);
        }
        let Some(changes) = &self.changes else { return Ok(false) };
        let Some(keeper) = &self.keeper else { return Ok(false) };
        let ready = sys::wait_readable(&[changes.as_fd(), keeper.as_fd()], until);
        let ready = ready.map_err(|errno| self.failed(&errno.into()))?;
        if ready[0] {
            let _ = changes.read_events();
            return Ok(true);
        }
        if ready[1] {
            // Nobody writes any more; what was written last is still to be read.
            self.keeper = None;
            return Ok(true);
        }
        Ok(false)
    }

    /// The same with a time.
    ///
    /// # Errors
    /// As there.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<bool> {
        self.wait(Instant::now().checked_add(timeout))
    }

    /// What has to be polled besides a time, and what then is to be done: call [`wait`](LogReader::wait).
    pub fn is_live(&self) -> bool {
        self.keeper.is_some()
    }

    /// Reads more; false where there is nothing yet.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        loop {
            // Opening may have moved it on, where files are gone.
            let from = self.offset + self.buffer.len() as u64;
            let have = self.buffer.len();
            let Some((start, file)) = &self.file else {
                match self.open(from)? {
                    true => continue,
                    false => return Ok(false),
                }
            };
            self.buffer.resize(have + CHUNK, 0);
            let read = file.read_at(&mut self.buffer[have..], from - start);
            self.buffer.truncate(have + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => {
                    // The next one begins where this one ends.
                    let start = *start;
                    if !self.open(from)? || self.file.as_ref().is_none_or(|(next, _)| *next == start) {
                        return Ok(false);
                    }
                }
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Opens the file in which this offset is; where that is gone, the oldest that there is.
    fn open(&mut self, from: u64) -> io::Result<bool> {
        // A file may be removed between its listing and its opening.
        for _ in 0..16 {
            let mut starts = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let name = entry?.file_name();
                starts.extend(name.to_str().and_then(|name| name.strip_prefix("log.")?.parse::<u64>().ok()));
            }
            starts.sort_unstable();
            let Some(oldest) = starts.first().copied() else { return Ok(false) };
            let start = starts.iter().rev().copied().find(|start| *start <= from).unwrap_or(oldest);
            if start > from {
                self.skipped += start - self.offset;
                self.offset = start;
                self.buffer.clear();
            }
            let path = self.dir.join(format!("log.{start:020}"));
            match fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
                Ok(file) => {
                    self.file = Some((start, file));
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }

    fn failed(&self, e: &io::Error) -> crate::Error {
        Failure::new("cell-log", &self.name, "the log cannot be read")
            .cause(e)
            .hint("Was the cell removed meanwhile?")
            .io()
    }
}

pub(crate) fn parse(line: &[u8], offset: u64) -> Option<LogLine> {
    let (head, text) = line.split_at_checked(HEAD)?;
    let head = std::str::from_utf8(head).ok()?;
    let stream = match head.get(TIME..TIME + 8)? {
        " stdout " => 1,
        " stderr " => 2,
        _ => return None,
    };
    let partial = match head.get(TIME + 8..)? {
        "F " => false,
        "P " => true,
        _ => return None,
    };
    let stamp = head.get(..TIME)?.to_owned();
    let next = offset + line.len() as u64 + 1;
    Some(LogLine { offset, next, time: time(&stamp)?, stamp, stream, partial, text: text.to_vec() })
}

/// A time as the keeper writes it.
fn time(stamp: &str) -> Option<SystemTime> {
    let number = |at: std::ops::Range<usize>| stamp.get(at)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days since 1970 by the calendar of March, in which the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = (365 * y + y / 4 + y / 400 + (153 * m + 2) / 5 + day).checked_sub(y / 100 + 1 + 719_468)?;
    let second = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let time = Duration::new(days * 86_400 + second, u32::try_from(number(20..29)?).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_keeper_writes_it() {
        let line = b"2026-11-30T01:14:44.123456789Z stderr P half a line";
        let read = parse(line, 7).unwrap();
        assert_eq!((read.offset, read.next, read.stream, read.partial), (7, 7 + line.len() as u64 + 1, 2, true));
        assert_eq!(read.text, b"half a line");
        let seconds = read.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(seconds, Duration::new(1_796_001_284, 123_456_789));
        assert!(parse(&line[1..], 0).is_none() && parse(b"", 0).is_none() && parse(&[0xff; 60], 0).is_none());
    }

    #[test]
    fn a_line_that_no_keeper_writes_is_none() {
        let good = b"2026-11-30T01:14:44.000000001Z stdout F text".to_vec();
        assert!(parse(&good, 0).is_some(), "the control");
        // Letters of several bytes over each of the places where it is cut.
        for at in 0..HEAD - 1 {
            let mut line = good.clone();
            line[at..at + 2].copy_from_slice("é".as_bytes());
            assert!(parse(&line, 0).is_none(), "{at}");
        }
    }

    #[test]
    fn a_time_is_read_with_and_without_parts_of_a_second() {
        let at = |nanos| SystemTime::UNIX_EPOCH.checked_add(Duration::new(1, nanos));
        for (text, time) in [
            ("1970-01-01T00:00:01Z", at(0)),
            ("1970-01-01T00:00:01.5Z", at(500_000_000)),
            ("1970-01-01T00:00:01.000000001Z", at(1)),
            ("1970-01-01T00:00:01", None),
            ("1970-01-01T00:00:01.Z", None),
            ("1970-01-01 00:00:01Z", None),
            ("+970-01-01T00:00:01Z", None),
            ("10m", None),
            ("ééééééééééZ", None),
        ] {
            assert_eq!(LogLine::parse_time(text), time, "{text}");
        }
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        for (stamp, seconds) in [
            ("1970-01-01T00:00:00.000000000Z", 0),
            ("2000-02-29T00:00:01.000000000Z", 951_782_401),
            ("2100-03-01T00:00:00.000000000Z", 4_107_542_400),
        ] {
            assert_eq!(time(stamp), SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)), "{stamp}");
        }
    }
}
