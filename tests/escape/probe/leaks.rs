//! Names and numbers of the host that a program inside has no business with.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::mounts;
use std::fs;

pub const CHECKS: &[Check] = &[
    p1("leak.hostname", "names of the host", "the host's name by uname", |f| {
        // SAFETY: an all-zero `utsname` is valid and outlives the call.
        let own = unsafe {
            let mut about: libc::utsname = std::mem::zeroed();
            libc::uname(&raw mut about);
            std::ffi::CStr::from_ptr(about.nodename.as_ptr()).to_string_lossy().into_owned()
        };
        match f.get("hostname") {
            Some(host) if host == own => Open(own),
            Some(_) => Held(own),
            None => not_planted("host name"),
        }
    }),
    p2("leak.etc_hostname", "names of the host", "the host's name in /etc/hostname", |f| in_file(f, "/etc/hostname")),
    p2("leak.etc_hosts", "names of the host", "the host's name in /etc/hosts", |f| in_file(f, "/etc/hosts")),
    p2("leak.paths", "trap 22: mountinfo", "paths of the caller in /proc/self/mountinfo", |f| {
        match mounts().iter().find(|m| m.root.contains(f.place()) || m.point.contains(f.place())) {
            Some(mount) => Open(format!("{} at {}", mount.root, mount.point)),
            None if mounts().is_empty() => NotApplicable("/proc/self/mountinfo is not readable".into()),
            None => Held(format!("in none of {} lines", mounts().len())),
        }
    }),
    p1("leak.arguments", "host paths in arguments", "paths of the caller in its own arguments", |f| {
        match std::env::args().find(|a| a.contains(f.place())) {
            Some(argument) => Open(argument),
            None => Held("in none".into()),
        }
    }),
    p2("leak.machine_id", "the machine recognised", "/etc/machine-id is the host's", |f| {
        match (f.get("machine_id"), fs::read_to_string("/etc/machine-id")) {
            (None, _) => not_planted("machine id"),
            (Some(host), Ok(own)) if own.trim() == host => Open("it is".into()),
            (_, Ok(_)) => Held("another one".into()),
            (_, Err(e)) => Held(e.to_string()),
        }
    }),
    p2("leak.boot_id", "two sandboxes known to share a machine", "the host's /proc/sys/kernel/random/boot_id", |f| {
        match (f.get("boot_id"), fs::read_to_string("/proc/sys/kernel/random/boot_id")) {
            (None | Some(""), _) => not_planted("boot id"),
            (Some(host), Ok(own)) if own.trim() == host => Open("it is".into()),
            (_, Ok(_)) => Held("another one".into()),
            (_, Err(e)) => Held(e.to_string()),
        }
    }),
    p2("leak.caller_in_passwd", "names of users", "the caller's name in /etc/passwd", |f| {
        let Some(user) = f.get("user").filter(|user| *user != "root") else { return not_planted("user beside root") };
        match fs::read_to_string("/etc/passwd") {
            Ok(text) if text.lines().any(|line| line.starts_with(&format!("{user}:"))) => Open(user.into()),
            Ok(_) => Held("not listed".into()),
            Err(e) => Held(e.to_string()),
        }
    }),
    p1("leak.parent_pid", "processes of the host", "its first process has a parent in sight", |f| {
        let supervisor = f.supervisor().to_string();
        match crate::sys::status_of(&supervisor, "PPid").as_deref() {
            Some("0") => Held("none".into()),
            Some(parent) => Open(parent.into()),
            None => Held("not readable".into()),
        }
    }),
    p2("leak.loginuid", "the caller's login", "the caller's login id in /proc/self/loginuid", |_| {
        match fs::read_to_string("/proc/self/loginuid") {
            Ok(id) if id.trim() != "4294967295" => Open(id.trim().into()),
            Ok(_) => Held("unset".into()),
            Err(e) => Held(e.to_string()),
        }
    }),
    p2("leak.kernel_arguments", "the host's set-up", "/proc/cmdline", |_| match fs::read("/proc/cmdline") {
        Ok(text) if !text.is_empty() => Open(format!("{} bytes", text.len())),
        Ok(_) => Held("empty".into()),
        Err(e) => Held(e.to_string()),
    }),
    p2("leak.diskstats", "the host's activity", "/proc/diskstats", |_| match fs::read("/proc/diskstats") {
        Ok(text) if !text.is_empty() => Open(format!("{} bytes", text.len())),
        Ok(_) => Held("empty".into()),
        Err(e) => Held(e.to_string()),
    }),
    p2("leak.partitions", "disks of the host", "/proc/partitions", |_| match fs::read("/proc/partitions") {
        Ok(text) if !text.is_empty() => Open(format!("{} bytes", text.len())),
        Ok(_) => Held("empty".into()),
        Err(e) => Held(e.to_string()),
    }),
];

fn in_file(facts: &Facts, path: &str) -> Verdict {
    let Some(host) = facts.get("hostname").filter(|name| *name != "localhost") else {
        return not_planted("host name of its own");
    };
    match fs::read_to_string(path) {
        Ok(text) if text.split_ascii_whitespace().any(|word| word == host) => Open(path.into()),
        Ok(_) => Held("it is not there".into()),
        Err(e) => Held(e.to_string()),
    }
}
