//! Repositories that the caller shows: git(1) refuses one whose owner is not the user that runs it ("dubious ownership"), which inside
//! is almost always so. The caller has chosen to show it, and what git does there, it does in the sandbox.

use std::ffi::OsString;
use std::path::Path;

use nix::sys::stat::lstat;
use nix::sys::statfs::{self, FsType, statfs};

use crate::policy::Mount;

/// The variables by which git trusts those repositories and no others: safe.directory in git-config(1).
pub(crate) fn variables(mounts: &[Mount]) -> Vec<(OsString, OsString)> {
    let trusted: Vec<&Path> = mounts.iter().filter_map(repository).collect();
    if trusted.is_empty() {
        return Vec::new();
    }
    let pair = |(number, dest): (usize, &Path)| {
        [
            (format!("GIT_CONFIG_KEY_{number}").into(), "safe.directory".into()),
            (format!("GIT_CONFIG_VALUE_{number}").into(), dest.into()),
        ]
    };
    let count = ("GIT_CONFIG_COUNT".into(), trusted.len().to_string().into());
    std::iter::once(count).chain(trusted.into_iter().enumerate().flat_map(pair)).collect()
}

/// File systems of this machine. One that asks somebody else (FUSE, NFS) may never answer, and the caller would wait.
const LOCAL: [FsType; 6] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::OVERLAYFS_SUPER_MAGIC,
    // ZFS.
    FsType(0x2fc1_2fc1),
];

/// Where the work tree of a repository stands inside. Only whether there is a `.git` is looked at, through no link.
fn repository(mount: &Mount) -> Option<&Path> {
    match mount {
        Mount::Bind { source, dest, .. } => {
            let is_local = statfs(source.as_path()).is_ok_and(|fs| LOCAL.contains(&fs.filesystem_type()));
            (is_local && lstat(&source.join(".git")).is_ok()).then_some(dest)
        }
        Mount::Tmpfs { .. } | Mount::File { .. } | Mount::Device { .. } | Mount::Socket { .. } => None,
    }
}
