//! What needs `unsafe`: descriptors that are known as numbers, and forks.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A duplicate of the caller's descriptor, closed on exec; the caller keeps his.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes numbers only; one that is not open is answered with EBADF.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Waits until the descriptor is readable, the time is over, or a signal has come.
pub fn wait_readable(fd: RawFd, time: Duration) {
    let millis = time.as_micros().div_ceil(1000).min(1000) as i32;
    let mut wanted = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, as is said; it lives on this stack. Whatever comes of it, the caller looks for himself.
    unsafe { libc::poll(&raw mut wanted, 1, millis) };
}

/// The process that has the number `inside` in the sandbox, as the caller's /proc numbers it; nothing if it has ended.
/// The pidfd is its own, or that of its parent, the supervisor.
pub fn process_of(pidfd: RawFd, inside: u32) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{pidfd}")).ok()?;
    let pid: i32 = value(&info, "Pid:")?.parse().ok()?;
    let is_it = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(value(&status, "NSpid:")?.split_ascii_whitespace().next_back()? == inside.to_string())
    };
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    if pid <= 0 {
        return None;
    }
    if is_it(pid) == Some(true) {
        return Some(pid);
    }
    children().split_ascii_whitespace().filter_map(|word| word.parse().ok()).find(|pid| is_it(*pid) == Some(true))
}

fn value<'a>(lines: &'a str, key: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// A descriptor that came over a socket.
pub fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub enum Forked<T> {
    Parent(i32),
    Child(T),
}

/// Forks the interpreter as os.fork() does, but that `between` runs first in the copy, in which nothing of Python's may
/// run until then. Where it returns Python goes on, be that in the copy or in a copy of that.
pub fn fork_interpreter<T>(between: impl FnOnce() -> T) -> io::Result<Forked<T>> {
    // SAFETY: the caller holds the GIL, and each call is followed by its counterpart in each process that goes on in
    // Python. fork(2) of libc makes a copy in which memory can be allocated, whatever other threads were at.
    unsafe {
        pyo3::ffi::PyOS_BeforeFork();
        let pid = libc::fork();
        if pid == 0 {
            let value = between();
            pyo3::ffi::PyOS_AfterFork_Child();
            return Ok(Forked::Child(value));
        }
        let error = io::Error::last_os_error();
        pyo3::ffi::PyOS_AfterFork_Parent();
        if pid < 0 { Err(error) } else { Ok(Forked::Parent(pid)) }
    }
}

/// In a copy that has one thread.
pub fn fork() -> io::Result<i32> {
    // SAFETY: no arguments; this process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Ends this copy, and nothing of the original.
pub fn exit(status: i32) -> ! {
    // SAFETY: a number.
    unsafe { libc::_exit(status) }
}

/// What a signal does.
#[derive(Clone, Copy)]
pub struct Disposition(libc::sigaction);

/// Lets Ctrl-C be the others' to mind. What it did before.
pub fn ignore_interrupts() -> Disposition {
    // SAFETY: all zeroes are an empty mask and no flags; two of the structures that the call wants.
    unsafe {
        let mut ignore: libc::sigaction = std::mem::zeroed();
        ignore.sa_sigaction = libc::SIG_IGN;
        let mut before = std::mem::zeroed();
        libc::sigaction(libc::SIGINT, &raw const ignore, &raw mut before);
        Disposition(before)
    }
}

pub fn restore_interrupts(Disposition(before): Disposition) {
    // SAFETY: what the kernel has given; the handler is still where it was, in a copy of the memory.
    unsafe { libc::sigaction(libc::SIGINT, &raw const before, std::ptr::null_mut()) };
}

/// Waits for a child to end: its exit status, or the negative number of the signal that ended it.
pub fn wait(process: i32) -> i32 {
    let mut status = 0;
    // SAFETY: a place for the status, which outlives the call.
    while unsafe { libc::waitpid(process, &raw mut status, 0) } < 0 {
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            // The caller ignores SIGCHLD, so that nobody learns of the end of children.
            return 125;
        }
    }
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Closes every descriptor but these, in a copy that has no other use for them.
pub fn close_all_but(kept: &[RawFd]) {
    let mut kept: Vec<RawFd> = kept.iter().copied().filter(|fd| *fd >= 0).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut next = 0;
    for last in kept.iter().map(|fd| fd - 1).chain([RawFd::MAX]) {
        // SAFETY: numbers; nothing in this copy uses what they name.
        if next <= last && unsafe { libc::syscall(libc::SYS_close_range, next, last, 0) } != 0 {
            // Refused by a filter around the caller. SAFETY: as above.
            let end = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) } as RawFd;
            (next..=last.min(end)).for_each(|fd| {
                // SAFETY: as above.
                unsafe { libc::close(fd) };
            });
        }
        next = last.saturating_add(2);
    }
}

/// Writes to a pipe. Nobody reads it where pytest is gone.
pub fn say(pipe: RawFd, words: &str) {
    let mut rest = words.as_bytes();
    while !rest.is_empty() {
        // SAFETY: as many bytes as are there.
        let written = unsafe { libc::write(pipe, rest.as_ptr().cast(), rest.len()) };
        let Ok(written) = usize::try_from(written) else { return };
        rest = &rest[written..];
    }
}
