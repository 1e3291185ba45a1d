//! The lines of a report that say what carries out what was asked for.

use std::cell::LazyCell;

#[cfg(feature = "landlock")]
use super::isolation;
use crate::error::{Failure, Result};
use crate::ids::Assigned;
#[cfg(feature = "landlock")]
use crate::landlock::running_abi;
use crate::policy::{Isolation, Mount, Network, Seccomp};
use crate::report::{Enforced, Mechanism, Requested};
use crate::resolve::Resolved;

/// Why nothing enforces the host's network: it was asked for.
pub(crate) const HOST_NETWORK: &str = "it was asked for: the program has the host's network, abstract sockets included";

/// What carries out what was asked for.
pub(crate) fn enforced(resolved: &Resolved, identity: &Assigned, upper_on_disk: bool) -> Vec<Enforced> {
    let policy = &resolved.policy;
    let mut list = match policy.isolation {
        Isolation::Namespaces => separated(resolved, identity),
        #[cfg(feature = "landlock")]
        Isolation::Landlock => isolation::report(policy, identity),
        // Refused when the policy was checked.
        #[cfg(not(feature = "landlock"))]
        Isolation::Landlock => Vec::new(),
    };
    let mut number = |item, value: Option<u64>, by| {
        if let Some(value) = value {
            list.push(Enforced::new(item, Requested::Number(value), by));
        }
    };
    if !upper_on_disk {
        number("disk", policy.limits.disk, Mechanism::Tmpfs);
        number("inodes", policy.limits.inodes, Mechanism::Tmpfs);
    }
    number("timeout", policy.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)), Mechanism::Supervisor);
    number("output_limit", policy.output_limit, Mechanism::Supervisor);
    for (resource, soft, hard) in &policy.rlimits {
        let hard = if hard == soft { String::new() } else { format!(":{hard}") };
        list.push(Enforced::new("rlimit", Requested::Word(format!("{resource:?}={soft}{hard}")), Mechanism::Rlimit));
    }
    let filter = match policy.seccomp {
        Seccomp::Off => None,
        Seccomp::Default => Some("default"),
        Seccomp::Profile(_) => Some("profile"),
    };
    if let Some(word) = filter {
        list.push(Enforced::new("seccomp", Requested::Word(word.to_owned()), Mechanism::Seccomp));
    }
    list.extend(resolved.notes.iter().cloned().chain(read_only_devices(resolved)));
    for (item, limit) in [("disk", policy.limits.disk), ("inodes", policy.limits.inodes)] {
        if let (Some(limit), true) = (limit, upper_on_disk) {
            let why = "before Linux 6.6 the upper of the overlay lies on disk, where it has no limit";
            list.push(Enforced::new(item, Requested::Number(limit), Mechanism::Nothing).why(why));
        }
    }
    list
}

/// What the namespaces carry out.
fn separated(resolved: &Resolved, identity: &Assigned) -> Vec<Enforced> {
    let word = |word: &str| Requested::Word(word.to_owned());
    let mut list = Vec::new();
    let mut who = Enforced::new("identity", Requested::Word(resolved.user.word()), Mechanism::Namespace);
    who.host_uid = Some(identity.host_uid);
    who.disjoint = Some(identity.disjoint);
    who.why = identity.why_shared.clone();
    list.push(who);
    let groups = Enforced::new("groups", Requested::Word("none".to_owned()), Mechanism::Namespace);
    list.push(if identity.groups_dropped {
        groups
    } else {
        let why = "the kernel lets no one-id map drop the caller's supplementary groups: give the user sub-ids";
        Enforced { by: Mechanism::Nothing, ..groups }.why(why)
    });
    let network = resolved.policy.network_in_effect();
    let network = Enforced::new("network", word(network.word()), Mechanism::Namespace);
    list.push(match resolved.policy.network_in_effect() {
        Network::Host => Enforced { by: Mechanism::Nothing, ..network }.why(HOST_NETWORK),
        Network::None | Network::Loopback | Network::User => network,
    });
    list
}

/// Every rule of Landlock, but those that may be left out, is one that this kernel can enforce.
#[cfg(feature = "landlock")]
pub(crate) fn require_landlock(resolved: &Resolved) -> Result<()> {
    let best_effort = &resolved.policy.best_effort;
    for line in super::landlock_report(resolved, running_abi()) {
        let Requested::Word(rule) = &line.requested else { continue };
        let item = format!("landlock:{rule}");
        let left_out = best_effort.allows("landlock") || best_effort.allows(&item);
        if line.by == Mechanism::Nothing && !left_out {
            let why = line.why.unwrap_or_default();
            return Err(Failure::new("landlock", rule, format!("this rule cannot be enforced here: {why}"))
                .hint(format!("do without it: best effort for {item:?}"))
                .unsupported());
        }
    }
    Ok(())
}

/// Devices that are not to be written to, each with what keeps programs from it.
fn read_only_devices(resolved: &Resolved) -> Vec<Enforced> {
    let devices = resolved.files.mounts.iter().filter_map(|mount| match mount {
        Mount::Device { dest, writable: false, .. } => Some(Requested::Word(format!("{}:ro", dest.display()))),
        Mount::Device { .. } | Mount::Bind { .. } | Mount::Tmpfs { .. } | Mount::File { .. } | Mount::Socket { .. } => {
            None
        }
    });
    // Asked of the kernel only where there is one.
    let why = LazyCell::new(|| why_writable(resolved));
    let line = |word| match *why {
        None => Enforced::new("device", word, Mechanism::Landlock),
        Some(why) => Enforced::new("device", word, Mechanism::Nothing).why(why),
    };
    devices.map(line).collect()
}

#[cfg(feature = "landlock")]
fn why_writable(resolved: &Resolved) -> Option<&'static str> {
    super::landlock::why_writable(resolved, running_abi())
}

#[cfg(not(feature = "landlock"))]
fn why_writable(_: &Resolved) -> Option<&'static str> {
    Some("this library was built without Landlock")
}

/// A device that is not to be written to is not, or the caller has accepted that it is.
pub(crate) fn require_read_only_devices(resolved: &Resolved) -> Result<()> {
    if read_only_devices(resolved).is_empty() || resolved.policy.best_effort.allows("device") {
        return Ok(());
    }
    let Some(why) = why_writable(resolved) else { return Ok(()) };
    let failure = Failure::new("option", "device", format!("`ro` cannot be kept: {why}"));
    Err(failure.hint("Leave `ro` out, or what is in its way; or do without: best effort for \"device\".").unsupported())
}
