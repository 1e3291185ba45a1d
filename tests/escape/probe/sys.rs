//! Raw system calls and the few helpers that most checks use.

use crate::check::{Held, Open, Verdict};
use std::ffi::CString;
use std::fs;
use std::io;

/// What a system call answered: its value, or the errno.
pub type Answer = Result<i64, i32>;

/// A system call by number. Every argument is widened to a register as it stands.
macro_rules! call {
    ($number:expr $(, $argument:expr)* $(,)?) => {{
        // SAFETY: pointers handed in are live for the call or deliberately null; the kernel checks both, and
        // each check runs in a process of its own, so that nothing it changes outlives it.
        let value = unsafe { libc::syscall($number as libc::c_long $(, $argument as libc::c_long)*) };
        if value == -1 { Err($crate::sys::errno()) } else { Ok(value as i64) }
    }};
}
pub(crate) use call;

pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub fn name(errno: i32) -> String {
    let known = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EINVAL => "EINVAL",
        libc::ENOTTY => "ENOTTY",
        libc::ETXTBSY => "ETXTBSY",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::ENOSYS => "ENOSYS",
        libc::ELOOP => "ELOOP",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::ESOCKTNOSUPPORT => "ESOCKTNOSUPPORT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ESTALE => "ESTALE",
        libc::ENOKEY => "ENOKEY",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => return format!("errno {errno}"),
    };
    known.to_string()
}

/// Worked: open. Any error: held.
pub fn denied(answer: Answer) -> Verdict {
    match answer {
        Ok(_) => Open("it worked".into()),
        Err(e) => Held(name(e)),
    }
}

/// For attack surface: the call must not even be reached. Only a refusal counts as held; an error about the
/// (deliberately useless) arguments shows that the kernel's code behind the call runs for the caller.
pub fn unreached(answer: Answer) -> Verdict {
    match answer {
        Ok(_) => Open("it worked".into()),
        Err(e @ (libc::EPERM | libc::ENOSYS | libc::EACCES)) => Held(name(e)),
        Err(e) => Open(format!("reached: {}", name(e))),
    }
}

pub fn denied_io<T>(result: io::Result<T>) -> Verdict {
    match result {
        Ok(_) => Open("it worked".into()),
        Err(e) => Held(e.raw_os_error().map_or_else(|| e.to_string(), name)),
    }
}

pub fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

pub fn open(path: &str, flags: i32) -> Answer {
    call!(libc::SYS_openat, libc::AT_FDCWD, c(path).as_ptr(), flags | libc::O_CLOEXEC, 0o600)
}

/// Opens, and closes again what could be opened.
pub fn openable(path: &str, flags: i32) -> Verdict {
    match open(path, flags | libc::O_NONBLOCK | libc::O_NOCTTY) {
        Ok(fd) => {
            close(fd);
            Open(format!("{path} could be opened"))
        }
        Err(e) => Held(format!("{path}: {}", name(e))),
    }
}

pub fn close(fd: i64) {
    let _ = call!(libc::SYS_close, fd);
}

/// A field of `/proc/self/status`.
pub fn status(field: &str) -> Option<String> {
    status_of("self", field)
}

pub fn status_of(process: &str, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_string())
}

/// Forks; the child runs `body` and ends with its value; the parent gets that value, or nothing where the child was
/// killed or could not be made.
pub fn in_child(body: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the probe has one thread at this point (checks that start threads do it in their own process).
    match unsafe { libc::fork() } {
        -1 => None,
        // SAFETY: `_exit` takes a number and does not return.
        0 => unsafe { libc::_exit(body()) },
        pid => {
            let mut wait_status = 0;
            // SAFETY: `wait_status` outlives the call.
            unsafe { libc::waitpid(pid, &mut wait_status, 0) };
            libc::WIFEXITED(wait_status).then(|| libc::WEXITSTATUS(wait_status))
        }
    }
}

/// One line of `/proc/self/mountinfo`.
pub struct Mount {
    pub root: String,
    pub point: String,
    pub options: String,
    pub propagation: String,
    pub kind: String,
}

pub fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let front: Vec<&str> = front.split(' ').collect();
    Some(Mount {
        root: front.get(3)?.to_string(),
        point: front.get(4)?.to_string(),
        options: front.get(5)?.to_string(),
        propagation: front.get(6..)?.join(" "),
        kind: back.split(' ').next()?.to_string(),
    })
}

/// Enters a user and mount namespace of its own with id 0 inside, as an attacker would to get capabilities.
pub fn nested_root(extra: i32) -> Result<(), i32> {
    // SAFETY: two calls without arguments or effects.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    call!(libc::SYS_unshare, libc::CLONE_NEWUSER | libc::CLONE_NEWNS | extra)?;
    let _ = fs::write("/proc/self/setgroups", "deny");
    let _ = fs::write("/proc/self/uid_map", format!("0 {uid} 1"));
    let _ = fs::write("/proc/self/gid_map", format!("0 {gid} 1"));
    Ok(())
}
