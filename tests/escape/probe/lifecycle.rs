//! What only the host can judge: the probe waits for it to look, and leaves processes behind that must not stay.

use crate::check::Facts;
use std::fs;
use std::time::Duration;

/// How long a daemon lives if nobody ends it: longer than any run, short enough to leave nothing behind for good.
const DAEMON_SECONDS: u32 = 20;

/// Writes what the host compares (ids of files, set-id bits), says so, and waits until it has looked.
pub fn meet_the_host(facts: &Facts) {
    use std::os::unix::fs::PermissionsExt;
    let Some(rw) = facts.get("rw") else { return };
    let _ = fs::write(format!("{rw}/made-inside"), "made inside\n");
    let set_id = format!("{rw}/set-id");
    let _ = fs::write(&set_id, "");
    let _ = fs::set_permissions(&set_id, fs::Permissions::from_mode(0o6755));
    let _ = fs::create_dir(format!("{rw}/directory-made-inside"));
    deeds(facts);
    println!("{{\"event\":\"ready\"}}");
    for _ in 0..2000 {
        if fs::metadata(format!("{rw}/go")).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What shows on the host only: the log cut, a socket in the caller's network, the caller's other process ended.
fn deeds(facts: &Facts) {
    use std::io::Write;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let _ = fs::OpenOptions::new().write(true).truncate(true).open("/proc/self/fd/2");
    for path in facts.list("canaries") {
        let _ = fs::OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(b"changed"));
    }
    let name = format!("{}-inside", facts.place());
    if let Ok(listener) = SocketAddr::from_abstract_name(name).and_then(|a| UnixListener::bind_addr(&a)) {
        // It stays until the host has looked.
        std::mem::forget(listener);
    }
    let own = fs::read_link("/proc/self/ns/pid").map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(pid) = facts.number::<i32>("victim")
        && (facts.get("ns.pid") == Some(&own) || crate::sys::status_of(&pid.to_string(), "Name").is_none())
    {
        let _ = crate::sys::call!(libc::SYS_kill, pid, libc::SIGKILL);
    }
}

/// Three that try to outlive the sandbox: a plain daemon, one that ignores every signal, one that is stopped.
/// Each is in a session of its own, has no parent inside, and keeps stdout open.
pub fn leave_daemons(facts: &Facts) {
    let token = facts.get("daemon_name").unwrap_or("escape-daemon");
    for kind in ["plain", "ignores", "stopped"] {
        crate::sys::in_child(|| {
            // SAFETY: one thread; every path ends in `_exit`.
            unsafe {
                libc::setsid();
                if libc::fork() != 0 {
                    return 0;
                }
                let name = crate::sys::c(&format!("{token}-{kind}"));
                libc::prctl(libc::PR_SET_NAME, name.as_ptr());
                libc::prctl(libc::PR_SET_PDEATHSIG, 0);
                if kind == "ignores" {
                    (1..32).for_each(|signal| {
                        libc::signal(signal, libc::SIG_IGN);
                    });
                }
                libc::signal(libc::SIGALRM, libc::SIG_DFL);
                libc::alarm(DAEMON_SECONDS);
                if kind == "stopped" {
                    libc::raise(libc::SIGSTOP);
                }
                loop {
                    libc::pause();
                }
            }
        });
    }
}
