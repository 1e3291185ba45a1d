//! Who the program is: no id or group of the caller, no way to another one.

use crate::check::{Check, Facts, Held, Open, Verdict, not_planted, p1, p2};
use crate::sys::{call, denied, denied_io, name, status};
use std::fs;
use std::process::Command;

pub const CHECKS: &[Check] = &[
    p1("id.supp_groups", "CVE-2018-7169", "a supplementary group of the caller is kept", supplementary),
    p1(
        "id.supp_group_file",
        "CVE-2014-8989",
        "reads a file that only the caller's supplementary group may",
        group_file,
    ),
    p1("id.negative_group", "CVE-2014-8989", "gets rid of a group that is denied a file (mode 0604)", negative_group),
    p1("id.setgroups", "CVE-2014-8989", "setgroups with an empty list", |_| {
        denied(call!(libc::SYS_setgroups, 0, std::ptr::null::<u32>()))
    }),
    p1("id.setuid0", "CVE-2022-0185 class", "setresuid to 0", |_| become_id(libc::SYS_setresuid, 0)),
    p1("id.setgid0", "CVE-2022-0185 class", "setresgid to 0", |_| become_id(libc::SYS_setresgid, 0)),
    p1("id.setuid_other", "bypass of per-id separation", "setresuid to another id", |_| {
        become_id(libc::SYS_setresuid, 1)
    }),
    p1("id.setfsuid_other", "bypass of per-id separation", "setfsuid to another id", setfsuid),
    p1("id.no_new_privs", "CVE-2016-1576 class", "no_new_privs is off", |_| {
        match call!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) {
            Ok(1) => Held("it is 1".into()),
            other => Open(format!("it is {other:?}")),
        }
    }),
    p1("id.no_new_privs_reset", "CVE-2016-1576 class", "no_new_privs can be taken back", |_| {
        let _ = call!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
        match call!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) {
            Ok(1) => Held("it stays 1".into()),
            other => Open(format!("it is {other:?}")),
        }
    }),
    p1("id.suid_binary", "CVE-2023-0386", "a set-user-id program changes the id", |f| gains(f, "suid")),
    p1("id.sgid_binary", "CVE-2022-2989", "a set-group-id program changes the group", |f| gains(f, "sgid")),
    p1("id.filecap_binary", "CVE-2021-3493", "a program with file capabilities gets them", |f| gains(f, "filecap")),
    p2("id.keep_caps", "CVE-2022-29162", "securebits or keep-caps can be set", |_| {
        denied(call!(libc::SYS_prctl, libc::PR_SET_SECUREBITS, 1, 0, 0, 0))
    }),
    p2("id.user_of_caller", "id confusion in logs", "USER or LOGNAME tell the caller's name", |f| {
        let Some(user) = f.get("user") else { return not_planted("user name") };
        match ["USER", "LOGNAME"].iter().find(|v| std::env::var(v).is_ok_and(|name| name == user)) {
            Some(variable) => Open(format!("{variable}={user}")),
            None => Held("neither".into()),
        }
    }),
];

/// `--ids`: ids and effective capabilities as the set-id checks compare them.
pub fn print() {
    // SAFETY: calls without arguments or effects.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    println!("{uid} {gid} {}", status("CapEff").unwrap_or_default());
}

fn groups() -> Vec<u32> {
    let mut list = [0u32; 256];
    let count = call!(libc::SYS_getgroups, list.len(), list.as_mut_ptr()).unwrap_or(0);
    list[..count as usize].to_vec()
}

fn supplementary(facts: &Facts) -> Verdict {
    // SAFETY: a call without arguments or effects.
    let own = unsafe { libc::getegid() };
    let kept: Vec<u32> = groups().into_iter().filter(|g| *g != own).collect();
    if facts.list("groups").is_empty() && kept.is_empty() {
        return not_planted("supplementary group");
    }
    match kept.as_slice() {
        [] => Held("none".into()),
        kept => Open(format!("{kept:?} (65534 stands for one without a name here)")),
    }
}

fn group_file(facts: &Facts) -> Verdict {
    let Some(path) = facts.get("group_file") else { return not_planted("group file") };
    denied_io(fs::read(path))
}

fn negative_group(facts: &Facts) -> Verdict {
    let Some(path) = facts.get("negative_group_file") else { return not_planted("negative group file") };
    denied_io(fs::read(path))
}

fn become_id(number: i64, id: u32) -> Verdict {
    // SAFETY: calls without arguments or effects.
    let now = unsafe { if number == libc::SYS_setresuid { libc::geteuid() } else { libc::getegid() } };
    if now == id {
        // Root inside: the id that must be out of reach is another one.
        return denied(call!(number, 4242, 4242, 4242));
    }
    denied(call!(number, id, id, id))
}

fn setfsuid(_: &Facts) -> Verdict {
    let _ = call!(libc::SYS_setfsuid, 1);
    match call!(libc::SYS_setfsuid, -1) {
        Ok(1) => Open("the file system id is 1".into()),
        Ok(id) => Held(format!("it stays {id}")),
        Err(e) => Held(name(e)),
    }
}

fn gains(facts: &Facts, which: &str) -> Verdict {
    let Some(path) = facts.get(which) else { return not_planted(&format!("{which} program")) };
    let ids = |path: &str| -> Result<String, String> {
        let output = Command::new(path).arg("--ids").output().map_err(|e| format!("{path}: {e}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    // SAFETY: calls without arguments or effects.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let before = format!("{uid} {gid} {}", status("CapEff").unwrap_or_default());
    match ids(path) {
        Ok(after) if after == before => Held(format!("still {after}")),
        Ok(after) if after.is_empty() => Held("it did not run".into()),
        Ok(after) => Open(format!("{before} became {after}")),
        Err(e) => Held(e),
    }
}
