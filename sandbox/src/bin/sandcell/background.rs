//! A program in the background that reads the caller's terminal.
//!
//! The kernel stops with SIGTTIN who reads its controlling terminal in the background. A program inside has another session, for
//! which the kernel does not look: it would take from the shell what is typed. So while we are in the background we look now and
//! then whether something inside waits in such a read, and stop as the kernel would have stopped it.

use std::fs;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::{getpgrp, tcgetpgrp};
use sandcell::{Child, Error};

/// How often it is looked, at first and later. What is typed for the shell in between may be lost to it.
const SOON: Duration = Duration::from_millis(5);
const LATER: Duration = Duration::from_millis(20);
/// How long after the start and after each stop it is looked soon.
const FIRST: Duration = Duration::from_millis(500);
/// How long it may take to stop.
const MOMENT: Duration = Duration::from_millis(500);

/// Whether there is something to look for.
pub struct Background {
    watches: bool,
    since: Instant,
}

impl Background {
    /// Nothing is looked for where SIGTTIN is ignored: there reads fail, which we cannot bring about.
    pub fn new(ignored: &[i32]) -> Background {
        let since = Instant::now();
        Background { since, watches: io::stdin().is_terminal() && !ignored.contains(&libc::SIGTTIN) }
    }

    /// Whether our controlling terminal is the program's standard input, and we are in the background there.
    pub fn is_here(&self) -> bool {
        self.watches && tcgetpgrp(io::stdin()).is_ok_and(|group| group != getpgrp())
    }

    /// When to look next.
    pub fn next(&self) -> Option<Duration> {
        self.is_here().then(|| if self.since.elapsed() < FIRST { SOON } else { LATER })
    }

    /// We go on again. Where the kernel has not stopped us, because nobody could have let us go on, that is not tried any more.
    pub fn gone_on(&mut self, stopped: bool) {
        self.watches &= stopped;
        self.since = Instant::now();
    }
}

/// Stops the program and its group. It must not read any more when we are stopped and our shell has the terminal; where /proc does
/// not tell that, a moment has to do.
pub fn stop(child: &Child) -> Result<(), Error> {
    child.signal_group(libc::SIGSTOP)?;
    let Some(pid) = child.host_pid() else { return Ok(()) };
    let until = Instant::now() + MOMENT;
    while Instant::now() < until {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name is whatever the program likes; what follows is not.
        match stat.rsplit(") ").next().and_then(|rest| rest.chars().next()) {
            Some('R' | 'S' | 'D') => std::thread::sleep(Duration::from_millis(1)),
            _ => break,
        }
    }
    Ok(())
}
