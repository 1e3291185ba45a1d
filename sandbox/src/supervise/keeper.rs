//! Talking to the keeper of a named cell: one question, one answer, with a deadline.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::error::{Failure, Result};
use crate::sys;
use crate::wire::Message;
use crate::wire::keeper::answer;

/// A keeper does nothing that takes long, but for the end of its cell.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for something and waits for the answer. Whoever shares the connection takes turns.
pub(crate) fn ask(socket: BorrowedFd<'_>, kind: u32, value: u32, text: &[u8], fds: &[RawFd]) -> Result<sys::Heard> {
    let until = Instant::now() + PATIENCE;
    loop {
        match asked(socket, until, kind, value, text, fds)? {
            (reply, ..) if reply.kind == answer::REFUSED => match reply.errno {
                // Too many descriptors of this user are on their way: not for long.
                libc::ETOOMANYREFS if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                errno => return Err(refused(errno)),
            },
            heard => return Ok(heard),
        }
    }
}

fn asked(
    socket: BorrowedFd<'_>,
    until: Instant,
    kind: u32,
    value: u32,
    text: &[u8],
    fds: &[RawFd],
) -> Result<sys::Heard> {
    match sys::transmit(socket, Message { kind, value, length: 0 }, text, fds) {
        Ok(()) => {}
        Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => return Err(ended("keeper")),
        Err(errno) => return Err(talking(errno)),
    }
    if !sys::wait_readable(&[socket], Some(until)).map_err(talking)?[0] {
        return Err(talking(Errno::ETIMEDOUT));
    }
    sys::receive(socket).map_err(talking)?.ok_or_else(|| ended("keeper"))
}

fn refused(errno: i32) -> crate::Error {
    let failure = |message: &str| Failure::new("keeper", "cell", message).errno(errno);
    match errno {
        libc::ESRCH => failure("has no main program that runs").hint("Start one: `exec`.").io(),
        libc::EBUSY => failure("somebody else is attached to it, or it has too many clients")
            .hint("Take it over (`--takeover`), or wait.")
            .io(),
        _ => failure("its keeper refuses this").hint("Was it started by another version of sandcell?").io(),
    }
}

fn talking(errno: Errno) -> crate::Error {
    Failure::new("keeper", "cell", "cannot talk to its keeper")
        .errno(errno as i32)
        .hint("Look whether the keeper is stopped, or the machine very busy; `sandcell kill` ends the cell.")
        .io()
}

/// A cell that has ended meanwhile.
pub(crate) fn ended(stage: &'static str) -> crate::Error {
    Failure::new(stage, "cell", "has ended")
        .errno(libc::ESRCH)
        .hint("Start it again; `sandcell ps -a` shows how it ended.")
        .io()
}
