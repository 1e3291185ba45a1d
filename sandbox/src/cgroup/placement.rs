//! The groups of one live sandbox: entering, measuring, changing and ending it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::group::{Group, PATIENCE};
use super::hierarchy::{Controller, Host, Version};
use super::settings::{self, Cannot, Setting, Write};
use super::usage::{self, GroupUsage};
use crate::error::Result;
use crate::{Error, Failure, Limits, wire};

/// The groups of one sandbox. Dropping it kills what is in them and removes them.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(super) groups: Vec<Group>,
    /// What was written where, to see at the end whether it still holds.
    pub(super) written: Vec<Setting>,
    /// Whether `cpu_time` is limited.
    cpu_time: bool,
    /// Where the supervisor is while the sandbox is frozen.
    pub(super) aside: Option<Group>,
    /// Processes of ours, besides init, that the limit of processes must have room for.
    keepers: u64,
    /// Whether somebody else ends and removes them.
    pub(super) of_another: bool,
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

impl Placement {
    pub(super) fn new(groups: Vec<Group>, cpu_time: bool) -> Placement {
        Placement { groups, written: Vec::new(), cpu_time, aside: None, keepers: 0, of_another: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Puts a limit in force.
    pub(super) fn set(&mut self, setting: &Setting) -> Result<(), Refused> {
        let group = self.group(setting.controller).ok_or_else(|| {
            Refused::Cannot(Cannot::new("its group was not made", "start it with a limit of this kind"))
        })?;
        apply(group, setting)?;
        self.written.retain(|old| old.item != setting.item || setting.item == "io_max");
        self.written.push(setting.clone());
        Ok(())
    }

    /// The group in which `controller` counts.
    pub(super) fn group(&self, controller: Controller) -> Option<&Group> {
        self.groups.iter().find(|group| group.controllers.contains(&controller))
    }

    pub(super) fn v2(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.version == Version::V2)
    }

    /// The v1 groups: the new process writes "0" to each of these before it executes anything. Opened for that alone: a
    /// sandbox that runs takes no more of its caller's descriptors than it must.
    pub(crate) fn join(&self) -> Result<Vec<OwnedFd>> {
        let v1 = self.groups.iter().filter(|group| group.version == Version::V1);
        v1.map(Group::entrance).collect::<io::Result<_>>().map_err(|e| no_entrance(&e))
    }

    /// The same, and the v2 group for `CLONE_INTO_CGROUP` (Linux 5.7).
    pub(crate) fn doors(&self) -> Result<(Vec<OwnedFd>, Option<OwnedFd>)> {
        let group = self.v2().map(Group::directory).transpose().map_err(|e| no_entrance(&e))?;
        Ok((self.join()?, group))
    }

    /// The same for the v2 group, where `clone3` is refused.
    pub(crate) fn join_v2(&self) -> Result<Option<OwnedFd>> {
        let entrance = self.v2().map(Group::entrance).transpose();
        entrance.map_err(|e| no_entrance(&e))
    }

    /// Where init reads the CPU time that `cpu_time` limits; `None` where that was not asked for.
    pub(crate) fn cpu_clock(&self) -> Result<Option<CpuClock>> {
        self.cpu_time.then(|| cpu_clock(&self.groups)).transpose().map_err(|e| no_entrance(&e))
    }

    /// What has been used so far.
    pub(crate) fn usage(&self) -> GroupUsage {
        usage::read(&self.groups)
    }

    /// Whether a process of the sandbox, at any depth, was killed for memory.
    pub(crate) fn oom_killed(&self) -> bool {
        self.group(Controller::Memory).and_then(usage::oom_kills).is_some_and(|kills| kills > 0)
    }

    /// Kills all in it.
    pub(crate) fn kill(&self) -> Result<()> {
        self.control("cgroup-kill", Group::kill)
    }

    /// A file that thaws what `freeze` stops, and which version's words it takes.
    pub(crate) fn thaws_by(&self) -> Result<(OwnedFd, u32)> {
        let group = self.freezer("cgroup-freeze")?;
        let (file, version) = match group.version {
            Version::V1 => ("freezer.state", wire::FREEZER_V1),
            Version::V2 => ("cgroup.freeze", wire::FREEZER_V2),
        };
        let failed = |e: io::Error| did_not_follow("cgroup-freeze", group, &e);
        Ok((group.open_to_write(file).map_err(failed)?, version))
    }

    /// Stops all in it but the supervisor, and waits until it stands still. The supervisor goes into a group beside it: it
    /// keeps time meanwhile, and hears of the caller's death.
    pub(crate) fn freeze(&mut self, supervisor: i32) -> Result<()> {
        if self.aside.is_none() {
            let group = self.freezer("cgroup-freeze")?;
            let parent = group.path.parent().unwrap_or(Path::new("/"));
            let aside = Group::create(group.version, parent, Vec::new())
                .and_then(|aside| aside.write("cgroup.procs", &supervisor.to_string()).map(|()| aside));
            self.aside = Some(aside.map_err(|e| {
                let failure = Failure::new(
                    "cgroup-freeze",
                    parent.display().to_string(),
                    "the supervisor cannot be kept out of it",
                );
                failure
                    .cause(&e)
                    .hint("On cgroup v1 only root can freeze a sandbox whose ids are not the caller's.")
                    .setup()
            })?);
        }
        self.control("cgroup-freeze", |group| group.freeze(true)).inspect_err(|_| {
            let _ = self.thaw(supervisor);
        })
    }

    /// Lets it go on, and the supervisor come back.
    pub(crate) fn thaw(&mut self, supervisor: i32) -> Result<()> {
        self.control("cgroup-freeze", |group| group.freeze(false))?;
        if let Some(aside) = &self.aside {
            let group = self.freezer("cgroup-freeze")?;
            let back = group.write("cgroup.procs", &supervisor.to_string());
            back.and_then(|()| aside.remove()).map_err(|e| did_not_follow("cgroup-freeze", group, &e))?;
            self.aside = None;
        }
        Ok(())
    }

    /// Whether all in it is stopped; the supervisor may have thawed it.
    pub(crate) fn is_frozen(&self) -> bool {
        self.freezer("cgroup-freeze").is_ok_and(Group::is_frozen)
    }

    /// Thaws what is about to end, its supervisor included.
    pub(crate) fn let_go(&mut self) {
        if self.aside.is_some() {
            let _ = self.control("cgroup-freeze", |group| group.freeze(false));
        }
    }

    /// The group that can stop and kill.
    pub(super) fn freezer(&self, stage: &'static str) -> Result<&Group> {
        self.v2().or_else(|| self.group(Controller::Freezer)).ok_or_else(|| {
            Failure::new(stage, "cgroup", "no group of this sandbox can do that")
                .hint("have a cgroup v2 subtree, or the v1 freezer, delegated to the caller")
                .unsupported()
        })
    }

    fn control(&self, stage: &'static str, act: impl Fn(&Group) -> io::Result<()>) -> Result<()> {
        let group = self.freezer(stage)?;
        act(group).map_err(|e| did_not_follow(stage, group, &e))
    }

    /// So many more or less processes of ours that are not to be counted.
    pub(crate) fn keepers(&mut self, change: i64) -> Result<()> {
        self.keepers = self.keepers.saturating_add_signed(change);
        let Some(setting) = self.written.iter().find(|setting| setting.item == "pids") else { return Ok(()) };
        let Some(group) = self.group(setting.controller) else { return Ok(()) };
        for write in writes(setting, group.version) {
            let count = write.value.parse::<u64>().unwrap_or(0).saturating_add(self.keepers);
            group.write(write.file, &count.to_string()).map_err(|e| did_not_follow("cgroup-limit", group, &e))?;
        }
        Ok(())
    }

    /// Changes the limits that `limits` names; the others stay. Only those whose controller the sandbox was started with.
    pub(crate) fn update(&mut self, limits: &Limits) -> Result<()> {
        crate::policy::options::check_changeable(limits)?;
        for setting in settings::compile(limits, &Host::read(Path::new("/")))? {
            let group = self.group(setting.controller).ok_or_else(|| {
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
            match self.set(&setting).or_else(|_| self.set(&reversed)).or_else(|_| self.set(&setting)) {
                Ok(()) => self.keepers(0)?,
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Cannot(cannot)) => {
                    let why = format!("the limit cannot be changed: {}", cannot.why);
                    return Err(Failure::new("cgroup-limit", setting.item, why)
                        .hint("was the controller taken away?")
                        .unsupported());
                }
            }
        }
        Ok(())
    }

    /// The limits that do not hold any more.
    fn lost(&self) -> Vec<(&'static str, String)> {
        let mut lost = Vec::new();
        for setting in &self.written {
            let Some(group) = self.group(setting.controller) else { continue };
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
    pub(crate) fn close(self) -> Closed {
        self.close_within(PATIENCE)
    }

    /// The same where something in them may not end: it is waited for only so long.
    pub(crate) fn close_within(mut self, patience: Duration) -> Closed {
        // One group tells for all: they hold the same processes.
        let watched = self.v2().or_else(|| self.group(Controller::Freezer)).or(self.groups.first());
        if let Some(group) = watched.filter(|group| !group.is_empty()) {
            let _ = self.kill();
            // The last ones to die are charged until they are gone.
            group.wait_until_empty(patience);
        }
        let lost = self.lost();
        // Nothing is readable once the groups are gone.
        let groups: Vec<_> = std::mem::take(&mut self.groups).into_iter().chain(self.aside.take()).collect();
        let (usage, mut removed) = (usage::read(&groups), Ok(()));
        for group in &groups {
            if let Err(e) = group.remove_within(patience) {
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
        if self.of_another {
            return;
        }
        if !self.groups.is_empty() {
            let _ = self.kill();
        }
        for group in self.groups.iter().chain(&self.aside) {
            let _ = group.remove();
        }
    }
}

fn did_not_follow(stage: &'static str, group: &Group, e: &io::Error) -> Error {
    Failure::new(stage, group.path.display().to_string(), "the group did not follow").cause(e).setup()
}

fn no_entrance(e: &io::Error) -> Error {
    Failure::new("cgroup-create", "cgroup", "a group that was just made cannot be opened").cause(e).setup()
}

fn cpu_clock(groups: &[Group]) -> io::Result<CpuClock> {
    let counts = |group: &&Group| group.version == Version::V2 || group.controllers.contains(&Controller::Cpuacct);
    let group = groups.iter().find(counts).ok_or(io::ErrorKind::NotFound)?;
    let nanoseconds = group.version == Version::V1;
    let file = group.open_to_read(if nanoseconds { "cpuacct.usage" } else { "cpu.stat" })?;
    Ok(CpuClock { file, nanoseconds })
}

/// What a control file says where no limit is set: v2 `max` (before a period, too), v1 the largest number, or -1 for CPU time.
fn unlimited(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    first == "max" || first == "-1" || first.parse::<u64>().is_ok_and(|n| n >= i64::MAX as u64 - 4095)
}

pub(super) enum Refused {
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
                return Err(Refused::Cannot(Cannot::new(
                    format!("{path}: {e}"),
                    "have that group given to the caller, or leave the limit out",
                )));
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
        _ => "look at the group: others may hold it, or the kernel refuses this value there",
    }
}

pub(super) fn writes(setting: &Setting, version: Version) -> &[Write] {
    let writes = if version == Version::V2 { &setting.v2 } else { &setting.v1 };
    writes.as_deref().unwrap_or_default()
}
