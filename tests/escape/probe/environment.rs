//! What a careless caller hands down with fork and exec: variables, masks, signals, limits of the process.

use crate::check::{Check, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{call, name, status};
use std::fs;

pub const CHECKS: &[Check] = &[
    p1("env.canary", "CVE-2020-14370, CVE-2021-3602", "the secret in the environment", |f| {
        match std::env::vars_os().find(|(_, value)| value.to_string_lossy().contains(f.secret())) {
            Some((variable, _)) => Open(variable.to_string_lossy().into_owned()),
            None => Held("in no variable".into()),
        }
    }),
    p1("env.dangerous", "CVE-2014-6271 class", "variables that change how programs start", |_| {
        const DANGEROUS: [&str; 12] = [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "RUBYOPT",
            "NODE_OPTIONS",
            "GCONV_PATH",
        ];
        match DANGEROUS.iter().find(|variable| std::env::var_os(variable).is_some()) {
            Some(variable) => Open((*variable).into()),
            None => Held("none".into()),
        }
    }),
    p1("env.host_sockets", "agents of the caller", "variables that name sockets of the caller", |_| {
        const SOCKETS: [&str; 6] = [
            "SSH_AUTH_SOCK",
            "DBUS_SESSION_BUS_ADDRESS",
            "XDG_RUNTIME_DIR",
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "DOCKER_HOST",
        ];
        match SOCKETS.iter().find(|variable| std::env::var_os(variable).is_some()) {
            Some(variable) => Open((*variable).into()),
            None => Held("none".into()),
        }
    }),
    p1("env.umask", "files made open to all", "the caller's umask of 0", |_| {
        // SAFETY: a call without memory.
        match unsafe { libc::umask(0o22) } {
            0 => Open("0000".into()),
            mask => Held(format!("{mask:04o}")),
        }
    }),
    p1("env.signals_ignored", "bubblewrap 705", "signals that the caller ignored", |_| mask("SigIgn", PROBE_IGNORES)),
    p1("env.signals_blocked", "trap 6", "signals that the caller blocked", |_| mask("SigBlk", 0)),
    p2("env.personality", "CVE-2016-3672 class", "the caller's personality", |f| {
        let Some(odd) = f.number::<u32>("personality") else { return not_planted("personality") };
        match fs::read_to_string("/proc/self/personality") {
            Ok(now) if u32::from_str_radix(now.trim(), 16).is_ok_and(|now| now & odd != 0) => Open(now.trim().into()),
            Ok(now) => Held(now.trim().into()),
            Err(e) => NotApplicable(e.to_string()),
        }
    }),
    p2("env.timer_slack", "behaviour of the caller", "the caller's timer slack", |f| {
        let Some(odd) = f.number::<i64>("timer_slack") else { return not_planted("timer slack") };
        match call!(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) {
            Ok(now) if now == odd => Open(now.to_string()),
            Ok(now) => Held(now.to_string()),
            Err(e) => NotApplicable(name(e)),
        }
    }),
    p2("env.home", "paths of the caller", "HOME is the caller's", |f| match (f.get("home"), std::env::var("HOME")) {
        (None, _) => not_planted("home"),
        (Some(host), Ok(own)) if own == host => Open(own),
        (_, own) => Held(format!("{own:?}")),
    }),
    p2("env.pwd", "paths of the caller", "PWD or OLDPWD tell the caller's directory", |f| {
        match ["PWD", "OLDPWD"].iter().find(|v| std::env::var(v).is_ok_and(|value| value.contains(f.place()))) {
            Some(variable) => Open((*variable).into()),
            None => Held("neither".into()),
        }
    }),
    p2("env.tmpdir", "paths of the caller", "TMPDIR is the caller's", |f| match std::env::var("TMPDIR") {
        Ok(value) if value.contains(f.place()) => Open(value),
        _ => Held("it is not".into()),
    }),
    p2("env.io_priority", "priorities", "the caller's I/O priority", |f| {
        let Some(odd) = f.number::<i64>("io_priority") else { return not_planted("I/O priority") };
        match call!(libc::SYS_ioprio_get, 1, 0) {
            Ok(now) if now == odd => Open(now.to_string()),
            Ok(now) => Held(now.to_string()),
            Err(e) => NotApplicable(name(e)),
        }
    }),
];

/// Rust's runtime ignores SIGPIPE (13) in every program before `main`.
const PROBE_IGNORES: u64 = 1 << 12;

fn mask(field: &str, allowed: u64) -> Verdict {
    match status(field).and_then(|bits| u64::from_str_radix(&bits, 16).ok()) {
        None => NotApplicable("/proc/self/status is not readable".into()),
        Some(bits) if bits & !allowed == 0 => Held("none".into()),
        Some(bits) => Open(format!("{bits:x}")),
    }
}
