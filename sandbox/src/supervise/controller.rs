//! Signals and ends a program that runs, from any thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::error::{Failure, Result};
use crate::supervise::init::{Init, PATIENCE, talking};
use crate::sys;
use crate::sys::procfs;
use crate::wire::command;

/// How often somebody who has asked for an end looks whether another thread has heard the answer.
const LOOK: Duration = Duration::from_millis(10);

/// The socket of one program, and what was heard on it.
#[derive(Debug)]
pub(crate) struct Line {
    pub socket: OwnedFd,
    /// Init has answered since somebody asked for the program's end.
    pub heard: AtomicBool,
    /// There is nothing more to come.
    pub over: AtomicBool,
}

/// What tells the number by which the caller knows a program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pid {
    Unknown,
    /// There is no PID namespace between the two.
    Same(u32),
    OfPidfd,
    /// A child of that process, which has this number inside.
    ChildOfPidfd(u32),
}

/// Signals and ends a program, from any thread.
#[derive(Debug, Clone)]
pub struct Controller {
    pub(crate) line: Arc<Line>,
    pub(crate) init: Weak<Init>,
    /// What is readable when the program has ended: its own, or that of its sandbox.
    pub(crate) pidfd: Arc<OwnedFd>,
    pub(crate) pid: Pid,
    /// The caller has told it to end.
    pub(crate) killed: Arc<AtomicBool>,
}

impl Controller {
    /// Sends a signal to the program. No error if it has ended already.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.send_signal(command::SIGNAL, signal)
    }

    /// Sends a signal to the program's process group, as [`Child::signal_group`](crate::Child::signal_group).
    pub fn signal_group(&self, signal: i32) -> Result<()> {
        self.send_signal(command::SIGNAL_GROUP, signal)
    }

    fn send_signal(&self, kind: u32, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Err(Failure::new("option", "signal", format!("{signal} is no signal")).hint("1 to 64").config());
        }
        self.tell(kind, signal as u32).map(|_| ())
    }

    /// See [`Child::is_reading_stdin`](crate::Child::is_reading_stdin).
    pub(crate) fn ask_for_readers(&self) -> Result<()> {
        self.tell(command::READING, 0).map(|_| ())
    }

    /// The program's number outside, as [`Child::host_pid`](crate::Child::host_pid).
    pub fn host_pid(&self) -> Option<u32> {
        match self.pid {
            Pid::Unknown => None,
            Pid::Same(pid) => Some(pid),
            Pid::OfPidfd => procfs::of_pidfd(self.pidfd.as_fd()),
            Pid::ChildOfPidfd(pid) => procfs::child_named(procfs::of_pidfd(self.pidfd.as_fd())?, pid),
        }
    }

    /// A pidfd of the program, as [`Child::pidfd`](crate::Child::pidfd).
    pub fn pidfd(&self) -> Result<OwnedFd> {
        another_pidfd(self.pidfd.as_fd())
    }

    /// Ends the program and all that it started. A sandbox whose supervisor does not answer within two seconds is ended as a
    /// whole.
    pub fn kill(&self) -> Result<()> {
        if self.line.over.load(Ordering::Acquire) {
            return Ok(());
        }
        let told = self.tell_to_kill();
        // A socket that is full of requests counts as no answer.
        if matches!(told, Ok(false)) || told.is_ok() && self.is_heard() {
            return Ok(());
        }
        let Some(init) = self.init.upgrade() else { return Ok(()) };
        init.killed.store(true, Ordering::Release);
        init.kill();
        init.reap();
        Ok(())
    }

    /// Asks for the end and waits for nothing.
    pub(crate) fn tell_to_kill(&self) -> Result<bool> {
        self.killed.store(true, Ordering::Release);
        self.line.heard.store(false, Ordering::Release);
        self.tell(command::KILL, 0)
    }

    /// Whether init says that it is there, or has nothing to say any more. Another thread may take in what it says.
    fn is_heard(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            if self.line.heard.load(Ordering::Acquire) || self.line.over.load(Ordering::Acquire) {
                return true;
            }
            let now = Instant::now();
            match sys::wait_readable(&[self.line.socket.as_fd()], Some(until.min(now + LOOK))) {
                Ok(ready) if ready[0] => return true,
                _ if now >= until => return false,
                _ => {}
            }
        }
    }

    /// Whether there was somebody to tell.
    fn tell(&self, kind: u32, value: u32) -> Result<bool> {
        match sys::send(self.line.socket.as_fd(), kind, value) {
            Ok(()) => Ok(true),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Ok(false),
            Err(errno) => Err(talking(errno)),
        }
    }
}

pub(crate) fn another_pidfd(pidfd: BorrowedFd<'_>) -> Result<OwnedFd> {
    procfs::reopen(pidfd).map_err(crate::sys::descriptors)
}
