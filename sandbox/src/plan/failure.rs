//! What init said about a step that failed, in words.

use nix::errno::Errno;

use super::{Plan, describe};
use crate::error::Failure;
use crate::wire::{Reply, stage};

pub(crate) fn setup_failure(plan: &Plan, reply: &Reply) -> crate::Error {
    let (name, words) = stage::describe(reply.detail);
    let subject = plan.steps().nth(reply.value as usize).map_or(String::new(), |step| describe(&step).0);
    let failure = Failure::new(name, subject, words).errno(reply.errno);
    let unsupported = |failure: Failure, hint: &str| failure.hint(hint).unsupported();
    match (reply.detail, Errno::from_raw(reply.errno)) {
        (_, Errno::ENOSYS) => {
            unsupported(failure, "Linux 5.12 or later is needed, without a filter that refuses this call")
        }
        (stage::MOUNT_ATTACH, Errno::EINVAL | Errno::ENOTDIR) => {
            let step = plan.steps().nth(reply.value as usize);
            failure.hint(step.map_or("", |step| super::place_of_mount(&step))).setup()
        }
        (stage::OVERLAY_MOUNT, Errno::EPERM | Errno::ENODEV) => {
            unsupported(failure, "overlays in user namespaces need Linux 5.11 and the overlay module")
        }
        (stage::OVERLAY_MOUNT, Errno::EINVAL) => failure
            .hint(
                "the layers or the upper lie on a file system that cannot be part of an overlay, or inside each other",
            )
            .setup(),
        (stage::OVERLAY_MOUNT, Errno::ELOOP) => {
            failure.hint("a layer stands there twice, or lies inside another: name each directory once").setup()
        }
        (stage::OVERLAY_UPPER, Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            failure.hint("the upper has to be a directory of the caller's own that can be written to").setup()
        }
        (stage::OVERLAY_UPPER, Errno::EOPNOTSUPP) => unsupported(
            failure,
            "an upper needs a file system with user attributes: ext4, xfs, btrfs, or tmpfs from Linux 6.6 on",
        ),
        (stage::STEER_NFTABLES | stage::STEER_ROUTES | stage::STEER_SOCKET | stage::STEER_LOG, errno) => {
            match steering_hint(reply.detail, errno) {
                Some(hint) => unsupported(failure, hint),
                None => failure.setup(),
            }
        }
        (stage::USABLE, Errno::EACCES | Errno::EPERM) => unsupported(
            failure,
            "Ask for `host_ids` shared: the sandbox has the caller's own id then, and an ordinary caller's groups; or give others the permission.",
        ),
        (stage::NETWORK, Errno::ENOSPC) => {
            unsupported(failure, "network namespaces are used up or switched off: raise user.max_net_namespaces")
        }
        (stage::FS_MOUNT | stage::FS_OPTION, Errno::EPERM) => unsupported(
            failure,
            "the caller is in a container whose own /proc is masked; run it with an unmasked /proc",
        ),
        (stage::BASE_OPTION, Errno::EINVAL) => failure.hint("the size is out of range").setup(),
        (stage::MOUNT_POINT, Errno::EROFS | Errno::ENOENT) => failure
            .hint("the destination lies beneath something read-only: choose another, or make it in the source")
            .setup(),
        (stage::OPEN_TREE | stage::OPEN_DIR, Errno::EACCES) => {
            failure.hint("the caller may not reach this path itself").setup()
        }
        (stage::NETWORK | stage::NESTED, Errno::EAGAIN) => {
            failure.hint("RLIMIT_NPROC or a pids limit of the caller is reached").setup()
        }
        (_, Errno::ENOSPC) => failure
            .hint("the private tmpfs is too small for what the sandbox itself needs: raise `disk` or `inodes`")
            .setup(),
        _ => failure.setup(),
    }
}

/// What the network `user` lacks.
fn steering_hint(stage: u32, errno: Errno) -> Option<&'static str> {
    match (stage, errno) {
        (stage::STEER_NFTABLES, Errno::ENOENT | Errno::EPROTONOSUPPORT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => {
            Some(
                "The network `user` needs nf_tables with tproxy, log and reject: load nft_tproxy, nft_log and nft_reject_inet, \
             or do with `network` none, loopback or host.",
            )
        }
        (stage::STEER_LOG, _) => {
            Some("The network `user` needs nfnetlink_log: load it, or do with `network` none, loopback or host.")
        }
        (_, Errno::EPERM | Errno::EACCES) => Some(
            "Something around the caller forbids what the network `user` needs: do with `network` none, loopback or host.",
        ),
        _ => None,
    }
}
