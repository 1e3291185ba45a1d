//! The caller's terminal: what is typed into it runs as the caller.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{Answer, call, close, name, open, openable};

pub const CHECKS: &[Check] = &[
    p1("tty.tiocsti", "CVE-2017-5226, CVE-2016-7545, CVE-2016-9016", "TIOCSTI pushes a key press", |f| {
        on_terminals(f, |fd| call!(libc::SYS_ioctl, fd, libc::TIOCSTI, c" ".as_ptr()))
    }),
    p1("tty.tiocsti_highbits", "CVE-2019-10063, CVE-2019-7303", "TIOCSTI with a bit above 32 set", |f| {
        on_terminals(f, |fd| call!(libc::SYS_ioctl, fd, libc::TIOCSTI | 1 << 32, c" ".as_ptr()))
    }),
    p1("tty.tioclinux", "CVE-2023-28100", "TIOCLINUX pastes on a console", tioclinux),
    p1("tty.ctty", "CVE-2017-5226", "/dev/tty is a controlling terminal", |_| openable("/dev/tty", libc::O_RDWR)),
    p1("tty.session", "CVE-2017-5226", "shares the session of the caller", session),
    p1("tty.steal", "terminal taken from its session", "TIOCSCTTY takes the caller's terminal", |f| {
        let _ = call!(libc::SYS_setsid);
        on_terminals(f, |fd| call!(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 1))
    }),
    p1("tty.path", "CVE-2025-52565 class", "opens the caller's terminal by its path", |f| {
        let Some(path) = f.get("tty") else { return not_planted("terminal") };
        match (openable(path, libc::O_RDWR), f.number::<u64>("tty_device")) {
            // A pts of the same number in a devpts of our own is no leak; the device number tells.
            (Open(_), Some(device)) if device_of(path) != Some(device) => Held(format!("{path} is another one")),
            (verdict, _) => verdict,
        }
    }),
    p2("tty.foreground", "trap: tcsetpgrp stops the host", "changes the foreground process group", |f| {
        // SAFETY: a call without arguments or effects.
        let group = unsafe { libc::getpgrp() };
        on_terminals(f, |fd| call!(libc::SYS_ioctl, fd, libc::TIOCSPGRP, &raw const group))
    }),
];

fn device_of(path: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|m| m.dev())
}

/// Every terminal within reach: the standard descriptors, inherited ones, `/dev/tty`, the caller's by name.
fn on_terminals(facts: &Facts, attempt: impl Fn(i64) -> Answer) -> Verdict {
    let mut descriptors: Vec<i64> = vec![0, 1, 2];
    descriptors.extend(facts.descriptors.iter().map(|fd| i64::from(*fd)));
    descriptors.extend(open("/dev/tty", libc::O_RDWR | libc::O_NOCTTY));
    let mut refused = None;
    for fd in descriptors {
        // SAFETY: only asks what the descriptor is.
        if unsafe { libc::isatty(fd as i32) } == 0 {
            continue;
        }
        match attempt(fd) {
            Ok(_) => return Open(format!("on descriptor {fd}")),
            Err(e) => refused = Some(name(e)),
        }
    }
    Held(refused.unwrap_or_else(|| "no terminal within reach".into()))
}

fn tioclinux(facts: &Facts) -> Verdict {
    static PASTE: u8 = 3;
    // Only a virtual console knows TIOCLINUX; on a pty the line discipline answers ENOTTY where no filter did before.
    let mut answers = Vec::new();
    for fd in [0i64, 1, 2] {
        // SAFETY: only asks what the descriptor is.
        if unsafe { libc::isatty(fd as i32) } == 1 {
            answers.push(call!(libc::SYS_ioctl, fd, libc::TIOCLINUX, &raw const PASTE));
        }
    }
    if let Ok(fd) = open("/dev/tty1", libc::O_RDWR | libc::O_NOCTTY) {
        // Subcode 6 only reads the shift state: no harm to a console that is really there.
        answers.push(call!(libc::SYS_ioctl, fd, libc::TIOCLINUX, [6u8, 0].as_mut_ptr()));
        close(fd);
    }
    let _ = facts;
    match answers.iter().find(|a| matches!(a, Ok(_) | Err(libc::ENOTTY | libc::EINVAL))) {
        Some(Ok(_)) => Open("it worked".into()),
        Some(Err(e)) => Open(format!("reached: {}", name(*e))),
        None => Held(answers.first().map_or("no terminal within reach".into(), |a| format!("{a:?}"))),
    }
}

fn session(facts: &Facts) -> Verdict {
    let Some(host) = facts.number::<i64>("session") else { return not_planted("session") };
    match call!(libc::SYS_getsid, 0) {
        Ok(0) => Open("the session's leader is outside".into()),
        Ok(own) if own == host && same_pid_namespace(facts) => Open(format!("it is the caller's, {own}")),
        Ok(own) => Held(format!("{own} is a session of its own")),
        Err(e) => NotApplicable(name(e)),
    }
}

/// Numbers of processes mean the same inside and outside only then.
fn same_pid_namespace(facts: &Facts) -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|own| Some(&*own.to_string_lossy()) == facts.get("ns.pid"))
}
