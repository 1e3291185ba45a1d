//! x86-64: the instructions and numbers that differ between architectures. Each file of this directory has the same names.

use core::arch::asm;

/// System call numbers: `arch/x86/entry/syscalls/syscall_64.tbl`.
pub mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const POLL: usize = 7;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const PREAD64: usize = 17;
    pub const READV: usize = 19;
    pub const SCHED_YIELD: usize = 24;
    pub const DUP: usize = 32;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SENDTO: usize = 44;
    pub const RECVFROM: usize = 45;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const SHUTDOWN: usize = 48;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const GETSOCKNAME: usize = 51;
    pub const GETPEERNAME: usize = 52;
    pub const SOCKETPAIR: usize = 53;
    pub const SETSOCKOPT: usize = 54;
    pub const GETSOCKOPT: usize = 55;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const EXIT: usize = 60;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const FTRUNCATE: usize = 77;
    pub const CHDIR: usize = 80;
    pub const FCHDIR: usize = 81;
    pub const UMASK: usize = 95;
    pub const GETRUSAGE: usize = 98;
    pub const GETEUID: usize = 107;
    pub const SETPGID: usize = 109;
    pub const GETPPID: usize = 110;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPGET: usize = 125;
    pub const CAPSET: usize = 126;
    pub const RT_SIGPENDING: usize = 127;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PERSONALITY: usize = 135;
    pub const FSTATFS: usize = 138;
    pub const PIVOT_ROOT: usize = 155;
    pub const PRCTL: usize = 157;
    pub const MOUNT: usize = 165;
    pub const UMOUNT2: usize = 166;
    pub const SETHOSTNAME: usize = 170;
    pub const SETXATTR: usize = 188;
    pub const GETXATTR: usize = 191;
    pub const REMOVEXATTR: usize = 197;
    pub const FUTEX: usize = 202;
    pub const SCHED_SETAFFINITY: usize = 203;
    pub const SCHED_GETAFFINITY: usize = 204;
    pub const GETDENTS64: usize = 217;
    pub const RESTART_SYSCALL: usize = 219;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const EPOLL_WAIT: usize = 232;
    pub const EPOLL_CTL: usize = 233;
    pub const TGKILL: usize = 234;
    pub const WAITID: usize = 247;
    pub const KEYCTL: usize = 250;
    pub const OPENAT: usize = 257;
    pub const MKDIRAT: usize = 258;
    pub const MKNODAT: usize = 259;
    pub const FCHOWNAT: usize = 260;
    pub const UNLINKAT: usize = 263;
    pub const RENAMEAT: usize = 264;
    pub const SYMLINKAT: usize = 266;
    pub const READLINKAT: usize = 267;
    pub const FCHMODAT: usize = 268;
    pub const UNSHARE: usize = 272;
    pub const TIMERFD_CREATE: usize = 283;
    pub const TIMERFD_SETTIME: usize = 286;
    pub const ACCEPT4: usize = 288;
    pub const SIGNALFD4: usize = 289;
    pub const EPOLL_CREATE1: usize = 291;
    pub const DUP3: usize = 292;
    pub const PIPE2: usize = 293;
    pub const PRLIMIT64: usize = 302;
    pub const SETNS: usize = 308;
    pub const GETCPU: usize = 309;
    pub const RENAMEAT2: usize = 316;
    pub const SECCOMP: usize = 317;
    pub const GETRANDOM: usize = 318;
    pub const EXECVEAT: usize = 322;
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
    pub const WAIT_POLL: usize = POLL;
    pub const WAIT_EPOLL: usize = EPOLL_WAIT;
}

/// `AUDIT_ARCH_X86_64`: what seccomp(2) says of our calls.
pub const AUDIT_ARCH: u32 = 0xc000_003e;

pub const O_DIRECTORY: usize = 0o200000;
pub const O_NOFOLLOW: usize = 0o400000;

/// The 64-bit word of struct stat that begins with the mode.
pub const STAT_MODE: usize = 3;

/// struct epoll_event, which is packed here.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

/// The entry point of a static program: calls `$main`, which never returns.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym $main);
    };
}

/// A system call with six arguments; the result is negative for an error.
///
/// # Safety
/// The arguments must be what the call of that number wants.
#[inline(always)]
pub unsafe fn syscall6(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 only; the caller answers for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, out("rcx") _, out("r11") _, options(nostack));
    }
    result
}

/// poll(2).
#[inline(always)]
pub fn poll(polls: &mut [crate::PollFd], timeout: i32) -> Result<usize, i32> {
    // SAFETY: as many struct pollfd as is said.
    unsafe { crate::call!(nr::POLL, polls.as_mut_ptr(), polls.len(), timeout) }
}

/// epoll_wait(2).
#[inline(always)]
pub fn epoll_wait(epoll: i32, events: &mut [EpollEvent], timeout: i32) -> Result<usize, i32> {
    // SAFETY: room for as many events as is said.
    unsafe { crate::call!(nr::EPOLL_WAIT, epoll, events.as_mut_ptr(), events.len(), timeout) }
}

/// The arguments of clone(2) in the order of this architecture, without thread-local storage. `parent_tid` also takes the
/// descriptor of CLONE_PIDFD.
#[inline(always)]
pub fn clone_args(flags: u64, stack: usize, parent_tid: usize, child_tid: usize) -> [usize; 5] {
    [flags as usize, stack, parent_tid, child_tid, 0]
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
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            in("r12") child, in("r13") arg, out("rcx") _, out("r11") _,
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
    unsafe { asm!("ud2", options(noreturn)) }
}

/// # Safety
/// memcpy's contract.
#[cfg(sandcell_init_program)]
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: `count` bytes may be read and written; the direction flag is clear in every function.
    unsafe { asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _) };
}

/// The same, from the last byte to the first.
///
/// # Safety
/// memmove's contract.
#[cfg(sandcell_init_program)]
#[inline(always)]
pub unsafe fn copy_backwards(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: see above; the direction flag is cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
             inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
             inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _);
    }
}

/// # Safety
/// memset's contract.
#[cfg(sandcell_init_program)]
#[inline(always)]
pub unsafe fn fill(to: *mut u8, byte: u8, count: usize) {
    // SAFETY: `count` bytes may be written.
    unsafe { asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte) };
}
