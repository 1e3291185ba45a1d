//! The groups of a sandbox in other hands: those of the keeper of a named cell, which holds and removes them, and those
//! of its clients, which read and write them meanwhile.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::group::Group;
use super::hierarchy::{Controller, Version};
use super::placement::{Placement, writes};
use super::usage::{self, FIGURES, GroupUsage};
use crate::error::{Failure, Result};

/// A group as a client needs it.
#[derive(Debug, Clone)]
pub(crate) struct GroupRecord {
    /// 1 or 2.
    pub version: u32,
    pub controllers: String,
    pub path: PathBuf,
}

/// What a keeper needs of the groups.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Whoever has these open keeps the groups from being taken for abandoned.
    pub locks: Vec<OwnedFd>,
    /// What is to be removed: the name in that directory.
    pub groups: Vec<(OwnedFd, CString)>,
    /// What is to be read in the end.
    pub figures: Vec<(OwnedFd, CString)>,
    /// The file with the limit of processes, and what was asked for.
    pub pids: Option<(OwnedFd, u64)>,
    pub records: Vec<GroupRecord>,
}

impl GroupRecord {
    fn version(&self) -> Version {
        if self.version == 2 { Version::V2 } else { Version::V1 }
    }

    fn controllers(&self) -> Vec<Controller> {
        Controller::parse(&self.controllers, self.version())
    }
}

impl Placement {
    /// What a keeper is to be given. It stays ours until `release`.
    pub(crate) fn to_hand_over(&self) -> Result<Handed> {
        self.handed().map_err(|e| {
            Failure::new("cgroup-create", "cgroup", "a group that was just made cannot be opened").cause(&e).setup()
        })
    }

    fn handed(&self) -> io::Result<Handed> {
        let mut handed = Handed::default();
        for (number, group) in self.groups.iter().enumerate() {
            handed.locks.push(group.marked_again()?);
            let (Some(parent), Some(name)) = (group.path.parent(), group.path.file_name()) else { continue };
            handed.groups.push((std::fs::File::open(parent)?.into(), text(name.as_bytes())?));
            for file in FIGURES {
                if let Ok(fd) = group.open_to_read(file) {
                    handed.figures.push((fd, text(format!("{number}/{file}").as_bytes())?));
                }
            }
            let version = if group.version == Version::V2 { 2 } else { 1 };
            let controllers = Controller::list(&group.controllers, group.version);
            handed.records.push(GroupRecord { version, controllers, path: group.path.clone() });
        }
        let pids = self.written.iter().find(|setting| setting.item == "pids");
        if let Some((setting, group)) = pids.and_then(|setting| Some((setting, self.group(setting.controller)?)))
            && let Some(write) = writes(setting, group.version).first()
            && let Ok(limit) = write.value.parse()
        {
            handed.pids = Some((group.open_to_write(write.file)?, limit));
        }
        Ok(handed)
    }

    /// Somebody else ends and removes them.
    pub(crate) fn release(&mut self) {
        self.of_another = true;
    }

    /// Groups that a keeper holds.
    pub(crate) fn of_keeper(records: &[GroupRecord]) -> Result<Option<Placement>> {
        let open = |record: &GroupRecord| Group::of_another(record.version(), &record.path, record.controllers());
        let groups = records.iter().map(open).collect::<io::Result<Vec<_>>>().map_err(|e| {
            Failure::new("cgroup-find", "cell", "its groups cannot be opened").cause(&e).hint("Has it ended?").setup()
        })?;
        if groups.is_empty() {
            return Ok(None);
        }
        let mut placement = Placement::new(groups, false);
        placement.release();
        Ok(Some(placement))
    }

    /// Where the supervisor is while the sandbox is frozen: a directory, and a name in it.
    pub(crate) fn aside(&self) -> Option<(std::fs::File, String)> {
        let path = &self.aside.as_ref()?.path;
        Some((std::fs::File::open(path.parent()?).ok()?, path.file_name()?.to_str()?.to_owned()))
    }

    /// Looks where the supervisor is, which somebody else has moved.
    pub(crate) fn find_aside(&mut self, supervisor: i32) -> Result<()> {
        let group = self.freezer("cgroup-freeze")?;
        let own = match group.version {
            Version::V2 => String::new(),
            Version::V1 => Controller::Freezer.name(Version::V1).to_owned(),
        };
        let groups = std::fs::read_to_string(format!("/proc/{supervisor}/cgroup")).unwrap_or_default();
        let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let place = lines.find(|(names, _)| names.split(',').any(|name| name == own)).map(|(_, path)| path);
        let name = place.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let path = group.path.with_file_name(name);
        if name.is_empty() || path == group.path || !name.starts_with("sandcell-") {
            return Ok(());
        }
        let aside = Group::of_another(group.version, &path, Vec::new()).map_err(|e| {
            Failure::new("cgroup-freeze", path.display().to_string(), "cannot be opened").cause(&e).setup()
        })?;
        self.aside = Some(aside);
        Ok(())
    }

    /// What is in use now: memory in bytes, processes and threads.
    pub(crate) fn current(&self) -> (Option<u64>, Option<u64>) {
        usage::current(&self.groups)
    }
}

/// What groups that are gone have counted, from copies of their files named as in `Handed::figures`.
pub(crate) fn figures(records: &[GroupRecord], read: &dyn Fn(&str) -> Option<String>) -> GroupUsage {
    let mut counted = GroupUsage::default();
    for (number, record) in records.iter().enumerate() {
        let file = |name: &str| read(&format!("{number}/{name}"));
        usage::read_one(record.version(), &record.controllers(), &file, &mut counted);
    }
    counted
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}
