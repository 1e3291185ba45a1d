//! The escape probe: runs inside a sandbox, tries everything in its table, prints one JSON line for each.
//!
//!     escape-probe --list            the table: id, class, priority, what it remembers, what it tries
//!     escape-probe --facts FILE      run all checks; FILE is written by the caller (`escape`)
//!     escape-probe --facts FILE ID…  run these only
//!     escape-probe --ids             who this process is: used for the set-uid and file-capability checks
//!     escape-probe --posture NS UID  what guards it, in lines that are alike from run to run: for the fault injection;
//!                                    --namespaces prints the caller's NS for it
//!
//! Each check runs in a process of its own: it may be killed, drop into a namespace, or change its limits.

mod abi;
mod capabilities;
mod cgroups;
mod check;
mod descriptors;
mod devices;
mod environment;
mod files;
mod identity;
mod ipc;
mod leaks;
mod lifecycle;
mod limits;
mod matrix;
mod mounts;
mod namespaces;
mod network;
mod pid1;
mod posture;
mod proc;
mod races;
mod sockets;
mod sys;
mod syscalls;
mod terminal;
mod userns;

use check::{Check, Facts, Held, NotApplicable, Open, Verdict};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;

const CLASSES: &[(&str, &[Check])] = &[
    ("namespaces", namespaces::CHECKS),
    ("identity", identity::CHECKS),
    ("capabilities", capabilities::CHECKS),
    ("user namespaces", userns::CHECKS),
    ("system calls", syscalls::CHECKS),
    ("foreign ABIs", abi::CHECKS),
    ("sockets", sockets::CHECKS),
    ("terminal", terminal::CHECKS),
    ("devices", devices::CHECKS),
    ("proc and sys", proc::CHECKS),
    ("PID 1", pid1::CHECKS),
    ("mounts", mounts::CHECKS),
    ("files", files::CHECKS),
    ("races", races::CHECKS),
    ("descriptors", descriptors::CHECKS),
    ("network", network::CHECKS),
    ("IPC", ipc::CHECKS),
    ("environment", environment::CHECKS),
    ("limits", limits::CHECKS),
    ("cgroups", cgroups::CHECKS),
    ("leaks", leaks::CHECKS),
];

/// A check that takes longer hangs: bounded, so that one bad check does not hide the others.
const SECONDS_PER_CHECK: u32 = 3;

fn main() {
    // Before anything else is opened: what is there now came from outside.
    let descriptors = descriptors::inherited();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--list"] => list(),
        ["--ids"] => identity::print(),
        ["--namespaces"] => println!("{}", posture::own_namespaces()),
        ["--posture", host, caller] => posture::print(host, caller),
        ["--facts", path, wanted @ ..] => match Facts::read(path, descriptors) {
            Ok(facts) => run(&facts, wanted),
            Err(message) => {
                println!("{{\"event\":\"failed\",\"message\":{}}}", quoted(&message));
                std::process::exit(1);
            }
        },
        _ => {
            eprintln!("usage: escape-probe --list | --ids | --facts FILE [ID...]");
            std::process::exit(2);
        }
    }
}

fn list() {
    for (class, checks) in CLASSES {
        for check in *checks {
            println!(
                "{{\"id\":{},\"class\":{},\"priority\":{},\"remembers\":{},\"tries\":{}}}",
                quoted(check.id),
                quoted(class),
                check.priority,
                quoted(check.remembers),
                quoted(check.tries)
            );
        }
    }
}

fn run(facts: &Facts, wanted: &[&str]) {
    for (class, checks) in CLASSES {
        for check in checks.iter().filter(|c| wanted.is_empty() || wanted.contains(&c.id)) {
            let verdict = in_own_process(check, facts);
            let (result, detail) = match control_reading(verdict, facts.control()) {
                Held(detail) => ("held", detail),
                Open(detail) => ("open", detail),
                NotApplicable(detail) => ("n/a", detail),
            };
            println!(
                "{{\"id\":{},\"class\":{},\"priority\":{},\"result\":\"{result}\",\"detail\":{}}}",
                quoted(check.id),
                quoted(class),
                check.priority,
                quoted(&detail)
            );
        }
    }
    if wanted.is_empty() {
        lifecycle::meet_the_host(facts);
        lifecycle::leave_daemons(facts);
    }
    println!("{{\"event\":\"done\"}}");
}

/// Without a sandbox, "there is no such thing here" is no refusal.
fn control_reading(verdict: Verdict, control: bool) -> Verdict {
    const ABSENT: [&str; 9] = [
        "ENOSYS",
        "EAFNOSUPPORT",
        "EPROTONOSUPPORT",
        "ESOCKTNOSUPPORT",
        "ENOENT",
        "ENODEV",
        "ENXIO",
        "is empty",
        "unset",
    ];
    match verdict {
        Held(detail) if control && ABSENT.iter().any(|absent| detail.trim_end_matches(')').ends_with(absent)) => {
            NotApplicable(format!("this kernel or host has none ({detail})"))
        }
        other => other,
    }
}

fn in_own_process(check: &Check, facts: &Facts) -> Verdict {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors that `pipe2` writes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return NotApplicable(format!("no pipe: {}", sys::name(sys::errno())));
    }
    // SAFETY: the probe has one thread; the child leaves by `_exit`.
    let child = unsafe { libc::fork() };
    // SAFETY: each end belongs to nobody else in this process.
    let (mut reader, mut writer) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    if child == 0 {
        drop(reader);
        // SAFETY: plain calls; SIGALRM has its default action and ends this child.
        unsafe {
            libc::signal(libc::SIGALRM, libc::SIG_DFL);
            libc::alarm(SECONDS_PER_CHECK);
        }
        let answer = match (check.run)(facts) {
            Held(detail) => format!("h{detail}"),
            Open(detail) => format!("o{detail}"),
            NotApplicable(detail) => format!("n{detail}"),
        };
        let _ = writer.write_all(answer.as_bytes());
        // SAFETY: does not return.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    if child < 0 {
        return NotApplicable(format!("no process for it: {}", sys::name(sys::errno())));
    }
    let mut answer = String::new();
    let _ = reader.read_to_string(&mut answer);
    let mut status = 0;
    // SAFETY: `status` outlives the call; the child is ours and not yet waited for.
    unsafe { libc::waitpid(child, &mut status, 0) };
    match (answer.chars().next(), libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))) {
        (_, Some(libc::SIGSYS)) => Held("killed by SIGSYS".into()),
        (Some('h'), _) => Held(answer[1..].into()),
        (Some('o'), _) => Open(answer[1..].into()),
        (Some('n'), _) => NotApplicable(answer[1..].into()),
        (_, Some(libc::SIGALRM)) => NotApplicable(format!("no answer within {SECONDS_PER_CHECK} s")),
        (_, signal) => NotApplicable(format!("the check itself died (signal {signal:?}, status {status})")),
    }
}

/// A JSON string. The probe stays free of dependencies that would have to be static.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for ch in text.chars() {
        match ch {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
