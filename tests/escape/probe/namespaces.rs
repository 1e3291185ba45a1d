//! Every namespace is another one than the caller's, and the caller's cannot be entered.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{call, close, name, open};
use std::fs;

pub const CHECKS: &[Check] = &[
    p1("ns.user", "CVE-2016-8655 class", "the user namespace is the caller's", |f| same(f, "user")),
    p1("ns.mnt", "mounts seen and changed on the host", "the mount namespace is the caller's", |f| same(f, "mnt")),
    p1("ns.pid", "processes seen and signalled", "the PID namespace is the caller's", |f| same(f, "pid")),
    p1("ns.net", "CVE-2020-15257", "the network namespace is the caller's", |f| same(f, "net")),
    p1("ns.ipc", "shared SysV and POSIX IPC", "the IPC namespace is the caller's", |f| same(f, "ipc")),
    p1("ns.uts", "host name changed for all", "the UTS namespace is the caller's", |f| same(f, "uts")),
    p2("ns.cgroup", "CVE-2022-0492 class", "the cgroup namespace is the caller's", |f| same(f, "cgroup")),
    p1("ns.setns_supervisor", "CVE-2016-9962", "setns into the namespaces of the process that set this up", setns),
    p1("ns.leaked_descriptor", "CVE-2024-21626", "setns through an inherited namespace descriptor", setns_leaked),
];

fn same(facts: &Facts, kind: &str) -> Verdict {
    let Some(host) = facts.get(&format!("ns.{kind}")) else { return not_planted("namespace link") };
    match fs::read_link(format!("/proc/self/ns/{kind}")) {
        Ok(own) if own.to_string_lossy() == host => Open(format!("it is the caller's {host}")),
        Ok(own) => Held(format!("{} is not {host}", own.display())),
        Err(e) => NotApplicable(format!("/proc/self/ns/{kind}: {e}")),
    }
}

fn setns(facts: &Facts) -> Verdict {
    let mut refused = String::new();
    for kind in ["mnt", "net", "uts", "ipc", "cgroup", "user"] {
        match open(&format!("/proc/{}/ns/{kind}", facts.supervisor()), libc::O_RDONLY) {
            Err(e) => refused = format!("open: {}", name(e)),
            Ok(fd) => match call!(libc::SYS_setns, fd, 0) {
                Ok(_) => return Open(format!("entered its {kind} namespace")),
                Err(e) => refused = name(e),
            },
        }
    }
    Held(refused)
}

fn setns_leaked(facts: &Facts) -> Verdict {
    let mut refused = "no such descriptor".to_string();
    for fd in &facts.descriptors {
        match call!(libc::SYS_setns, *fd, 0) {
            Ok(_) => return Open(format!("descriptor {fd} let it in")),
            Err(libc::EINVAL | libc::EBADF) => {}
            Err(e) => refused = name(e),
        }
        close(*fd as i64);
    }
    Held(refused)
}
