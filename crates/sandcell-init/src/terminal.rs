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
const TIOCSWINSZ: usize = 0x5414;
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
        rawsys::setsid().at(stage::PROGRAM_SESSION)?;
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
        let set = self
            .set(slave)
            .at(stage::TERMINAL_SET)
            .and_then(|()| rawsys::take_terminal(slave).at(stage::TERMINAL_CONTROL));
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
        let master = rawsys::open(c"/dev/pts/ptmx", flags)?;
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
    rawsys::setpgid(0, 0)?;
    rawsys::set_foreground(slave, &rawsys::getpid()?)
}

/// Lets go of the terminal before the session's leader ends: otherwise the kernel would hang it up, and what it still holds of the
/// program's output would be lost. Whoever else has it keeps it, as without a terminal.
pub fn leave() {
    let flags = rawsys::O_RDWR | rawsys::O_CLOEXEC | O_NOCTTY;
    // Fails where nobody has it open any more: then the kernel has taken it from us.
    let Ok(slave) = rawsys::open(c"/dev/tty", flags) else { return };
    // The group in the foreground is told of a hang-up.
    let _ = rawsys::set_foreground(slave, &rawsys::getpid().unwrap_or(0));
    let _ = rawsys::leave_terminal(slave);
    rawsys::close(slave);
}

/// Waits, as the leader of a session with all signals blocked, until a child has ended or was stopped. A hang-up is told to the
/// leader alone, and here the program is who should know.
pub fn await_event(program: i32) {
    let wanted = 1u64 << (rawsys::SIGCHLD - 1) | 1 << (rawsys::SIGHUP - 1);
    if rawsys::await_signal(&wanted) == Ok(rawsys::SIGHUP) {
        // Not reaped yet, so the number is still its own.
        end::kill(-program, rawsys::SIGHUP);
        end::kill(-program, rawsys::SIGCONT);
    }
}

/// Blocks all signals of the calling process: what is sent to a session or to everybody must not end its leader.
pub fn block_signals() -> Result<(), i32> {
    rawsys::set_signal_mask(&u64::MAX)
}
