//! A command as the init of a system.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::api::command::Command;
use crate::api::shared::Shared;
use crate::error::{Failure, Result};
use crate::plan;
use crate::policy::Policy;
use crate::resolve::Resolved;
use crate::supervise::init::Init;
use crate::sys::beneath;
use crate::wire::{Ask, NO_SLOT};

/// Where an init is, if nobody names another.
pub(crate) const INIT: &str = "/sbin/init";

impl Command {
    /// Whether it is what a system lives for.
    pub(super) fn is_init(&self, policy: &Policy, one_shot: bool) -> bool {
        policy.init && (one_shot || self.is_main)
    }

    /// What a request for an init says more, and its group, which becomes the descriptor at `index`.
    pub(super) fn system(
        &self,
        shared: &Shared,
        init: &Init,
        one_shot: bool,
        index: u32,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<OwnedFd>> {
        let policy = shared.policy();
        if !self.is_init(policy, one_shot) {
            return Ok(None);
        }
        let refused =
            |option: &str, message: &str, hint: &str| Err(Failure::new("option", option, message).hint(hint).config());
        if self.learn {
            return refused("learn", "the calls of a whole system are not noted", "Learn from one program at a time.");
        }
        if self.terminal_streams() != 0 {
            let hint = "Start it with a name, and use `exec -it NAME`.";
            return refused("tty", "an init has no terminal: its services would wait for it", hint);
        }
        let own = (init.identity.host_uid, init.identity.host_gid);
        let group = init.groups(|placement| placement.for_system(own))?.flatten();
        if group.is_none() && !policy.best_effort.allows("init") {
            let message = "an init needs a control group of its own, and no cgroup v2 can be written to here";
            return Err(Failure::new("cgroup-find", "init", message)
                .hint("Start the caller in a group that was delegated to it (`systemd-run --user --scope -p Delegate=yes`), or do without by best effort for \"init\": systemd does not boot then, others do.")
                .unsupported());
        }
        let [masked, restricted] = plan::hidden_from_init(shared.host_files()?, init.identity.maps_host_root());
        let index = if group.is_some() { index } else { NO_SLOT };
        Ask::System { index, masked: &masked, restricted: &restricted }.write(bytes);
        Ok(group)
    }
}

/// The signal on which an init ends its system: by the name of its program, behind links.
pub(crate) fn stop_signal(resolved: &Resolved, program: &Path) -> i32 {
    let name = real_name(resolved, program);
    // systemd(1), SIGRTMIN+3 as the C library counts; busybox's init, which Alpine's OpenRC has; openrc-init(8).
    match name.as_str() {
        name if name.contains("systemd") => libc::SIGRTMIN() + 3,
        name if name.contains("busybox") => libc::SIGUSR2,
        _ => libc::SIGTERM,
    }
}

/// A link may lead into another layer: then its own words tell.
fn real_name(resolved: &Resolved, program: &Path) -> String {
    let within = program.strip_prefix("/").unwrap_or(program);
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    for layer in resolved.files.topmost_first() {
        let Ok(root) = beneath::place(layer.as_ref()) else { continue };
        if let Ok(found) = beneath::open_within(root.as_fd(), within, OFlag::O_PATH) {
            // The kernel says where that is.
            return std::fs::read_link(beneath::path_of(found.as_fd()))
                .map_or_else(|_| last(program), |path| last(&path));
        }
        let Ok(link) = beneath::open_within(root.as_fd(), within, OFlag::O_PATH | OFlag::O_NOFOLLOW) else { continue };
        if let Ok(target) = nix::fcntl::readlinkat(link.as_fd(), "") {
            return last(Path::new(&target));
        }
    }
    last(program)
}
