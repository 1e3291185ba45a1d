//! aarch64: the instructions and numbers that differ between architectures. Each file of this directory has the same names.

use core::arch::asm;

/// System call numbers: `include/uapi/asm-generic/unistd.h`. There is no poll, epoll_wait or any other call that a newer
/// one has replaced.
pub mod nr {
    pub const SETXATTR: usize = 5;
    pub const GETXATTR: usize = 8;
    pub const REMOVEXATTR: usize = 14;
    pub const EPOLL_CREATE1: usize = 20;
    pub const EPOLL_CTL: usize = 21;
    pub const EPOLL_PWAIT: usize = 22;
    pub const DUP: usize = 23;
    pub const DUP3: usize = 24;
    pub const FCNTL: usize = 25;
    pub const IOCTL: usize = 29;
    pub const MKNODAT: usize = 33;
    pub const MKDIRAT: usize = 34;
    pub const UNLINKAT: usize = 35;
    pub const SYMLINKAT: usize = 36;
    pub const RENAMEAT: usize = 38;
    pub const UMOUNT2: usize = 39;
    pub const MOUNT: usize = 40;
    pub const PIVOT_ROOT: usize = 41;
    pub const FSTATFS: usize = 44;
    pub const FTRUNCATE: usize = 46;
    pub const CHDIR: usize = 49;
    pub const FCHDIR: usize = 50;
    pub const FCHMODAT: usize = 53;
    pub const FCHOWNAT: usize = 54;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const PIPE2: usize = 59;
    pub const GETDENTS64: usize = 61;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const READV: usize = 65;
    pub const PREAD64: usize = 67;
    pub const PPOLL: usize = 73;
    pub const SIGNALFD4: usize = 74;
    pub const READLINKAT: usize = 78;
    pub const FSTAT: usize = 80;
    pub const TIMERFD_CREATE: usize = 85;
    pub const TIMERFD_SETTIME: usize = 86;
    pub const CAPGET: usize = 90;
    pub const CAPSET: usize = 91;
    pub const PERSONALITY: usize = 92;
    pub const EXIT: usize = 93;
    pub const EXIT_GROUP: usize = 94;
    pub const WAITID: usize = 95;
    pub const UNSHARE: usize = 97;
    pub const FUTEX: usize = 98;
    pub const CLOCK_GETTIME: usize = 113;
    pub const SCHED_SETAFFINITY: usize = 122;
    pub const SCHED_GETAFFINITY: usize = 123;
    pub const SCHED_YIELD: usize = 124;
    pub const RESTART_SYSCALL: usize = 128;
    pub const KILL: usize = 129;
    pub const TGKILL: usize = 131;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGPENDING: usize = 136;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const SETRESUID: usize = 147;
    pub const SETRESGID: usize = 149;
    pub const SETPGID: usize = 154;
    pub const SETSID: usize = 157;
    pub const SETGROUPS: usize = 159;
    pub const SETHOSTNAME: usize = 161;
    pub const GETRUSAGE: usize = 165;
    pub const UMASK: usize = 166;
    pub const PRCTL: usize = 167;
    pub const GETCPU: usize = 168;
    pub const GETPID: usize = 172;
    pub const GETPPID: usize = 173;
    pub const GETEUID: usize = 175;
    pub const SOCKET: usize = 198;
    pub const SOCKETPAIR: usize = 199;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const CONNECT: usize = 203;
    pub const GETSOCKNAME: usize = 204;
    pub const GETPEERNAME: usize = 205;
    pub const SENDTO: usize = 206;
    pub const RECVFROM: usize = 207;
    pub const SETSOCKOPT: usize = 208;
    pub const GETSOCKOPT: usize = 209;
    pub const SHUTDOWN: usize = 210;
    pub const SENDMSG: usize = 211;
    pub const RECVMSG: usize = 212;
    pub const MUNMAP: usize = 215;
    pub const KEYCTL: usize = 219;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const MMAP: usize = 222;
    pub const ACCEPT4: usize = 242;
    pub const WAIT4: usize = 260;
    pub const PRLIMIT64: usize = 261;
    pub const SETNS: usize = 268;
    pub const RENAMEAT2: usize = 276;
    pub const SECCOMP: usize = 277;
    pub const GETRANDOM: usize = 278;
    pub const EXECVEAT: usize = 281;
    pub const PIDFD_SEND_SIGNAL: usize = 424;
    pub const OPEN_TREE: usize = 428;
    pub const MOVE_MOUNT: usize = 429;
    pub const FSOPEN: usize = 430;
    pub const FSCONFIG: usize = 431;
    pub const FSMOUNT: usize = 432;
    pub const PIDFD_OPEN: usize = 434;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const OPENAT2: usize = 437;
    pub const FACCESSAT2: usize = 439;
    pub const MOUNT_SETATTR: usize = 442;
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    pub const LANDLOCK_ADD_RULE: usize = 445;
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
    /// The calls that [`poll`](super::poll) and [`epoll_wait`](super::epoll_wait) make.
    pub const WAIT_POLL: usize = PPOLL;
    pub const WAIT_EPOLL: usize = EPOLL_PWAIT;
}

/// `AUDIT_ARCH_AARCH64`: what seccomp(2) says of our calls.
pub const AUDIT_ARCH: u32 = 0xc000_00b7;

pub const O_DIRECTORY: usize = 0o40000;
pub const O_NOFOLLOW: usize = 0o100000;

/// The 64-bit word of struct stat that begins with the mode.
pub const STAT_MODE: usize = 2;

/// struct epoll_event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

/// The entry point of a static program: calls `$main`, which never returns. The kernel aligns the stack.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        core::arch::global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "bl {main}", "udf 0", main = sym $main);
    };
}

/// A system call with six arguments; the result is negative for an error.
///
/// # Safety
/// The arguments must be what the call of that number wants.
#[inline(always)]
pub unsafe fn syscall6(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers nothing but x0; the caller answers for the arguments.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
             in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    result
}

/// poll(2).
#[inline(always)]
pub fn poll(polls: &mut [crate::PollFd], timeout: i32) -> Result<usize, i32> {
    // struct timespec; the kernel writes into it what was left.
    let mut time = [timeout as i64 / 1000, timeout as i64 % 1000 * 1_000_000];
    let time = if timeout < 0 { core::ptr::null_mut() } else { time.as_mut_ptr() };
    // SAFETY: as many struct pollfd as is said; no signal mask.
    unsafe { crate::call!(nr::PPOLL, polls.as_mut_ptr(), polls.len(), time, 0, 0) }
}

/// epoll_wait(2).
#[inline(always)]
pub fn epoll_wait(epoll: i32, events: &mut [EpollEvent], timeout: i32) -> Result<usize, i32> {
    // SAFETY: room for as many events as is said; no signal mask.
    unsafe { crate::call!(nr::EPOLL_PWAIT, epoll, events.as_mut_ptr(), events.len(), timeout, 0, 0) }
}

/// The arguments of clone(2) in the order of this architecture, without thread-local storage. `parent_tid` also takes the
/// descriptor of CLONE_PIDFD.
#[inline(always)]
pub fn clone_args(flags: u64, stack: usize, parent_tid: usize, child_tid: usize) -> [usize; 5] {
    [flags as usize, stack, parent_tid, 0, child_tid]
}

/// clone(2) or clone3(2) with a stack of its own for the child, which runs `child(arg)` and never returns.
/// Returns the child's pid, or the negated error, to the parent.
///
/// # Safety
/// The five arguments must be right for the call; the stack that they name must be writable, large enough and unused;
/// `arg` must be what `child` wants.
pub unsafe fn clone_onto(
    number: usize,
    args: [usize; 5],
    child: unsafe extern "C" fn(*mut u8) -> !,
    arg: *mut u8,
) -> isize {
    let result: isize;
    // SAFETY: after the call the child stands on its own, 16-byte aligned stack with the same registers, calls
    // `child` and never comes back; the parent goes on behind the label with its stack untouched.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x21",
            "blr x20",
            "udf 0",
            "2:",
            in("x8") number,
            inlateout("x0") args[0] as isize => result, in("x1") args[1], in("x2") args[2], in("x3") args[3],
            in("x4") args[4], in("x20") child, in("x21") arg,
        );
    }
    result
}

/// Ends the process by a signal.
///
/// # Safety
/// Nothing runs after it.
#[inline(always)]
pub unsafe fn bad_instruction() -> ! {
    // SAFETY: it does not come back.
    unsafe { asm!("udf 0", options(noreturn)) }
}

/// # Safety
/// memcpy's contract.
#[cfg(sandcell_init_program)]
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: `count` bytes may be read and written: sixteen at a time, then one by one.
    unsafe {
        asm!(
            "2:", "subs {left}, {left}, 16", "b.lo 3f",
            "ldp {a}, {b}, [{from}], 16", "stp {a}, {b}, [{to}], 16", "b 2b",
            "3:", "add {left}, {left}, 16",
            "4:", "cbz {left}, 5f", "sub {left}, {left}, 1",
            "ldrb {a:w}, [{from}], 1", "strb {a:w}, [{to}], 1", "b 4b",
            "5:",
            left = inout(reg) count => _, to = inout(reg) to => _, from = inout(reg) from => _,
            a = out(reg) _, b = out(reg) _, options(nostack),
        );
    }
}

/// The same, from the last byte to the first.
///
/// # Safety
/// memmove's contract.
#[cfg(sandcell_init_program)]
#[inline(always)]
pub unsafe fn copy_backwards(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: see above.
    unsafe {
        asm!(
            "2:", "cbz {left}, 3f", "sub {left}, {left}, 1",
            "ldrb {byte:w}, [{from}, {left}]", "strb {byte:w}, [{to}, {left}]", "b 2b",
            "3:",
            left = inout(reg) count => _, to = in(reg) to, from = in(reg) from, byte = out(reg) _, options(nostack),
        );
    }
}

/// # Safety
/// memset's contract.
#[cfg(sandcell_init_program)]
#[inline(always)]
pub unsafe fn fill(to: *mut u8, byte: u8, count: usize) {
    let word = u64::from(byte) * 0x0101_0101_0101_0101;
    // SAFETY: `count` bytes may be written: sixteen at a time, then one by one.
    unsafe {
        asm!(
            "2:", "subs {left}, {left}, 16", "b.lo 3f",
            "stp {word}, {word}, [{to}], 16", "b 2b",
            "3:", "add {left}, {left}, 16",
            "4:", "cbz {left}, 5f", "sub {left}, {left}, 1", "strb {word:w}, [{to}], 1", "b 4b",
            "5:",
            left = inout(reg) count => _, to = inout(reg) to => _, word = in(reg) word, options(nostack),
        );
    }
}
