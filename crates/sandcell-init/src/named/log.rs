//! The log of a named cell: what its main program writes, line by line, with time and stream, in files that follow one
//! another. The name of a file is the offset of its first byte in the whole log, so a reader that stands at an offset
//! finds its place, whatever was begun or removed meanwhile.
//!
//! A line is `TIME stdout F TEXT`, or with `P` where its end has not come yet: the form of Kubernetes' logs. Where nothing
//! can be written (a full disk), nothing is read either: the program waits, and no byte is lost.

use crate::now;
use crate::rawsys;
use crate::text::Text;

const INPUT: usize = 32 * 1024;
const OUTPUT: usize = 64 * 1024;
/// Time, stream, kind and blanks: `2026-11-30T01:14:44.123456789Z stdout F `.
const HEAD: usize = 40;
const TIME: usize = 30;
pub const MOST_FILES: usize = 64;
/// So many reads, and clients are looked after again.
const READS_AT_ONCE: usize = 16;
/// How long until it is tried again to write.
const PAUSE: u64 = 200_000_000;
const EIO: i32 = 5;

pub struct Log {
    pub dir: i32,
    pub file: i32,
    most: u64,
    files: usize,
    /// Where each file begins.
    starts: [u64; MOST_FILES],
    count: usize,
    /// Bytes of the whole log that are written.
    written: u64,
    errno: i32,
    retry_at: u64,
    /// What was read and is not framed yet.
    input: [u8; INPUT],
    at: usize,
    length: usize,
    /// What stands before each line of that.
    head: [u8; HEAD],
    /// What is framed and not written yet.
    output: [u8; OUTPUT],
    from: usize,
    to: usize,
}

pub const NONE: Log = Log {
    dir: 0,
    file: 0,
    most: 0,
    files: 0,
    starts: [0; MOST_FILES],
    count: 0,
    written: 0,
    errno: 0,
    retry_at: 0,
    input: [0; INPUT],
    at: 0,
    length: 0,
    head: [0; HEAD],
    output: [0; OUTPUT],
    from: 0,
    to: 0,
};

impl Log {
    pub fn limits(&mut self, size: u64, files: u32) {
        (self.most, self.files) = (size, (files as usize).clamp(1, MOST_FILES - 1));
    }

    pub fn begin(&mut self) -> Result<(), i32> {
        if self.dir < 0 { Ok(()) } else { self.next_file() }
    }

    /// Bytes of the log so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Why it cannot be written now.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    pub fn retry_at(&self) -> u64 {
        self.retry_at
    }

    /// Whether there is room for more.
    pub fn takes_more(&self) -> bool {
        self.at == self.length && self.errno == 0
    }

    /// Bytes that were read and could not be written.
    pub fn pending(&self) -> u64 {
        (self.length - self.at + self.to - self.from) as u64
    }

    /// Reads what the program has written, from a pipe that does not block.
    pub fn take_in(&mut self, pipe: i32, stream: usize) -> Taken {
        if !self.takes_more() {
            return Taken::Nothing;
        }
        match rawsys::read(pipe, &mut self.input) {
            Err(rawsys::EINTR | rawsys::EAGAIN) => return Taken::Nothing,
            Ok(0) | Err(_) => return Taken::End,
            Ok(length) => (self.at, self.length) = (0, length),
        }
        self.head = [b' '; HEAD];
        self.head[..TIME].copy_from_slice(&time_now());
        self.head[TIME + 1..TIME + 7].copy_from_slice(if stream == 0 { b"stdout" } else { b"stderr" });
        self.frame();
        Taken::Some
    }

    /// Reads until there is nothing more for now, or much has come: so what is written is written in few pieces. False at the
    /// end of the pipe.
    pub fn take_all(&mut self, pipe: i32, stream: usize) -> bool {
        for _ in 0..READS_AT_ONCE {
            match self.take_in(pipe, stream) {
                Taken::Some => {}
                Taken::Nothing => return true,
                Taken::End => return false,
            }
        }
        true
    }

    /// Writes what is there to be written.
    pub fn flush(&mut self) {
        if self.retry_at != 0 && now() < self.retry_at {
            return;
        }
        (self.errno, self.retry_at) = (0, 0);
        if self.frame() {
            self.write();
        }
    }

    /// Makes lines of what was read; false where there is no room for them.
    fn frame(&mut self) -> bool {
        while self.at < self.length {
            let rest = &self.input[self.at..self.length];
            let end = end_of_line(rest);
            let piece = end.unwrap_or(rest.len());
            let record = HEAD + piece + 1;
            if self.dir < 0 {
                self.at = self.length;
                break;
            }
            if self.to + record > OUTPUT && !self.write() {
                return false;
            }
            let there = self.written - self.starts[self.count - 1] + (self.to - self.from) as u64;
            if there > 0 && there + record as u64 > self.most && !(self.write() && self.rotate()) {
                return false;
            }
            self.put(piece, end.is_some());
            self.at += piece + usize::from(end.is_some());
        }
        true
    }

    fn put(&mut self, piece: usize, whole: bool) {
        self.head[TIME + 8] = if whole { b'F' } else { b'P' };
        self.output[self.to..self.to + HEAD].copy_from_slice(&self.head);
        self.to += HEAD;
        self.output[self.to..self.to + piece].copy_from_slice(&self.input[self.at..self.at + piece]);
        self.to += piece;
        self.output[self.to] = b'\n';
        self.to += 1;
    }

    /// Whether all of it is written.
    fn write(&mut self) -> bool {
        while self.from < self.to {
            let bytes = &self.output[self.from..self.to];
            match rawsys::write(self.file, bytes) {
                Ok(0) => return self.later(EIO),
                Ok(length) => {
                    self.from += length;
                    self.written += length as u64;
                }
                Err(rawsys::EINTR) => {}
                Err(errno) => return self.later(errno),
            }
        }
        (self.from, self.to) = (0, 0);
        true
    }

    fn later(&mut self, errno: i32) -> bool {
        (self.errno, self.retry_at) = (errno, now() + PAUSE);
        false
    }

    /// Begins a new file, and removes the oldest where there are too many.
    fn rotate(&mut self) -> bool {
        match self.next_file() {
            Ok(()) => true,
            Err(errno) => self.later(errno),
        }
    }

    fn next_file(&mut self) -> Result<(), i32> {
        let name = name(self.written);
        let flags =
            rawsys::O_WRONLY | rawsys::O_CREAT | rawsys::O_EXCL | rawsys::O_NOFOLLOW | rawsys::O_CLOEXEC | O_APPEND;
        let file = rawsys::openat(self.dir, name.c_str()?, flags, 0o600)?;
        rawsys::close(core::mem::replace(&mut self.file, file));
        self.starts[self.count] = self.written;
        self.count += 1;
        while self.count > self.files {
            let oldest = self::name(self.starts[0]);
            // What cannot be removed stays.
            let _ = rawsys::unlinkat(self.dir, oldest.c_str()?, 0);
            self.starts.copy_within(1..self.count, 0);
            self.count -= 1;
        }
        Ok(())
    }

    /// The last that the program has written, as long as it is tried to write that: bytes that were lost.
    pub fn settle(&mut self, outputs: [i32; 2], until: u64) -> u64 {
        for (stream, pipe) in outputs.into_iter().enumerate().filter(|(_, pipe)| *pipe >= 0) {
            loop {
                self.flush();
                if self.takes_more() {
                    match self.take_in(pipe, stream) {
                        Taken::Some => {}
                        Taken::Nothing | Taken::End => break,
                    }
                } else if now() >= until {
                    break;
                } else {
                    wait_a_little();
                }
            }
        }
        self.flush();
        while self.pending() > 0 && now() < until {
            wait_a_little();
            self.flush();
        }
        self.pending()
    }
}

const O_APPEND: usize = 0o2000;

/// What came of a read.
pub enum Taken {
    Some,
    Nothing,
    End,
}

/// Where a line ends: eight bytes at a time, of which one is the end where the subtraction borrows.
fn end_of_line(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const ENDS: u64 = ONES * b'\n' as u64;
    let mut at = 0;
    for word in text.chunks_exact(8) {
        let other = u64::from_le_bytes(word.try_into().unwrap_or_default()) ^ ENDS;
        let found = other.wrapping_sub(ONES) & !other & (ONES << 7);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    text[at..].iter().position(|byte| *byte == b'\n').map(|more| at + more)
}

/// A read of ours must not wait: several are made for one time that the pipe was said to be readable.
pub fn unblock(pipe: i32) -> Result<(), i32> {
    if pipe < 0 { Ok(()) } else { rawsys::set_status_flags(pipe, rawsys::O_NONBLOCK) }
}

pub fn wait_a_little() {
    super::poll(&mut [], Some(now() + 5_000_000));
}

/// The name of the file that begins at this byte of the log.
fn name(start: u64) -> Text<32> {
    let mut digits = [b'0'; 20];
    let mut rest = start;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let mut name = Text::new();
    name.push(b"log.");
    name.push(&digits);
    name.push(b"\0");
    name
}

/// The time of day as RFC 3339 has it, in UTC.
fn time_now() -> [u8; TIME] {
    const REALTIME: usize = 0;
    let mut time = [0u64; 2];
    let _ = rawsys::clock(REALTIME, &mut time);
    let (year, month, day) = date(time[0] / 86_400);
    let second = time[0] % 86_400;
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let parts = [(0, 4, year), (5, 2, month), (8, 2, day), (11, 2, second / 3600), (14, 2, second / 60 % 60)];
    for (at, width, number) in parts.into_iter().chain([(17, 2, second % 60), (20, 9, time[1])]) {
        let mut rest = number;
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    text
}

/// Year, month and day of a day since 1970.
fn date(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let days = if leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month, day + 1)
}
