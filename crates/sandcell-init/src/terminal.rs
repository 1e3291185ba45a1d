//! A terminal of the sandbox's own, for one program: pty(7), in the devpts that init has mounted.
//!
//! The program's keeper leads the session, and the program is a process group of it, as under a shell. So the kernel hangs nothing
//! up when the program ends, which would throw away output that is still on its way, and the program can be stopped by
//! Ctrl-Z, which the kernel refuses where nobody in the session could let it go on.

use crate::rawsys::{self, call, nr};
use crate::wire::{Reply, TERMIOS_BYTES, reply, stage};
use crate::{At, Fault, end, socket};

const TCGETS: usize = 0x5401;
const TCSETS: usize = 0x5402;
const TIOCSCTTY: usize = 0x540e;
const TIOCSPGRP: usize = 0x5410;
const TIOCSWINSZ: usize = 0x5414;
const TIOCNOTTY: usize = 0x5422;
const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGPTPEER: usize = 0x5441;
const O_NOCTTY: usize = 0o400;

/// What was asked for.
#[derive(Clone, Copy)]
pub struct Terminal {
    /// Bit n: standard stream n is the terminal.
    pub streams: u32,
    /// `TERMINAL_` bits.
    pub flags: u32,
    pub size: u64,
    pub modes: &'static [u8],
}

#[repr(C, align(8))]
struct Termios([u8; TERMIOS_BYTES + 4]);

impl Terminal {
    /// Makes the terminal that of the calling process, which becomes the leader of a session, and hands its other end to the
    /// library. The end that is the program's.
    pub fn open(&self, socket: i32) -> Result<i32, Fault> {
        // SAFETY: no pointers.
        unsafe { call!(nr::SETSID) }.at(stage::PROGRAM_SESSION)?;
        let master = master().at(stage::TERMINAL_OPEN)?;
        let opened = self.prepare(master).and_then(|slave| {
            let sent = Reply { kind: reply::TERMINAL, ..Reply::default() };
            let sent = socket::send(socket, &sent, &[], master).at(stage::TERMINAL_SEND);
            sent.map(|()| slave).inspect_err(|_| rawsys::close(slave))
        });
        rawsys::close(master);
        opened
    }

    fn prepare(&self, master: i32) -> Result<i32, Fault> {
        let unlock = 0i32;
        let flags = rawsys::O_RDWR | rawsys::O_CLOEXEC | O_NOCTTY;
        // SAFETY: an int of ours, then numbers only.
        let slave = unsafe {
            call!(nr::IOCTL, master, TIOCSPTLCK, &raw const unlock).at(stage::TERMINAL_OPEN)?;
            call!(nr::IOCTL, master, TIOCGPTPEER, flags).at(stage::TERMINAL_OPEN)? as i32
        };
        let set = self.set(slave).at(stage::TERMINAL_SET).and_then(|()| {
            // SAFETY: numbers only.
            unsafe { call!(nr::IOCTL, slave, TIOCSCTTY, 0) }.at(stage::TERMINAL_CONTROL)
        });
        set.map(|_| slave).inspect_err(|_| rawsys::close(slave))
    }

    fn set(&self, slave: i32) -> Result<(), i32> {
        const IUTF8: u32 = 0o40000;
        let mut modes = Termios([0; TERMIOS_BYTES + 4]);
        // SAFETY: as much as the kernel's struct termios and struct winsize.
        unsafe {
            match self.modes {
                [] => {
                    call!(nr::IOCTL, slave, TCGETS, modes.0.as_mut_ptr())?;
                    // So that the line discipline erases whole characters: the default locale is UTF-8.
                    let flags = modes.0.as_mut_ptr().cast::<u32>();
                    flags.write(flags.read() | IUTF8);
                }
                bytes if bytes.len() == TERMIOS_BYTES => modes.0[..TERMIOS_BYTES].copy_from_slice(bytes),
                _ => return Err(rawsys::EPROTO),
            }
            call!(nr::IOCTL, slave, TCSETS, modes.0.as_ptr())?;
            call!(nr::IOCTL, slave, TIOCSWINSZ, &raw const self.size)?;
        }
        Ok(())
    }
}

/// A new pseudo-terminal of the devpts that belongs to the sandbox: nothing else will do.
fn master() -> Result<i32, i32> {
    const DEVPTS_MAGIC: i64 = 0x1cd1;
    let flags = rawsys::O_RDWR | rawsys::O_CLOEXEC | O_NOCTTY;
    let mut facts = [0i64; 16];
    // SAFETY: a NUL-terminated path, and room for struct statfs, which is 120 bytes.
    unsafe {
        let master = call!(nr::OPENAT, rawsys::AT_FDCWD, c"/dev/pts/ptmx".as_ptr(), flags)? as i32;
        match call!(nr::FSTATFS, master, facts.as_mut_ptr()) {
            Ok(_) if facts[0] == DEVPTS_MAGIC => Ok(master),
            answer => {
                rawsys::close(master);
                Err(answer.err().unwrap_or(rawsys::EPROTO))
            }
        }
    }
}

/// Makes the calling process a group of its own in the session of the terminal, and this group the one in the foreground.
/// SIGTTOU must be blocked.
pub fn come_to_foreground(slave: i32) -> Result<(), i32> {
    // SAFETY: a number of ours.
    unsafe {
        call!(nr::SETPGID, 0, 0)?;
        let group = call!(nr::GETPID)? as i32;
        call!(nr::IOCTL, slave, TIOCSPGRP, &raw const group).map(|_| ())
    }
}

/// Lets go of the terminal before the session's leader ends: otherwise the kernel would hang it up, and what it still holds of the
/// program's output would be lost. Whoever else has it keeps it, as without a terminal.
pub fn leave() {
    let flags = rawsys::O_RDWR | rawsys::O_CLOEXEC | O_NOCTTY;
    // SAFETY: a NUL-terminated path and a number of ours.
    unsafe {
        // Fails where nobody has it open any more: then the kernel has taken it from us.
        let Ok(slave) = call!(nr::OPENAT, rawsys::AT_FDCWD, c"/dev/tty".as_ptr(), flags) else { return };
        let own = call!(nr::GETPID).unwrap_or(0) as i32;
        // The group in the foreground is told of a hang-up.
        let _ = call!(nr::IOCTL, slave, TIOCSPGRP, &raw const own);
        let _ = call!(nr::IOCTL, slave, TIOCNOTTY);
        rawsys::close(slave as i32);
    }
}

/// Waits, as the leader of a session with all signals blocked, until a child has ended or was stopped. A hang-up is told to the
/// leader alone, and here the program is who should know.
pub fn await_event(program: i32) {
    let wanted = 1u64 << (rawsys::SIGCHLD - 1) | 1 << (rawsys::SIGHUP - 1);
    // SAFETY: a set of 8 bytes; nothing is wanted to be known of the signal, and there is no end of patience.
    let signal = unsafe { call!(nr::RT_SIGTIMEDWAIT, &raw const wanted, 0, 0, 8) };
    if signal == Ok(rawsys::SIGHUP as usize) {
        // Not reaped yet, so the number is still its own.
        end::kill(-program, rawsys::SIGHUP);
        end::kill(-program, rawsys::SIGCONT);
    }
}

/// Blocks all signals of the calling process: what is sent to a session or to everybody must not end its leader.
pub fn block_signals() -> Result<(), i32> {
    const SIG_SETMASK: usize = 2;
    let all = u64::MAX;
    // SAFETY: a set of 8 bytes.
    unsafe { call!(nr::RT_SIGPROCMASK, SIG_SETMASK, &raw const all, 0, 8) }.map(|_| ())
}
