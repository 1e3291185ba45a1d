//! The ids that an image's files belong to, for runs of several ids: always the same slice of the caller's sub-ids, so
//! that the files of a layer have their owners once and for all runs.
//!
//! The image's root is the caller; the ids above are the first slice of the sub-ids. Runs share them, so their lease is
//! a shared lock: any number of runs of images, and no sandbox with ids of its own among them meanwhile.

use crate::error::{Failure, Result};
use crate::ids::map::IdMap;
use crate::ids::ranges::{Range, Ranges};
use crate::ids::record::Record;
use crate::ids::source::Source;
use crate::ids::{Assigned, IdPool, Prepared, Refusal};
use crate::policy::User;

/// Ids of a whole distribution.
const WHOLE: u32 = 65536;

/// The ids that no run of an image has.
pub(super) fn beside(ids: &Ranges) -> Option<Ranges> {
    let whole = Range::new(ids.slice(0, WHOLE)?, WHOLE);
    Some(ids.without(&std::iter::once(whole).collect()))
}

/// The slice: where it begins and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreIds {
    pub uid: u32,
    pub gid: u32,
    /// Ids of a run, 0 and up, the caller's included.
    pub count: u32,
    /// Ids that files of the store can have.
    pub most: u32,
}

impl StoreIds {
    /// Whom an image's owner and group are on the host; an id beyond the slice is the caller, as everything is where
    /// there are no sub-ids.
    pub(crate) fn host(&self, (uid, gid): (u32, u32), caller: (u32, u32)) -> (u32, u32) {
        let id = |id: u32, start: u32, own| if id == 0 || id >= self.most { own } else { start + id };
        (id(uid, self.uid, caller.0), id(gid, self.gid, caller.1))
    }
}

impl IdPool {
    /// Runs are on layers with these owners.
    pub(crate) fn use_store(&mut self, ids: StoreIds) {
        self.on_store = Some(ids);
    }

    /// The user that an image names takes the place of the policy's.
    pub(crate) fn set_user(&mut self, user: User) {
        self.identity.user = user;
    }

    /// The slice for runs of images of as many ids as the policy says.
    pub(crate) fn store_ids(&self) -> Result<StoreIds> {
        let count = self.identity.count;
        match &*self.prepared()? {
            Prepared::Found(source) => {
                source.check_size(count)?;
                // The first that holds all ids of a whole distribution; a smaller run has the beginning of it.
                let whole = source.check_size(WHOLE).is_ok() && count < WHOLE;
                let most = if whole { WHOLE } else { count };
                let slice = |ids: &Ranges| ids.slice(0, most).unwrap_or_default();
                Ok(StoreIds { uid: slice(&source.uids), gid: slice(&source.gids), count, most })
            }
            Prepared::Absent(failure) => {
                let message = format!("{count} ids were asked for, and there are no sub-ids: {failure}");
                Err(Failure { message, subject: "identity".to_owned(), ..failure.clone() }.unsupported())
            }
        }
    }

    /// Who the next run on layers with these owners is; `kept`: whose the files of its upper are.
    pub(super) fn on_store(&self, ids: StoreIds, kept: Option<Record>) -> Result<Assigned> {
        if let Some(slices) = kept.and_then(|record| record.slices(self.host.uid, self.host.gid))
            && slices != (ids.uid, ids.gid)
        {
            return Err(Failure::new("upper", "identity", "the files in it belong to other sub-ids than the image's")
                .hint("Make them the caller's: `sandcell files reclaim DIR`.")
                .setup());
        }
        let failed = |refusal| match refusal {
            Refusal::Broken(error) => error,
            Refusal::Absent(failure) => failure.unsupported(),
        };
        match &*self.prepared()? {
            Prepared::Found(source) => self.assign_on_store(source, ids).map_err(failed),
            Prepared::Absent(failure) => Err(failure.clone().unsupported()),
        }
    }

    fn assign_on_store(&self, source: &Source, ids: StoreIds) -> Result<Assigned, Refusal> {
        let lease = self.host.places.lease_shared((ids.uid, ids.gid), ids.count, self.identity.wait)?;
        let (uid, gid) = self.inside()?;
        let uid_map = IdMap::below_own(uid, self.host.uid, ids.uid, ids.count);
        let gid_map = IdMap::below_own(gid, self.host.gid, ids.gid, ids.count);
        Ok(Assigned {
            uid,
            gid,
            host_uid: uid_map.host(uid).unwrap_or(self.host.uid),
            host_gid: gid_map.host(gid).unwrap_or(self.host.gid),
            disjoint: false,
            why_shared: Some(
                "the files of the image belong to the caller and to ids that all its runs have".to_owned(),
            ),
            setgroups: source.namespace.allows_setgroups() && self.host.allows_setgroups,
            groups_dropped: self.host.allows_setgroups || !self.host.has_groups,
            namespace: source.namespace.clone(),
            uid_map,
            gid_map,
            trees: Vec::new(),
            lease: Some(lease),
        })
    }
}
