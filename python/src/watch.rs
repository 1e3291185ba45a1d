//! The process between pytest and a test: outside of the cell's process namespace, in all others of it. It waits for
//! the test's process and tells how that ended and what it left. It runs nothing of Python's and touches little of
//! its copy of pytest's memory: each page that it wrote to would be copied.

use std::fs;
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use crate::sys;

/// Waits for the process and writes to `last_word`, then ends: a line `ended STATUS`, the status negative for a signal,
/// and a line `PID COMMAND` for each process of the cell that is still alive.
pub fn watch(process: i32, last_word: RawFd) -> ! {
    // Among them the cell's control socket: where pytest is killed, nothing may keep the cell alive.
    sys::close_all_but(&[last_word]);
    let status = sys::wait(process);
    let left: String = left().iter().map(|(pid, command)| format!("{pid} {command}\n")).collect();
    sys::say(last_word, &format!("ended {status}\n{left}"));
    sys::exit(0)
}

/// Says that there will be no test, and why, and ends.
pub fn fail(why: &str, last_word: RawFd) -> ! {
    say_failed(why, last_word);
    sys::exit(125)
}

/// Says that there will be no test, and why.
pub fn say_failed(why: &str, last_word: RawFd) {
    sys::say(last_word, &format!("failed the sandbox could not be entered: {why}").replace('\n', " "));
}

/// At most so many are named, and so much of the command line of each.
const NAMED: usize = 64;
const COMMAND: u64 = 300;
/// A line of /proc/PID/stat is shorter.
const STAT: u64 = 4096;

/// The processes of the cell that are alive, after a moment for those that are on their way out.
fn left() -> Vec<(u32, String)> {
    let mut left = Vec::new();
    for wait in [0, 2, 10, 30, 50] {
        std::thread::sleep(Duration::from_millis(wait));
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid != 1);
        left = pids.filter_map(|pid| Some((pid, command(pid)?))).take(NAMED).collect();
        if left.is_empty() {
            break;
        }
    }
    left
}

/// Its command line, or its name in brackets; nothing if it has ended.
fn command(pid: u32) -> Option<String> {
    let stat = read(&format!("/proc/{pid}/stat"), STAT)?;
    let (open, close) = (stat.iter().position(|b| *b == b'(')?, stat.iter().rposition(|b| *b == b')')?);
    if matches!(stat.get(close + 2), Some(b'Z' | b'X')) {
        return None;
    }
    let mut line = read(&format!("/proc/{pid}/cmdline"), COMMAND)?;
    while line.last() == Some(&0) {
        line.pop();
    }
    if line.is_empty() {
        line = [b"[", stat.get(open + 1..close)?, b"]"].concat();
    }
    line.iter_mut().filter(|byte| **byte < b' ').for_each(|byte| *byte = b' ');
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// The beginning of a file that a program of the cell may have put there: never waited for, and no more than that.
fn read(path: &str, most: u64) -> Option<Vec<u8>> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let file = fs::File::options().read(true).custom_flags(flags).open(path).ok()?;
    let mut bytes = Vec::new();
    let readable = file.metadata().ok()?.is_file();
    (readable && file.take(most).read_to_end(&mut bytes).is_ok()).then_some(bytes)
}
