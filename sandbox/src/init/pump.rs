//! Carries a program's output to where the caller wants it, counting: only where a limit or a count was asked for.

use crate::rawsys::{self, call, nr};

/// What a pipe takes without blocking once it says that it is writable.
const CHUNK: usize = 4096;

/// One stream. Both ends are 0 once it is over: that is the control socket's number.
#[derive(Clone, Copy)]
pub struct Pump {
    /// The program writes into the other end.
    pub from: i32,
    /// The caller's.
    pub to: i32,
    /// Something waits in `from`: now `to` must be writable.
    pub loaded: bool,
    /// Why output was lost; 0 where none was, or where nobody reads any more.
    pub lost: i32,
}

pub const IDLE: Pump = Pump { from: 0, to: 0, loaded: false, lost: 0 };

impl Pump {
    /// A pipe in front of `to`; the program's end is returned.
    pub fn new(to: i32) -> Result<(Pump, i32), i32> {
        let mut ends = [0i32; 2];
        // SAFETY: room for two descriptors.
        unsafe { call!(nr::PIPE2, ends.as_mut_ptr(), rawsys::O_CLOEXEC | rawsys::O_NONBLOCK) }?;
        const F_SETFL: usize = 4;
        // The program's end blocks, as programs expect.
        // SAFETY: numbers only.
        unsafe { call!(nr::FCNTL, ends[1], F_SETFL, rawsys::O_WRONLY) }?;
        Ok((Pump { from: ends[0], to, ..IDLE }, ends[1]))
    }

    pub fn open(&self) -> bool {
        self.from > 0
    }

    /// Moves a chunk of at most `room` bytes. Returns how many bytes the program had for it: more than `room` means
    /// that the limit is passed.
    pub fn carry(&mut self, room: u64) -> u64 {
        let mut buffer = [0u8; CHUNK];
        self.loaded = false;
        // Once more when it is interrupted: no answer is taken for "nothing left" when the program is over.
        let read = loop {
            // SAFETY: the buffer is as long as is said.
            match unsafe { call!(nr::READ, self.from, buffer.as_mut_ptr(), CHUNK) } {
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
            // SAFETY: the bytes are readable for their length.
            match unsafe { call!(nr::WRITE, self.to, rest.as_ptr(), rest.len()) } {
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
    const POLLOUT: u64 = 4;
    let mut poll = fd as u32 as u64 | POLLOUT << 32;
    // SAFETY: the layout of struct pollfd: descriptor, events, returned events.
    let _ = unsafe { call!(nr::POLL, &raw mut poll, 1, -1i32) };
}
