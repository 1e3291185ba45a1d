//! The tier without namespaces, for hosts that forbid them: Landlock, seccomp and resource limits hold a program that
//! otherwise is a process of the host like others. Only on explicit request; what is not isolated is in the report.

use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::ids::Assigned;
use crate::policy::{Mount, Network, Policy};
use crate::report::{Enforced, Mechanism, Requested};
use crate::seccomp::{Compare, Condition, Profile};

/// What the kernel must be able to do: without it a program could read the caller's files, or end its supervisor.
#[cfg(feature = "landlock")]
pub(crate) fn check_kernel(policy: &Policy, abi: landlock::ABI) -> Result<()> {
    let lacking = |message: &str| {
        Err(Failure::new("landlock", "isolation", message)
            .hint("Linux 6.12 with `landlock` in /sys/kernel/security/lsm, or namespaces")
            .unsupported())
    };
    if abi < landlock::ABI::V2 {
        return lacking("this kernel's Landlock cannot keep files from a program (ABI 2 is needed)");
    }
    if abi < landlock::ABI::V6 && !policy.best_effort.allows("landlock") {
        return lacking("this kernel's Landlock cannot keep a program from signalling others (ABI 6 is needed)");
    }
    Ok(())
}

/// The profile without what a namespace would have kept apart, or that Landlock does not look at:
///
/// - Descriptors of processes, of which one can be had of any on the host; a profile of the caller's may want them, for
///   sandboxes in the sandbox.
/// - System V IPC, message queues, and sockets unless the host's network was asked for. Pairs of connected sockets stay;
///   those of datagrams could be pointed elsewhere.
/// - Limits, priorities and processors of other processes: a limit on the caller's CPU time would end it.
/// - Modes, owners, times and attributes of files, unless the program has something to write: no rule of Landlock keeps
///   it from changing them wherever the caller may.
pub(crate) fn narrow(profile: Profile, policy: &Policy) -> Profile {
    let others = |profile: Profile, names: &[&str], argument: u8, value: u64| {
        profile.refusing_where(names, &[Condition::of(argument, Compare::NotEqual, value)])
    };
    let int = |profile: Profile, names: &[&str], argument: u8, value: u64| {
        profile.refusing_where(names, &[Condition::of(argument, Compare::Masked(u32::MAX as u64), value)])
    };
    // 0 is the calling process. PRIO_USER and IOPRIO_WHO_USER are all processes of the caller's user.
    let mut profile = others(profile.refusing(IPC), BY_PID, 0, 0);
    profile = others(profile, &["setpriority", "ioprio_set"], 1, 0);
    profile = int(int(profile, &["setpriority"], 0, 2), &["ioprio_set"], 0, 3);
    if !writes(policy) {
        profile = profile.refusing(METADATA);
    }
    if policy.has_built_in_filter() {
        profile = profile.refusing(&["pidfd_open"]);
    }
    if !policy.network_in_effect().has_own_namespace() {
        return profile;
    }
    profile = others(profile.refusing(&["socket"]), &["socketpair"], 0, libc::AF_UNIX as u64);
    let pairs = [libc::SOCK_STREAM as u64, libc::SOCK_SEQPACKET as u64];
    (0..16).filter(|kind| !pairs.contains(kind)).fold(profile, |profile, kind| {
        profile.refusing_where(&["socketpair"], &[Condition::of(1, Compare::Masked(0xf), kind)])
    })
}

const IPC: &[&str] = &[
    "shmget",
    "shmat",
    "shmctl",
    "shmdt",
    "semget",
    "semop",
    "semctl",
    "semtimedop",
    "msgget",
    "msgsnd",
    "msgrcv",
    "msgctl",
    "mq_open",
    "mq_unlink",
];

/// Calls that change another process if their first argument names one.
const BY_PID: &[&str] =
    &["prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "migrate_pages"];

const METADATA: &[&str] = &[
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "removexattrat",
];

/// Whether the program may write anywhere.
fn writes(policy: &Policy) -> bool {
    policy.mounts.iter().any(|mount| matches!(mount, Mount::Bind { writable: true, .. }))
}

/// What a program may read and write of the host.
pub(crate) fn paths(policy: &Policy, mounts: &[Mount]) -> Vec<(PathBuf, crate::landlock::Access)> {
    use crate::landlock::Access;
    let read = |path: &str| (PathBuf::from(path), Access::Read);
    let mut paths: Vec<_> = crate::resolve::host_view::VIEW.iter().map(|path| read(path)).collect();
    if nix::unistd::geteuid().is_root() {
        paths.retain(|(path, _)| path != Path::new("/etc"));
        paths.extend(readable_by_all(Path::new("/etc")));
    }
    // Of /proc only what is the program's own can be read: Landlock keeps others' memory and environment shut.
    paths.extend([read("/proc"), read("/sys/devices/system/cpu")]);
    if policy.network_in_effect().uses_host_resolver() {
        // Where /etc/resolv.conf leads.
        paths.extend([read("/run/systemd/resolve"), read("/run/resolvconf")]);
    }
    let devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
    paths.extend(devices.map(|path| (PathBuf::from(path), Access::Write)));
    for mount in mounts {
        match mount {
            Mount::Bind { source, writable, .. } => {
                paths.push((source.clone(), if *writable { Access::Write } else { Access::Read }));
            }
            Mount::Device { source, .. } => paths.push((source.clone(), Access::Devices)),
            Mount::Tmpfs { .. } | Mount::File { .. } | Mount::Socket { .. } => {}
        }
    }
    paths
}

/// What everybody may read beneath a directory: no id of its own keeps root's program from the rest. A directory that has
/// nothing else in it is one rule, whatever comes into it later; of the others the names can be listed.
fn readable_by_all(top: &Path) -> Vec<(PathBuf, crate::landlock::Access)> {
    use crate::landlock::Access;
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut whole = true;
    for entry in std::fs::read_dir(top).into_iter().flatten() {
        // What cannot be looked at is not shown. A link is nothing by itself: where it leads to counts.
        let Ok((entry, meta)) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) else {
            whole = false;
            continue;
        };
        let needed = if meta.is_dir() { 0o5 } else { 0o4 };
        if meta.is_symlink() {
            continue;
        }
        if meta.mode() & needed != needed {
            whole = false;
        } else if meta.is_dir() {
            let mut below = readable_by_all(&entry);
            whole &= below.len() == 1 && below[0].1 == Access::Read;
            found.append(&mut below);
        } else {
            found.push((entry, Access::Read));
        }
    }
    if whole {
        return vec![(top.to_owned(), Access::Read)];
    }
    found.push((top.to_owned(), Access::List));
    found
}

/// The caller's name is the program's, and it has no home.
pub(crate) fn account() -> Result<(String, PathBuf)> {
    let name = crate::ids::name_of(nix::unistd::geteuid())?;
    Ok((name.unwrap_or_else(|| "cell".to_owned()), Path::new("/").to_owned()))
}

/// What stands in for the lines about namespaces in a report.
pub(crate) fn report(policy: &Policy, identity: &Assigned) -> Vec<Enforced> {
    let word = |word: &str| Requested::Word(word.to_owned());
    let open = |item, what: &str, why: &str| Enforced::new(item, word(what), Mechanism::Nothing).why(why);
    let mut who = Enforced::new("identity", Requested::Word(policy.identity.user.word()), Mechanism::Nothing)
        .why("it runs as the caller");
    who.host_uid = Some(identity.host_uid);
    who.disjoint = Some(false);
    let network = match policy.network {
        Network::Host => Enforced::new("network", word("host"), Mechanism::Nothing).why(super::enforced::HOST_NETWORK),
        // Less than was asked for in one point: there is no loopback either.
        // The user network is refused when the policy is checked.
        other @ (Network::None | Network::Loopback | Network::User) => {
            Enforced::new("network", word(other.word()), Mechanism::Seccomp)
                .why("no socket can be opened, to loopback neither")
        }
    };
    let mut lines = vec![
        who,
        match identity.groups_dropped {
            true => Enforced::new("groups", word("none"), Mechanism::Supervisor),
            false => open("groups", "none", "it keeps the caller's supplementary groups"),
        },
        network,
        open("isolation", "mounts", "it sees the host's files where Landlock lets it, and can name all"),
        open("isolation", "processes", "it sees the names of the host's processes"),
        open("isolation", "hostname", "it sees the host's name"),
        open("isolation", "temporary directories", "there are none of its own: give it a directory with `rw`"),
    ];
    let filtered = policy.seccomp.is_on();
    for (item, held, why) in [
        ("ipc", filtered, "it can use the System V IPC and message queues of the caller"),
        ("process settings", filtered, "it can change limits and priorities of the caller's processes"),
        (
            "file metadata",
            filtered && !writes(policy),
            "what may write somewhere can change modes, owners, times and attributes of the caller's files anywhere",
        ),
    ] {
        lines.push(match held {
            true => Enforced::new("isolation", word(item), Mechanism::Seccomp),
            false => open("isolation", item, why),
        });
    }
    lines
}
