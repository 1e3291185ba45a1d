//! What this host allows. Each answer is found by doing the thing in a small sandbox, not by looking at versions:
//! distributions patch, containers mask, sysctls forbid.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::sandbox::Sandbox;
use crate::api::streams::Stdio;
use crate::error::Error;
use crate::policy::builder::Builder;
use crate::policy::{HostIds, Isolation};
use crate::report::{Finding, Mechanism, Output, Requested};
use crate::supervise::terminal::TerminalSize;
use crate::{cgroup, sys};

/// Tries out what this host allows. Takes some tens of milliseconds, starts a few small sandboxes as the caller, and
/// leaves nothing behind.
pub fn doctor() -> Vec<Finding> {
    let plain = attempt(Sandbox::builder(), "true");
    vec![
        kernel(),
        sandbox(&plain),
        user_namespaces(plain.is_ok()),
        executable_memory(plain.is_ok()),
        overlay(),
        sub_ids(),
        limit("memory", |builder| builder.memory(64 << 20)),
        limit("pids", |builder| builder.pids(32)),
        limit("cpus", |builder| builder.cpus(1.0)),
        cgroups(),
        seccomp(),
        landlock(&plain),
        landlock_only(),
        terminal(),
        nested(plain.is_ok()),
        network(),
    ]
}

fn finding(name: &'static str, ok: bool, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    let remedy = if ok { String::new() } else { remedy.into() };
    Finding { name, ok, detail: detail.into(), remedy }
}

/// Runs a line of shell; anything but status 0 is told as well.
fn attempt(builder: Builder, line: &str) -> Result<Output, (String, String)> {
    let told = |error: Error| (error.to_string(), error.hint().to_owned());
    let sandbox = builder.timeout(Duration::from_secs(10)).build().map_err(told)?;
    let output = sandbox.command("/bin/sh").args(["-c", line]).output().map_err(told)?;
    if output.outcome.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err((format!("the trial {}: {words}", output.outcome), String::new()))
}

/// A program with a controlling terminal in a devpts of its own.
fn terminal() -> Finding {
    let try_out = || {
        let sandbox = Sandbox::builder().timeout(Duration::from_secs(10)).build()?;
        let mut command = sandbox.command("/bin/sh");
        command.args(["-c", "test -t 0 && : < /dev/tty"]).stdin(Stdio::terminal(TerminalSize::default())).output()
    };
    match try_out() {
        Ok(output) if output.outcome.success() => {
            finding("terminal", true, "programs can have a terminal of the sandbox's own", "")
        }
        Ok(output) => {
            let what = format!("a program at a terminal of its own {}", output.outcome);
            finding("terminal", false, what, "run programs without one: leave out `-t`")
        }
        Err(error) => finding("terminal", false, error.to_string(), error.hint()),
    }
}

/// The network `user`: its rules are made, and a name and a connection go through them, as far as there are programs that ask
/// for one. Nothing leaves the host: both are refused.
fn network() -> Finding {
    let trial = "command -v getent && getent hosts sandcell-doctor.invalid; \
                 command -v bash && bash -c ': </dev/tcp/192.0.2.1/9'; true";
    let rule = "192.0.2.7:9".parse().expect("a rule");
    let output = match attempt(Sandbox::builder().allow_net(rule), trial) {
        Ok(output) => output,
        Err((what, hint)) => return finding("network-user", false, what, hint),
    };
    let network = output.network.clone().unwrap_or_default();
    let saw = |protocol: &str| network.refused().any(|one| one.protocol == protocol);
    let asked = |program: &str| String::from_utf8_lossy(&output.stdout).lines().any(|line| line.ends_with(program));
    let remedy = "load nft_tproxy, nft_log, nft_reject_inet and nfnetlink_log";
    match (saw("dns") || !asked("/getent"), saw("tcp") || !asked("/bash"), network.lost) {
        (_, _, true) => finding("network-user", false, "the relay has ended", "look at the kernel's log for its end"),
        (false, ..) => finding("network-user", false, "datagrams do not come to the relay (TPROXY)", remedy),
        (_, false, _) => finding("network-user", false, "connections do not come to the relay (NFLOG)", remedy),
        _ => {
            let proven = [(saw("dns"), "a name"), (saw("tcp"), "a connection")];
            let proven: Vec<_> = proven.iter().filter(|(saw, _)| *saw).map(|(_, what)| *what).collect();
            let detail = match proven.is_empty() {
                true => "the rules were made; there is no program to try them with".to_owned(),
                false => format!("{} came to the relay, and was refused", proven.join(", and ")),
            };
            finding("network-user", true, detail, "")
        }
    }
}

fn setting(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Finding {
    let name = nix::sys::utsname::uname();
    let release = name.as_ref().map(|n| n.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    finding("kernel", version >= (5, 12), format!("Linux {release}"), "Linux 5.12 or later is needed")
}

fn sandbox(plain: &Result<Output, (String, String)>) -> Finding {
    match plain {
        Ok(output) => {
            let who = &output.identity;
            finding("sandbox", true, format!("ran a program as UID {} (host: {})", who.uid, who.host_uid), "")
        }
        Err((what, hint)) => finding("sandbox", false, what, hint),
    }
}

fn user_namespaces(works: bool) -> Finding {
    let blockers = [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "give the program an AppArmor profile with `userns,`, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let mut details = Vec::new();
    let mut remedies = Vec::new();
    for (path, blocks, remedy) in blockers {
        if let Some(value) = setting(path) {
            details.push(format!("{}={value}", path["/proc/sys/".len()..].replace('/', ".")));
            if value == blocks {
                remedies.push(remedy);
            }
        }
    }
    let remedy = if remedies.is_empty() {
        "no sysctl forbids it: look at the seccomp filter of the container around this process".to_owned()
    } else {
        remedies.join("; ")
    };
    finding("user-namespaces", works, details.join(", "), remedy)
}

fn executable_memory(works: bool) -> Finding {
    let value = setting("/proc/sys/vm/memfd_noexec");
    let forbidden = value.as_deref() == Some("2");
    let detail = match (works, value) {
        (true, _) => "a program in a sealed memory file was executed".to_owned(),
        (false, value) => format!("vm.memfd_noexec={}", value.as_deref().unwrap_or("unknown")),
    };
    let remedy = if forbidden { "sysctl vm.memfd_noexec=1" } else { "see `sandbox`" };
    finding("memfd-exec", works, detail, remedy)
}

/// A directory that goes away with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Scratch> {
        let name = format!("sandcell-doctor-{:016x}", u64::from_ne_bytes(sys::random()?));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn overlay() -> Finding {
    let scratch = Scratch::new().and_then(|scratch| {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir(scratch.0.join("lower"))?;
        fs::write(scratch.0.join("lower/file"), "")?;
        // Whoever the sandbox is on the host has to get in.
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(scratch.0.join("lower"), fs::Permissions::from_mode(0o777))?;
        Ok(scratch)
    });
    let scratch = match scratch {
        Ok(scratch) => scratch,
        Err(error) => {
            let detail = format!("no place for a layer in {}: {error}", std::env::temp_dir().display());
            return finding("overlay", false, detail, "point TMPDIR to a directory that can be written to");
        }
    };
    let mut builder = Sandbox::builder().layer(&scratch.0);
    for dir in ["/usr", "/bin", "/lib", "/lib64"] {
        if Path::new(dir).exists() {
            builder = builder.ro(dir, dir);
        }
    }
    // Up to Linux 6.5 a tmpfs upper mounts and takes files, but cannot replace a directory: it has no user attributes.
    match attempt(builder, "rm -r /lower && mkdir /lower && echo > /lower/new") {
        Ok(_) => finding("overlay", true, "replaced a directory of a layer, upper on tmpfs", ""),
        Err((what, hint)) => {
            let hint =
                if hint.is_empty() { "an upper on tmpfs needs Linux 6.6: use `upper` with a directory" } else { &hint };
            finding("overlay", false, what, hint)
        }
    }
}

fn sub_ids() -> Finding {
    match attempt(Sandbox::builder().host_ids(HostIds::Disjoint), "true") {
        Ok(output) => {
            finding("sub-ids", true, format!("ran with UID {} of the host, leased", output.identity.host_uid), "")
        }
        Err((what, hint)) => finding("sub-ids", false, what, hint),
    }
}

/// A limit that needs a cgroup: does one hold, and by what?
fn limit(item: &'static str, ask: impl Fn(Builder) -> Builder) -> Finding {
    match attempt(ask(Sandbox::builder()), "true") {
        Ok(output) => {
            let by = output.enforced.iter().find(|e| e.item == item).map_or(Mechanism::Nothing, |e| e.by);
            finding(item, by != Mechanism::Nothing, format!("enforced by {}", by.as_str()), "see `cgroups`")
        }
        Err((what, hint)) => finding(item, false, what, hint),
    }
}

/// What the trials above had to choose from.
fn cgroups() -> Finding {
    let drivers: Vec<_> = cgroup::describe().into_iter().filter(|driver| driver.name != "rlimit").collect();
    let holds: Vec<_> = drivers
        .iter()
        .map(|driver| match driver.holds.as_slice() {
            [] => format!("{}: nothing", driver.name),
            holds => format!("{}: {}", driver.name, holds.join(", ")),
        })
        .collect();
    let ok = drivers.iter().any(|driver| !driver.holds.is_empty());
    let mut remedies: Vec<_> =
        drivers.iter().flat_map(|driver| &driver.cannot).map(|cannot| cannot.remedy.as_str()).collect();
    remedies.dedup();
    finding("cgroups", ok, holds.join("; "), remedies.join("; "))
}

fn seccomp() -> Finding {
    match attempt(Sandbox::builder(), "grep Seccomp: /proc/self/status") {
        Ok(output) => {
            let line = String::from_utf8_lossy(&output.stdout).replace(['\n', '\t'], " ");
            let ok = line.trim().ends_with('2');
            finding("seccomp", ok, format!("inside: {}", line.trim()), "the kernel needs CONFIG_SECCOMP_FILTER")
        }
        Err((what, hint)) => finding("seccomp", false, what, hint),
    }
}

fn landlock(plain: &Result<Output, (String, String)>) -> Finding {
    let Ok(output) = plain else { return finding("landlock", false, "not tried", "see `sandbox`") };
    let restricts: Vec<_> = output
        .enforced
        .iter()
        .filter(|line| line.by == Mechanism::Landlock)
        .map(|line| match &line.requested {
            Requested::Word(word) => word.as_str(),
            _ => line.item,
        })
        .collect();
    let remedy = "Linux 5.13 with `landlock` in /sys/kernel/security/lsm; the other walls stand without it";
    match restricts.is_empty() {
        true => finding("landlock", false, "not available", remedy),
        false => finding("landlock", true, format!("{}restricts {}", landlock_version(), restricts.join(", ")), ""),
    }
}

/// The isolation that is left where user namespaces are forbidden.
fn landlock_only() -> Finding {
    match attempt(Sandbox::builder().isolation(Isolation::Landlock), "true") {
        Ok(_) => finding("landlock-only", true, "ran a program with `isolation` set to `landlock`", ""),
        Err((what, hint)) => finding("landlock-only", false, what, hint),
    }
}

#[cfg(feature = "landlock")]
fn landlock_version() -> String {
    format!("ABI {}; ", crate::landlock::running_abi() as i32)
}

#[cfg(not(feature = "landlock"))]
fn landlock_version() -> String {
    String::new()
}

fn nested(works: bool) -> Finding {
    let map = setting("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let detail = match whole {
        true => "not inside a container: this process is in the host's own user namespace",
        false if works => "inside a container or sandbox (a user namespace), and sandboxes work in it",
        false => "inside a container or sandbox (a user namespace), and sandboxes do not work in it",
    };
    finding("nested", works, detail, "run the outer container with user namespaces allowed and an unmasked /proc")
}
