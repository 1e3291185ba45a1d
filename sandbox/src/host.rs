//! What this host allows. Each answer is found by doing the thing in a small sandbox, not by looking at versions:
//! distributions patch, containers mask, sysctls forbid.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::outcome::{Mechanism, Output};
use crate::policy::HostIds;
use crate::sandbox::Sandbox;
use crate::{Builder, Error, limits, sys};

/// One thing that sandboxes need or can use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Stable name, such as `sandbox`, `overlay` or `sub-ids`.
    pub name: &'static str,
    /// Whether it works here.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty where it works.
    pub remedy: String,
}

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
        nested(plain.is_ok()),
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
    let drivers: Vec<_> = limits::describe().into_iter().filter(|driver| driver.name != "rlimit").collect();
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
            crate::Requested::Word(word) => word.as_str(),
            _ => line.item,
        })
        .collect();
    let remedy = "Linux 5.13 with `landlock` in /sys/kernel/security/lsm; the other walls stand without it";
    match restricts.is_empty() {
        true => finding("landlock", false, "not available", remedy),
        false => finding("landlock", true, format!("{}restricts {}", landlock_version(), restricts.join(", ")), ""),
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
        true => "this process is not in a user namespace of its own",
        false => "this process is in a user namespace itself (a container or a sandbox)",
    };
    finding("nested", works, detail, "run the outer container with user namespaces allowed and an unmasked /proc")
}
