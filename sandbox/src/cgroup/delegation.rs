//! Where on a cgroup v2 host groups for sandboxes may be made.
//!
//! A group with processes of its own cannot hand memory, pids or io down to groups beneath it (the
//! no-internal-process rule of cgroups(7)). A caller that sits in the group which was delegated to it therefore has to
//! step down into a leaf first; that is [`adopt_cgroup`], and nothing else here moves the caller.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::hierarchy::{Controller, Host, Version, writable};
use super::settings::Cannot;
use crate::Failure;
use crate::error::Result;

/// The leaf that [`adopt_cgroup`] makes.
const CALLER: &str = "sandcell-caller";

const RUN_IN_SCOPE: &str = "start the program with `systemd-run --user --scope -p Delegate=yes PROGRAM` and let it call \
    sandcell::adopt_cgroup(), or name a delegated group with `cgroup`, or build with the feature `systemd`";

/// A group beneath which sandboxes get theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) dir: PathBuf,
    /// What groups beneath it have, or can be given.
    pub(super) controllers: Vec<Controller>,
}

impl Base {
    fn at(dir: &Path) -> Base {
        let handed_down = list(dir, "cgroup.subtree_control");
        // The root of the host is exempt from the rule; only there `cgroup.type` is missing.
        let free =
            is_host_root(dir) || fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty());
        let controllers = match free && writable(&dir.join("cgroup.subtree_control")) {
            true => list(dir, "cgroup.controllers"),
            false => handed_down,
        };
        Base { dir: dir.to_owned(), controllers }
    }

    /// Hands `needed` down to the groups beneath, where that has not been done yet.
    pub(super) fn enable(&self, needed: &[Controller]) -> io::Result<()> {
        let there = list(&self.dir, "cgroup.subtree_control");
        let missing: Vec<String> =
            needed.iter().filter(|c| !there.contains(c)).map(|c| format!("+{}", c.name(Version::V2))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join("cgroup.subtree_control"))?
            .write_all(missing.join(" ").as_bytes())
    }
}

fn list(dir: &Path, file: &str) -> Vec<Controller> {
    Controller::parse(&fs::read_to_string(dir.join(file)).unwrap_or_default(), Version::V2)
}

fn is_host_root(dir: &Path) -> bool {
    !dir.join("cgroup.type").exists()
}

/// Finds the base: the group that the caller names, or else one that the caller has been given.
pub(super) fn find(host: &Host, named: Option<&Path>) -> Result<Base, Cannot> {
    let Some(v2) = host.v2() else {
        return Err(Cannot::new("no cgroup v2 is mounted", "mount it: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`"));
    };
    if let Some(dir) = named {
        usable(dir)?;
        // clone(2) into a group asks for this, and so does moving between groups.
        if let Some(own) = &v2.own {
            let common = own.ancestors().find(|ancestor| dir.starts_with(ancestor)).unwrap_or(&v2.mount);
            if !writable(&common.join("cgroup.procs")) {
                return Err(Cannot::new(
                    format!(
                        "{} is what the caller and {} have in common, and the caller may not move processes there",
                        common.display(),
                        dir.display()
                    ),
                    "start the caller in the same delegated subtree",
                ));
            }
        }
        return Ok(Base::at(dir));
    }
    let Some(own) = &v2.own else {
        return Err(Cannot::new(
            "the mounted cgroup v2 does not show the caller's own group",
            "name a delegated group with `cgroup`",
        ));
    };
    if is_host_root(own) {
        return usable(own).map(|()| Base::at(own));
    }
    match own.parent().filter(|parent| parent.starts_with(&v2.mount)) {
        Some(parent) if usable(parent).is_ok() && delegated(parent, host) => Ok(Base::at(parent)),
        _ if usable(own).is_ok() && delegated(own, host) => Err(Cannot::new(
            format!(
                "the caller itself sits in {}, which was delegated to it, and a group with processes cannot hand limits down",
                own.display()
            ),
            "call sandcell::adopt_cgroup() once, early: it moves the caller into a group of its own below that one; or have \
             systemd do it (DelegateSubgroup=)",
        )),
        _ => Err(Cannot::new(format!("{} was not delegated to the caller", own.display()), RUN_IN_SCOPE)),
    }
}

fn usable(dir: &Path) -> Result<(), Cannot> {
    match [dir, &dir.join("cgroup.procs")].into_iter().find(|path| !writable(path)) {
        Some(path) => Err(Cannot::new(format!("the caller may not write to {}", path.display()), RUN_IN_SCOPE)),
        None => Ok(()),
    }
}

/// Being able to write is not enough where systemd runs: it would take controllers away again from groups that it has not
/// given out. It marks those that it has.
fn delegated(dir: &Path, host: &Host) -> bool {
    if !host.systemd() {
        return true;
    }
    for group in dir.ancestors() {
        if (host.marked)(group) || is_own_scope(group) {
            return true;
        }
        // A unit of its own below a delegated group belongs to another (the user's) systemd.
        let unit = group.extension().is_some_and(|e| e == "slice" || e == "service" || e == "scope");
        if unit || group == host.root {
            return false;
        }
    }
    false
}

/// Scopes that this library had made are delegated; the users' managers of older versions (252) do not mark what they
/// hand over.
fn is_own_scope(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("sandcell-") && name.ends_with(".scope")
}

/// Moves the calling process, all its threads included, into a cgroup of its own below the one in which it is, so that
/// sandboxes can get theirs beside it with limits in force. Only for cgroup v2, and only where the caller's own
/// group was delegated to it: `Delegate=yes` in a service, `systemd-run --user --scope -p Delegate=yes`, a container with
/// a writable cgroup file system. Returns the group beneath which sandboxes will be made.
///
/// With the feature `systemd`, where nothing was delegated, systemd is asked for a scope of the caller's own with
/// `Delegate=yes`, and the caller is moved into that first.
///
/// Nothing in this library calls it: call it once, early, before other processes are started. It does nothing where
/// limits work already. The cgroup stays, empty, when the caller ends; whoever delegated the subtree removes it.
///
/// # Errors
///
/// [`Error::Unsupported`](crate::Error::Unsupported) where the caller's group was not delegated, or holds other
/// processes too: those are not this library's to move. The caller is then where it was before.
///
/// See cgroups(7), "Delegation" and "no internal processes".
pub fn adopt_cgroup() -> Result<PathBuf> {
    let host = Host::read(Path::new("/"));
    #[cfg(feature = "systemd")]
    if find(&host, None).is_err() && own_delegated(&host).is_none() && super::systemd::has_groups(&host) {
        super::systemd::move_caller(&host).map_err(|e| {
            Failure::new("cgroup-adopt", "systemd", "gives the caller no scope").cause(&e).unsupported()
        })?;
        return adopt(&Host::read(Path::new("/")));
    }
    adopt(&host)
}

/// The caller's own group, if it was delegated to it.
fn own_delegated(host: &Host) -> Option<&Path> {
    host.v2().and_then(|v2| v2.own.as_deref()).filter(|own| usable(own).is_ok() && delegated(own, host))
}

pub(super) fn adopt(host: &Host) -> Result<PathBuf> {
    let cannot = match find(host, None) {
        Ok(base) => return Ok(base.dir),
        Err(cannot) => cannot,
    };
    let Some(own) = own_delegated(host) else {
        return Err(Failure::new("cgroup-adopt", "cgroup", cannot.why).hint(cannot.remedy).unsupported());
    };
    let failed = |dir: &Path, e: &io::Error| {
        Failure::new("cgroup-adopt", dir.display().to_string(), "moving the caller into a group of its own failed")
            .cause(e)
            .setup()
    };
    let leaf = own.join(CALLER);
    match fs::create_dir(&leaf) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&leaf, &e)),
        _ => {}
    }
    let enter = |dir: &Path| fs::OpenOptions::new().write(true).open(dir.join("cgroup.procs"))?.write_all(b"0");
    enter(&leaf).map_err(|e| failed(&leaf, &e))?;
    let others = fs::read_to_string(own.join("cgroup.procs")).map_err(|e| failed(own, &e))?;
    if !others.is_empty() {
        enter(own).map_err(|e| failed(own, &e))?;
        let _ = fs::remove_dir(&leaf);
        let others: Vec<&str> = others.lines().take(10).collect();
        return Err(Failure::new(
            "cgroup-adopt",
            own.display().to_string(),
            format!("other processes are in it: {}", others.join(", ")),
        )
        .hint("start the caller in a delegated group of its own: `systemd-run --user --scope -p Delegate=yes PROGRAM`")
        .unsupported());
    }
    Ok(own.to_owned())
}
