//! Raw system calls without libc: no errno in thread-local storage, no allocation, no locks.
//!
//! Shared by init (which has no libc) and by the child that shares the caller's memory between clone and exec
//! (where libc may not be called). Everything else uses `nix`.
#![allow(unsafe_code, dead_code, missing_docs)]

use core::arch::asm;

/// System call numbers of x86-64.
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
    pub const SCHED_YIELD: usize = 24;
    pub const DUP: usize = 32;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const SOCKETPAIR: usize = 53;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const CHDIR: usize = 80;
    pub const FCHDIR: usize = 81;
    pub const UMASK: usize = 95;
    pub const GETRUSAGE: usize = 98;
    pub const GETPPID: usize = 110;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPGET: usize = 125;
    pub const CAPSET: usize = 126;
    pub const PERSONALITY: usize = 135;
    pub const PIVOT_ROOT: usize = 155;
    pub const PRCTL: usize = 157;
    pub const MOUNT: usize = 165;
    pub const UMOUNT2: usize = 166;
    pub const SETHOSTNAME: usize = 170;
    pub const GETDENTS64: usize = 217;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const TGKILL: usize = 234;
    pub const KEYCTL: usize = 250;
    pub const SCHED_SETAFFINITY: usize = 203;
    pub const SCHED_GETAFFINITY: usize = 204;
    pub const GETCPU: usize = 309;
    pub const OPENAT: usize = 257;
    pub const MKDIRAT: usize = 258;
    pub const MKNODAT: usize = 259;
    pub const SYMLINKAT: usize = 266;
    pub const UNSHARE: usize = 272;
    pub const SIGNALFD4: usize = 289;
    pub const DUP3: usize = 292;
    pub const PIPE2: usize = 293;
    pub const PRLIMIT64: usize = 302;
    pub const SETNS: usize = 308;
    pub const SECCOMP: usize = 317;
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
    pub const MOUNT_SETATTR: usize = 442;
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    pub const LANDLOCK_ADD_RULE: usize = 445;
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
}

pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const ENOEXEC: i32 = 8;
pub const EAGAIN: i32 = 11;
pub const EACCES: i32 = 13;
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
pub const O_DIRECTORY: usize = 0o200000;
pub const O_NOFOLLOW: usize = 0o400000;
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
pub const SIGSTOP: i32 = 19;
pub const SIGTERM: i32 = 15;
pub const SIGCHLD: i32 = 17;

pub const PR_SET_DUMPABLE: usize = 4;
pub const PR_SET_NAME: usize = 15;
pub const PR_SET_TIMERSLACK: usize = 29;
pub const PR_CAPBSET_READ: usize = 23;
pub const PR_CAPBSET_DROP: usize = 24;
pub const PR_SET_CHILD_SUBREAPER: usize = 36;
pub const PR_SET_PDEATHSIG: usize = 1;
pub const PR_SET_NO_NEW_PRIVS: usize = 38;
pub const PR_SET_SECUREBITS: usize = 28;
pub const SECBIT_NO_SETUID_FIXUP: usize = 1 << 2;
pub const PR_CAP_AMBIENT: usize = 47;
pub const PR_CAP_AMBIENT_RAISE: usize = 2;
pub const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;

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

/// Turns the kernel's answer into a result.
#[inline(always)]
pub fn check(result: isize) -> Result<usize, i32> {
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result as usize) }
}

/// A checked system call: `call!(nr::CLOSE, fd)`. Arguments are cast to `usize`.
macro_rules! call {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        $crate::rawsys::call!(@pad $number; $($arg as usize,)* ; 0usize, 0usize, 0usize, 0usize, 0usize, 0usize,)
    };
    (@pad $n:expr; ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::rawsys::check($crate::rawsys::syscall6($n, $z1, $z2, $z3, $z4, $z5, $z6)) };
    (@pad $n:expr; $a:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::rawsys::check($crate::rawsys::syscall6($n, $a, $z1, $z2, $z3, $z4, $z5)) };
    (@pad $n:expr; $a:expr, $b:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::rawsys::check($crate::rawsys::syscall6($n, $a, $b, $z1, $z2, $z3, $z4)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::rawsys::check($crate::rawsys::syscall6($n, $a, $b, $c, $z1, $z2, $z3)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, $d:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::rawsys::check($crate::rawsys::syscall6($n, $a, $b, $c, $d, $z1, $z2)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::rawsys::check($crate::rawsys::syscall6($n, $a, $b, $c, $d, $e, $z1)) };
    (@pad $n:expr; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr, ; $z1:expr, $z2:expr, $z3:expr, $z4:expr, $z5:expr, $z6:expr,) =>
        { $crate::rawsys::check($crate::rawsys::syscall6($n, $a, $b, $c, $d, $e, $f)) };
}

pub(crate) use call;

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

/// Ends the process at once: no destructors, no atexit.
pub fn exit(status: i32) -> ! {
    // SAFETY: exit_group takes a number. Where a program's own filter refuses it, the bad instruction ends us.
    unsafe {
        syscall6(nr::EXIT_GROUP, status as usize, 0, 0, 0, 0, 0);
        asm!("ud2", options(noreturn));
    }
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
