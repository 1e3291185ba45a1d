//! Who a sandbox is on the host: leased ids, and the user namespaces that map them. See `docs/identity.md`.

mod caller;
mod idmapped;
mod lease;
mod map;
mod namespace;
mod newidmap;
pub(crate) mod ranges;
pub(crate) mod record;
mod source;
#[cfg(feature = "image")]
mod store;
mod sys;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Failure, Result};
use crate::policy::files::Files;
use crate::policy::{HostIds, Identity, User};
pub(crate) use idmapped::MappedTree;
pub(crate) use lease::Lease;
pub(crate) use map::IdMap;
pub(crate) use namespace::Proxy;
use record::Record;
pub(crate) use source::name_of;
use source::{Host, Source};
#[cfg(feature = "image")]
pub(crate) use store::StoreIds;

/// Who one sandbox is. Its ids are free for others when it is dropped, so not before the last process has ended.
#[derive(Debug)]
pub(crate) struct Assigned {
    /// Inside.
    pub uid: u32,
    /// Inside.
    pub gid: u32,
    /// The same UID on the host.
    pub host_uid: u32,
    /// The same GID on the host.
    pub host_gid: u32,
    /// Whether no other live sandbox can have that UID.
    pub disjoint: bool,
    /// Where it is not disjoint: why, and what to do about it.
    pub why_shared: Option<String>,
    /// Whether files that only a supplementary group of the caller may read are out of reach inside.
    pub groups_dropped: bool,
    /// Whether init is to call setgroups(2), with no groups.
    pub setgroups: bool,
    /// How the user namespace is made.
    pub namespace: UserNamespace,
    /// What is written to its uid_map.
    pub uid_map: IdMap,
    /// What is written to its gid_map.
    pub gid_map: IdMap,
    /// What of the caller's is mounted under these ids. Needed until the start only.
    pub trees: Vec<MappedTree>,
    lease: Option<Lease>,
}

impl Assigned {
    /// Whether an owner of a layer's file and one in the upper are the same inside. Layers may be seen through an
    /// idmapped mount, and what is copied up from them has the sandbox's ids.
    pub(crate) fn same_owner(&self, layer: (u32, u32), upper: (u32, u32)) -> bool {
        let same = |map: &IdMap, old: u32, new: u32, own: u32, host: u32| {
            old == new || map.host(old) == Some(new) || (old == own && new == host)
        };
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        same(&self.uid_map, layer.0, upper.0, uid, self.host_uid)
            && same(&self.gid_map, layer.1, upper.1, gid, self.host_gid)
    }

    /// Whether it has no ids but the caller's own.
    pub(crate) fn are_only(&self, (uid, gid): (u32, u32)) -> bool {
        self.uid_map.is_only(uid) && self.gid_map.is_only(gid)
    }

    /// Whether files of the host's root belong to an id of the sandbox.
    pub(crate) fn maps_host_root(&self) -> bool {
        self.uid_map.has_root() || self.gid_map.has_root()
    }
}

/// Who makes the sandbox's user namespace, and who writes its maps. In each case the namespace is the sandbox's own.
#[derive(Debug, Clone)]
pub(crate) enum UserNamespace {
    /// A child of the caller's. `deny` goes to setgroups, then the maps (one id each) are written: by the launch child
    /// itself, or by the caller. setgroups(2) is refused inside.
    OneId,
    /// A child of the caller's. The caller, who has CAP_SETUID and CAP_SETGID, writes the maps to /proc/PID. setgroups
    /// is allowed inside.
    Written,
    /// A child of this kept namespace, which maps all sub-ids of the caller to themselves. The launch child enters it
    /// (setns), makes the sandbox's with clone3(CLONE_PARENT | CLONE_NEWUSER | …), and writes the maps to /proc/PID:
    /// it alone has the capabilities for that. setgroups is allowed inside.
    Nested(Arc<OwnedFd>),
    /// None at all: the sandbox is the caller's (`Isolation::Landlock`).
    Absent,
}

impl Assigned {
    /// The caller itself, in a sandbox without a user namespace.
    pub(crate) fn caller() -> Result<Assigned> {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        // Whoever may lay groups down does so: root.
        let may = source::may_lay_groups_down()?;
        Ok(Assigned {
            uid,
            gid,
            host_uid: uid,
            host_gid: gid,
            disjoint: false,
            why_shared: None,
            groups_dropped: may,
            setgroups: may,
            namespace: UserNamespace::Absent,
            uid_map: IdMap::one(uid, uid),
            gid_map: IdMap::one(gid, gid),
            trees: Vec::new(),
            lease: None,
        })
    }

    /// The ids stay taken as long as this lives, however long the rest does.
    pub(crate) fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// For somebody who is to hold the ids, and none of others.
    pub(crate) fn set_lease_apart(&mut self) -> Result<()> {
        self.lease.as_mut().map_or(Ok(()), Lease::set_apart)
    }

    /// What holds the ids, where they are leased.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Who a sandbox is that somebody else keeps.
    pub(crate) fn of_keeper(ids: [u32; 4], uid_map: IdMap, gid_map: IdMap, is_caller: bool) -> Assigned {
        let [uid, gid, host_uid, host_gid] = ids;
        let namespace = if is_caller { UserNamespace::Absent } else { UserNamespace::OneId };
        Assigned {
            uid,
            gid,
            host_uid,
            host_gid,
            disjoint: false,
            why_shared: None,
            groups_dropped: false,
            setgroups: false,
            namespace,
            uid_map,
            gid_map,
            trees: Vec::new(),
            lease: None,
        }
    }

    /// Notes in a kept upper whose its files will be, where that changes from one sandbox to the next.
    pub(crate) fn note_in(&self, upper: &std::path::Path) -> Result<()> {
        if self.lease.is_none() || self.uid_map.total() == 1 {
            return Ok(());
        }
        // Through an idmapped mount the numbers inside are those on disk.
        let on_disk = |map: &IdMap| if self.trees.is_empty() { map.clone() } else { map.inside() };
        let record = Record { uids: on_disk(&self.uid_map), gids: on_disk(&self.gid_map) };
        match record::read(upper)? {
            Some(found) if found == record => Ok(()),
            _ => record::write(upper, &record),
        }
    }
}

impl UserNamespace {
    /// Whether setgroups(2) works inside, as far as the namespace goes.
    pub(crate) fn allows_setgroups(&self) -> bool {
        !matches!(self, UserNamespace::OneId)
    }
}

/// Why there are no ids of the sandbox's own.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The host has none for this caller. `HostIds::Auto` goes on without.
    Absent(Failure),
    /// Something is wrong that has to be mended; also every id in use.
    Broken(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Broken(error)
    }
}

/// What the sandboxes of one handle share: where ids come from, found out and prepared once. No lease is in it.
#[derive(Debug)]
pub(crate) struct IdPool {
    identity: Identity,
    host: Host,
    /// Whose the files of the image are, for a run of several ids.
    #[cfg(feature = "image")]
    on_store: Option<StoreIds>,
    source: Mutex<Option<Arc<Prepared>>>,
}

/// What the search for ids came to.
#[derive(Debug)]
enum Prepared {
    Found(Source),
    Absent(Failure),
}

impl IdPool {
    /// Finds mistakes in what is asked for; looks at nothing on the host yet.
    pub(crate) fn new(identity: &Identity) -> Result<IdPool> {
        IdPool::on(identity, Host::new()?)
    }

    fn on(identity: &Identity, host: Host) -> Result<IdPool> {
        let mistake = |message: &str, hint: &str| Err(Failure::new("option", "identity", message).hint(hint).config());
        if identity.count == 0 {
            return mistake("a sandbox has at least one id", "Set count to 1 or more.");
        }
        if let User::Fixed { uid, gid } = identity.user
            && (uid == u32::MAX || gid == u32::MAX)
        {
            return mistake("4294967295 is no id: it stands for \"none\"", "The last id is 4294967294.");
        }
        if identity.keep_caller && identity.host_ids.must_be_disjoint() {
            return mistake(
                "the caller's own UID cannot be disjoint from itself",
                "Ask for keep_id or for disjoint host ids, not for both.",
            );
        }
        if identity.count > 1 && identity.host_ids.are_the_callers() {
            return mistake(
                "only the caller's own id can be shared, and that is one",
                "Leave count at 1, or do not ask for shared host ids.",
            );
        }
        Ok(IdPool {
            identity: identity.clone(),
            host,
            #[cfg(feature = "image")]
            on_store: None,
            source: Mutex::new(None),
        })
    }

    /// Does ahead of the first `assign` what takes time: two set-uid programs, some milliseconds.
    pub(crate) fn prepare(&self) -> Result<()> {
        if !self.identity.host_ids.are_the_callers() {
            self.prepared()?;
        }
        Ok(())
    }

    /// Who the next sandbox of that policy is. What works under the caller's own UID only, keeps it.
    pub(crate) fn assign_for(&self, files: &Files) -> Result<Assigned> {
        let kept = self.owners_of_kept(files)?;
        #[cfg(feature = "image")]
        if let Some(ids) = self.on_store {
            return self.on_store(ids, kept);
        }
        if self.identity.host_ids.are_the_callers() || self.identity.keep_caller {
            return self.assign_as(self.asked_to_keep(), kept);
        }
        let mut unmapped = String::new();
        // Files of leased ids are not to be mapped once more.
        if self.host.may_mount && kept.as_ref().is_none_or(Record::is_plain) {
            match self.assign_mapped(&caller::needs(files, self.host.uid, true)) {
                Ok(assigned) => return Ok(assigned),
                Err(Refusal::Absent(failure)) => unmapped = format!("; idmapped: {failure}"),
                Err(Refusal::Broken(error)) => return Err(out_of_descriptors(error)),
            }
        }
        let own_layers = match self.identity.host_ids {
            HostIds::Auto => true,
            HostIds::Disjoint | HostIds::Shared => false,
        };
        let Some(need) = caller::needs(files, self.host.uid, own_layers).into_iter().next() else {
            return self.assign_as(None, kept);
        };
        let failure = need.failure();
        match self.identity.host_ids {
            HostIds::Disjoint => {
                let message = format!("{}{unmapped}", failure.message);
                Err(Failure { message, ..failure }.unsupported())
            }
            HostIds::Auto | HostIds::Shared => {
                self.assign_as(Some(format!("{}: {}{unmapped}", failure.subject, failure.message)), kept)
            }
        }
    }

    /// With ids of its own even where files of the caller's are used: these are mapped for it.
    fn assign_mapped(&self, needs: &[caller::Need]) -> Result<Assigned, Refusal> {
        if needs.is_empty() {
            return self.assign_as(None, None).map_err(Refusal::Broken);
        }
        let prepared = self.prepared()?;
        let source = match &*prepared {
            Prepared::Found(source) => source,
            Prepared::Absent(failure) => return Err(Refusal::Absent(failure.clone())),
        };
        let mut assigned = self.leased(source, None, None)?;
        let disk = idmapped::DiskIds::of(&assigned, self.host.uid, self.host.gid, &self.identity);
        assigned.trees = disk.mounts(needs)?;
        Ok(assigned)
    }

    /// Who the next sandbox is.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn assign(&self) -> Result<Assigned> {
        self.assign_as(self.asked_to_keep(), None)
    }

    fn asked_to_keep(&self) -> Option<String> {
        let keep = "keep_caller maps the caller's own UID to the program's";
        self.identity.keep_caller.then(|| keep.to_owned())
    }

    /// Whose the files in a kept upper are: the next sandbox on it has to be the same.
    fn owners_of_kept(&self, files: &Files) -> Result<Option<Record>> {
        let Some(dir) = &files.upper else { return Ok(None) };
        let Some(record) = record::read(dir)? else { return Ok(None) };
        let (has, wanted) = (record.count(), self.identity.count);
        if has != wanted {
            let message = format!("what is in it belongs to a sandbox of {has} ids, and {wanted} were asked for");
            return Err(Failure::new("upper", dir.display().to_string(), message)
                .hint(format!("Ask for {has} (id_count), or make it the caller's: `sandcell files reclaim DIR`."))
                .config());
        }
        Ok(Some(record))
    }

    /// With a reason to keep the caller's UID, or without; with the slice that another sandbox had, or a new one.
    fn assign_as(&self, keep: Option<String>, again: Option<Record>) -> Result<Assigned> {
        self.try_assign(keep, again).map_err(out_of_descriptors)
    }

    fn try_assign(&self, keep: Option<String>, again: Option<Record>) -> Result<Assigned> {
        if self.identity.host_ids.are_the_callers() {
            return self.shared("shared host ids were asked for".to_owned());
        }
        let absent = match &*self.prepared()? {
            Prepared::Found(source) => match self.leased(source, keep, again) {
                Ok(assigned) => return Ok(assigned),
                Err(Refusal::Broken(error)) => return Err(error),
                Err(Refusal::Absent(failure)) if lacks_descriptors(&failure) => return Err(failure.setup()),
                Err(Refusal::Absent(failure)) => failure,
            },
            Prepared::Absent(failure) => failure.clone(),
        };
        if self.identity.host_ids.must_be_disjoint() {
            return Err(absent.unsupported());
        }
        if self.identity.count > 1 {
            let message = format!("{} ids were asked for, and there are no sub-ids: {absent}", self.identity.count);
            return Err(Failure { message, subject: "identity".to_owned(), ..absent }.unsupported());
        }
        self.shared(format!("{absent}. {}", absent.hint))
    }

    fn prepared(&self) -> Result<Arc<Prepared>> {
        // Locked while it is being made: whoever comes meanwhile waits for this one instead of making another.
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &*source {
            return Ok(Arc::clone(prepared));
        }
        let prepared = match self.host.source() {
            Ok(found) => Prepared::Found(found),
            Err(Refusal::Absent(failure)) if lacks_descriptors(&failure) => return Err(failure.setup()),
            Err(Refusal::Absent(failure)) => Prepared::Absent(failure),
            Err(Refusal::Broken(error)) => return Err(error),
        };
        Ok(Arc::clone(source.insert(Arc::new(prepared))))
    }

    fn leased(&self, source: &Source, keep: Option<String>, again: Option<Record>) -> Result<Assigned, Refusal> {
        let Identity { count, wait, .. } = self.identity;
        let keep_caller = keep.is_some();
        let (uid, gid) = self.inside()?;
        // One of the sandbox's ids is the caller's where that is kept: with one id nothing is left to lease.
        let lease = match (keep_caller, count) {
            (true, 1) => None,
            _ => {
                source.check_size(count)?;
                let slices = again.and_then(|record| record.slices(self.host.uid, self.host.gid));
                Some(match slices {
                    None => self.new_lease(source)?,
                    Some(slices) => self.host.places.lease_again(source, slices, count, wait)?,
                })
            }
        };
        let map = |id, own, leased: Option<u32>| match leased {
            None => IdMap::one(id, own),
            Some(host) if keep_caller => IdMap::slice_around(id, own, host, count),
            Some(host) => IdMap::slice(id, host, count),
        };
        let uid_map = map(uid, self.host.uid, lease.as_ref().map(|l| l.uid));
        let gid_map = map(gid, self.host.gid, lease.as_ref().map(|l| l.gid));
        Ok(Assigned {
            uid,
            gid,
            host_uid: uid_map.host(uid).unwrap_or(self.host.uid),
            host_gid: gid_map.host(gid).unwrap_or(self.host.gid),
            disjoint: !keep_caller,
            why_shared: keep,
            setgroups: source.namespace.allows_setgroups() && self.host.allows_setgroups,
            groups_dropped: self.host.allows_setgroups || !self.host.has_groups,
            namespace: source.namespace.clone(),
            uid_map,
            gid_map,
            trees: Vec::new(),
            lease,
        })
    }

    /// Runs of images all have the first slice that is as long as a distribution's ids: others leave it to them while there is
    /// anything else.
    fn new_lease(&self, source: &Source) -> Result<Lease, Refusal> {
        let Identity { count, wait, .. } = self.identity;
        #[cfg(feature = "image")]
        if let (Some(uids), Some(gids)) = (store::beside(&source.uids), store::beside(&source.gids))
            && let Ok(lease) = self.host.places.lease(&uids, &gids, count, None)
        {
            return Ok(lease);
        }
        self.host.places.lease(&source.uids, &source.gids, count, wait)
    }

    fn shared(&self, why: String) -> Result<Assigned> {
        let (uid, gid) = self.inside()?;
        let written = self.host.may_write_maps && self.host.own_proc;
        let namespace = if written { UserNamespace::Written } else { UserNamespace::OneId };
        Ok(Assigned {
            uid,
            gid,
            host_uid: self.host.uid,
            host_gid: self.host.gid,
            disjoint: false,
            why_shared: Some(why),
            setgroups: namespace.allows_setgroups() && self.host.allows_setgroups,
            groups_dropped: namespace.allows_setgroups() && self.host.allows_setgroups || !self.host.has_groups,
            namespace,
            uid_map: IdMap::one(uid, self.host.uid),
            gid_map: IdMap::one(gid, self.host.gid),
            trees: Vec::new(),
            lease: None,
        })
    }

    /// Who the program is inside.
    fn inside(&self) -> Result<(u32, u32)> {
        Ok(match self.identity.user {
            // Above the ids that images use, and below 8^7, which tar and cpio archives can hold.
            User::Random => {
                let random = u64::from_ne_bytes(crate::sys::random().map_err(|errno| {
                    Failure::new("identity", "", "the kernel gives no random numbers").errno(errno as i32).setup()
                })?);
                (1_000_000 + (random % (2_097_152 - 1_000_000)) as u32, 0)
            }
            User::Root => (0, 0),
            User::Caller => (self.host.uid, self.host.gid),
            User::Fixed { uid, gid } => (uid, gid),
        })
    }
}

/// Who may touch the files of all of the caller's sub-ids; `None`: nobody more than the caller itself may.
pub(crate) fn proxy_over_sub_ids() -> Result<Option<Proxy>> {
    let host = Host::new()?;
    if host.may_write_maps {
        return Ok(None);
    }
    match host.source() {
        Ok(Source { namespace: UserNamespace::Nested(kept), .. }) => Proxy::in_namespace(&kept).map(Some),
        Ok(_) | Err(Refusal::Absent(_)) => Ok(None),
        Err(Refusal::Broken(error)) => Err(error),
    }
}

/// The error of a caller that has run out of descriptors is always the same.
fn out_of_descriptors(error: Error) -> Error {
    match error.errno() {
        Some(errno @ (libc::EMFILE | libc::ENFILE)) => crate::sys::descriptors(nix::errno::Errno::from_raw(errno)),
        _ => error,
    }
}

/// A caller that has run out of descriptors has ids all the same: no reason to share.
fn lacks_descriptors(failure: &Failure) -> bool {
    matches!(failure.errno, Some(libc::EMFILE | libc::ENFILE))
}
