//! Calls whose arguments say all that the kernel reads and writes: numbers, NUL-terminated strings, and buffers with their length.
//! Safe to call, therefore. Whoever has to hand over an address of another kind uses `call!`.

use core::ffi::CStr;
use core::sync::atomic::AtomicI32;

use crate::{AT_FDCWD, EpollEvent, O_CLOEXEC, call, nr};

pub const POLLIN: i16 = 1;

/// struct pollfd.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub returned: i16,
}

impl PollFd {
    pub const fn new(fd: i32, events: i16) -> PollFd {
        PollFd { fd, events, returned: 0 }
    }

    pub const fn input(fd: i32) -> PollFd {
        PollFd::new(fd, POLLIN)
    }
}

/// One line a call: what it is given, and what of that goes to the kernel in which place. Descriptors come back as `i32`.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $kind:ty),*) $(-> $back:ident)? = $number:ident($($word:expr),*);)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The kernel's.
            #[inline(always)]
            pub fn $name($($arg: $kind),*) -> calls!(@type $($back)?) {
                // SAFETY: numbers, strings that end in NUL, and buffers of which the length is given: all outlive the call.
                let answer = unsafe { call!(nr::$number $(, $word)*) };
                calls!(@value answer $($back)?)
            }
        )*
    };
    (@type) => { Result<(), i32> };
    (@type fd) => { Result<i32, i32> };
    (@type number) => { Result<usize, i32> };
    (@value $answer:ident) => { $answer.map(|_| ()) };
    (@value $answer:ident fd) => { $answer.map(|fd| fd as i32) };
    (@value $answer:ident number) => { $answer };
}

const PR_SET_KEEPCAPS: usize = 8;
const PR_CAP_AMBIENT: usize = 47;
const PR_CAP_AMBIENT_RAISE: usize = 2;
const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
const F_DUPFD_CLOEXEC: usize = 1030;
const F_SETFD: usize = 2;
const F_GETFL: usize = 3;
const F_SETFL: usize = 4;
const FSCONFIG_SET_FLAG: usize = 0;
const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CMD_CREATE: usize = 6;
const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
const TIOCSCTTY: usize = 0x540e;
const TIOCNOTTY: usize = 0x5422;
const TIOCSPGRP: usize = 0x5410;
const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;
const SIG_SETMASK: usize = 2;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

calls! {
    // Files.
    openat(dir: i32, path: &CStr, flags: usize, mode: u32) -> fd = OPENAT(dir, path.as_ptr(), flags | O_CLOEXEC, mode);
    /// Without a directory to begin at.
    open(path: &CStr, flags: usize) -> fd = OPENAT(AT_FDCWD, path.as_ptr(), flags | O_CLOEXEC, 0);
    /// `how`: flags, mode and how the path is resolved.
    openat2(dir: i32, path: &CStr, how: &[u64; 3]) -> fd = OPENAT2(dir, path.as_ptr(), how.as_ptr(), size_of::<[u64; 3]>());
    read(fd: i32, into: &mut [u8]) -> number = READ(fd, into.as_mut_ptr(), into.len());
    pread(fd: i32, into: &mut [u8], from: u64) -> number = PREAD64(fd, into.as_mut_ptr(), into.len(), from);
    write(fd: i32, bytes: &[u8]) -> number = WRITE(fd, bytes.as_ptr(), bytes.len());
    getdents(fd: i32, into: &mut [u8]) -> number = GETDENTS64(fd, into.as_mut_ptr(), into.len());
    readlinkat(dir: i32, path: &CStr, into: &mut [u8]) -> number =
        READLINKAT(dir, path.as_ptr(), into.as_mut_ptr(), into.len());
    mkdirat(dir: i32, path: &CStr, mode: u32) = MKDIRAT(dir, path.as_ptr(), mode);
    /// A file, or a device whose number is 0.
    mknodat(dir: i32, path: &CStr, mode: u32) = MKNODAT(dir, path.as_ptr(), mode, 0);
    symlinkat(target: &CStr, dir: i32, path: &CStr) = SYMLINKAT(target.as_ptr(), dir, path.as_ptr());
    unlinkat(dir: i32, path: &CStr, flags: usize) = UNLINKAT(dir, path.as_ptr(), flags);
    /// For the real ids.
    faccessat2(dir: i32, path: &CStr, mode: usize, flags: usize) = FACCESSAT2(dir, path.as_ptr(), mode, flags);
    setxattr(path: &CStr, name: &CStr, value: &[u8]) =
        SETXATTR(path.as_ptr(), name.as_ptr(), value.as_ptr(), value.len(), 0);
    removexattr(path: &CStr, name: &CStr) = REMOVEXATTR(path.as_ptr(), name.as_ptr());
    renameat(dir: i32, from: &CStr, to: &CStr) = RENAMEAT(dir, from.as_ptr(), dir, to.as_ptr());
    chdir(path: &CStr) = CHDIR(path.as_ptr());
    fchdir(fd: i32) = FCHDIR(fd);
    ftruncate(fd: i32, length: usize) = FTRUNCATE(fd, length);
    umask(mode: u32) = UMASK(mode);

    // Descriptors.
    /// A copy of at least this number, closed on exec.
    dup_above(fd: i32, lowest: u32) -> fd = FCNTL(fd, F_DUPFD_CLOEXEC, lowest);
    dup3(fd: i32, number: u32, flags: usize) = DUP3(fd, number, flags);
    set_fd_flags(fd: u32, flags: usize) = FCNTL(fd, F_SETFD, flags);
    status_flags(fd: i32) -> number = FCNTL(fd, F_GETFL);
    set_status_flags(fd: i32, flags: usize) = FCNTL(fd, F_SETFL, flags);
    pipe2(ends: &mut [i32; 2], flags: usize) = PIPE2(ends.as_mut_ptr(), flags);

    // Mounts.
    fsopen(kind: &CStr, flags: usize) -> fd = FSOPEN(kind.as_ptr(), flags);
    fsmount(context: i32, flags: usize, attributes: u64) -> fd = FSMOUNT(context, flags, attributes);
    open_tree(dir: i32, path: &CStr, flags: usize) -> fd = OPEN_TREE(dir, path.as_ptr(), flags | O_CLOEXEC);
    move_mount(from: i32, what: &CStr, to: i32, place: &CStr, flags: usize) =
        MOVE_MOUNT(from, what.as_ptr(), to, place.as_ptr(), flags);
    /// mount(2) without a type and without data.
    mount(from: &CStr, to: &CStr, flags: usize) = MOUNT(from.as_ptr(), to.as_ptr(), 0, flags, 0);
    mount_new(kind: &CStr, to: &CStr, flags: usize, options: &CStr) =
        MOUNT(kind.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, options.as_ptr());
    umount(path: &CStr, flags: usize) = UMOUNT2(path.as_ptr(), flags);
    fsconfig_string(context: i32, key: &CStr, value: &CStr) =
        FSCONFIG(context, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0);
    fsconfig_flag(context: i32, key: &CStr) = FSCONFIG(context, FSCONFIG_SET_FLAG, key.as_ptr(), 0, 0);
    fsconfig_create(context: i32) = FSCONFIG(context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    /// `attributes`: to set, to clear, propagation, and no user namespace.
    mount_setattr(dir: i32, path: &CStr, flags: usize, attributes: &[u64; 4]) =
        MOUNT_SETATTR(dir, path.as_ptr(), flags, attributes.as_ptr(), size_of::<[u64; 4]>());
    pivot_root(new: &CStr, old: &CStr) = PIVOT_ROOT(new.as_ptr(), old.as_ptr());
    sethostname(name: &CStr) = SETHOSTNAME(name.as_ptr(), name.count_bytes());

    // Processes. Those that cannot fail can be refused by a filter around us.
    getpid() -> fd = GETPID();
    /// 0 where the parent is in another namespace.
    getppid() -> fd = GETPPID();
    /// The effective one.
    geteuid() -> number = GETEUID();
    setsid() = SETSID();
    unshare(flags: u64) = UNSHARE(flags);
    setns(fd: i32, kind: u64) = SETNS(fd, kind);
    kill(pid: i32, signal: i32) = KILL(pid, signal);
    pidfd_open(pid: i32) -> fd = PIDFD_OPEN(pid, 0);
    pidfd_send_signal(pidfd: i32, signal: i32) = PIDFD_SEND_SIGNAL(pidfd, signal, 0, 0);
    /// wait4(2): whose status and usage nobody asks for.
    reap(pid: i32, flags: usize) -> fd = WAIT4(pid, 0, flags, 0);
    /// Numbers of 32 bits each.
    setgroups(list: &[u8]) = SETGROUPS(list.len() / 4, list.as_ptr());
    setpgid(pid: i32, group: i32) = SETPGID(pid, group);
    tgkill(process: u32, thread: u32, signal: i32) = TGKILL(process, thread, signal);
    sched_yield() = SCHED_YIELD();
    /// An anonymous keyring as that of the session.
    join_session_keyring() = KEYCTL(KEYCTL_JOIN_SESSION_KEYRING, 0);
    /// `attributes`: file accesses, network accesses, scopes. Older kernels accept a tail of zeros.
    landlock_create_ruleset(attributes: &[u64; 3]) -> fd =
        LANDLOCK_CREATE_RULESET(attributes.as_ptr(), size_of::<[u64; 3]>(), 0);
    landlock_restrict_self(ruleset: i32) = LANDLOCK_RESTRICT_SELF(ruleset, 0);
    setresuid(uid: u32) = SETRESUID(uid, uid, uid);
    setresgid(gid: u32) = SETRESGID(gid, gid, gid);
    set_name(name: &CStr) = PRCTL(crate::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
    set_dumpable(is: bool) = PRCTL(crate::PR_SET_DUMPABLE, usize::from(is), 0, 0, 0);
    /// Whoever is orphaned beneath this process becomes a child of it.
    set_child_subreaper() = PRCTL(crate::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    set_parent_death_signal(signal: i32) = PRCTL(crate::PR_SET_PDEATHSIG, signal, 0, 0, 0);
    set_no_new_privs() = PRCTL(crate::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    set_timer_slack(nanoseconds: usize) = PRCTL(crate::PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0);
    personality(flags: usize) = PERSONALITY(flags);
    set_keep_capabilities(is: bool) = PRCTL(PR_SET_KEEPCAPS, usize::from(is), 0, 0, 0);
    set_securebits(bits: usize) = PRCTL(crate::PR_SET_SECUREBITS, bits, 0, 0, 0);
    raise_ambient(capability: u32) = PRCTL(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
    clear_ambient() = PRCTL(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    /// Of this process.
    set_rlimit(resource: usize, limit: &[u64; 2]) = PRLIMIT64(0, resource, limit.as_ptr(), 0);
    rlimit(resource: usize, limit: &mut [u64; 2]) = PRLIMIT64(0, resource, 0, limit.as_mut_ptr());
    set_signal_mask(blocked: &u64) = RT_SIGPROCMASK(SIG_SETMASK, &raw const *blocked, 0, 8);
    default_signal(signal: i32) = RT_SIGACTION(signal, [SIG_DFL, 0, 0, 0].as_ptr(), 0, 8);
    ignore_signal(signal: i32) = RT_SIGACTION(signal, [SIG_IGN, 0, 0, 0].as_ptr(), 0, 8);

    // Waiting.
    signalfd(signals: &u64, flags: usize) -> fd = SIGNALFD4(-1i32, &raw const *signals, 8, flags | O_CLOEXEC);
    /// Which signal came.
    await_signal(signals: &u64) -> fd = RT_SIGTIMEDWAIT(&raw const *signals, 0, 0, 8);
    /// `time`: seconds and nanoseconds.
    futex_wait(word: &AtomicI32, was: i32, time: &[u64; 2]) = FUTEX(word.as_ptr(), FUTEX_WAIT, was, time.as_ptr(), 0, 0);
    futex_wait_long(word: &AtomicI32, was: i32) = FUTEX(word.as_ptr(), FUTEX_WAIT, was, 0, 0, 0);
    futex_wake(word: &AtomicI32) = FUTEX(word.as_ptr(), FUTEX_WAKE, 1);
    epoll_ctl(epoll: i32, what: usize, fd: i32, event: &EpollEvent) = EPOLL_CTL(epoll, what, fd, &raw const *event);
    clock(clock: usize, time: &mut [u64; 2]) = CLOCK_GETTIME(clock, time.as_mut_ptr());

    // Terminals.
    take_terminal(slave: i32) = IOCTL(slave, TIOCSCTTY, 0);
    leave_terminal(slave: i32) = IOCTL(slave, TIOCNOTTY);
    set_foreground(slave: i32, group: &i32) = IOCTL(slave, TIOCSPGRP, &raw const *group);

    // Sockets.
    socketpair(family: usize, kind: usize, ends: &mut [i32; 2]) = SOCKETPAIR(family, kind | O_CLOEXEC, 0, ends.as_mut_ptr());
    socket(family: usize, kind: usize, protocol: u32) -> fd = SOCKET(family, kind | O_CLOEXEC, protocol);
    listen(socket: i32, backlog: usize) = LISTEN(socket, backlog);
    shutdown(socket: i32, how: usize) = SHUTDOWN(socket, how);
    /// Closed on exec; nobody asks who it is.
    accept(socket: i32, flags: usize) -> fd = ACCEPT4(socket, 0, 0, flags | O_CLOEXEC);
    send(socket: i32, bytes: &[u8]) -> number = SENDTO(socket, bytes.as_ptr(), bytes.len(), 0, 0, 0);
}
