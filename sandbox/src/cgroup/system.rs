//! The group that an init of a system has for its own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::placement::Placement;
use crate::error::{Failure, Result};
use crate::subid_tree::Hands;

/// Its name within the sandbox's group, which holds the limits and all processes of ours.
const NAME: &str = "system";
/// What whoever has a group may write: cgroups(7), delegation.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
/// A system with more services than these has others to worry about; without an end it could make the kernel list groups
/// for ever.
const LIMITS: [(&str, &str); 2] = [("cgroup.max.descendants", "4096"), ("cgroup.max.depth", "32")];

impl Placement {
    /// Makes it, for that user of the host. Whoever writes 0 to the descriptor is in it. `None`: there is no v2 group.
    pub(crate) fn for_system(&self, owner: (u32, u32)) -> Result<Option<OwnedFd>> {
        let Some(group) = self.v2() else { return Ok(None) };
        let path = group.path.join(NAME);
        let made = LIMITS
            .iter()
            .try_for_each(|(file, most)| group.write(file, most))
            .and_then(|()| fs::create_dir(&path))
            .and_then(|()| fs::OpenOptions::new().write(true).open(path.join("cgroup.procs")));
        let failed = |e: &io::Error| {
            let hint = "The caller must be able to make directories there, and to give them away.";
            let subject = path.display().to_string();
            Failure::new("cgroup-create", subject, "cannot be made and given to an init").cause(e).hint(hint).setup()
        };
        let entrance = made.map_err(|e| failed(&e))?;
        let hands = Hands::new()?;
        for place in std::iter::once(path.clone()).chain(DELEGATED.map(|file| path.join(file))) {
            let given = fs::File::open(&place).map_err(|e| failed(&e))?;
            hands.chown(given.as_fd(), owner.0, owner.1).map_err(|errno| failed(&errno.into()))?;
        }
        Ok(Some(entrance.into()))
    }
}
