//! The one thing that needs `unsafe`: descriptors that are known as numbers.
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
