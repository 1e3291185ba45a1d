//! Limits that always hold, and evasion of those that were set.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{call, denied, in_child, name};
use std::fs;

pub const CHECKS: &[Check] = &[
    p1("lim.core", "CVE-2018-6552, CVE-2025-4598 class", "core dumps can be switched on", |_| {
        match limit(libc::RLIMIT_CORE) {
            (0, 0) => Held("0, hard".into()),
            (soft, hard) => Open(format!("{soft} of {hard}")),
        }
    }),
    p1("lim.memlock", "memory pinned", "more than 1 GiB may be locked", |f| {
        below(f, libc::RLIMIT_MEMLOCK as i32, 1 << 30, "locked bytes")
    }),
    p1("lim.nofile", "kernel memory", "more than 2^20 descriptors", |f| {
        below(f, libc::RLIMIT_NOFILE as i32, 1 << 20, "files")
    }),
    p2("lim.nproc", "fork bombs", "no bound on processes by rlimit", |f| {
        below(f, libc::RLIMIT_NPROC as i32, u64::MAX - 1, "processes")
    }),
    p1("lim.raise_hard", "limits lifted", "raises a hard limit", |f| {
        let (_, hard) = limit(libc::RLIMIT_NOFILE);
        let wanted = libc::rlimit { rlim_cur: hard, rlim_max: hard.saturating_add(1) };
        let answer = call!(libc::SYS_setrlimit, libc::RLIMIT_NOFILE, &raw const wanted);
        if f.control() && answer.is_err() {
            return NotApplicable("the caller itself has no CAP_SYS_RESOURCE, or is at the system's bound".into());
        }
        denied(answer)
    }),
    p1("lim.oom_adj", "the host's other processes die first", "lowers its own oom score", |_| {
        let path = "/proc/self/oom_score_adj";
        let now: i32 = fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        crate::sys::denied_io(fs::write(path, (now - 1).max(-1000).to_string()))
    }),
    p1("lim.realtime", "processors taken", "a real-time scheduling class", |_| {
        let parameter = 1i32;
        denied(call!(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const parameter))
    }),
    p1("lim.deadline", "processors taken", "a deadline scheduling class", |_| {
        const DEADLINE: u64 = 6;
        let attributes = [48u64 | DEADLINE << 32, 0, 0, 10_000_000, 30_000_000, 30_000_000];
        denied(call!(libc::SYS_sched_setattr, 0, attributes.as_ptr(), 0))
    }),
    p1("lim.nice", "processors taken", "a higher priority", |_| {
        denied(call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, -5))
    }),
    p1("lim.io_realtime", "disks taken", "a real-time I/O class", |_| {
        denied(call!(libc::SYS_ioprio_set, 1, 0, 1 << 13))
    }),
    p1("lim.dmesg", "kernel addresses, host events", "reads the kernel log", |_| {
        let mut text = [0u8; 64];
        denied(call!(libc::SYS_syslog, 3, text.as_mut_ptr(), text.len()))
    }),
    p1("lim.init_reaps", "zombies fill the table of processes", "orphans stay as zombies", init_reaps),
    p1("lim.pids", "fork bombs, also by double fork", "200 processes at once", pids),
    p2("lim.tmp_bounded", "memory by /tmp", "/tmp may take half of the memory", |_| bounded("/tmp")),
    p2("lim.shm_bounded", "memory by /dev/shm", "/dev/shm may take half of the memory", |_| bounded("/dev/shm")),
    p2("lim.huge_pages", "memory of others", "locks huge pages", |_| {
        const SHM_HUGETLB: i32 = 0o4000;
        let id = call!(libc::SYS_shmget, libc::IPC_PRIVATE, 2 << 20, 0o600 | libc::IPC_CREAT | SHM_HUGETLB);
        if let Ok(id) = id {
            let _ = call!(libc::SYS_shmctl, id, libc::IPC_RMID, 0);
        }
        if id == Err(libc::ENOMEM) {
            return NotApplicable("this machine has no huge pages".into());
        }
        denied(id)
    }),
];

fn limit(which: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::getrlimit(which, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

fn below(facts: &Facts, which: i32, bound: u64, what: &str) -> Verdict {
    let (_, hard) = limit(which as libc::__rlimit_resource_t);
    if facts.control() && hard <= bound {
        return NotApplicable(format!("the caller's own hard limit is {hard} {what}"));
    }
    if hard <= bound { Held(format!("{hard} {what}")) } else { Open(format!("{hard} {what}")) }
}

/// A grandchild whose parent ended must be waited for by PID 1.
fn init_reaps(facts: &Facts) -> Verdict {
    let (mut reader, writer) = match std::io::pipe() {
        Ok(ends) => ends,
        Err(e) => return NotApplicable(e.to_string()),
    };
    let ended = in_child(|| {
        // SAFETY: one thread; both processes leave by `_exit`.
        let orphan = unsafe { libc::fork() };
        if orphan > 0 {
            let _ = std::io::Write::write_all(&mut &writer, &orphan.to_ne_bytes());
        }
        0
    });
    drop(writer);
    let mut pid = [0; 4];
    if ended.is_none() || std::io::Read::read_exact(&mut reader, &mut pid).is_err() {
        return NotApplicable("no grandchild could be made".into());
    }
    let pid = i32::from_ne_bytes(pid);
    for _ in 0..200 {
        match crate::sys::status_of(&pid.to_string(), "State") {
            None => {
                let _ = facts;
                return Held("it was reaped".into());
            }
            Some(_) => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    }
    Open("it is still there after 400 ms".into())
}

/// Each process waits for the end of a pipe, so that all are there at once and none stays.
fn pids(facts: &Facts) -> Verdict {
    const BOMB: usize = 200;
    if facts.get("pids_limit").is_none() && !facts.control() {
        return not_planted("limit of processes");
    }
    let (mut reader, writer) = match std::io::pipe() {
        Ok(ends) => ends,
        Err(e) => return NotApplicable(e.to_string()),
    };
    let mut children = Vec::new();
    let refused = loop {
        // SAFETY: one thread; the child leaves by `_exit`.
        match unsafe { libc::fork() } {
            -1 => break Some(crate::sys::errno()),
            0 => {
                drop(writer);
                let _ = std::io::Read::read(&mut reader, &mut [0]);
                // SAFETY: does not return.
                unsafe { libc::_exit(0) };
            }
            pid => children.push(pid),
        }
        if children.len() == BOMB {
            break None;
        }
    };
    drop(writer);
    for pid in &children {
        // SAFETY: a child of this process; its status is not asked for.
        unsafe { libc::waitpid(*pid, std::ptr::null_mut(), 0) };
    }
    match refused {
        Some(e) => Held(format!("{} after {}", name(e), children.len())),
        None => Open(format!("all {BOMB}")),
    }
}

fn bounded(path: &str) -> Verdict {
    let path_c = crate::sys::c(path);
    // SAFETY: an all-zero value is valid for both; both pointers are live.
    let (size, memory) = unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path_c.as_ptr(), &raw mut about) != 0 {
            return Held(format!("{path}: {}", name(crate::sys::errno())));
        }
        let mut machine: libc::sysinfo = std::mem::zeroed();
        libc::sysinfo(&raw mut machine);
        (about.f_blocks * about.f_frsize, machine.totalram * u64::from(machine.mem_unit))
    };
    // A tmpfs without a size gets half of the memory.
    if size + (size >> 6) < memory / 2 { Held(format!("{size} bytes")) } else { Open(format!("{size} bytes")) }
}
