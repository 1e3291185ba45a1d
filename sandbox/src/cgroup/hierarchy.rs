//! Which cgroup hierarchies are mounted, and where in each of them the caller is.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;

use crate::sys::mountinfo::unescape;

/// A part of the kernel that a limit needs. v1 has a hierarchy for each (or for a few together); v2 has one for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Controller {
    Memory,
    Pids,
    Cpu,
    Cpuset,
    Io,
    /// v1 only: CPU time is counted without a controller on v2.
    Cpuacct,
    /// v1 only: part of every group on v2.
    Freezer,
}

impl Controller {
    const ALL: [Controller; 7] = [
        Controller::Memory,
        Controller::Pids,
        Controller::Cpu,
        Controller::Cpuset,
        Controller::Io,
        Controller::Cpuacct,
        Controller::Freezer,
    ];

    /// The kernel's name for it.
    pub(super) fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Controller::Memory, _) => "memory",
            (Controller::Pids, _) => "pids",
            (Controller::Cpu, _) => "cpu",
            (Controller::Cpuset, _) => "cpuset",
            (Controller::Io, Version::V1) => "blkio",
            (Controller::Io, Version::V2) => "io",
            (Controller::Cpuacct, _) => "cpuacct",
            (Controller::Freezer, _) => "freezer",
        }
    }

    /// The controllers in a list such as `cpu,cpuacct` or `cpu io`.
    pub(super) fn parse(list: &str, version: Version) -> Vec<Controller> {
        let named = |word| Controller::ALL.into_iter().find(|c| c.name(version) == word);
        list.split([',', ' ', '\n']).filter_map(named).collect()
    }

    /// As `parse` reads it.
    pub(super) fn list(controllers: &[Controller], version: Version) -> String {
        controllers.iter().map(|c| c.name(version)).collect::<Vec<_>>().join(",")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The caller's directory in it; `None` where the mount does not show it, as in some containers.
    pub(super) own: Option<PathBuf>,
    /// What is bound to it; for v2 those that its root can hand down.
    pub(super) controllers: Vec<Controller>,
}

/// What the host mounts. Every path is beneath `root`, so that tests can show it a made-up host.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) root: PathBuf,
    pub(super) hierarchies: Vec<Hierarchy>,
    /// Whether systemd has handed a group over.
    pub(super) marked: fn(&Path) -> bool,
}

impl Host {
    pub(super) fn read(root: &Path) -> Host {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let mut hierarchies = parse(&read("proc/self/cgroup"), &read("proc/self/mountinfo"));
        for hierarchy in &mut hierarchies {
            hierarchy.mount = beneath(root, &hierarchy.mount);
            hierarchy.own = hierarchy.own.take().map(|own| beneath(root, &own));
            if hierarchy.version == Version::V2 {
                let list = fs::read_to_string(hierarchy.mount.join("cgroup.controllers")).unwrap_or_default();
                hierarchy.controllers = Controller::parse(&list, Version::V2);
            }
        }
        Host { root: root.to_owned(), hierarchies, marked: super::sys::marked_as_delegated }
    }

    pub(super) fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }

    pub(super) fn v1(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V1 && h.controllers.contains(&controller))
    }

    /// Whether systemd runs this host: it then owns every cgroup that it has not delegated.
    pub(super) fn systemd(&self) -> bool {
        self.root.join("run/systemd/system").is_dir()
    }

    pub(super) fn uses_swap(&self) -> bool {
        fs::read_to_string(self.root.join("proc/swaps")).is_ok_and(|swaps| swaps.lines().count() > 1)
    }
}

fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether the caller may create and write there: access(2) with the effective ids; a read-only mount counts as no.
pub(super) fn writable(path: &Path) -> bool {
    nix::unistd::eaccess(path, AccessFlags::W_OK).is_ok()
}

/// Puts /proc/self/mountinfo and /proc/self/cgroup together: proc_pid_mountinfo(5), cgroups(7).
fn parse(cgroup: &str, mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let mount: Vec<&str> = mount.split(' ').collect();
        let filesystem: Vec<&str> = filesystem.split(' ').collect();
        let (Some(root), Some(point)) = (mount.get(3), mount.get(4)) else { continue };
        let (version, controllers) = match filesystem[..] {
            ["cgroup2", ..] => (Version::V2, Vec::new()),
            ["cgroup", _, options] => match Controller::parse(options, Version::V1) {
                none if none.is_empty() => continue,
                controllers => (Version::V1, controllers),
            },
            _ => continue,
        };
        // The first mount of a hierarchy is the usual place; later ones are views for containers.
        if found.iter().any(|h| h.version == version && h.controllers == controllers) {
            continue;
        }
        let (root, mount) = (unescape(root.as_bytes()), unescape(point.as_bytes()));
        let own = own_path(cgroup, version, &controllers)
            .and_then(|own| Path::new(own).strip_prefix(&root).ok().map(|own| join(&mount, own)));
        found.push(Hierarchy { version, mount, own, controllers });
    }
    found
}

/// `Path::join` leaves a trailing slash behind an empty path.
fn join(dir: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { dir.to_owned() } else { dir.join(path) }
}

/// The caller's path in a hierarchy: lines are `number:controllers:path`, v2 has number 0 and no controllers.
fn own_path<'a>(cgroup: &'a str, version: Version, controllers: &[Controller]) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, list, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::V2 => number == "0" && list.is_empty(),
            Version::V1 => Controller::parse(list, Version::V1) == controllers,
        };
        ours.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn a_hybrid_host_has_a_hierarchy_for_each_mount_that_can_hold_limits() {
        let found = parse("4:memory:/a/b\n3:cpu,cpuacct:/\n2:devices:/\n1:name=systemd:/\n0::/c\n", HYBRID_MOUNTS);
        let seen: Vec<_> = found
            .iter()
            .map(|h| (h.version, h.mount.to_str().unwrap(), h.own.as_ref().unwrap().to_str().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [
                (Version::V1, "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
                (Version::V1, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b"),
                (Version::V2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/c"),
            ]
        );
        assert_eq!(found[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
    }

    #[test]
    fn a_mount_that_does_not_show_the_callers_own_group_is_found_without_it() {
        let mounts = "30 20 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw";
        assert_eq!(parse("0::/docker/x/y", mounts)[0].own.as_deref(), Some(Path::new("/sys/fs/cgroup/y")));
        assert_eq!(parse("0::/elsewhere", mounts)[0].own, None);
    }

    #[test]
    fn a_blank_in_a_mount_point_is_understood() {
        let mounts = r"30 20 0:26 / /mnt/c\040g rw - cgroup2 cgroup rw";
        assert_eq!(parse("0::/", mounts)[0].mount, Path::new("/mnt/c g"));
    }

    #[test]
    fn nonsense_is_no_hierarchy() {
        for mounts in
            ["", "- cgroup2", "a b c - cgroup2 x", "1 2 3 / /x - cgroup", r"1 2 3 / /x\9 - cgroup x rw,devices"]
        {
            assert_eq!(parse("", mounts), []);
        }
    }
}
