//! How each system call can fail. "There is no such file" is an answer, not a failure, of those that look for one. A call that the library or init makes and that is not in here fails the test.

use super::tracer::Site;
use libc::*;

/// What is done to a call that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is not carried out.
    Instead,
    /// It is carried out, and only its answer is lost: close(2) and its like free what they were given whatever they
    /// answer, and a child that somebody else has reaped is gone.
    After,
}

struct Entry {
    call: i64,
    name: &'static str,
    how: How,
    /// The first is tried in every run of the tests, the others where all are asked for.
    errnos: &'static [i32],
}

const fn fails(call: i64, name: &'static str, errnos: &'static [i32]) -> Entry {
    Entry { call, name, how: How::Instead, errnos }
}

const fn answers(call: i64, name: &'static str, errnos: &'static [i32]) -> Entry {
    Entry { call, name, how: How::After, errnos }
}

/// A call that cannot fail, or whose failure no Rust program survives.
const fn never(call: i64, name: &'static str) -> Entry {
    Entry { call, name, how: How::Instead, errnos: &[] }
}

#[rustfmt::skip]
const TABLE: &[Entry] = &[
    never(SYS_brk, "brk"),
    fails(SYS_capget, "capget", &[EPERM, ENOSYS]),
    fails(SYS_capset, "capset", &[EPERM, ENOSYS]),
    fails(SYS_chdir, "chdir", &[EACCES, ENOENT, ENOMEM, EIO]),
    never(SYS_clock_gettime, "clock_gettime"),
    fails(SYS_clock_nanosleep, "clock_nanosleep", &[EINTR]),
    fails(SYS_clone, "clone", &[EAGAIN, EPERM, ENOMEM, ENOSPC, EUSERS, ENOSYS]),
    fails(SYS_clone3, "clone3", &[EAGAIN, EPERM, ENOMEM, ENOSPC, EUSERS, ENOSYS, EBUSY]),
    answers(SYS_close, "close", &[EIO, EINTR, EDQUOT]),
    fails(SYS_close_range, "close_range", &[ENOSYS, EPERM, EINVAL, ENOMEM]),
    fails(SYS_connect, "connect", &[ECONNREFUSED, ENOENT, EACCES]),
    fails(SYS_copy_file_range, "copy_file_range", &[ENOSYS, EXDEV, EIO]),
    fails(SYS_dup, "dup", &[EMFILE]),
    fails(SYS_dup3, "dup3", &[EMFILE, EBUSY, EINTR]),
    fails(SYS_epoll_create1, "epoll_create1", &[EMFILE, ENOMEM]),
    fails(SYS_epoll_ctl, "epoll_ctl", &[ENOMEM, ENOSPC]),
    fails(SYS_execve, "execve", &[EACCES, ENOENT, ENOMEM, EPERM, E2BIG, ETXTBSY]),
    fails(SYS_execveat, "execveat", &[EACCES, EPERM, ENOMEM, ENOSYS]),
    never(SYS_exit, "exit"),
    never(SYS_exit_group, "exit_group"),
    fails(SYS_faccessat, "faccessat", &[EACCES]),
    fails(SYS_faccessat2, "faccessat2", &[EACCES, ENOSYS]),
    fails(SYS_fchdir, "fchdir", &[EACCES]),
    fails(SYS_fchmod, "fchmod", &[EPERM, EIO, EROFS]),
    fails(SYS_fchmodat, "fchmodat", &[EPERM, EIO, EROFS]),
    fails(SYS_fchown, "fchown", &[EPERM, EIO, EROFS]),
    fails(SYS_fchownat, "fchownat", &[EPERM, EIO, EROFS]),
    fails(SYS_fcntl, "fcntl", &[EMFILE, EINVAL, EPERM, ENOLCK]),
    fails(SYS_flock, "flock", &[ENOLCK, EINTR]),
    fails(SYS_fsconfig, "fsconfig", &[EPERM, EINVAL, ENOMEM, ENOSYS]),
    fails(SYS_fsmount, "fsmount", &[EPERM, EMFILE, ENOMEM, ENOSYS]),
    fails(SYS_fsopen, "fsopen", &[EPERM, ENODEV, EMFILE, ENOMEM, ENOSYS]),
    fails(SYS_fstat, "fstat", &[EIO, EOVERFLOW]),
    fails(SYS_fstatfs, "fstatfs", &[EIO, ENOSYS]),
    fails(SYS_fsync, "fsync", &[EIO]),
    fails(SYS_ftruncate, "ftruncate", &[EIO, ENOSPC]),
    never(SYS_futex, "futex"),
    fails(SYS_getcwd, "getcwd", &[ENOENT, EACCES]),
    fails(SYS_getdents64, "getdents64", &[EIO, ENOENT]),
    fails(SYS_getcpu, "getcpu", &[ENOSYS, EFAULT]),
    never(SYS_getegid, "getegid"),
    never(SYS_geteuid, "geteuid"),
    never(SYS_getgid, "getgid"),
    fails(SYS_getgroups, "getgroups", &[EINVAL]),
    never(SYS_getpgid, "getpgid"),
    never(SYS_getpid, "getpid"),
    never(SYS_getppid, "getppid"),
    fails(SYS_getrandom, "getrandom", &[EINTR, ENOSYS, EPERM]),
    fails(SYS_getrusage, "getrusage", &[EINVAL]),
    never(SYS_gettid, "gettid"),
    never(SYS_getuid, "getuid"),
    fails(SYS_getxattr, "getxattr", &[EOPNOTSUPP, EACCES, EIO]),
    fails(SYS_inotify_add_watch, "inotify_add_watch", &[ENOSPC, ENOENT]),
    fails(SYS_inotify_init1, "inotify_init1", &[EMFILE]),
    fails(SYS_ioctl, "ioctl", &[EPERM, ENODEV, ENOTTY]),
    fails(SYS_kcmp, "kcmp", &[EPERM, ENOSYS]),
    fails(SYS_keyctl, "keyctl", &[EDQUOT, EPERM, ENOMEM, EACCES, ENOSYS]),
    answers(SYS_kill, "kill", &[ESRCH]),
    fails(SYS_landlock_add_rule, "landlock_add_rule", &[EINVAL, ENOMEM, ENOSYS]),
    fails(SYS_landlock_create_ruleset, "landlock_create_ruleset", &[EMFILE, EOPNOTSUPP, ENOMEM, ENOSYS]),
    fails(SYS_landlock_restrict_self, "landlock_restrict_self", &[EPERM, E2BIG, ENOMEM, ENOSYS]),
    fails(SYS_lseek, "lseek", &[EINVAL, ESPIPE]),
    fails(SYS_memfd_create, "memfd_create", &[EMFILE, EACCES, ENOMEM, ENOSYS]),
    fails(SYS_mkdirat, "mkdirat", &[EACCES, ENOSPC, EDQUOT, EROFS, EIO]),
    fails(SYS_mknodat, "mknodat", &[EACCES, ENOSPC, EDQUOT, EROFS, EIO]),
    fails(SYS_mmap, "mmap", &[ENOMEM, EPERM]),
    fails(SYS_mount, "mount", &[EPERM, EINVAL, ENOMEM, ENODEV, EACCES, EBUSY]),
    fails(SYS_mount_setattr, "mount_setattr", &[EPERM, EINVAL, EBUSY, ENOSYS]),
    fails(SYS_move_mount, "move_mount", &[EPERM, EINVAL, ELOOP, ENOSYS]),
    fails(SYS_mprotect, "mprotect", &[ENOMEM]),
    answers(SYS_munmap, "munmap", &[EINVAL]),
    fails(SYS_name_to_handle_at, "name_to_handle_at", &[EOPNOTSUPP]),
    fails(SYS_nanosleep, "nanosleep", &[EINTR]),
    fails(SYS_newfstatat, "newfstatat", &[EACCES, EIO]),
    fails(SYS_open_tree, "open_tree", &[EPERM, EACCES, EMFILE, ENOMEM, ENOSYS]),
    fails(SYS_openat, "openat", &[EACCES, EMFILE, ENFILE, ENOMEM, EIO]),
    fails(SYS_openat2, "openat2", &[EACCES, EXDEV, ELOOP, EAGAIN, EMFILE, ENOSYS]),
    fails(SYS_personality, "personality", &[EPERM, ENOSYS]),
    fails(SYS_pidfd_getfd, "pidfd_getfd", &[EPERM]),
    fails(SYS_pidfd_open, "pidfd_open", &[EMFILE, EPERM, ENOSYS]),
    answers(SYS_pidfd_send_signal, "pidfd_send_signal", &[ESRCH]),
    fails(SYS_pipe2, "pipe2", &[EMFILE, ENFILE]),
    fails(SYS_pivot_root, "pivot_root", &[EPERM, EBUSY, EINVAL]),
    fails(SYS_ppoll, "ppoll", &[EINTR, ENOMEM]),
    fails(SYS_prctl, "prctl", &[EINVAL, EPERM, ENOSYS]),
    fails(SYS_pread64, "pread64", &[EIO, EINTR]),
    fails(SYS_prlimit64, "prlimit64", &[EPERM, EINVAL]),
    fails(SYS_pwrite64, "pwrite64", &[EIO, ENOSPC]),
    fails(SYS_read, "read", &[EIO, EINTR]),
    fails(SYS_readlinkat, "readlinkat", &[EACCES, ENOMEM]),
    fails(SYS_recvmsg, "recvmsg", &[EINTR, ENOMEM, ECONNRESET]),
    never(SYS_restart_syscall, "restart_syscall"),
    fails(SYS_rt_sigaction, "rt_sigaction", &[EINVAL]),
    fails(SYS_rt_sigpending, "rt_sigpending", &[EFAULT]),
    fails(SYS_rt_sigprocmask, "rt_sigprocmask", &[EINVAL]),
    never(SYS_rt_sigreturn, "rt_sigreturn"),
    fails(SYS_rt_sigtimedwait, "rt_sigtimedwait", &[EAGAIN, EINTR]),
    fails(SYS_sched_getaffinity, "sched_getaffinity", &[EINVAL]),
    fails(SYS_sched_setaffinity, "sched_setaffinity", &[EPERM, EINVAL]),
    never(SYS_sched_yield, "sched_yield"),
    fails(SYS_seccomp, "seccomp", &[EINVAL, EACCES, ENOMEM, EFAULT, ENOSYS]),
    fails(SYS_sendfile, "sendfile", &[EIO]),
    fails(SYS_sendmsg, "sendmsg", &[EINTR, ENOBUFS, ENOMEM, EPERM]),
    fails(SYS_setgroups, "setgroups", &[EPERM, ENOMEM]),
    fails(SYS_sethostname, "sethostname", &[EPERM, EINVAL]),
    fails(SYS_setns, "setns", &[EPERM, EINVAL, ENOMEM]),
    fails(SYS_setpgid, "setpgid", &[EPERM, EACCES]),
    fails(SYS_setresgid, "setresgid", &[EPERM, EINVAL]),
    fails(SYS_setresuid, "setresuid", &[EPERM, EINVAL, EAGAIN]),
    fails(SYS_setsid, "setsid", &[EPERM]),
    fails(SYS_setsockopt, "setsockopt", &[EPERM, ENOMEM]),
    fails(SYS_setxattr, "setxattr", &[EOPNOTSUPP, ENOSPC, EPERM]),
    fails(SYS_removexattr, "removexattr", &[ENODATA, EPERM, EIO]),
    never(SYS_sigaltstack, "sigaltstack"),
    fails(SYS_signalfd4, "signalfd4", &[EMFILE, ENOMEM, ENODEV]),
    fails(SYS_socket, "socket", &[EACCES, EMFILE, ENOBUFS, EAFNOSUPPORT]),
    fails(SYS_socketpair, "socketpair", &[EMFILE, EAFNOSUPPORT, ENOMEM]),
    fails(SYS_splice, "splice", &[EINVAL, EINTR, EIO, ENOMEM]),
    fails(SYS_statfs, "statfs", &[EACCES]),
    fails(SYS_statx, "statx", &[EACCES, ENOSYS]),
    fails(SYS_symlinkat, "symlinkat", &[EACCES, ENOSPC, EEXIST, EROFS]),
    fails(SYS_sysinfo, "sysinfo", &[EFAULT]),
    fails(SYS_tee, "tee", &[EINVAL, ENOMEM]),
    fails(SYS_timerfd_create, "timerfd_create", &[EMFILE, ENOMEM]),
    never(SYS_timerfd_settime, "timerfd_settime"),
    fails(SYS_umask, "umask", &[EPERM]),
    fails(SYS_umount2, "umount2", &[EPERM, EBUSY, EINVAL]),
    fails(SYS_uname, "uname", &[EFAULT]),
    fails(SYS_unlinkat, "unlinkat", &[EACCES, EBUSY, EIO]),
    fails(SYS_unshare, "unshare", &[EPERM, ENOSPC, ENOMEM, EINVAL]),
    answers(SYS_wait4, "wait4", &[ECHILD, EINTR]),
    answers(SYS_waitid, "waitid", &[ECHILD]),
    fails(SYS_write, "write", &[EPERM, EIO, ENOSPC, EINTR]),
    fails(SYS_writev, "writev", &[EIO]),
];

/// Those that a newer call has replaced on every architecture that came later.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALSO: &[Entry] = &[
    fails(SYS_access, "access", &[EACCES, ENOSYS]),
    never(SYS_arch_prctl, "arch_prctl"),
    fails(SYS_dup2, "dup2", &[EMFILE, EBUSY]),
    fails(SYS_epoll_wait, "epoll_wait", &[EINTR]),
    fails(SYS_fork, "fork", &[EAGAIN, ENOMEM]),
    fails(SYS_lstat, "lstat", &[EACCES]),
    fails(SYS_mkdir, "mkdir", &[EACCES, EEXIST, ENOSPC, EROFS]),
    fails(SYS_open, "open", &[EACCES, EMFILE, EIO]),
    fails(SYS_poll, "poll", &[EINTR, ENOMEM, EINVAL]),
    fails(SYS_readlink, "readlink", &[EACCES, ENOMEM]),
    fails(SYS_rmdir, "rmdir", &[EBUSY, EACCES]),
    fails(SYS_stat, "stat", &[EACCES]),
    fails(SYS_unlink, "unlink", &[EACCES, EBUSY]),
    fails(SYS_vfork, "vfork", &[EAGAIN, ENOMEM]),
];

#[cfg(not(target_arch = "x86_64"))]
const ALSO: &[Entry] = &[fails(SYS_epoll_pwait, "epoll_pwait", &[EINTR])];

/// The call that waits for descriptors, of the library and of init.
#[cfg(target_arch = "x86_64")]
pub const POLL: i64 = SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
pub const POLL: i64 = SYS_ppoll;

fn entry(call: i64) -> Option<&'static Entry> {
    TABLE.iter().chain(ALSO).find(|entry| entry.call == call)
}

/// The call's name, or its number.
pub fn name(call: i64) -> String {
    entry(call).map_or_else(|| format!("call {call}"), |entry| entry.name.to_string())
}

pub fn number(name: &str) -> Option<i64> {
    TABLE.iter().chain(ALSO).find(|entry| entry.name == name).map(|entry| entry.call)
}

pub fn how(site: &Site) -> How {
    entry(site.call).map_or(How::Instead, |entry| entry.how)
}

/// The errnos to try; `None` for a call that is not in the table.
pub fn of(site: &Site) -> Option<&'static [i32]> {
    let errnos = entry(site.call)?.errnos;
    let allocator = [SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_madvise, SYS_mprotect].contains(&site.call);
    Some(match site.process.as_str() {
        // Nobody but init reaps there, and a status that is lost is a program that never ends.
        "init" if site.call == SYS_wait4 => &[],
        "init" => errnos,
        // Rust's own allocator ends the process when it gets no memory: nothing that a library can do about it.
        _ if allocator => &[],
        // The standard library ends the process where closing a directory fails otherwise.
        "caller" if site.call == SYS_close => &[EINTR],
        // Asked for its version, Landlock can only be absent.
        "caller" if site.call == SYS_landlock_create_ruleset => &[EOPNOTSUPP, ENOSYS],
        // Cannot fail with valid arguments, and what cannot be put back cannot be mended.
        "caller" if site.call == SYS_rt_sigprocmask => &[],
        _ => errnos,
    })
}

const NAMES: &[(i32, &str)] = &[
    (EPERM, "EPERM"),
    (ENOENT, "ENOENT"),
    (ESRCH, "ESRCH"),
    (EINTR, "EINTR"),
    (EIO, "EIO"),
    (E2BIG, "E2BIG"),
    (ECHILD, "ECHILD"),
    (EAGAIN, "EAGAIN"),
    (ENOMEM, "ENOMEM"),
    (EACCES, "EACCES"),
    (EFAULT, "EFAULT"),
    (EBUSY, "EBUSY"),
    (EEXIST, "EEXIST"),
    (EXDEV, "EXDEV"),
    (ENODEV, "ENODEV"),
    (EINVAL, "EINVAL"),
    (ENFILE, "ENFILE"),
    (EMFILE, "EMFILE"),
    (ENOTTY, "ENOTTY"),
    (ETXTBSY, "ETXTBSY"),
    (ENOSPC, "ENOSPC"),
    (ESPIPE, "ESPIPE"),
    (EROFS, "EROFS"),
    (ENOSYS, "ENOSYS"),
    (ELOOP, "ELOOP"),
    (ENODATA, "ENODATA"),
    (EOVERFLOW, "EOVERFLOW"),
    (EUSERS, "EUSERS"),
    (EOPNOTSUPP, "EOPNOTSUPP"),
    (EAFNOSUPPORT, "EAFNOSUPPORT"),
    (ECONNRESET, "ECONNRESET"),
    (ENOBUFS, "ENOBUFS"),
    (ECONNREFUSED, "ECONNREFUSED"),
    (EDQUOT, "EDQUOT"),
    (ENOLCK, "ENOLCK"),
];

pub fn errno_name(errno: i32) -> String {
    NAMES.iter().find(|(number, _)| *number == errno).map_or_else(|| errno.to_string(), |(_, name)| name.to_string())
}

pub fn errno_number(name: &str) -> Option<i32> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}
