//! Idmapped mounts: the caller's files seen under the ids of a sandbox, without a change on the disk. See
//! mount_setattr(2), `MOUNT_ATTR_IDMAP`.
//!
//! The kernel lets only those make them who have CAP_SYS_ADMIN over the file system: the root of the host, for most. So
//! they are made here, in the caller, and init gets a descriptor of each.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use crate::error::{Failure, Result};
use crate::ids::caller::{Kind, Need};
use crate::ids::map::IdMap;
use crate::ids::namespace::Proxy;
use crate::ids::{Assigned, Refusal, sys};
use crate::policy::Identity;

/// Each is a descriptor in one message to init, which holds 253 and has others to carry.
const MOST: usize = 200;

/// A detached mount of something of the caller's, under the sandbox's ids.
#[derive(Debug)]
pub(crate) struct MappedTree {
    /// Of the host, as it stands in the policy, made absolute.
    pub path: PathBuf,
    pub mount: OwnedFd,
}

/// Which id on disk is which one of the sandbox's.
pub(super) struct DiskIds {
    /// For layers and uppers, which hold a system: every number on disk is that number inside.
    system: (IdMap, IdMap),
    /// For what else is mounted: the caller's files are the program's.
    own: (IdMap, IdMap),
}

impl DiskIds {
    pub(super) fn of(assigned: &Assigned, uid: u32, gid: u32, identity: &Identity) -> DiskIds {
        let Identity { count, reclaim, .. } = *identity;
        let maps = |map: &IdMap, caller: u32, program: u32, host: u32| match map.host(caller) {
            // What others than the program make is known by its owner later.
            Some(_) if count > 1 && reclaim => (map.clone(), map.on_host_but(caller, host)),
            Some(_) if count > 1 => (map.clone(), map.swapped(caller, program)),
            // There is only one, or the caller has none of them: then one it is.
            _ => (IdMap::one(caller, host), IdMap::one(caller, host)),
        };
        let uids = maps(&assigned.uid_map, uid, assigned.uid, assigned.host_uid);
        let gids = maps(&assigned.gid_map, gid, assigned.gid, assigned.host_gid);
        DiskIds { system: (uids.0, gids.0), own: (uids.1, gids.1) }
    }

    /// A mount for each of the things that the sandbox could not use otherwise.
    pub(super) fn mounts(&self, needs: &[Need]) -> Result<Vec<MappedTree>, Refusal> {
        if needs.len() > MOST {
            let message = format!("{} layers and mounts need idmapped mounts, and {MOST} are possible", needs.len());
            return Err(Refusal::Absent(Failure::new("idmapped-mount", "", message)));
        }
        let (mut system, mut own) = (None, None);
        let mut trees = Vec::new();
        for need in needs {
            let (slot, maps) = match need.kind {
                Kind::System => (&mut system, &self.system),
                Kind::Own if self.own == self.system => (&mut system, &self.system),
                Kind::Own => (&mut own, &self.own),
            };
            if slot.is_none() {
                *slot = Some(namespace(maps)?);
            }
            let namespace = slot.as_ref().expect("made above");
            let path = std::path::absolute(&need.path).unwrap_or_else(|_| need.path.clone());
            let mount = sys::idmapped(&path, namespace.as_fd(), need.recursive())
                .map_err(|errno| Refusal::Absent(refused(&path.display().to_string(), errno)))?;
            trees.push(MappedTree { path, mount });
        }
        Ok(trees)
    }
}

/// A user namespace that stands for these maps. Nothing runs in it.
fn namespace((uids, gids): &(IdMap, IdMap)) -> Result<OwnedFd> {
    let proxy = Proxy::in_new_namespace()?;
    for (name, map) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{}/{name}", proxy.pid());
        fs::write(&path, map.to_string())
            .map_err(|e| Failure::new("idmapped-mount", path, "cannot be written").cause(&e).setup())?;
    }
    proxy.namespace()
}

fn refused(path: &str, errno: Errno) -> Failure {
    let message = match errno {
        Errno::EPERM => "idmapped mounts of this file system belong to the root of the host",
        Errno::EINVAL => "it, or something mounted beneath it, is on a file system without idmapped mounts",
        Errno::ENOSYS => "this kernel has no idmapped mounts (Linux 5.12)",
        _ => "no idmapped mount can be made of it",
    };
    Failure::new("idmapped-mount", path, message).errno(errno as i32)
}
