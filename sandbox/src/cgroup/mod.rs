//! Limits of a whole sandbox: cgroups, and what stands in for them.
//!
//! [`prepare`] finds out who can hold each limit. [`Prepared::place`] makes the groups of one sandbox with their limits
//! already in force, before anything is cloned; the sandbox's init is born into them ([`Placement::doors`]) or steps
//! in before it executes anything ([`Placement::join`]). Each limit goes to cgroup v2 where a subtree was delegated, otherwise to a v1 hierarchy that the caller may write to. On hosts that
//! have both, v1 holds the limits and v2 serves to kill, freeze and count.
//!
//! Without cgroups a limit is refused; under best effort a resource limit stands in where there is one, and the report
//! says in what that is weaker.

mod delegation;
mod group;
mod hand_over;
mod hierarchy;
mod parent;
mod placement;
mod settings;
mod sys;
mod system;
#[cfg(feature = "systemd")]
mod systemd;
#[cfg(test)]
mod tests;
mod usage;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kernel_names::Resource;

use crate::error::Result;
use crate::{BestEffort, Enforced, Failure, Limits, Mechanism, Requested};
use delegation::Base;
pub use delegation::adopt_cgroup;
use group::Group;
pub(crate) use hand_over::{GroupRecord, Handed, figures};
use hierarchy::{Controller, Host, Version, writable};
use placement::Refused;
pub(crate) use placement::{Closed, CpuClock, Placement};
use settings::Setting;
pub(crate) use settings::{Cannot, check};

/// Whose processes the limits are for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// Whether the program has UID 0 on the host: the kernel exempts that from `RLIMIT_NPROC`.
    pub(crate) host_root: bool,
    /// How many IDs the sandbox has: `RLIMIT_NPROC` counts for each of them apart.
    pub(crate) ids: u32,
}

/// What [`Prepared::place`] came to.
#[derive(Debug)]
pub(crate) struct Placed {
    /// `None` where no group was asked for, or none could be had under best effort.
    pub(crate) placement: Option<Placement>,
    pub(crate) enforced: Vec<Enforced>,
    /// For init to set before it executes a program. Only under best effort.
    pub(crate) rlimits: Vec<Rlimit>,
}

/// A resource limit that stands in for a limit of a group: which, soft, hard.
pub(crate) type Rlimit = (Resource, u64, u64);

/// Who holds which limit: what can be found out once for many sandboxes, without making anything.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    limits: Limits,
    groups: Vec<Wanted>,
    chosen: Vec<(Setting, Version)>,
    /// Whether init is to watch the CPU time.
    cpu_time: bool,
    /// What no group holds, and best effort is enough for.
    missing: Vec<(&'static str, Requested, Cannot)>,
    best_effort: BestEffort,
    /// Where systemd had to be asked for a group.
    #[cfg(feature = "systemd")]
    _scope: Option<systemd::Scope>,
}

/// A group to be made in one hierarchy.
#[derive(Debug, Clone)]
struct Wanted {
    version: Version,
    parent: PathBuf,
    controllers: Vec<Controller>,
}

/// Looks for groups that can hold `limits`, and for those that count where `usage` is wanted without a limit. Finds the
/// mistakes in `limits`, and what this host cannot hold.
pub(crate) fn prepare(limits: &Limits, best_effort: &BestEffort, usage: bool) -> Result<Prepared> {
    // Nothing to ask the host for: its mounts may be many.
    if *limits == Limits::default() && !usage {
        return Ok(Prepared { best_effort: best_effort.clone(), ..Prepared::default() });
    }
    prepare_on(&Host::read(Path::new("/")), limits, best_effort, usage)
}

fn prepare_on(host: &Host, limits: &Limits, best_effort: &BestEffort, usage: bool) -> Result<Prepared> {
    let settings = settings::compile(limits, host)?;
    let mut prepared = Prepared { limits: limits.clone(), best_effort: best_effort.clone(), ..Prepared::default() };
    if settings.is_empty() && limits.cpu_time.is_none() && !usage {
        return Ok(prepared);
    }
    #[cfg_attr(not(feature = "systemd"), expect(unused_mut, reason = "systemd may have another"))]
    let mut base = delegation::find(host, limits.cgroup.as_deref());
    #[cfg(feature = "systemd")]
    if let Err(cannot) = &base
        && limits.cgroup.is_none()
        && systemd::has_groups(host)
    {
        base = match systemd::Scope::start(host) {
            Ok((scope, base)) => {
                prepared._scope = Some(scope);
                Ok(base)
            }
            Err(scope) => Err(Cannot { why: format!("{}; {}", cannot.why, scope.why), remedy: scope.remedy }),
        };
    }
    let sources = Sources { host, base };
    for setting in settings {
        match sources.choose(&setting) {
            Ok(version) => prepared.chosen.push((setting, version)),
            Err(cannot) => {
                let missing = prepared.tolerated(setting.item, setting.requested, cannot)?;
                prepared.missing.push(missing);
            }
        }
    }
    prepared.groups = sources.wanted(&prepared.chosen, usage || limits.cpu_time.is_some())?;
    if let Some(time) = limits.cpu_time {
        let counts =
            |wanted: &Wanted| wanted.version == Version::V2 || wanted.controllers.contains(&Controller::Cpuacct);
        match sources.base {
            Err(cannot) if !prepared.groups.iter().any(counts) => {
                let missing = prepared.tolerated("cpu_time", milliseconds(time), cannot)?;
                prepared.missing.push(missing);
            }
            _ => prepared.cpu_time = true,
        }
    }
    Ok(prepared)
}

fn milliseconds(time: Duration) -> Requested {
    Requested::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl Prepared {
    /// Makes the groups for one sandbox and sets their limits.
    pub(crate) fn place(&self, facts: Facts) -> Result<Placed> {
        let groups = match self.groups.iter().map(Wanted::make).collect::<Result<Vec<Group>>>() {
            Ok(groups) => groups,
            // Nothing depends on it but figures, and those may be missing.
            Err(_) if self.chosen.is_empty() && !self.cpu_time => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut missing = self.missing.clone();
        let mut placement = Placement::new(groups, self.cpu_time);
        let mut enforced = Vec::new();
        for (setting, version) in &self.chosen {
            match placement.set(setting) {
                Ok(()) => {
                    let by = if *version == Version::V2 { Mechanism::Cgroup2 } else { Mechanism::Cgroup1 };
                    let mut line = Enforced::new(setting.item, setting.requested.clone(), by);
                    line.why = setting.v1_weaker.filter(|_| *version == Version::V1).map(str::to_owned);
                    enforced.push(line);
                }
                Err(Refused::Cannot(cannot)) => {
                    missing.push(self.tolerated(setting.item, setting.requested.clone(), cannot)?);
                }
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        if let Some(time) = self.limits.cpu_time.filter(|_| self.cpu_time) {
            enforced.push(Enforced::new("cpu_time", milliseconds(time), Mechanism::Supervisor));
        }
        let mut rlimits = Vec::new();
        for (item, requested, cannot) in missing {
            enforced.push(match fallback(item, &self.limits, facts) {
                Some((rlimit, weaker)) => {
                    rlimits.push(rlimit);
                    Enforced::new(item, requested, Mechanism::Rlimit).why(format!("{weaker} ({})", cannot.why))
                }
                None => Enforced::new(item, requested, Mechanism::Nothing).why(cannot.why),
            });
        }
        Ok(Placed { placement: (!placement.is_empty()).then_some(placement), enforced, rlimits })
    }

    /// A limit that no group takes: refused, unless best effort is enough for it.
    fn tolerated(
        &self,
        item: &'static str,
        requested: Requested,
        cannot: Cannot,
    ) -> Result<(&'static str, Requested, Cannot)> {
        if self.best_effort.allows(item) {
            return Ok((item, requested, cannot));
        }
        let instead = fallback(item, &self.limits, Facts::default())
            .map(|(_, weaker)| format!("set `best_effort` to {item}: a resource limit stands in, and {weaker}"));
        let hint = [Some(cannot.remedy).filter(|remedy| !remedy.is_empty()), instead];
        let hint = hint.into_iter().flatten().collect::<Vec<_>>().join("; or ");
        let message = format!("no cgroup can hold this limit: {}", cannot.why);
        Err(Failure::new("cgroup-find", item, message).hint(hint).unsupported())
    }
}

impl Wanted {
    fn make(&self) -> Result<Group> {
        let failed = |e: &io::Error| {
            let hint = match e.raw_os_error() {
                Some(libc::EAGAIN) => "a group above allows no more groups: see cgroup.max.descendants",
                Some(libc::ENOENT) => "the group was removed since the sandbox was built: build it anew",
                _ => {
                    "the caller must be able to make directories there: have the group given to it, or name another by `cgroup`"
                }
            };
            let subject = self.parent.display().to_string();
            Failure::new("cgroup-create", subject, "no group could be made here").cause(e).hint(hint).setup()
        };
        let group = Group::create(self.version, &self.parent, self.controllers.clone()).map_err(|e| failed(&e))?;
        if self.version == Version::V1 && self.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&group, &self.parent).map_err(|e| failed(&e))?;
        }
        Ok(group)
    }
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

    /// One group in each hierarchy that is needed. Hands controllers down in the v2 base where that was not done yet.
    fn wanted(&self, chosen: &[(Setting, Version)], usage: bool) -> Result<Vec<Wanted>> {
        let needs = |version| chosen.iter().filter(move |(_, v)| *v == version).map(|(setting, _)| setting.controller);
        let counting = [Controller::Memory, Controller::Pids, Controller::Io].into_iter().filter(|_| usage);
        let mut groups: Vec<Wanted> = Vec::new();
        if let Ok(base) = &self.base {
            let controllers =
                distinct(needs(Version::V2).chain(counting.clone().filter(|c| base.controllers.contains(c))));
            base.enable(&controllers).map_err(|e| {
                Failure::new("cgroup-create", base.dir.display().to_string(), "its controllers cannot be handed down")
                    .cause(&e)
                    .hint("the caller must be able to write to its cgroup.subtree_control, and no process may be in it")
                    .setup()
            })?;
            groups.push(Wanted { version: Version::V2, parent: base.dir.clone(), controllers });
        }
        // On a host with both, v2 has these for every group.
        let clock = self.base.is_err().then_some(Controller::Cpuacct).filter(|_| usage);
        let freezer = self.base.is_err().then_some(Controller::Freezer);
        let optional = counting.chain(clock).chain(freezer).filter(|c| self.v1_parent(*c).is_ok());
        for controller in distinct(needs(Version::V1).chain(optional)) {
            // Where two share a hierarchy, one group does for both.
            if groups.iter().any(|group| group.controllers.contains(&controller)) {
                continue;
            }
            let (hierarchy, parent) = match (self.host.v1(controller), self.v1_parent(controller)) {
                (Some(hierarchy), Ok(parent)) => (hierarchy, parent),
                // It was there when it was chosen.
                (_, Err(cannot)) if needs(Version::V1).any(|needed| needed == controller) => {
                    let name = controller.name(Version::V1);
                    return Err(Failure::new("cgroup-create", name, cannot.why).hint(cannot.remedy).setup());
                }
                _ => continue,
            };
            let controllers = hierarchy.controllers.clone();
            groups.push(Wanted { version: Version::V1, parent: parent.to_owned(), controllers });
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

/// A new v1 cpuset is empty, and nothing can live in an empty one.
fn inherit_cpuset(group: &Group, parent: &Path) -> io::Result<()> {
    for (file, effective) in [("cpuset.mems", "cpuset.effective_mems"), ("cpuset.cpus", "cpuset.effective_cpus")] {
        let value =
            std::fs::read_to_string(parent.join(effective)).or_else(|_| std::fs::read_to_string(parent.join(file)))?;
        group.write(file, value.trim())?;
    }
    Ok(())
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

/// One way to have limits on this host, for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Driver {
    /// `cgroup2`, `systemd`, `cgroup1` or `rlimit`.
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
    let mut drivers = vec![driver("cgroup2", &|controller| sources.v2(controller).map(drop))];
    #[cfg(feature = "systemd")]
    if sources.base.is_err() && systemd::has_groups(host) {
        // Found out by asking for one; it goes at once.
        let scope = systemd::Scope::start(host);
        let base = scope.as_ref().map(|(_, base)| base.clone()).map_err(Cannot::clone);
        let scoped = Sources { host, base };
        drivers.push(driver("systemd", &|controller| scoped.v2(controller).map(drop)));
    }
    drivers.push(driver("cgroup1", &|controller| sources.v1_parent(controller).map(drop)));
    drivers.push(Driver { name: "rlimit", holds: vec!["memory", "pids", "cpu_time"], cannot: vec![weaker] });
    drivers
}
