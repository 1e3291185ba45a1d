//! Raw system calls without libc: no errno in thread-local storage, no allocation, no locks.
//!
//! Shared by init (which has no libc) and by the child that shares the caller's memory between clone and exec
//! (where libc may not be called). Everything else uses `nix`.
#![no_std]
#![allow(unsafe_code, missing_docs)]

#[cfg_attr(target_arch = "x86_64", path = "arch/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "arch/aarch64.rs")]
mod arch;
#[cfg(sandcell_init_program)]
mod builtins;

mod typed;

pub use typed::*;

pub use arch::{
    AUDIT_ARCH, EpollEvent, O_DIRECTORY, O_NOFOLLOW, clone_args, clone_onto, epoll_wait, nr, poll, syscall6,
};

pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const ENOEXEC: i32 = 8;
pub const EBADF: i32 = 9;
pub const ECHILD: i32 = 10;
pub const EAGAIN: i32 = 11;
pub const EACCES: i32 = 13;
pub const ESRCH: i32 = 3;
pub const EBUSY: i32 = 16;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const EINVAL: i32 = 22;
pub const EPIPE: i32 = 32;
pub const ENOSYS: i32 = 38;
pub const EPROTO: i32 = 71;
pub const EPERM: i32 = 1;

pub const O_WRONLY: usize = 1;
pub const O_RDWR: usize = 2;
pub const O_CREAT: usize = 0o100;
pub const O_EXCL: usize = 0o200;
pub const O_NONBLOCK: usize = 0o4000;
pub const O_CLOEXEC: usize = 0o2000000;
pub const O_PATH: usize = 0o10000000;
pub const AT_FDCWD: i32 = -100;
pub const AT_EMPTY_PATH: usize = 0x1000;
pub const AT_RECURSIVE: usize = 0x8000;

pub const CLONE_VM: u64 = 0x100;
pub const CLONE_FILES: u64 = 0x400;
pub const CLONE_PIDFD: u64 = 0x1000;
pub const CLONE_VFORK: u64 = 0x4000;
pub const CLONE_PARENT: u64 = 0x8000;
pub const CLONE_PARENT_SETTID: u64 = 0x100000;
pub const CLONE_CHILD_CLEARTID: u64 = 0x200000;
pub const CLONE_NEWNS: u64 = 0x20000;
pub const CLONE_NEWCGROUP: u64 = 0x2000000;
pub const CLONE_NEWUTS: u64 = 0x4000000;
pub const CLONE_NEWIPC: u64 = 0x8000000;
pub const CLONE_NEWUSER: u64 = 0x10000000;
pub const CLONE_NEWPID: u64 = 0x20000000;
pub const CLONE_NEWNET: u64 = 0x40000000;
pub const CLONE_INTO_CGROUP: u64 = 0x200000000;

pub const SIGKILL: i32 = 9;
pub const SIGCONT: i32 = 18;
pub const SIGTSTP: i32 = 20;
pub const SIGHUP: i32 = 1;
pub const SIGSTOP: i32 = 19;
pub const SIGTERM: i32 = 15;
pub const SIGCHLD: i32 = 17;

pub const PR_SET_DUMPABLE: usize = 4;
pub const PR_SET_NAME: usize = 15;
pub const PR_SET_TIMERSLACK: usize = 29;
/// Nanoseconds.
pub const DEFAULT_TIMER_SLACK: usize = 50_000;
pub const PR_CAPBSET_READ: usize = 23;
pub const PR_CAPBSET_DROP: usize = 24;
pub const PR_SET_CHILD_SUBREAPER: usize = 36;
pub const PR_SET_PDEATHSIG: usize = 1;
pub const PR_SET_NO_NEW_PRIVS: usize = 38;
pub const PR_SET_SECUREBITS: usize = 28;
pub const SECBIT_NO_SETUID_FIXUP: usize = 1 << 2;

/// The arguments of clone3(2).
#[repr(C)]
#[derive(Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// Turns the kernel's answer into a result.
#[inline(always)]
pub fn check(result: isize) -> Result<usize, i32> {
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result as usize) }
}

/// A checked system call: `call!(nr::CLOSE, fd)`. Arguments are cast to `usize`.
#[macro_export]
macro_rules! call {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        $crate::call!(@pad $number; $($arg as usize,)* ; 0usize, 0usize, 0usize, 0usize, 0usize, 0usize,)
    };
    (@pad $n:expr; ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::check($crate::syscall6($n, $z1, $z2, $z3, $z4, $z5, $z6)) };
    (@pad $n:expr; $a:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::check($crate::syscall6($n, $a, $z1, $z2, $z3, $z4, $z5)) };
    (@pad $n:expr; $a:expr, $b:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::check($crate::syscall6($n, $a, $b, $z1, $z2, $z3, $z4)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::check($crate::syscall6($n, $a, $b, $c, $z1, $z2, $z3)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, $d:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::check($crate::syscall6($n, $a, $b, $c, $d, $z1, $z2)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::check($crate::syscall6($n, $a, $b, $c, $d, $e, $z1)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::check($crate::syscall6($n, $a, $b, $c, $d, $e, $f)) };
}

/// Ends the process at once: no destructors, no atexit.
pub fn exit(status: i32) -> ! {
    // SAFETY: exit_group takes a number. Where a program's own filter refuses it, the bad instruction ends us.
    unsafe {
        syscall6(nr::EXIT_GROUP, status as usize, 0, 0, 0, 0, 0);
        arch::bad_instruction()
    }
}

/// The device and the mode of an open file.
///
/// # Errors
/// The kernel's.
pub fn fstat(fd: i32) -> Result<(u64, u32), i32> {
    let mut status = [0u64; 18];
    // SAFETY: room for a struct stat, which begins with the device.
    unsafe { call!(nr::FSTAT, fd, status.as_mut_ptr()) }.map(|_| (status[0], status[arch::STAT_MODE] as u32))
}

/// Closes a descriptor; errors do not matter to those who call this.
pub fn close(fd: i32) {
    if fd >= 0 {
        // SAFETY: closing a number that the caller owns touches no memory.
        let _ = unsafe { call!(nr::CLOSE, fd) };
    }
}

/// Gives `fd` and everything above it the close-on-exec flag.
pub fn cloexec_from(fd: i32) -> Result<(), i32> {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    // SAFETY: close_range takes numbers only.
    match unsafe { call!(nr::CLOSE_RANGE, fd, u32::MAX, CLOSE_RANGE_CLOEXEC) } {
        Ok(_) => Ok(()),
        // Refused by an outer sandbox, or a kernel before 5.11: one by one.
        Err(_) => cloexec_one_by_one(fd),
    }
}

fn cloexec_one_by_one(first: i32) -> Result<(), i32> {
    const F_SETFD: usize = 2;
    const FD_CLOEXEC: usize = 1;
    #[repr(align(8))]
    struct Buffer([u8; 1024]);
    let mut buffer = Buffer([0; 1024]);
    // SAFETY: the path is NUL-terminated; the buffer is as long as is said; the descriptors are our own.
    unsafe {
        let dir = call!(nr::OPENAT, AT_FDCWD, c"/proc/self/fd".as_ptr(), O_DIRECTORY | O_CLOEXEC)? as i32;
        loop {
            let length = call!(nr::GETDENTS64, dir, buffer.0.as_mut_ptr(), buffer.0.len())?;
            if length == 0 {
                break;
            }
            let mut at = 0;
            while at < length {
                let record = usize::from(u16::from_ne_bytes([buffer.0[at + 16], buffer.0[at + 17]]));
                if let Some(fd) = number(&buffer.0[at + 19..at + record])
                    && fd >= first
                    && fd != dir
                {
                    call!(nr::FCNTL, fd, F_SETFD, FD_CLOEXEC)?;
                }
                at += record;
            }
        }
        close(dir);
    }
    Ok(())
}

/// A decimal number up to the first NUL.
pub fn number(text: &[u8]) -> Option<i32> {
    let mut value: i32 = 0;
    let mut digits = 0;
    for &byte in text {
        match byte {
            b'0'..=b'9' => value = value.checked_mul(10)?.checked_add(i32::from(byte - b'0'))?,
            0 => break,
            _ => return None,
        }
        digits += 1;
    }
    (digits > 0).then_some(value)
}

/// `_LINUX_CAPABILITY_VERSION_3` of capset(2).
const CAPABILITIES_3: u32 = 0x2008_0522;

/// Whether the calling thread has this capability (below 32) in effect. In doubt it has.
pub fn has_capability(number: u32) -> bool {
    let header = [CAPABILITIES_3, 0];
    let mut data = [0u32; 6];
    // SAFETY: header and data have the layout of version 3.
    let answer = unsafe { call!(nr::CAPGET, header.as_ptr(), data.as_mut_ptr()) };
    answer.is_err() || data[0] & 1 << number != 0
}

/// The two halves of a capability set as capset(2) wants them, for the calling thread.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<(), i32> {
    let header = [CAPABILITIES_3, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    // SAFETY: header and data have the layout of version 3 and outlive the call.
    unsafe { call!(nr::CAPSET, header.as_ptr(), data.as_ptr()) }.map(|_| ())
}

/// Drops all capabilities but `keep` from the bounding set: no program can ever get them back.
pub fn bound_capabilities(keep: u64) -> Result<(), i32> {
    for capability in (0..64u32).filter(|capability| keep & (1 << capability) == 0) {
        // SAFETY: numbers only.
        match unsafe { call!(nr::PRCTL, PR_CAPBSET_DROP, capability, 0, 0, 0) } {
            Ok(_) => {}
            // Past the last capability of this kernel: asked for in another way too, because what is taken for the
            // end here stays with the programs.
            Err(EINVAL) if !is_capability(capability) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether this kernel has a capability of that number. In doubt it has.
fn is_capability(number: u32) -> bool {
    // SAFETY: numbers only.
    let answer = unsafe { call!(nr::PRCTL, PR_CAPBSET_READ, number, 0, 0, 0) };
    answer != Err(EINVAL)
}
