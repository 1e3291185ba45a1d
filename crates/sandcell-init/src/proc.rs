//! Our own view of the processes: a proc file system that was opened before any program ran and that no path leads to
//! but this descriptor. What a program mounts over /proc, or puts in its place, is not what is read here.

use crate::rawsys::{self, call, nr};
use crate::text::Text;
use crate::wire::stage;
use crate::{At, Fault};

static mut PROC: i32 = -1;

pub fn dir() -> i32 {
    // SAFETY: one thread; processes that share our memory only read it, and only when it is set for good.
    unsafe { PROC }
}

/// Keeps a copy of a descriptor of a new mount of proc, for as long as we live.
pub fn keep(mount: i32) -> Result<(), i32> {
    // SAFETY: numbers only; one thread.
    unsafe { PROC = rawsys::dup_above(mount, 3)? };
    Ok(())
}

/// The last thing before programs run: sees to it that there is one, and that it can be read.
pub fn prepare() -> Result<(), Fault> {
    // Landlock knows a mount of a namespace that we have left by its own directories only.
    if dir() >= 0 && open(0, b"self/stat").is_ok_and(close) {
        return Ok(());
    }
    let flags = rawsys::O_PATH | rawsys::O_DIRECTORY | rawsys::O_CLOEXEC;
    // SAFETY: NUL-terminated path; a buffer longer than struct statfs; one thread.
    unsafe {
        let fd = rawsys::open(c"/proc", flags).at(stage::PROC)?;
        const PROC_SUPER_MAGIC: u64 = 0x9fa0;
        let mut status = [0u64; 32];
        call!(nr::FSTATFS, fd, status.as_mut_ptr()).at(stage::PROC)?;
        if status[0] != PROC_SUPER_MAGIC {
            return Err(Fault { stage: stage::PROC, errno: rawsys::ENOTDIR });
        }
        rawsys::close(dir());
        PROC = fd;
    }
    Ok(())
}

fn close(fd: i32) -> bool {
    rawsys::close(fd);
    true
}

/// Opens a file of a process: nothing is followed, nothing that is mounted in there is entered, nothing is waited for.
fn open(pid: u32, name: &[u8]) -> Result<i32, i32> {
    const NO_XDEV: u64 = 0x1;
    const NO_MAGICLINKS: u64 = 0x2;
    const BENEATH: u64 = 0x8;
    let mut path = Text::<64>::new();
    if pid > 0 {
        path.push_number(pid.into());
        path.push(b"/");
    }
    path.push(name);
    path.push(b"\0");
    // struct open_how: flags, mode, resolve.
    let flags = rawsys::O_CLOEXEC | rawsys::O_NONBLOCK;
    let how = [flags as u64, 0, NO_XDEV | NO_MAGICLINKS | BENEATH];
    rawsys::openat2(dir(), path.c_str()?, &how)
}

/// Reads at most a buffer of a file of a process; empty where that is gone. Fails where files cannot be opened at all.
pub fn read<'a>(pid: u32, name: &[u8], buffer: &'a mut [u8]) -> Result<&'a mut [u8], i32> {
    const ESRCH: i32 = 3;
    let fd = match open(pid, name) {
        Ok(fd) => fd,
        Err(rawsys::ENOENT | ESRCH) => return Ok(&mut []),
        Err(errno) => return Err(errno),
    };
    let length = rawsys::read(fd, buffer).unwrap_or(0);
    rawsys::close(fd);
    Ok(&mut buffer[..length])
}

/// Calls `visit` with the number of each process. Ends early with the first error.
pub fn each(mut visit: impl FnMut(u32) -> Result<(), i32>) -> Result<(), i32> {
    #[repr(align(8))]
    struct Buffer([u8; 2048]);
    let mut buffer = Buffer([0; 2048]);
    let flags = rawsys::O_DIRECTORY | rawsys::O_CLOEXEC;
    let list = rawsys::openat(dir(), c".", flags, 0)?;
    let mut answer = Ok(());
    'all: while let Ok(length @ 1..) = rawsys::getdents(list, &mut buffer.0) {
        let mut at = 0;
        while at < length {
            let record = usize::from(u16::from_ne_bytes([buffer.0[at + 16], buffer.0[at + 17]]));
            if let Some(pid) = rawsys::number(&buffer.0[at + 19..at + record]) {
                answer = visit(pid as u32);
                if answer.is_err() {
                    break 'all;
                }
            }
            at += record;
        }
    }
    rawsys::close(list);
    answer
}

/// What /proc/PID/stat tells of a process: see proc_pid_stat(5).
pub struct Stat {
    text: [u8; 512],
    /// Where the name ends, which may hold anything, parentheses too.
    close: usize,
    length: usize,
}

impl Stat {
    /// `None` where the process is gone.
    pub fn of(pid: u32) -> Result<Option<Stat>, i32> {
        let mut stat = Stat { text: [0; 512], close: 0, length: 0 };
        stat.length = read(pid, b"stat", &mut stat.text)?.len();
        let close = stat.text[..stat.length].iter().rposition(|&byte| byte == b')');
        Ok(close.map(|close| Stat { close, ..stat }))
    }

    pub fn name(&self) -> &[u8] {
        let open = self.text.iter().position(|&byte| byte == b'(').map_or(0, |open| open + 1);
        self.text.get(open..self.close).unwrap_or_default()
    }

    /// Field by the number that it has in the manual, from 3 on.
    fn field(&self, number: usize) -> &[u8] {
        let rest = self.text.get(self.close + 2..self.length).unwrap_or_default();
        rest.split(|&byte| byte == b' ').nth(number - 3).unwrap_or_default()
    }

    fn number(&self, field: usize) -> u32 {
        let digits = self.field(field).iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0u32, |number, byte| number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')))
    }

    pub fn parent(&self) -> u32 {
        self.number(4)
    }

    /// A process whose main thread has ended looks like a zombie while others of its threads go on.
    pub fn is_alive(&self) -> bool {
        match self.field(3) {
            b"Z" => self.number(20) > 1,
            state => !matches!(state, b"X" | b""),
        }
    }
}

/// Whether a process descends from another one. A parent that ends meanwhile is no answer: the next look finds another.
pub fn descends(pid: u32, ancestor: u32) -> Result<bool, i32> {
    // Deeper than any namespace of processes counts: numbers that are used again must not make a circle.
    const DEEPEST: usize = 1 << 16;
    let mut at = pid;
    for _ in 0..DEEPEST {
        let Some(stat) = Stat::of(at)? else { return Ok(false) };
        at = stat.parent();
        if at == ancestor {
            return Ok(true);
        }
        if at <= 1 {
            break;
        }
    }
    Ok(false)
}
