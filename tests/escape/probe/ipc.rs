//! Inter-process communication: nothing shared with the caller, nobody outside to signal, no keys.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{Answer, c, call, denied, name, openable};
use std::fs;

const SESSION_KEYRING: i32 = -3;
const USER_KEYRING: i32 = -4;
const USER_SESSION_KEYRING: i32 = -5;
const SEARCH: i32 = 10;
const READ: i32 = 11;
const GET_KEYRING_ID: i32 = 0;
const PIDFD_OPEN: i64 = 434;

pub const CHECKS: &[Check] = &[
    p1("ipc.sysv_shm", "a shared IPC namespace", "the caller's shared memory segment", |f| {
        sysv(f, |key| call!(libc::SYS_shmget, key, 0, 0))
    }),
    p1("ipc.sysv_sem", "a shared IPC namespace", "the caller's semaphores", |f| {
        sysv(f, |key| call!(libc::SYS_semget, key, 0, 0))
    }),
    p1("ipc.sysv_msg", "a shared IPC namespace", "the caller's message queue", |f| {
        sysv(f, |key| call!(libc::SYS_msgget, key, 0))
    }),
    p1("ipc.proc_sysvipc", "a shared IPC namespace", "segments listed in /proc/sysvipc/shm", |_| {
        match fs::read_to_string("/proc/sysvipc/shm") {
            Ok(text) if text.lines().count() > 1 => Open(format!("{} segments", text.lines().count() - 1)),
            Ok(_) => Held("none".into()),
            Err(e) => Held(e.to_string()),
        }
    }),
    p1("ipc.posix_shm", "isolate 2.6: /dev/shm shared", "the caller's POSIX shared memory", |f| {
        match f.get("posix_shm") {
            Some(label) => openable(&format!("/dev/shm/{label}"), libc::O_RDONLY),
            None => not_planted("shared memory"),
        }
    }),
    p1("ipc.posix_mq", "a shared IPC namespace", "the caller's POSIX message queue", |f| match f.get("posix_mq") {
        Some(label) => denied(call!(libc::SYS_mq_open, c(label).as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK, 0, 0)),
        None => not_planted("message queue"),
    }),
    p1("ipc.signal_host", "a shared PID namespace", "signals the caller's other process", |f| {
        victim(f, |pid| call!(libc::SYS_kill, pid, libc::SIGWINCH))
    }),
    p1("ipc.tgkill_host", "a shared PID namespace", "the same by tgkill", |f| {
        victim(f, |pid| call!(libc::SYS_tgkill, pid, pid, libc::SIGWINCH))
    }),
    p1("ipc.sigqueue_host", "a shared PID namespace", "the same by rt_sigqueueinfo", |f| {
        victim(f, |pid| {
            let mut about = [0u8; 128];
            about[8..12].copy_from_slice(&(-1i32).to_ne_bytes());
            call!(libc::SYS_rt_sigqueueinfo, pid, libc::SIGWINCH, about.as_ptr())
        })
    }),
    p1("ipc.pidfd_host", "CVE-2016-9962 class", "pidfd_open of the caller's other process", |f| {
        victim(f, |pid| call!(PIDFD_OPEN, pid, 0))
    }),
    p1("ipc.ptrace_host", "CVE-2016-9962", "ptrace(SEIZE) of the caller's other process", |f| {
        victim(f, |pid| call!(libc::SYS_ptrace, 0x4206, pid, 0, 0))
    }),
    p1("ipc.mem_host", "CVE-2016-9962", "opens the memory of the caller's other process", |f| {
        victim(f, |pid| crate::sys::open(&format!("/proc/{pid}/mem"), libc::O_RDWR))
    }),
    p1("ipc.prlimit_host", "limits of others", "prlimit of the caller's other process", |f| {
        victim(f, |pid| {
            let mut limit = [0u64; 2];
            call!(libc::SYS_prlimit64, pid, 7, 0, limit.as_mut_ptr())
        })
    }),
    p1("ipc.nice_host", "priorities of others", "setpriority of the caller's other process", |f| {
        victim(f, |pid| call!(libc::SYS_setpriority, libc::PRIO_PROCESS, pid, 19))
    }),
    p2("ipc.affinity_host", "processors of others", "reads the affinity of the caller's other process", |f| {
        victim(f, |pid| {
            let mut mask = [0u64; 16];
            call!(libc::SYS_sched_getaffinity, pid, 128, mask.as_mut_ptr())
        })
    }),
    p1("ipc.session_keyring", "bubblewrap, nsjail, hakoniwa, bazel", "the secret key in the session keyring", |f| {
        key(f, SESSION_KEYRING)
    }),
    p1("ipc.user_keyring", "CVE-2016-0728 class", "the secret key in the user keyring", |f| key(f, USER_KEYRING)),
    p1("ipc.user_session_keyring", "trap 30", "the secret key in the user session keyring", |f| {
        key(f, USER_SESSION_KEYRING)
    }),
    p1("ipc.key_by_number", "keys are not namespaced", "reads the secret key by its number", |f| {
        let Some(serial) = f.number::<i32>("key_serial") else { return not_planted("key") };
        read_key(i64::from(serial))
    }),
    p1("ipc.session_keyring_same", "keyctl join before exec", "the session keyring is the caller's", |f| {
        let Some(host) = f.number::<i64>("session_keyring") else { return not_planted("session keyring") };
        match call!(libc::SYS_keyctl, GET_KEYRING_ID, SESSION_KEYRING, 0) {
            Ok(own) if own == host => Open(format!("{own}")),
            Ok(own) => Held(format!("{own} is not {host}")),
            // Without the call: whether the keyring is reachable shows in what /proc says is possessed.
            Err(e) => possessed(host).unwrap_or_else(|| Held(name(e))),
        }
    }),
    p2("ipc.file_lock", "trap 30: locks on shared files", "takes a lock that the caller holds", |f| {
        let Some(path) = f.get("locked_file") else { return not_planted("locked file") };
        match crate::sys::open(path, libc::O_RDONLY) {
            Err(e) => Held(name(e)),
            Ok(fd) => match call!(libc::SYS_flock, fd, libc::LOCK_EX | libc::LOCK_NB) {
                // Both answers tell something about the caller: the channel is there.
                Ok(_) => Open("the lock was free".into()),
                Err(libc::EAGAIN) => Open("the caller's lock is felt".into()),
                Err(e) => Held(name(e)),
            },
        }
    }),
];

fn sysv(facts: &Facts, find: fn(i32) -> Answer) -> Verdict {
    match facts.number::<i32>("sysv_key") {
        Some(key) => denied(find(key)),
        None => not_planted("SysV object"),
    }
}

fn victim(facts: &Facts, attempt: fn(i32) -> Answer) -> Verdict {
    let Some(pid) = facts.number::<i32>("victim") else { return not_planted("other process") };
    let own = fs::read_link("/proc/self/ns/pid").map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
    // The same number may be somebody else in a PID namespace of its own: that would be no attack on the caller.
    if facts.get("ns.pid").is_some_and(|host| host != own) && crate::sys::status_of(&pid.to_string(), "Name").is_some()
    {
        return NotApplicable(format!("{pid} is another process here"));
    }
    denied(attempt(pid))
}

fn key(facts: &Facts, keyring: i32) -> Verdict {
    let Some(label) = facts.get("key_name") else { return not_planted("key") };
    match call!(libc::SYS_keyctl, SEARCH, keyring, c("user").as_ptr(), c(label).as_ptr(), 0) {
        Ok(serial) => read_key(serial),
        Err(e) => Held(name(e)),
    }
}

fn read_key(serial: i64) -> Verdict {
    let mut text = [0u8; 64];
    match call!(libc::SYS_keyctl, READ, serial, text.as_mut_ptr(), text.len()) {
        Ok(_) => Open(format!("key {serial} was read")),
        Err(e) => Held(name(e)),
    }
}

fn possessed(keyring: i64) -> Option<Verdict> {
    let text = fs::read_to_string("/proc/keys").ok()?;
    let wanted = format!("{keyring:08x}");
    text.lines().any(|line| line.starts_with(&wanted)).then(|| Open("listed in /proc/keys".into()))
}
