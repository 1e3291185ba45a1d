//! Limits of a whole sandbox: cgroups, and what stands in for them.
//!
//! [`place`] makes the groups with their limits already in force, before anything is cloned; the sandbox's init is born
//! into them ([`Placement::clone_into`]) or steps in before it executes anything ([`Placement::join`]). Each limit goes
//! to cgroup v2 where a subtree was delegated, otherwise to a v1 hierarchy that the caller may write to. On hosts that
//! have both, v1 holds the limits and v2 serves to kill, freeze and count.
//!
//! Without cgroups a limit is refused; under best effort a resource limit stands in where there is one, and the report
//! says in what that is weaker.

mod delegation;
mod group;
mod hierarchy;
mod settings;
mod sys;
#[cfg(test)]
mod tests;
mod usage;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::resource::Resource;

use crate::error::Result;
use crate::{BestEffort, Enforced, Error, Failure, Limits, Mechanism, Requested};
use delegation::Base;
pub use delegation::adopt_cgroup;
use group::Group;
use hierarchy::{Controller, Host, Version, writable};
pub(crate) use settings::{Cannot, check};
use settings::{Setting, Write};
pub(crate) use usage::GroupUsage;

/// What else bears on the limits of a sandbox.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// Whether usage is wanted even where no limit is.
    pub(crate) usage: bool,
    /// Whether the program has UID 0 on the host: the kernel exempts that from `RLIMIT_NPROC`.
    pub(crate) host_root: bool,
    /// How many IDs the sandbox has: `RLIMIT_NPROC` counts for each of them apart.
    pub(crate) ids: u32,
}

/// What [`place`] came to.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// `None` where no group was asked for, or none could be had under best effort.
    pub(crate) placement: Option<Placement>,
    pub(crate) enforced: Vec<Enforced>,
    /// For init to set before it executes a program. Only under best effort.
    pub(crate) rlimits: Vec<Rlimit>,
}

/// A resource limit that stands in for a limit of a group: which, soft, hard.
pub(crate) type Rlimit = (Resource, u64, u64);

/// The groups of one sandbox. Dropping it kills what is in them and removes them.
#[derive(Debug)]
pub(crate) struct Placement {
    groups: Vec<Group>,
    /// What was written where, to see at the end whether it still holds.
    written: Vec<(Setting, Version)>,
    join: Vec<OwnedFd>,
    cpu_clock: Option<CpuClock>,
}

/// A file that tells the CPU time of all processes of a sandbox; `pread` it at 0.
#[derive(Debug)]
pub(crate) struct CpuClock {
    pub(crate) file: OwnedFd,
    /// v1: a bare number of nanoseconds. Otherwise v2: a first line `usage_usec N`.
    pub(crate) nanoseconds: bool,
}

/// What is left to say when a sandbox has ended.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) usage: GroupUsage,
    /// Limits that no longer held at the end, by name, and why: someone else changed the group or took its controller.
    pub(crate) lost: Vec<(&'static str, String)>,
    /// Whether the groups are gone.
    pub(crate) removed: Result<()>,
}

/// Makes the groups for one sandbox and sets their limits.
pub(crate) fn place(limits: &Limits, best_effort: &BestEffort, facts: Facts) -> Result<Placed> {
    place_on(&Host::read(Path::new("/")), limits, best_effort, facts)
}

fn place_on(host: &Host, limits: &Limits, best_effort: &BestEffort, facts: Facts) -> Result<Placed> {
    let settings = settings::compile(limits, host)?;
    let mut placed = Placed::default();
    if settings.is_empty() && limits.cpu_time.is_none() && !facts.usage {
        return Ok(placed);
    }
    let sources = Sources { host, base: delegation::find(host, limits.cgroup.as_deref()) };
    let mut chosen = Vec::new();
    for setting in settings {
        match sources.choose(&setting) {
            Ok(version) => chosen.push((setting, version)),
            Err(cannot) => {
                placed.without_cgroup(setting.item, setting.requested, &cannot, limits, best_effort, facts)?
            }
        }
    }
    let groups = match sources.make_groups(&chosen, facts.usage || limits.cpu_time.is_some()) {
        Ok(groups) => groups,
        // Nothing depends on it but figures, and those may be missing.
        Err(_) if chosen.is_empty() => Vec::new(),
        Err(error) => return Err(error),
    };

    let mut written = Vec::new();
    for (setting, version) in chosen {
        let group = group_for(&groups, setting.controller).filter(|group| group.version == version);
        let group =
            group.ok_or_else(|| Failure::new("cgroup-limit", setting.item, "its group was not made").setup())?;
        match apply(group, &setting) {
            Ok(()) => {
                let by = mechanism(version);
                let mut line = Enforced::new(setting.item, setting.requested.clone(), by);
                line.why = setting.v1_weaker.filter(|_| version == Version::V1).map(str::to_owned);
                placed.enforced.push(line);
                written.push((setting, version));
            }
            Err(Refused::Cannot(cannot)) => {
                placed.without_cgroup(setting.item, setting.requested, &cannot, limits, best_effort, facts)?;
            }
            Err(Refused::Failed(error)) => return Err(error),
        }
    }

    let cpu_clock = if limits.cpu_time.is_some() { cpu_clock(&groups) } else { None };
    if let Some(time) = limits.cpu_time {
        let requested = Requested::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        match (&cpu_clock, &sources.base) {
            (Some(_), _) => placed.enforced.push(Enforced::new("cpu_time", requested, Mechanism::Supervisor)),
            (None, Err(cannot)) => placed.without_cgroup("cpu_time", requested, cannot, limits, best_effort, facts)?,
            (None, Ok(base)) => {
                let cannot = Cannot::new(format!("{} does not tell CPU time", base.dir.display()), "");
                placed.without_cgroup("cpu_time", requested, &cannot, limits, best_effort, facts)?;
            }
        }
    }
    if !groups.is_empty() {
        let join = groups.iter().filter(|group| group.version == Version::V1).map(Group::entrance);
        let join = join.collect::<io::Result<_>>().map_err(|e| failed("cgroup-create", "cgroup.procs", &e))?;
        placed.placement = Some(Placement { groups, written, join, cpu_clock });
    }
    Ok(placed)
}

/// What this host offers for groups.
struct Sources<'a> {
    host: &'a Host,
    base: Result<Base, Cannot>,
}

impl Sources<'_> {
    /// Which version of cgroups takes a setting, v2 first.
    fn choose(&self, setting: &Setting) -> Result<Version, Cannot> {
        let v2 = self.v2(setting.controller).and_then(|_| setting.v2.as_ref().map(drop).map_err(Cannot::clone));
        let Err(v2) = v2 else { return Ok(Version::V2) };
        let Some(hierarchy) = self.host.v1(setting.controller) else { return Err(v2) };
        let writable = self.v1_parent(setting.controller).map(drop);
        let possible = writable.and_then(|()| setting.v1.as_ref().map(drop).map_err(Cannot::clone));
        possible.map(|()| Version::V1).map_err(|v1| Cannot {
            why: format!("{} (cgroup v1 at {}; v2: {})", v1.why, hierarchy.mount.display(), v2.why),
            remedy: v1.remedy,
        })
    }

    fn v2(&self, controller: Controller) -> Result<&Base, Cannot> {
        let base = self.base.as_ref().map_err(Cannot::clone)?;
        if base.controllers.contains(&controller) {
            return Ok(base);
        }
        let name = controller.name(Version::V2);
        let available = self.host.v2().is_some_and(|v2| v2.controllers.contains(&controller));
        Err(Cannot::new(
            format!("{} does not have the controller `{name}`", base.dir.display()),
            match available {
                true => format!(
                    "have it delegated: for users of systemd `Delegate=cpu cpuset io memory pids` in a drop-in of user@.service; \
                     otherwise `echo +{name} > cgroup.subtree_control` in each group above"
                ),
                false => format!(
                    "the kernel has no `{name}` controller to give: see cgroup_no_v1= and cgroup_disable= in its command line"
                ),
            },
        ))
    }

    /// The caller's own group in a v1 hierarchy: limits on the caller hold for its sandboxes too.
    fn v1_parent(&self, controller: Controller) -> Result<&Path, Cannot> {
        let hierarchy = self.host.v1(controller);
        let own = hierarchy.and_then(|h| h.own.as_deref());
        match own {
            Some(own) if writable(own) => Ok(own),
            Some(own) => Err(Cannot::new(
                format!("the caller may not write to {}", own.display()),
                "run as root, or chown a group of each v1 hierarchy to the user and start the caller in it; better: boot with \
                 systemd.unified_cgroup_hierarchy=1",
            )),
            None => Err(Cannot::new(
                format!("no cgroup with `{}` is to be seen", controller.name(Version::V1)),
                "mount the cgroup file system where the caller sees it",
            )),
        }
    }

    /// One group in each hierarchy that is needed.
    fn make_groups(&self, chosen: &[(Setting, Version)], usage: bool) -> Result<Vec<Group>> {
        let needs = |version| chosen.iter().filter(move |(_, v)| *v == version).map(|(setting, _)| setting.controller);
        let mut groups = Vec::new();
        if let Ok(base) = &self.base {
            let counting = [Controller::Memory, Controller::Pids, Controller::Io];
            let counting = counting.into_iter().filter(|c| usage && base.controllers.contains(c));
            let controllers = distinct(needs(Version::V2).chain(counting));
            base.enable(&controllers).map_err(|e| failed("cgroup-create", &base.dir.display().to_string(), &e))?;
            groups.push(create(Version::V2, &base.dir, controllers)?);
        }
        // On a host with both, v2 has these for every group.
        let (clock, freezer) = match self.base {
            Ok(_) => (None, None),
            Err(_) => (Some(Controller::Cpuacct), Some(Controller::Freezer)),
        };
        let counting = [Some(Controller::Memory), Some(Controller::Pids), Some(Controller::Io), clock];
        let counting = counting
            .into_iter()
            .flatten()
            .filter(|c| usage && !groups.iter().any(|g: &Group| g.controllers.contains(c)));
        let optional = distinct(counting.chain(freezer).filter(|c| self.v1_parent(*c).is_ok()));
        for controller in distinct(needs(Version::V1).chain(optional)) {
            // Where two share a hierarchy, one group does for both.
            if groups.iter().any(|group| group.controllers.contains(&controller)) {
                continue;
            }
            let (Some(hierarchy), Ok(parent)) = (self.host.v1(controller), self.v1_parent(controller)) else {
                continue;
            };
            let group = create(Version::V1, parent, hierarchy.controllers.clone())?;
            if group.controllers.contains(&Controller::Cpuset) {
                inherit_cpuset(&group, parent)
                    .map_err(|e| failed("cgroup-create", &group.path.display().to_string(), &e))?;
            }
            groups.push(group);
        }
        Ok(groups)
    }
}

fn distinct(controllers: impl Iterator<Item = Controller>) -> Vec<Controller> {
    let mut seen = Vec::new();
    for controller in controllers {
        if !seen.contains(&controller) {
            seen.push(controller);
        }
    }
    seen
}

fn create(version: Version, parent: &Path, controllers: Vec<Controller>) -> Result<Group> {
    Group::create(version, parent, controllers).map_err(|e| failed("cgroup-create", &parent.display().to_string(), &e))
}

/// A new v1 cpuset is empty, and nothing can live in an empty one.
fn inherit_cpuset(group: &Group, parent: &Path) -> io::Result<()> {
    for (file, effective) in [("cpuset.mems", "cpuset.effective_mems"), ("cpuset.cpus", "cpuset.effective_cpus")] {
        let value =
            std::fs::read_to_string(parent.join(effective)).or_else(|_| std::fs::read_to_string(parent.join(file)))?;
        group.write(file, value.trim())?;
    }
    Ok(())
}

fn cpu_clock(groups: &[Group]) -> Option<CpuClock> {
    groups.iter().find_map(|group| {
        let nanoseconds = group.version == Version::V1;
        if nanoseconds && !group.controllers.contains(&Controller::Cpuacct) {
            return None;
        }
        let file = group.open_to_read(if nanoseconds { "cpuacct.usage" } else { "cpu.stat" }).ok()?;
        Some(CpuClock { file, nanoseconds })
    })
}

fn group_for(groups: &[Group], controller: Controller) -> Option<&Group> {
    groups.iter().find(|group| group.controllers.contains(&controller))
}

fn mechanism(version: Version) -> Mechanism {
    match version {
        Version::V1 => Mechanism::Cgroup1,
        Version::V2 => Mechanism::Cgroup2,
    }
}

/// What a control file says where no limit is set: v2 `max` (before a period, too), v1 the largest number, or -1 for CPU time.
fn unlimited(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    first == "max" || first == "-1" || first.parse::<u64>().is_ok_and(|n| n >= i64::MAX as u64 - 4095)
}

enum Refused {
    /// The kernel does not have it, or not for this caller.
    Cannot(Cannot),
    Failed(Error),
}

/// Writes a setting and, for a cpuset, looks whether the kernel took it: v2 falls back to all CPUs without a word.
fn apply(group: &Group, setting: &Setting) -> Result<(), Refused> {
    for write in writes(setting, group.version) {
        let Err(e) = group.write(write.file, &write.value) else { continue };
        let path = group.path.join(write.file).display().to_string();
        match e.raw_os_error() {
            Some(libc::ENOENT) if write.optional => {}
            Some(libc::ENOENT) if write.file.contains("swap") || write.file.contains("memsw") => {
                return Err(Refused::Cannot(Cannot::new(
                    "this host swaps, and its kernel does not count swap for groups",
                    "boot with swapaccount=1, or turn swap off: `swapoff -a`",
                )));
            }
            Some(libc::ENOENT | libc::EACCES | libc::EPERM | libc::EROFS | libc::EOPNOTSUPP) => {
                return Err(Refused::Cannot(Cannot::new(format!("{path}: {e}"), "")));
            }
            _ => {
                let failure =
                    Failure::new("cgroup-limit", setting.item, format!("writing {} to {path}", write.value)).cause(&e);
                return Err(Refused::Failed(failure.hint(hint(setting, &e)).setup()));
            }
        }
    }
    if setting.controller == Controller::Cpuset && group.version == Version::V2 {
        let effective = group.read("cpuset.cpus.effective").ok();
        let asked = writes(setting, group.version).first().and_then(|write| settings::parse_cpus(&write.value));
        if effective.as_deref().and_then(settings::parse_cpus) != asked {
            let has = effective.unwrap_or_default();
            return Err(Refused::Cannot(Cannot::new(
                format!("the caller's own group has only the CPUs {}", has.trim()),
                "ask for CPUs among these",
            )));
        }
    }
    Ok(())
}

fn hint(setting: &Setting, e: &io::Error) -> &'static str {
    match (setting.controller, e.raw_os_error()) {
        (Controller::Cpu, Some(libc::EINVAL)) => "a group above has a lower CPU limit: ask for less",
        (Controller::Memory, Some(libc::EBUSY)) => "more than that is in use already and cannot be reclaimed",
        (Controller::Io, Some(libc::ENODEV)) => "name a whole disk: see lsblk",
        _ => "",
    }
}

fn writes(setting: &Setting, version: Version) -> &[Write] {
    let writes = if version == Version::V2 { &setting.v2 } else { &setting.v1 };
    writes.as_deref().unwrap_or_default()
}

fn failed(stage: &'static str, subject: &str, e: &io::Error) -> Error {
    let hint = match e.raw_os_error() {
        Some(libc::EBUSY) => {
            "a group with processes in it cannot hand limits down: call sandcell::adopt_cgroup() first"
        }
        Some(libc::EAGAIN | libc::ENOSPC) => "a group above allows no more groups: see cgroup.max.descendants",
        _ => "",
    };
    Failure::new(stage, subject, "the group could not be made").cause(e).hint(hint).setup()
}

impl Placed {
    /// A limit that no group takes: refused, or under best effort handed to a resource limit or to nobody.
    fn without_cgroup(
        &mut self,
        item: &'static str,
        requested: Requested,
        cannot: &Cannot,
        limits: &Limits,
        best_effort: &BestEffort,
        facts: Facts,
    ) -> Result<()> {
        if !best_effort.allows(item) {
            let message = format!("no cgroup can hold this limit: {}", cannot.why);
            let hint = match (cannot.remedy.as_str(), fallback(item, limits, facts)) {
                (remedy, None) => remedy.to_owned(),
                ("", Some((_, weaker))) => format!("`best_effort` for it uses a resource limit, and {weaker}"),
                (remedy, Some((_, weaker))) => {
                    format!("{remedy}; or `best_effort` for it uses a resource limit, and {weaker}")
                }
            };
            return Err(Failure::new("cgroup-find", item, message).hint(hint).unsupported());
        }
        let line = match fallback(item, limits, facts) {
            Some((rlimit, weaker)) => {
                self.rlimits.push(rlimit);
                Enforced::new(item, requested, Mechanism::Rlimit).why(format!("{weaker} ({})", cannot.why))
            }
            None => Enforced::new(item, requested, Mechanism::Nothing).why(cannot.why.clone()),
        };
        self.enforced.push(line);
        Ok(())
    }
}

/// The resource limit nearest to a limit, and in what it is weaker.
fn fallback(item: &str, limits: &Limits, facts: Facts) -> Option<(Rlimit, &'static str)> {
    match item {
        "memory" => Some((
            (Resource::RLIMIT_AS, limits.memory?, limits.memory?),
            "it holds for the address space of each process, not for what all use together",
        )),
        "pids" if !facts.host_root => {
            // Init counts too.
            let count = limits.pids? + 1;
            let weaker = match facts.ids {
                0 | 1 => "it counts all processes of the user, before Linux 5.14 those outside of the sandbox too",
                _ => "it counts for each user ID of the sandbox apart",
            };
            Some(((Resource::RLIMIT_NPROC, count, count), weaker))
        }
        "cpu_time" => {
            let seconds = limits.cpu_time?;
            let seconds = seconds.as_secs() + u64::from(seconds.subsec_nanos() > 0);
            let rlimit = (Resource::RLIMIT_CPU, seconds, seconds.saturating_add(1));
            Some((rlimit, "it holds for each process apart and in whole seconds"))
        }
        _ => None,
    }
}

impl Placement {
    fn v2(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.version == Version::V2)
    }

    /// The v2 group, for `CLONE_INTO_CGROUP` (Linux 5.7).
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.v2().map(Group::fd)
    }

    /// The v1 groups: the new process writes "0" to each of these before it executes anything.
    pub(crate) fn join(&self) -> &[OwnedFd] {
        &self.join
    }

    /// The same for the v2 group, where `clone3` is refused.
    pub(crate) fn join_v2(&self) -> Result<Option<OwnedFd>> {
        let entrance = self.v2().map(Group::entrance).transpose();
        entrance.map_err(|e| failed("cgroup-create", "cgroup.procs", &e))
    }

    /// Where init reads the CPU time that `cpu_time` limits; `None` where that was not asked for.
    pub(crate) fn cpu_clock(&self) -> Option<&CpuClock> {
        self.cpu_clock.as_ref()
    }

    /// What has been used so far.
    pub(crate) fn usage(&self) -> GroupUsage {
        usage::read(&self.groups)
    }

    /// Whether a process of the sandbox, at any depth, was killed for memory.
    pub(crate) fn oom_killed(&self) -> bool {
        group_for(&self.groups, Controller::Memory).and_then(usage::oom_kills).is_some_and(|kills| kills > 0)
    }

    /// Kills all in it.
    pub(crate) fn kill(&self) -> Result<()> {
        self.control("cgroup-kill", Group::kill)
    }

    /// Stops all in it and waits until it stands still.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.control("cgroup-freeze", |group| group.freeze(true))
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.control("cgroup-freeze", |group| group.freeze(false))
    }

    fn control(&self, stage: &'static str, act: impl Fn(&Group) -> io::Result<()>) -> Result<()> {
        let Some(group) = self.v2().or_else(|| group_for(&self.groups, Controller::Freezer)) else {
            return Err(Failure::new(stage, "cgroup", "no group of this sandbox can do that")
                .hint("have a cgroup v2 subtree, or the v1 freezer, delegated to the caller")
                .unsupported());
        };
        act(group).map_err(|e| {
            Failure::new(stage, group.path.display().to_string(), "the group did not follow").cause(&e).setup()
        })
    }

    /// Changes the limits that `limits` names; the others stay. Only those whose controller the sandbox was started with.
    pub(crate) fn update(&mut self, limits: &Limits) -> Result<()> {
        for setting in settings::compile(limits, &Host::read(Path::new("/")))? {
            let group = group_for(&self.groups, setting.controller).ok_or_else(|| {
                Failure::new("cgroup-limit", setting.item, "the sandbox was started without a limit of this kind")
                    .hint("set one at the start; it can be changed from then on")
                    .unsupported()
            })?;
            let usable = if group.version == Version::V2 { &setting.v2 } else { &setting.v1 };
            if let Err(cannot) = usable {
                return Err(Failure::new("cgroup-limit", setting.item, cannot.why.clone())
                    .hint(cannot.remedy.clone())
                    .unsupported());
            }
            // v1 keeps memory + swap above memory at every moment: on the way up the other order is the right one.
            let mut reversed = setting.clone();
            let _ = reversed.v1.as_mut().map(|writes| writes.reverse());
            match apply(group, &setting).or_else(|_| apply(group, &reversed)).or_else(|_| apply(group, &setting)) {
                Ok(()) => {}
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Cannot(cannot)) => {
                    let why = format!("the limit cannot be changed: {}", cannot.why);
                    return Err(Failure::new("cgroup-limit", setting.item, why)
                        .hint("was the controller taken away?")
                        .unsupported());
                }
            }
            let version = group.version;
            self.written.retain(|(old, _)| old.item != setting.item || setting.item == "io_max");
            self.written.push((setting, version));
        }
        Ok(())
    }

    /// The limits that do not hold any more.
    fn lost(&self) -> Vec<(&'static str, String)> {
        let mut lost = Vec::new();
        for (setting, _) in &self.written {
            let Some(group) = group_for(&self.groups, setting.controller) else { continue };
            // The file that carries the limit comes first.
            let Some(write) = writes(setting, group.version).first() else { continue };
            let why = match group.read(write.file) {
                Ok(text) if unlimited(&text) || (setting.item == "io_max" && text.trim().is_empty()) => {
                    "someone lifted it while the sandbox ran"
                }
                Ok(_) => continue,
                Err(_) => "its controller was taken away while the sandbox ran",
            };
            lost.push((setting.item, format!("{}: {why}", group.path.join(write.file).display())));
        }
        lost
    }

    /// Ends what is still in the groups, takes the last figures and removes the groups.
    pub(crate) fn close(mut self) -> Closed {
        let _ = self.kill();
        let lost = self.lost();
        // The last ones to die are charged until they are gone, and nothing is readable once the group is.
        let groups = std::mem::take(&mut self.groups);
        for group in &groups {
            group.wait_until_empty();
        }
        let (usage, mut removed) = (usage::read(&groups), Ok(()));
        for group in &groups {
            if let Err(e) = group.remove() {
                let left =
                    Failure::new("cgroup-remove", group.path.display().to_string(), "the group could not be removed");
                removed = Err(left
                    .cause(&e)
                    .hint("a process in it does not die; the next sandbox removes the group")
                    .setup());
            }
        }
        Closed { usage, lost, removed }
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        if !self.groups.is_empty() {
            let _ = self.kill();
        }
        for group in &self.groups {
            let _ = group.remove();
        }
    }
}

/// One way to have limits on this host, for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Driver {
    /// `cgroup2`, `cgroup1` or `rlimit`.
    pub(crate) name: &'static str,
    /// The limits that it can hold here, by option.
    pub(crate) holds: Vec<&'static str>,
    /// Why it holds no more, and what would help; empty where nothing is amiss.
    pub(crate) cannot: Vec<Cannot>,
}

/// What this host offers, in the order in which it is used.
pub(crate) fn describe() -> Vec<Driver> {
    describe_on(&Host::read(Path::new("/")))
}

const NEEDS: [(&str, Controller); 5] = [
    ("memory", Controller::Memory),
    ("pids", Controller::Pids),
    ("cpus", Controller::Cpu),
    ("cpuset", Controller::Cpuset),
    ("io_max", Controller::Io),
];

fn describe_on(host: &Host) -> Vec<Driver> {
    let sources = Sources { host, base: delegation::find(host, None) };
    let driver = |name, can: &dyn Fn(Controller) -> Result<(), Cannot>| {
        let (mut holds, mut cannot) = (Vec::new(), Vec::new());
        for (item, controller) in NEEDS {
            match can(controller) {
                Ok(()) => holds.push(item),
                Err(why) if cannot.contains(&why) => {}
                Err(why) => cannot.push(why),
            }
        }
        Driver { name, holds, cannot }
    };
    let weaker =
        Cannot::new("resource limits hold for each process or user, not for a sandbox", "used under best effort only");
    vec![
        driver("cgroup2", &|controller| sources.v2(controller).map(drop)),
        driver("cgroup1", &|controller| sources.v1_parent(controller).map(drop)),
        Driver { name: "rlimit", holds: vec!["memory", "pids", "cpu_time"], cannot: vec![weaker] },
    ]
}
