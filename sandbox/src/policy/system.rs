//! A sandbox for a whole system: what `init` implies, and what makes no sense with it.

use std::time::Duration;

use super::{HostIds, Policy, Root, Seccomp, User};
use crate::error::{Failure, Result};
use crate::kernel_names::Capability;

/// What an init and its services get along with: podman's list. None of them reaches a mount, a network or a process outside.
pub(crate) const CAPABILITIES: [Capability; 11] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// A system that is asked to end stops its services first.
const GRACE: Duration = Duration::from_secs(30);
/// What a distribution has.
const IDS: u32 = 65_536;

fn refused(option: &str, message: &str, hint: &str) -> Result<()> {
    Err(Failure::new("option", option, message).hint(hint).config())
}

pub(crate) fn check(policy: &Policy) -> Result<()> {
    if !policy.init {
        return Ok(());
    }
    if !policy.isolation.has_namespaces() {
        return refused("init", "an init needs namespaces, and `isolation` asks for none", "Leave one of the two out.");
    }
    if matches!(policy.root, Root::Host | Root::Empty) {
        let hint = "Give an image, a root directory or layers that have an init.";
        return refused("init", "an init needs a root file system of its own", hint);
    }
    if !matches!(policy.identity.user, User::Random | User::Root) {
        return refused("init", "an init is root inside", "Leave `user` out; services have their own users.");
    }
    if policy.identity.host_ids == HostIds::Shared && nix::unistd::geteuid().is_root() {
        return refused("host_ids", "root of a system would be the host's root", "Leave `host_ids` out.");
    }
    if policy.identity.keep_caller {
        return refused(
            "init",
            "an init has leased ids, and `keep_id` asks for the caller's",
            "Leave one of the two out.",
        );
    }
    if let Some(capability) = policy.cap_add.iter().find(|capability| !CAPABILITIES.contains(capability)) {
        let message = format!("with an init, {capability} would reach the mounts and the network of the sandbox");
        return refused("cap_add", &message, "Leave it out, or run the program without `init`.");
    }
    if matches!(&policy.seccomp, Seccomp::Profile(profile) if profile.kills(&CAPABILITIES)) {
        let message = "of an init nobody can tell for which call it was ended";
        return refused("seccomp", message, "Use a profile that refuses calls and ends nothing (SCMP_ACT_ERRNO).");
    }
    Ok(())
}

impl Policy {
    /// With what `init` implies.
    pub(crate) fn with_implied(mut self) -> Policy {
        if self.init {
            self.identity.user = User::Root;
            self.identity.count = self.identity.count.max(IDS);
            self.cap_add = CAPABILITIES.to_vec();
            // Root's own id would be the host's root.
            if self.identity.host_ids == HostIds::Auto && nix::unistd::geteuid().is_root() {
                self.identity.host_ids = HostIds::Disjoint;
            }
            if self.grace == Policy::default().grace {
                self.grace = GRACE;
            }
        }
        self
    }
}
