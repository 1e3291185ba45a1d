//! The caller whose system calls fail: builds one sandbox, runs the posture probe in it and tells what came of it.
//!
//!     faults-victim SCENARIO PLACE
//!
//! PLACE has the probe in `bin`, a `layer`, and the directories `rw` and `upper`. It stops itself (SIGSTOP) before and
//! after what is to be disturbed, so that the tracer knows where that begins and ends.

use sandcell::{
    Builder, Command, Detach, Error, HostIds, Isolation, NamedCell, Outcome, Report, Root, Sandbox, Stdio,
    TerminalSize, Upper,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, scenario, place] = arguments.as_slice() else {
        eprintln!("usage: faults-victim SCENARIO PLACE");
        std::process::exit(2);
    };
    let place = Path::new(place);
    let host = own_namespaces();
    // What the standard library opens once is opened before the descriptors are counted.
    let before = state();
    stop();
    let mut sandbox = None;
    let result = run(scenario, place, &host, &mut sandbox);
    stop();
    if scenario == "careless" {
        leave();
    }
    // The same handle where there is one: a failure must not have spoiled it.
    let again = match &sandbox {
        Some(sandbox) => once(scenario, place, sandbox, &host),
        None => run(scenario, place, &host, &mut sandbox),
    };
    drop(sandbox);
    let after = state();
    let changed: Vec<&String> = before.symmetric_difference(&after).collect();
    println!("{}", json!({ "first": words(&result), "again": words(&again), "changed": changed }));
}

/// Marks the beginning and the end for the tracer, which takes the signal away.
fn stop() {
    // SAFETY: a signal to this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}

/// Leaves a descriptor and a process behind.
fn leave() {
    std::mem::forget(std::fs::File::open("/dev/null"));
    let _ = std::process::Command::new("sleep").arg("30").spawn();
}

fn own_namespaces() -> String {
    use std::os::unix::fs::MetadataExt;
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .map(|name| format!("{name}={}", std::fs::metadata(format!("/proc/self/ns/{name}")).map_or(0, |m| m.ino())))
        .join(",")
}

struct Done {
    posture: String,
    enforced: Vec<String>,
    outcome: String,
    warnings: Vec<String>,
}

fn words(result: &Result<Done, Error>) -> Value {
    match result {
        Ok(done) => json!({
            "posture": done.posture, "enforced": done.enforced, "outcome": done.outcome, "warnings": done.warnings,
        }),
        Err(error) => json!({
            "kind": error.kind(), "stage": error.stage(), "errno": error.errno(), "subject": error.subject(),
            "hint": error.hint(), "error": error.to_string(),
        }),
    }
}

fn run(scenario: &str, place: &Path, host: &str, kept: &mut Option<Sandbox>) -> Result<Done, Error> {
    // Without a mount namespace paths are the host's.
    let bin = place.join("bin");
    let inside = if scenario == "tier" { bin.clone() } else { "/escape".into() };
    let builder = Sandbox::builder().ro(bin, inside).timeout(Duration::from_secs(15));
    let sandbox = set(scenario, builder, place).build()?;
    let done = once(scenario, place, &sandbox, host);
    *kept = Some(sandbox);
    done
}

fn set(scenario: &str, builder: Builder, place: &Path) -> Builder {
    match scenario {
        "shared" => builder.host_ids(HostIds::Shared),
        "leased" | "cell" | "pool" => builder.host_ids(HostIds::Disjoint),
        "layers" => builder
            .root(Root::Layers(vec![place.join("layer")]))
            .rw(place.join("rw"), "/rw")
            .tmpfs("/scratch", Some(1 << 20))
            .file("/etc/made", "made")
            .output_limit(1 << 20)
            .rlimit(nix_resource(), 100, 100),
        "kept" => builder
            .root(Root::Layers(vec![place.join("layer")]))
            .upper(Upper::Dir(place.join("upper")))
            .cap_add(caps::Capability::CAP_NET_BIND_SERVICE),
        "system" => builder.root(Root::Layers(vec![place.join("layer")])).init(true),
        "terminal" | "named" => builder.host_ids(HostIds::Shared),
        "learned" => builder.host_ids(HostIds::Shared),
        "tier" => builder.isolation(Isolation::Landlock),
        // What the judge has to notice.
        "weak" => builder.host_ids(HostIds::Shared).seccomp(sandcell::Seccomp::Off),
        "careless" => builder.host_ids(HostIds::Shared),
        "limits" => {
            builder.host_ids(HostIds::Shared).memory(1 << 28).pids(32).cpus(0.5).cpu_time(Duration::from_secs(5))
        }
        other => panic!("there is no scenario {other}"),
    }
}

fn nix_resource() -> nix::sys::resource::Resource {
    nix::sys::resource::Resource::RLIMIT_NOFILE
}

fn once(scenario: &str, place: &Path, sandbox: &Sandbox, host: &str) -> Result<Done, Error> {
    // SAFETY: a call without arguments or effects.
    let caller = unsafe { libc::geteuid() }.to_string();
    let probe = "/escape/escape-probe";
    let outside = place.join("bin/escape-probe");
    let arguments = ["--posture", host, &caller];
    let (stdout, stderr, report) = if scenario == "named" {
        let (stdout, report) = in_a_named_cell(sandbox.command(probe).args(arguments))?;
        (stdout, Vec::new(), report)
    } else if scenario == "terminal" {
        let (stdout, report) = on_a_terminal(sandbox.command(probe).args(arguments))?;
        (stdout, Vec::new(), report)
    } else if scenario == "cell" {
        let cell = sandbox.start()?;
        let output = cell.command(probe).args(arguments).output()?;
        cell.command(probe).arg("--namespaces").output()?;
        (output.stdout, output.stderr, output.report)
    } else if scenario == "pool" {
        let pool = sandbox.pool(1)?;
        let output = pool.command(probe).args(arguments).output()?;
        pool.command(probe).arg("--namespaces").output()?;
        (output.stdout, output.stderr, output.report)
    } else {
        let mut command = sandbox.command(if scenario == "tier" { outside.as_os_str() } else { probe.as_ref() });
        command.args(arguments).track_changes(scenario == "layers").learn(scenario == "learned");
        let output = command.output()?;
        (output.stdout, output.stderr, output.report)
    };
    let Report { outcome, enforced, warnings, .. } = report;
    let said = if outcome == Outcome::Exited(0) { &stdout } else { &stderr };
    let enforced = enforced.iter().map(|line| format!("{}={:?} by {}", line.item, line.requested, line.by.as_str()));
    Ok(Done {
        posture: String::from_utf8_lossy(said).into_owned(),
        enforced: enforced.collect(),
        outcome: outcome.to_string(),
        warnings,
    })
}

/// What it writes goes to a terminal of the sandbox's own.
fn on_a_terminal(command: &mut Command) -> Result<(Vec<u8>, Report), Error> {
    let mut child = command.stdin(Stdio::terminal(TerminalSize::new(24, 80))).output()?;
    child.stdout.retain(|byte| *byte != b'\r');
    Ok((child.stdout, child.report))
}

/// A cell with a name, until it is removed.
struct Gone(NamedCell);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.remove();
    }
}

/// The main program of a cell, whose output is the log, and a program beside it. Always under one name, which has to be free again.
fn in_a_named_cell(main: &mut Command) -> Result<(Vec<u8>, Report), Error> {
    let cell = Gone(Detach::new("fault").run(main)?);
    let report = cell.0.wait()?;
    let mut stdout = Vec::new();
    let mut log = cell.0.log()?;
    while let Some(line) = log.next_line()? {
        stdout.extend_from_slice(&line.text);
        stdout.extend_from_slice(if line.partial { b"" } else { b"\n" });
    }
    cell.0.remove()?;
    Ok((stdout, report))
}

/// What a library must leave as it was.
fn state() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let target = std::fs::read_link(entry.path()).map(|p| p.display().to_string()).unwrap_or_default();
        if !target.ends_with("/fd") {
            lines.insert(format!("descriptor {number} {target}"));
        }
    }
    for entry in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        lines.insert(format!("thread {}", entry.file_name().to_string_lossy()));
    }
    for line in std::fs::read_to_string("/proc/self/status").unwrap_or_default().lines() {
        let name = line.split(':').next().unwrap_or_default();
        if ["Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff", "CapAmb", "CapInh"].contains(&name)
        {
            lines.insert(line.to_string());
        }
    }
    // Others may mount something meanwhile, below directories of their own.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let others = |line: &&str| line.split(' ').nth(4).is_some_and(|dir| dir.matches('/').count() > 1);
    lines.extend(mounts.lines().filter(|line| !others(line)).map(str::to_string));
    for path in ["/proc/self/limits", "/proc/self/cgroup"] {
        lines.extend(std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_string));
    }
    lines.insert(format!("cwd {:?}", std::env::current_dir().ok()));
    lines.extend(std::env::vars().map(|(key, value)| format!("variable {key}={value}")));
    // SAFETY: a zeroed siginfo_t is a valid place for the answer; nothing is reaped.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        if libc::waitid(libc::P_ALL, 0, &mut info, flags) == 0 {
            lines.insert(format!("child {}", info.si_pid()));
        }
    }
    lines
}
