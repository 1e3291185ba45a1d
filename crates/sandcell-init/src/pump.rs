//! Carries a program's output to where the caller wants it, and counts it: where a limit or a count was asked for, and
//! where it goes to a regular file, which the program must not be able to open again.

use crate::rawsys;
use crate::spawn::Request;
use crate::wait::{self, POLLOUT, PollFd};
use crate::wire::{ASK_COUNT, RELAY_SAME, RELAY_STDOUT};

/// What a pipe takes without blocking once it says that it is writable.
const CHUNK: usize = 4096;
/// What a regular file takes at once: all that a pipe holds.
const FILE_CHUNK: usize = 64 * 1024;

/// Only what is written into it takes memory.
static mut BUFFER: [u8; FILE_CHUNK] = [0; FILE_CHUNK];

/// One stream. Both ends are 0 once it is over: that is the control socket's number.
#[derive(Clone, Copy)]
pub struct Pump {
    /// The program writes into the other end.
    pub from: i32,
    /// The caller's.
    pub to: i32,
    /// Something waits in `from`: now `to` must be writable.
    pub loaded: bool,
    /// `to` is a regular file, which is always writable.
    to_file: bool,
    /// Why output was lost; 0 where none was, or where nobody reads any more.
    pub lost: i32,
}

pub const IDLE: Pump = Pump { from: 0, to: 0, loaded: false, to_file: false, lost: 0 };

/// The pipes in front of the outputs that are to be carried; the program's ends take their places in `fds`.
pub fn before(request: &Request, fds: &mut [i32]) -> Result<[Pump; 2], i32> {
    let mut pumps = [IDLE; 2];
    let counted = request.output_limit > 0 || request.flags & ASK_COUNT != 0;
    for at in 0..2 {
        let is_file = request.relay & (RELAY_STDOUT << at) != 0;
        let index = request.descriptor(at as u32 + 1) as usize;
        if !counted && !is_file || index >= fds.len() {
            continue;
        }
        if at == 1 && pumps[0].open() && request.relay & RELAY_SAME != 0 {
            let first = fds[request.descriptor(1) as usize];
            let end = rawsys::dup_above(first, 0);
            let end = end.inspect_err(|_| pumps[0].close())? as i32;
            rawsys::close(fds[index]);
            fds[index] = end;
            continue;
        }
        let made = Pump::new(fds[index], is_file);
        let (pump, end) = made.inspect_err(|_| pumps[0].close())?;
        (pumps[at], fds[index]) = (pump, end);
    }
    Ok(pumps)
}

impl Pump {
    /// A pipe in front of `to`; the program's end is returned.
    fn new(to: i32, to_file: bool) -> Result<(Pump, i32), i32> {
        let mut ends = [0i32; 2];
        rawsys::pipe2(&mut ends, rawsys::O_CLOEXEC | rawsys::O_NONBLOCK)?;
        // The program's end blocks, as programs expect.
        rawsys::set_status_flags(ends[1], rawsys::O_WRONLY)?;
        Ok((Pump { from: ends[0], to, to_file, ..IDLE }, ends[1]))
    }

    pub fn open(&self) -> bool {
        self.from > 0
    }

    /// Whether the descriptor that was watched last says that a chunk can be moved.
    pub fn is_ready(&self, watched: i32) -> bool {
        self.to_file || watched == self.to
    }

    /// Moves a chunk of at most `room` bytes. Returns how many bytes the program had for it: more than `room` means
    /// that the limit is passed.
    pub fn carry(&mut self, room: u64) -> u64 {
        // SAFETY: one thread, and nobody holds it beyond this function.
        let buffer = unsafe { &mut *(&raw mut BUFFER) };
        let most = if self.to_file { FILE_CHUNK } else { CHUNK };
        self.loaded = false;
        // Once more when it is interrupted: no answer is taken for "nothing left" when the program is over.
        let read = loop {
            match rawsys::read(self.from, &mut buffer[..most]) {
                Err(rawsys::EINTR) => {}
                read => break read,
            }
        };
        let length = match read {
            Err(rawsys::EAGAIN) => return 0,
            Ok(0) => {
                self.close();
                return 0;
            }
            Err(errno) => {
                self.lose(errno);
                return 0;
            }
            Ok(length) => length,
        };
        let mut rest = &buffer[..length.min(usize::try_from(room).unwrap_or(usize::MAX))];
        while !rest.is_empty() {
            match rawsys::write(self.to, rest) {
                Ok(written) => rest = &rest[written..],
                Err(rawsys::EINTR) => {}
                Err(rawsys::EAGAIN) => wait_writable(self.to),
                // Nobody reads any more: the program learns it by SIGPIPE, as it would without us.
                Err(rawsys::EPIPE) => {
                    self.close();
                    break;
                }
                // A full disk, say. What the program has written already it believes written.
                Err(errno) => {
                    self.lose(errno);
                    break;
                }
            }
        }
        length as u64
    }

    pub fn close(&mut self) {
        if self.open() {
            rawsys::close(self.from);
            rawsys::close(self.to);
            *self = Pump { lost: self.lost, ..IDLE };
        }
    }

    pub fn lose(&mut self, errno: i32) {
        self.lost = errno;
        self.close();
    }
}

fn wait_writable(fd: i32) {
    let _ = wait::wait(&mut [PollFd::new(fd, POLLOUT)], -1);
}
