//! Descriptors: 0, 1 and 2 come in and nothing else does, and those three give no more than they are.

use crate::check::{Check, Held, Open, not_planted, p1, p2};
use crate::sys::{c, call, name, open};
use std::fs;

pub const CHECKS: &[Check] = &[
    p1("fd.inherited", "CVE-2024-21626, bubblewrap", "a descriptor beyond 0 to 2", |f| {
        match f.descriptors.as_slice() {
            [] => Held("none".into()),
            open => Open(format!("{open:?}")),
        }
    }),
    p1("fd.directory", "CVE-2024-21626", "a host file by an inherited directory", |f| {
        let canaries = f.list("canaries");
        for fd in &f.descriptors {
            for canary in &canaries {
                let path = c(canary.trim_start_matches('/'));
                if call!(libc::SYS_openat, *fd, path.as_ptr(), libc::O_RDONLY).is_ok() {
                    return Open(format!("{canary} by descriptor {fd}"));
                }
            }
        }
        Held(format!("{} descriptors", f.descriptors.len()))
    }),
    p1("fd.secret", "CVE-2016-9962", "reads the secret from an inherited descriptor", |f| {
        for fd in &f.descriptors {
            let mut text = [0u8; 256];
            if let Ok(count) = call!(libc::SYS_pread64, *fd, text.as_mut_ptr(), text.len(), 0)
                && String::from_utf8_lossy(&text[..count as usize]).contains(f.secret())
            {
                return Open(format!("from {fd}"));
            }
        }
        Held(format!("{} descriptors", f.descriptors.len()))
    }),
    p1("fd.fchdir", "CVE-2024-21626", "changes to an inherited directory", |f| {
        match f.descriptors.iter().find(|fd| call!(libc::SYS_fchdir, **fd).is_ok()) {
            Some(fd) => Open(format!("{fd}")),
            None => Held(format!("{} descriptors", f.descriptors.len())),
        }
    }),
    p1("fd.listener", "sockets of the caller taken over", "accepts on an inherited socket", |f| {
        for fd in &f.descriptors {
            let mut value = 0i32;
            let mut size = 4u32;
            let asked =
                call!(libc::SYS_getsockopt, *fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &raw mut value, &raw mut size);
            if asked.is_ok() && value == 1 {
                return Open(format!("{fd} listens"));
            }
        }
        Held(format!("{} descriptors", f.descriptors.len()))
    }),
    p1("fd.stdio_reopen", "the caller's log read back", "opens /proc/self/fd/2 again for reading", |_| {
        match open("/proc/self/fd/2", libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY) {
            Ok(fd) => {
                let mut text = [0u8; 256];
                let count = call!(libc::SYS_pread64, fd, text.as_mut_ptr(), text.len(), 0).unwrap_or(0);
                if count > 0 {
                    Open(format!("{count} bytes of the log"))
                } else {
                    Held("opened, nothing to read".into())
                }
            }
            Err(e) => Held(name(e)),
        }
    }),
    p1("fd.stdio_truncate", "the caller's log cut", "opens /proc/self/fd/2 again for writing anywhere", |f| {
        if f.get("log_is_file") != Some("yes") {
            return not_planted("log file");
        }
        match open("/proc/self/fd/2", libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY) {
            Ok(fd) if is_regular(fd) => Open("it could be cut or overwritten".into()),
            Ok(_) => Held("no file".into()),
            Err(e) => Held(name(e)),
        }
    }),
    p2("fd.stdio_pwrite", "the caller's log overwritten", "takes O_APPEND off descriptor 2", |f| {
        if f.get("log_is_file") != Some("yes") {
            return not_planted("log file");
        }
        // A shared open file: whoever holds it can also clear its flags, unless a pipe stands between.
        let flags = call!(libc::SYS_fcntl, 2, libc::F_GETFL).unwrap_or(0);
        if !is_regular(2) {
            return Held("descriptor 2 is no file".into());
        }
        let changed = call!(libc::SYS_fcntl, 2, libc::F_SETFL, flags & !i64::from(libc::O_APPEND));
        let _ = call!(libc::SYS_fcntl, 2, libc::F_SETFL, flags);
        match changed {
            Ok(_) => Open("it was taken off".into()),
            Err(e) => Held(name(e)),
        }
    }),
    p2("fd.stdio_directory", "trap 7: a directory as stdio", "a directory among 0 to 2", |_| {
        for fd in 0..3 {
            if fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|m| m.is_dir()) {
                return Open(format!("{fd} is one"));
            }
        }
        Held("none".into())
    }),
    p1("fd.others", "CVE-2016-9962", "the caller's files by the descriptors of any process", |f| {
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            for entry in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
                let link = fs::read_link(entry.path()).unwrap_or_default();
                let text = link.to_string_lossy();
                let is_log = f.get("log") == Some(&text);
                if !is_log && (text.contains(f.place()) && !text.contains("/escape-probe") && !text.contains("/rw")) {
                    return Open(format!("{} is {text}", entry.path().display()));
                }
            }
        }
        Held("none within reach".into())
    }),
];

/// Before anything is opened here.
pub fn inherited() -> Vec<i32> {
    // SAFETY: asks for the flags of numbers that need not be open.
    (3..1024).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0).collect()
}

fn is_regular(fd: i64) -> bool {
    fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|m| m.is_file())
}
