//! Files of the caller and of the host: not seen, not written, not reached by any spelling.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1};
use crate::sys::{c, call, denied_io, name, open, openable};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

pub const CHECKS: &[Check] = &[
    p1("fs.host_file", "no root of its own", "reads a file outside", |f| read(f, "host_file")),
    p1("fs.host_file_tmp", "shared /tmp", "reads a file in the caller's /tmp", |f| read(f, "tmp_file")),
    p1("fs.home_file", "homes bound by default", "reads a file in the caller's home", |f| read(f, "home_file")),
    p1("fs.home_listed", "homes bound by default", "lists the caller's home", |f| match f.get("home") {
        None => not_planted("home"),
        Some(home) => match fs::read_dir(home).map(Iterator::count) {
            Ok(0) => Held("empty".into()),
            Ok(entries) => Open(format!("{entries} entries")),
            Err(e) => Held(e.to_string()),
        },
    }),
    p1("fs.private_key", "homes bound by default", "reads a private key in the caller's home", |f| {
        read(f, "private_key")
    }),
    p1("fs.host_write", "no root of its own", "creates a file in directories outside", host_write),
    p1("fs.host_socket", "sockets reached by path", "connects to a socket in the caller's home", |f| {
        connect(f, "home_socket")
    }),
    p1("fs.tmp_socket", "X11 and agent sockets in /tmp", "connects to a socket in the caller's /tmp", |f| {
        connect(f, "tmp_socket")
    }),
    p1("fs.dbus_socket", "services of the host", "connects to a message bus in /run", |f| connect(f, "run_socket")),
    p1("fs.shadow", "files of root in a host view", "reads /etc/shadow", |_| match fs::read("/etc/shadow") {
        Ok(content) if content.is_empty() => Held("nothing is in it".into()),
        read => denied_io(read),
    }),
    p1("fs.cwd", "CVE-2024-21626", "a working directory outside the root", |_| {
        let mut path = [0u8; 4096];
        match call!(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) {
            Ok(_) if path[0] == b'/' => Held("it starts with /".into()),
            Ok(_) => Open("(unreachable)".into()),
            Err(e) => Open(name(e)),
        }
    }),
    p1("fs.cwd_kept", "CVE-2024-21626", "the caller's working directory is kept", |f| match f.get("cwd_canary") {
        Some(file) => openable(file, libc::O_RDONLY),
        None => not_planted("file in the working directory"),
    }),
    p1("fs.dotdot", "climbing above the root", "a host file by ../../..", |f| {
        first_open(f, |path| format!("/../../../../../../..{path}"))
    }),
    p1("fs.proc_self_root", "CVE-2016-9962 class", "a host file by /proc/self/root", |f| {
        first_open(f, |path| format!("/proc/self/root/..{path}"))
    }),
    p1("fs.any_proc_root", "CVE-2024-21626", "a host file by the root of any process", |f| {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let root = entry.path().join("root");
            if let open @ Open(_) = first_open(f, |path| format!("{}{path}", root.display())) {
                return open;
            }
        }
        Held("by none".into())
    }),
    p1("fs.any_proc_cwd", "CVE-2024-21626", "a host file by the working directory of any process", |f| {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let cwd = entry.path().join("cwd");
            if let open @ Open(_) = first_open(f, |path| format!("{}/../../../../../../..{path}", cwd.display())) {
                return open;
            }
        }
        Held("by none".into())
    }),
    p1("fs.symlink_out", "CVE-2018-15664 class", "a host file by a link in a writable mount", |f| {
        through_link(f, true)
    }),
    p1("fs.symlink_out_relative", "CVE-2018-15664 class", "the same with a relative link", |f| through_link(f, false)),
    p1("fs.hardlink_out", "CVE-2025-24965 class", "links a read-only file into a writable mount", |f| {
        let (Some(ro), Some(rw)) = (f.get("ro"), f.get("rw")) else { return not_planted("mounts") };
        let target = format!("{rw}/hard-link");
        let result = fs::hard_link(format!("{ro}/open-to-all"), &target);
        let _ = fs::remove_file(target);
        if f.control() && result.is_err() {
            // Two mounts also stand apart outside; within one the call works.
            let _ = fs::write(format!("{rw}/one"), "");
            let same_mount = fs::hard_link(format!("{rw}/one"), format!("{rw}/two"));
            let _ = fs::remove_file(format!("{rw}/one"));
            let _ = fs::remove_file(format!("{rw}/two"));
            return denied_io(same_mount);
        }
        denied_io(result)
    }),
    p1("fs.shocker", "shocker (2014)", "a host file by its file handle", shocker),
    p1("fs.handle_of_root", "shocker", "the root of a file system by the handle of a file in it", handle_of_root),
    p1("fs.probe_write", "CVE-2019-5736", "overwrites the program that was bound in", |f| match f.get("bin") {
        Some(bin) => {
            let path = format!("{bin}/escape-probe");
            openable(&path, libc::O_WRONLY).held_unless_busy(&path)
        }
        None => not_planted("program directory"),
    }),
    p1("fs.probe_replace", "CVE-2019-5736 class", "replaces a file beside it", |f| match f.get("bin") {
        Some(bin) => {
            let path = format!("{bin}/replaced");
            let result = fs::write(&path, "");
            let _ = fs::remove_file(&path);
            denied_io(result)
        }
        None => not_planted("program directory"),
    }),
];

fn read(facts: &Facts, which: &str) -> Verdict {
    match facts.get(which) {
        Some(path) => openable(path, libc::O_RDONLY),
        None => not_planted(which),
    }
}

fn connect(facts: &Facts, which: &str) -> Verdict {
    match facts.get(which) {
        Some(path) => denied_io(UnixStream::connect(path)),
        None => not_planted("socket there"),
    }
}

fn first_open(facts: &Facts, spell: impl Fn(&str) -> String) -> Verdict {
    let canaries = facts.list("canaries");
    if canaries.is_empty() {
        return not_planted("canary file");
    }
    for path in canaries {
        if let open @ Open(_) = openable(&spell(path), libc::O_RDONLY) {
            return open;
        }
    }
    Held("none within reach".into())
}

fn host_write(facts: &Facts) -> Verdict {
    let places = facts.list("write_places");
    if places.is_empty() {
        return not_planted("writable directory outside");
    }
    for place in places {
        let path = format!("{place}/written-by-the-probe");
        if fs::write(&path, "").is_ok() {
            let _ = fs::remove_file(&path);
            return Open(path);
        }
    }
    Held("in none of them".into())
}

fn through_link(facts: &Facts, absolute: bool) -> Verdict {
    let (Some(rw), Some(canary)) = (facts.get("rw"), facts.list("canaries").first().copied()) else {
        return not_planted("canary file");
    };
    let link = format!("{rw}/link-{absolute}");
    let _ = fs::remove_file(&link);
    let target = if absolute { canary.to_string() } else { format!("../../../../../../..{canary}") };
    if let Err(e) = symlink(target, &link) {
        return NotApplicable(e.to_string());
    }
    let verdict = openable(&link, libc::O_RDONLY);
    let _ = fs::remove_file(&link);
    verdict
}

/// The caller made the handle of its canary outside; here it is opened by the device of a directory bound in.
fn shocker(facts: &Facts) -> Verdict {
    let (Some(handle), Some(anchor)) = (facts.get("canary_handle"), facts.get("handle_anchor")) else {
        return not_planted("file handle");
    };
    let bytes: Vec<u8> = handle.split('.').filter_map(|b| b.parse().ok()).collect();
    open_handle(&bytes, anchor)
}

fn open_handle(handle: &[u8], anchor: &str) -> Verdict {
    let anchor = match open(anchor, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(fd) => fd,
        Err(e) => return NotApplicable(format!("{anchor}: {}", name(e))),
    };
    match call!(libc::SYS_open_by_handle_at, anchor, handle.as_ptr(), libc::O_RDONLY) {
        Ok(_) => Open("it was opened".into()),
        Err(e) => Held(name(e)),
    }
}

fn handle_of_root(facts: &Facts) -> Verdict {
    let Some(bin) = facts.get("bin") else { return not_planted("program directory") };
    let mut handle = [0u8; 136];
    handle[0] = 128;
    let mut mount = 0i32;
    let path = c(bin);
    let made =
        call!(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), handle.as_mut_ptr(), &raw mut mount, 0);
    match made {
        Err(e) => Held(name(e)),
        Ok(_) => open_handle(&handle, bin),
    }
}
