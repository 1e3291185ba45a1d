//! Where the ids of sandboxes come from on this host: the caller's sub-ids, or for root a range far from real users.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use caps::{CapSet, Capability};
use nix::errno::Errno;

use crate::error::{Failure, Result};
use crate::ids::lease::Places;
use crate::ids::map::IdMap;
use crate::ids::namespace::Proxy;
use crate::ids::newidmap::Programs;
use crate::ids::ranges::{self, Owner, Range, Ranges};
use crate::ids::{Refusal, UserNamespace};

/// Ids for root's sandboxes where /etc/subuid has none for root. systemd's table of UIDs calls the range unused, it
/// lies above SUB_UID_MAX (600,100,000) and above what SSSD and FreeIPA give out (2,000,200,000), and below 2^31.
const FOR_ROOT: RangeInclusive<u32> = 0x7800_0000..=0x7FFD_FFFF;
/// "nobody": files of ids that are not mapped seem to belong to it.
const OVERFLOW_ID: u32 = 65534;
/// A map is written in one piece of less than a page, so it has at most some 120 lines of 3 × 10 digits.
const MOST_RANGES: usize = 100;

/// The caller and the paths on the host; tests put their own in.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub uid: u32,
    pub gid: u32,
    pub name: Option<String>,
    /// Supplementary groups other than the caller's own.
    pub has_groups: bool,
    /// Not denied in the caller's own user namespace: then it is in every one beneath.
    pub allows_setgroups: bool,
    /// CAP_SETUID and CAP_SETGID: no need for newuidmap.
    pub may_write_maps: bool,
    /// CAP_SYS_ADMIN: worth trying whether the file systems are the caller's to map.
    pub may_mount: bool,
    /// Whether /proc has the caller under the number that the caller knows. Without that nobody's maps can be written
    /// but one's own.
    pub own_proc: bool,
    pub subuid: PathBuf,
    pub subgid: PathBuf,
    pub nsswitch: PathBuf,
    pub programs: Programs,
    pub places: Places,
}

/// Ids to lease from, and how they are mapped.
#[derive(Debug)]
pub(crate) struct Source {
    pub uids: Ranges,
    pub gids: Ranges,
    pub namespace: UserNamespace,
}

/// What cannot be read must not pass for absent: on it hangs whether ids are shared.
fn unread(path: &str, error: &std::io::Error) -> crate::Error {
    Failure::new("identity", path, "cannot find out what the caller may do").cause(error).setup()
}

fn or_absent(path: &str, result: std::io::Result<String>) -> Result<String> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|error| unread(path, &error)),
    }
}

fn has(capability: Capability) -> Result<bool> {
    caps::has_cap(None, CapSet::Effective, capability)
        .map_err(|_| unread("capabilities", &std::io::Error::last_os_error()))
}

/// Whether setgroups(2) is allowed in the caller's user namespace.
fn allows_setgroups() -> Result<bool> {
    let path = "/proc/self/setgroups";
    Ok(or_absent(path, std::fs::read_to_string(path))?.trim() == "allow")
}

/// Whether a program of the caller's, in no other user namespace, can be without the caller's groups.
pub(super) fn may_lay_groups_down() -> Result<bool> {
    Ok(has(Capability::CAP_SETGID)? && allows_setgroups()?)
}

/// The name of a user. A UID without one is nothing to stumble over: the files may name the number.
pub(crate) fn name_of(uid: nix::unistd::Uid) -> Result<Option<String>> {
    // Where the C library would look there first as well, its search for sources and daemons is spared.
    let sources = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if asks_files_first(&sources)
        && let Some(name) = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| name_in(&text, uid))
    {
        return Ok(Some(name));
    }
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => Ok(Some(user.name)),
        // glibc also says so of a file that it could not read.
        Ok(None) => Ok(name_in(&or_absent("/etc/passwd", std::fs::read_to_string("/etc/passwd"))?, uid)),
        // getpwuid(3): so some sources say that they do not know it.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(errno) => Err(unread("user name", &errno.into())),
    }
}

/// Whether the first source of users is /etc/passwd alone: nsswitch.conf(5).
fn asks_files_first(nsswitch: &str) -> bool {
    let line = nsswitch.lines().find_map(|line| line.split('#').next()?.trim().strip_prefix("passwd:"));
    line.is_some_and(|sources| sources.split_whitespace().next() == Some("files"))
}

/// The name that the text of a passwd(5) has for a user.
fn name_in(passwd: &str, uid: nix::unistd::Uid) -> Option<String> {
    let fields = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse::<u32>().ok()?))
    };
    let found = passwd.lines().filter_map(fields).find(|(_, id)| *id == uid.as_raw());
    found.map(|(name, _)| name).filter(|name| !name.is_empty() && !name.starts_with(['+', '-']))
}

impl Host {
    pub(crate) fn new() -> Result<Host> {
        let uid = nix::unistd::geteuid();
        let gid = nix::unistd::getegid();
        let groups = nix::unistd::getgroups()
            .map_err(|errno| Failure::new("identity", "", "getgroups failed").errno(errno as i32).setup())?;
        let own = std::fs::read_link("/proc/self").map(|link| link.to_string_lossy().into_owned());
        Ok(Host {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            name: name_of(uid)?,
            has_groups: groups.iter().any(|&group| group != gid),
            allows_setgroups: allows_setgroups()?,
            may_write_maps: has(Capability::CAP_SETUID)? && has(Capability::CAP_SETGID)?,
            may_mount: has(Capability::CAP_SYS_ADMIN)?,
            own_proc: or_absent("/proc/self", own)? == std::process::id().to_string(),
            subuid: "/etc/subuid".into(),
            subgid: "/etc/subgid".into(),
            nsswitch: "/etc/nsswitch.conf".into(),
            programs: Programs::default(),
            places: Places::of(uid.as_raw()),
        })
    }

    /// Finds the ids and prepares what maps them.
    pub(crate) fn source(&self) -> Result<Source, Refusal> {
        if !self.own_proc {
            let message = "does not show this process: it is not mounted, or is that of another PID namespace";
            return Err(Refusal::Absent(Failure::new("id-map", "/proc", message).hint("Mount the right one.")));
        }
        let (mut uids, mut gids) = (self.sub_ids(false)?, self.sub_ids(true)?);
        if !self.may_write_maps {
            let namespace = Arc::new(self.kept_namespace(&uids, &gids)?);
            return Ok(Source { uids, gids, namespace: UserNamespace::Nested(namespace) });
        }
        if uids.is_empty() || gids.is_empty() {
            let default = |others: Ranges| std::iter::once(Range::of(FOR_ROOT)).collect::<Ranges>().without(&others);
            uids = default(ranges::read_all(&self.subuid)?);
            gids = default(ranges::read_all(&self.subgid)?);
        }
        // In a container not every id exists.
        uids = uids.within(&ranges::read_own_map("/proc/self/uid_map".as_ref())?);
        gids = gids.within(&ranges::read_own_map("/proc/self/gid_map".as_ref())?);
        if uids.is_empty() || gids.is_empty() {
            let message = "none of the ids for sandboxes exists in this user namespace";
            let hint = "Put a line name:first:count with ids that exist here (see /proc/self/uid_map) into /etc/subuid \
                        and /etc/subgid.";
            return Err(Refusal::Absent(Failure::new("sub-ids", "/proc/self/uid_map", message).hint(hint)));
        }
        Ok(Source { uids, gids, namespace: UserNamespace::Written })
    }

    /// A user namespace that maps the caller and all of its sub-ids to themselves. Nothing runs in it.
    pub(crate) fn kept_namespace(&self, uids: &Ranges, gids: &Ranges) -> Result<std::os::fd::OwnedFd, Refusal> {
        let proxy = Proxy::in_new_namespace()?;
        self.programs.write_maps(proxy.pid(), &IdMap::identity(self.uid, uids), &IdMap::identity(self.gid, gids))?;
        Ok(proxy.namespace()?)
    }

    /// The caller's sub-ids of one kind. None is an error only to somebody who cannot do without.
    fn sub_ids(&self, groups: bool) -> Result<Ranges, Refusal> {
        let file = if groups { &self.subgid } else { &self.subuid };
        let own_id = if groups { self.gid } else { self.uid };
        let owner = Owner { name: self.name.clone(), uid: self.uid, own_id };
        let found = if self.has_other_sources() {
            let name = self.name.clone().unwrap_or_else(|| self.uid.to_string());
            let output = self.programs.getsubids(&name, groups)?;
            ranges::read_getsubids(&output, &owner, &format!("getsubids {}{name}", if groups { "-g " } else { "" }))?
        } else {
            ranges::read_file(file, &owner)?
        };
        if found.is_empty() && !self.may_write_maps {
            let who = self.name.clone().unwrap_or_else(|| self.uid.to_string());
            let option = if groups { "--add-subgids" } else { "--add-subuids" };
            let kind = if groups { "sub-GIDs" } else { "sub-UIDs" };
            return Err(Refusal::Absent(
                Failure::new("sub-ids", file.display().to_string(), format!("no {kind} for {who}"))
                    .hint(format!("As root: usermod {option} 100000-165535 {who} (a range that nobody else has).")),
            ));
        }
        let nobody = std::iter::once(Range::new(OVERFLOW_ID, 1)).collect();
        Ok(found.without(&nobody).first(MOST_RANGES))
    }

    /// Whether `subid:` in nsswitch.conf names anything but the files, so that only libsubid knows.
    fn has_other_sources(&self) -> bool {
        let text = std::fs::read_to_string(&self.nsswitch).unwrap_or_default();
        let line = text.lines().find_map(|line| line.split('#').next()?.trim().strip_prefix("subid:"));
        line.is_some_and(|sources| sources.split_whitespace().any(|source| source != "files"))
    }
}

impl Source {
    /// Whether a slice of `count` ids would fit into an unused range.
    pub(crate) fn check_size(&self, count: u32) -> Result<()> {
        for (kind, ids) in [("UIDs", &self.uids), ("GIDs", &self.gids)] {
            if ids.slices(count) == 0 {
                let message = format!("{count} {kind} in one piece were asked for, and there are only {ids}");
                return Err(Failure::new("sub-ids", "identity", message)
                    .hint("Ask for fewer, or have root add a range: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER.")
                    .unsupported());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{asks_files_first, name_in};
    use nix::unistd::Uid;

    #[test]
    fn the_file_of_users_is_read_where_the_c_library_would_read_it_first() {
        assert!(asks_files_first("# passwd: ldap\npasswd:\tfiles systemd # and so on\ngroup: ldap\n"));
        for other in ["", "passwd: compat", "passwd: ldap files", "passwd:", "group: files"] {
            assert!(!asks_files_first(other), "{other}");
        }
    }

    #[test]
    fn a_name_is_that_of_the_first_line_with_the_number() {
        let text = "root:x:0:0::/:/bin/sh\nbroken\n+:::::\n:x:7:7::/:\nann:x:1000:1000::/:\nbob:x:1000:1000::/:\n";
        assert_eq!(name_in(text, Uid::from_raw(1000)).as_deref(), Some("ann"));
        assert_eq!(name_in(text, Uid::from_raw(0)).as_deref(), Some("root"));
        assert_eq!(name_in(text, Uid::from_raw(7)), None);
        assert_eq!(name_in(text, Uid::from_raw(100)), None);
    }
}
