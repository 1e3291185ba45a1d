//! Who the program is: UIDs inside and on the host.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::error::Result;
use crate::policy;
use crate::sys;

/// The ids of one sandbox.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub uid: u32,
    pub gid: u32,
    pub host_uid: u32,
    pub host_gid: u32,
    pub disjoint: bool,
    pub why_shared: Option<String>,
    pub namespace: UserNamespace,
    pub groups_dropped: bool,
}

#[derive(Debug)]
#[allow(dead_code)]
pub(crate) enum UserNamespace {
    /// The child writes its own map of one id.
    OneId,
    /// A mapped user namespace to enter.
    Kept(Arc<OwnedFd>),
}

pub(crate) fn assign(identity: &policy::Identity) -> Result<Assigned> {
    let (host_uid, host_gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let (uid, gid) = match identity.user {
        policy::User::Random => (1 << 20 | (u32::from_ne_bytes(sys::random()) & 0x3fff_ffff), 0),
        policy::User::Root => (0, 0),
        policy::User::Caller => (host_uid, host_gid),
        policy::User::Fixed { uid, gid } => (uid, gid),
    };
    Ok(Assigned {
        uid,
        gid,
        host_uid,
        host_gid,
        disjoint: false,
        why_shared: None,
        namespace: UserNamespace::OneId,
        groups_dropped: false,
    })
}
