//! What tells one place from another: files that engines leave, the table of mounts, names of groups, the kernel's own words.
//! Variables are hints: anybody can set them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// One line of /proc/self/mountinfo: what of which file system is mounted where.
#[derive(Debug, Default, Clone)]
pub struct Mount {
    pub root: String,
    pub point: String,
    pub source: String,
}

#[derive(Debug, Default, Clone)]
pub struct Facts {
    /// Docker makes this file in every container.
    pub dockerenv: bool,
    /// podman and Buildah make this one.
    pub containerenv: bool,
    pub flatpak_info: bool,
    /// What systemd-nspawn, LXC and others leave for systemd.
    pub manager: String,
    pub osrelease: String,
    pub version: String,
    pub cgroup: String,
    pub first_process: String,
    pub label: String,
    /// A line of Nix in /etc/passwd, which its builds have.
    pub nix_user: bool,
    /// Directories of a hosted runner.
    pub hosted_runner: bool,
    pub filtered: bool,
    pub mounts: Vec<Mount>,
    pub userns_clone: Option<u32>,
    pub max_user_namespaces: Option<u32>,
    pub apparmor_restricts: Option<u32>,
    /// Names of variables that are set.
    pub variables: Vec<String>,
}

impl Facts {
    pub fn here() -> Facts {
        let is_there = |path: &str| Path::new(path).symlink_metadata().is_ok();
        let number = |name: &str| text(&format!("/proc/sys/{name}")).parse().ok();
        let manager = ["/run/host/container-manager", "/run/systemd/container"].map(text).concat();
        Facts {
            dockerenv: is_there("/.dockerenv"),
            containerenv: is_there("/run/.containerenv"),
            flatpak_info: is_there("/.flatpak-info"),
            manager,
            osrelease: text("/proc/sys/kernel/osrelease"),
            version: text("/proc/version"),
            cgroup: text("/proc/self/cgroup"),
            first_process: text("/proc/1/comm"),
            label: text("/proc/self/attr/current"),
            nix_user: text("/etc/passwd").lines().any(|line| line.starts_with("nixbld:")),
            hosted_runner: is_there("/opt/hostedtoolcache") && is_there("/home/runner"),
            filtered: text("/proc/self/status").lines().any(|line| line == "Seccomp:\t2"),
            mounts: text("/proc/self/mountinfo").lines().filter_map(mount).collect(),
            userns_clone: number("kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("user/max_user_namespaces"),
            apparmor_restricts: number("kernel/apparmor_restrict_unprivileged_userns"),
            variables: std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
        }
    }

    pub fn has_variable(&self, name: &str) -> bool {
        self.variables.iter().any(|variable| variable == name)
    }

    /// A mount at exactly this place, or beneath it.
    pub fn is_mounted(&self, point: &str) -> bool {
        let beneath = |mount: &Mount| mount.point.strip_prefix(point).is_some_and(|rest| rest.starts_with('/'));
        self.mounts.iter().any(|mount| mount.point == point || beneath(mount))
    }

    /// How much of /proc is covered. The kernel shows no new /proc to whom the old one is not shown whole.
    pub fn masks(&self) -> usize {
        self.mounts.iter().filter(|mount| mount.point.starts_with("/proc/")).count()
    }

    /// The mount that is the root; of several, the one on top.
    pub fn root(&self) -> Option<&Mount> {
        self.mounts.iter().rfind(|mount| mount.point == "/")
    }

    /// What was seen, in words.
    pub fn seen(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let mut say = |is: bool, words: &str| {
            if is {
                seen.push(words.to_owned())
            }
        };
        say(self.dockerenv, "/.dockerenv");
        say(self.containerenv, "/run/.containerenv");
        say(self.flatpak_info, "/.flatpak-info");
        say(!self.manager.is_empty(), &format!("container manager {}", self.manager));
        say(self.filtered, "a system call filter");
        say(self.masks() > 0, &format!("{} mounts over /proc", self.masks()));
        say(!["", "unconfined"].contains(&&self.label[..]), &format!("AppArmor label {}", self.label));
        say(self.userns_clone == Some(0), "kernel.unprivileged_userns_clone=0");
        say(self.max_user_namespaces == Some(0), "user.max_user_namespaces=0");
        say(self.apparmor_restricts == Some(1), "kernel.apparmor_restrict_unprivileged_userns=1");
        say(true, &format!("Linux {}", self.osrelease));
        seen
    }
}

/// The text of a file of the host, without blanks around it and without the kernel's zero bytes; empty where there is none.
fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if is_file && let Ok(file) = File::open(path) {
        let _ = file.take(1 << 20).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(Mount { root: before.next()?.to_owned(), point: before.next()?.to_owned(), source: after.nth(1)?.to_owned() })
}
