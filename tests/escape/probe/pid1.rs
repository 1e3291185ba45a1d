//! PID 1, the process that set the sandbox up: it shows nothing of the caller and gives nothing away.
//!
//! Without a sandbox the caller itself stands for it (`Facts::supervisor`).

use crate::check::{Check, Facts, Held, Open, Verdict, not_planted, p1, p2};
use crate::sys::{call, denied, denied_io, openable};
use std::fs;

pub const CHECKS: &[Check] = &[
    p1("pid1.environ", "bubblewrap 725", "the caller's environment in /proc/1/environ", |f| shows(f, "environ")),
    p1("pid1.cmdline", "host paths in the launcher's arguments", "host paths in /proc/1/cmdline", |f| {
        shows(f, "cmdline")
    }),
    p1("pid1.maps", "host paths, addresses for an attack", "host paths in /proc/1/maps", |f| shows(f, "maps")),
    p1("pid1.exe", "CVE-2019-5736", "opens /proc/1/exe for writing", |f| {
        openable(&of(f, "exe"), libc::O_WRONLY).held_unless_busy(&of(f, "exe"))
    }),
    p1("pid1.exe_link", "host path of the library", "a host path in the link /proc/1/exe", |f| {
        match fs::read_link(of(f, "exe")) {
            Ok(path) if path.to_string_lossy().contains("memfd:") => Held("a memory file".into()),
            // The probe itself, started as PID 1, says nothing about a supervisor.
            Ok(path) if path.ends_with("escape-probe") && f.supervisor() == 1 && !is_host_path(f, &path) => {
                Held("it is this program".into())
            }
            Ok(path) => Open(path.display().to_string()),
            Err(e) => Held(e.to_string()),
        }
    }),
    p1("pid1.root", "CVE-2024-21626", "the caller's files through /proc/1/root", |f| canary(f, "root")),
    p1("pid1.cwd", "CVE-2024-21626", "the caller's directory through /proc/1/cwd", |f| {
        let Some(name) = f.get("cwd_canary") else { return not_planted("file in the working directory") };
        openable(&of(f, &format!("cwd/{name}")), libc::O_RDONLY)
    }),
    p1("pid1.fds", "CVE-2016-9962, CVE-2024-21626", "the caller's files through /proc/1/fd", descriptors),
    p1("pid1.ptrace", "CVE-2016-9962", "ptrace(SEIZE) of PID 1", |f| {
        const PTRACE_SEIZE: i32 = 0x4206;
        other(f).unwrap_or_else(|| denied(call!(libc::SYS_ptrace, PTRACE_SEIZE, f.supervisor(), 0, 0)))
    }),
    p1("pid1.mem", "CVE-2016-9962", "opens /proc/1/mem", |f| {
        other(f).unwrap_or_else(|| openable(&of(f, "mem"), libc::O_RDWR))
    }),
    p1("pid1.process_vm", "CVE-2016-9962", "process_vm_readv of PID 1", |f| {
        let mut word = [0u8; 1];
        let local = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: text_start(f) as *mut libc::c_void, iov_len: 1 };
        other(f).unwrap_or_else(|| {
            let pid = f.supervisor();
            denied(call!(libc::SYS_process_vm_readv, pid, &raw const local, 1, &raw const remote, 1, 0))
        })
    }),
    p2("pid1.oom_score", "PID 1 chosen as the victim", "changes the oom score of PID 1", |f| {
        other(f).unwrap_or_else(|| {
            let path = of(f, "oom_score_adj");
            // The same value again.
            denied_io(fs::read_to_string(&path).and_then(|now| fs::write(&path, now)))
        })
    }),
    p1("pid1.prlimit", "the supervisor's poll(2) failed for good", "sets a resource limit of PID 1", |f| {
        other(f).unwrap_or_else(|| {
            let mut limit = [0u64; 2];
            let pid = f.supervisor();
            if let Err(e) = call!(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE, 0, limit.as_mut_ptr()) {
                return Held(crate::sys::name(e));
            }
            // The same again.
            denied(call!(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE, limit.as_ptr(), 0))
        })
    }),
    p1("pid1.kill", "PID namespace torn down from inside", "stops PID 1", |f| {
        const NOTHING: i32 = 0;
        if f.control() {
            // Really stopping the caller would end the run: the right to do it is the control.
            return denied(call!(libc::SYS_kill, f.supervisor(), NOTHING));
        }
        if let Some(same) = other(f) {
            return same;
        }
        let _ = call!(libc::SYS_kill, 1, libc::SIGSTOP);
        match crate::sys::status_of("1", "State") {
            Some(state) if state.starts_with('T') => {
                let _ = call!(libc::SYS_kill, 1, libc::SIGCONT);
                Open("it stopped".into())
            }
            state => Held(format!("it goes on: {state:?}")),
        }
    }),
];

fn of(facts: &Facts, file: &str) -> String {
    format!("/proc/{}/{file}", facts.supervisor())
}

/// Where the probe (the parent of this check) is PID 1 itself there is no other process to attack; it is then held
/// by nothing and guarded from nobody: other programs inside share the caller's first process.
fn other(facts: &Facts) -> Option<Verdict> {
    // SAFETY: a call without arguments or effects.
    let parent = unsafe { libc::getppid() };
    (parent == facts.supervisor()).then(|| Held("PID 1 is the program itself".into()))
}

fn is_host_path(facts: &Facts, path: &std::path::Path) -> bool {
    path.to_string_lossy().contains(facts.place())
}

fn shows(facts: &Facts, file: &str) -> Verdict {
    let path = of(facts, file);
    match fs::read(&path) {
        Err(e) => Held(format!("{path}: {e}")),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            match [facts.secret(), facts.place()].iter().find(|s| text.contains(**s)) {
                Some(leak) => Open(format!("{path} shows {leak}")),
                None if file == "maps" && text.contains('/') && !text.contains("memfd:") => {
                    Open(format!("{path} shows {}", text.split('/').nth(1).map_or("", |s| s.trim())))
                }
                None => Held(format!("{} bytes, nothing of the caller", bytes.len())),
            }
        }
    }
}

fn canary(facts: &Facts, directory: &str) -> Verdict {
    let canaries = facts.list("canaries");
    if canaries.is_empty() {
        return not_planted("canary file");
    }
    for path in canaries {
        if let open @ Open(_) = openable(&format!("{}{path}", of(facts, directory)), libc::O_RDONLY) {
            return open;
        }
    }
    Held("none within reach".into())
}

fn descriptors(facts: &Facts) -> Verdict {
    let entries = match fs::read_dir(of(facts, "fd")) {
        Ok(entries) => entries,
        Err(e) => return Held(e.to_string()),
    };
    let mut seen = 0;
    for entry in entries.flatten() {
        seen += 1;
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let text = link.to_string_lossy();
        // The log is its own stderr too.
        if facts.get("log") == Some(&text) {
            continue;
        }
        if text.contains(facts.place()) || facts.list("canaries").contains(&&*text) {
            return Open(format!("{} is {text}", entry.path().display()));
        }
        for canary in facts.list("canaries") {
            if fs::File::open(entry.path().join(canary.trim_start_matches('/'))).is_ok() {
                return Open(format!("{} leads to {canary}", entry.path().display()));
            }
        }
    }
    Held(format!("{seen} descriptors, none of the caller's"))
}

/// The first mapped address of PID 1, as far as it can be known.
fn text_start(facts: &Facts) -> usize {
    let maps = fs::read_to_string(of(facts, "maps")).unwrap_or_default();
    maps.split('-').next().and_then(|hex| usize::from_str_radix(hex, 16).ok()).unwrap_or(0x40_0000)
}
