//! Trees whose files belong to leased ids: kept uppers, homes and images that sandboxes wrote.
//!
//! Their owners are sub-ids of the caller, whom the caller cannot even look into where the mode says so. What
//! `podman unshare` does with a shell, these functions do themselves: they work from a user namespace in which all of
//! the caller's sub-ids are mapped. Root needs none and does it directly; a caller without sub-ids can do what the owner
//! of the files can. No link is followed, whatever the tree holds; a sandbox that still writes to it does no harm,
//! but what it writes meanwhile may be missed.
//!
//! ```no_run
//! for entry in sandcell::subid_tree::list("cache/upper")? {
//!     println!("{:o} {:?} {}", entry.mode, entry.uid, entry.path.display());
//! }
//! sandcell::subid_tree::copy_out("cache/upper/home", "home")?; // as the caller's own files
//! sandcell::subid_tree::remove("cache")?;
//! # Ok::<(), sandcell::Error>(())
//! ```

mod copy;
mod give_back;
mod reach;
mod remove;
mod sys;
mod walk;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use crate::error::{Error, Failure, Result};
use crate::ids::record;
pub(crate) use give_back::{Bound, give_back};
pub(crate) use reach::Reach;
#[cfg(feature = "image")]
pub(crate) use remove::quietly as remove_with;
pub(crate) use sys::Hands;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// An ordinary file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device (an overlay's whiteout is one), a pipe or a socket.
    Other,
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Relative to the tree.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with set-user-ID and its like.
    pub mode: u32,
    /// Bytes, as the file tells them.
    pub size: u64,
    /// The owner on the host.
    pub host_uid: u32,
    /// The group on the host.
    pub host_gid: u32,
    /// The owner inside, where the sandbox's map is noted beside the tree, as it is for a kept upper of several ids.
    pub uid: Option<u32>,
    /// The group inside, likewise.
    pub gid: Option<u32>,
}

/// Bytes of all paths in a list. A directory of 255 letters in another, 5,000 times, has paths of 3 GB.
const MOST_LISTED: usize = 256 << 20;

/// Everything in the directory, each directory before what is in it, in the order of the names.
///
/// # Errors
/// [`Error::Io`] with the path: it is no directory, belongs to ids that are not the caller's, or its paths together
/// are longer than 256 MiB.
pub fn list(tree: impl AsRef<Path>) -> Result<Vec<Entry>> {
    let tree = tree.as_ref();
    // What is no note is a file of the program's.
    let ids = record::beside(tree).ok().flatten();
    let mut entries = Vec::new();
    let mut listed = 0;
    walk::each(&Hands::new()?, tree, &mut |node| {
        let stat = &node.stat;
        listed += node.path.as_os_str().len();
        if listed > MOST_LISTED {
            return Err(failed(tree, "has too many files, or is nested too deep, to be listed", Errno::E2BIG));
        }
        entries.push(Entry {
            path: node.path.to_owned(),
            kind: walk::kind(stat),
            mode: stat.st_mode & 0o7777,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            host_uid: stat.st_uid,
            host_gid: stat.st_gid,
            uid: ids.as_ref().and_then(|ids| ids.uids.inside_of(stat.st_uid)),
            gid: ids.as_ref().and_then(|ids| ids.gids.inside_of(stat.st_gid)),
        });
        Ok(())
    })?;
    Ok(entries)
}

/// Copies the directory to `dest`, which must not be there, as the caller's own: modes without set-user-ID and
/// set-group-ID, times, holes and links as they are. Hard links become files of their own; owners, ACLs and extended
/// attributes stay behind. Returns what has no copy: devices (whiteouts among them), pipes and sockets.
///
/// # Errors
/// As [`list`]; what was copied until then stays.
pub fn copy_out(tree: impl AsRef<Path>, dest: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let _held = crate::sys::HeldFileSizeSignal::new();
    copy::tree(&Hands::new()?, tree.as_ref(), dest.as_ref())
}

/// Makes the caller the owner of the directory and of everything in it (chown(2) with the caller's UID and GID). Modes
/// stay, without set-user-ID and set-group-ID of files. For a kept upper no sandbox may be running on it; it can be
/// used again afterwards, all files are the program's then.
///
/// # Errors
/// As [`list`]; what has changed hands until then stays so. Calling it again goes on.
pub fn reclaim(tree: impl AsRef<Path>) -> Result<()> {
    let _held = crate::sys::HeldFileSizeSignal::new();
    let tree = tree.as_ref();
    let hands = Hands::new()?;
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let give = |path: &Path, fd: BorrowedFd<'_>, stat: &FileStat| {
        if (stat.st_uid, stat.st_gid) == (uid, gid) {
            return Ok(());
        }
        hands.chown(fd, uid, gid).map_err(|errno| failed(path, "cannot be given to the caller", errno))
    };
    walk::each(&hands, tree, &mut |node| give(&tree.join(node.path), node.fd, &node.stat))?;
    let top = walk::open_top(&hands, tree)?;
    let stat = fstat(&top).map_err(|errno| failed(tree, "cannot be examined", errno))?;
    give(tree, top.as_fd(), &stat)?;
    record::forget(tree)
}

/// Removes the directory and everything in it: any depth, any modes (an overlay's work directory has none), no link
/// followed. `std::fs::remove_dir_all` for trees of leased ids.
///
/// # Errors
/// [`Error::Io`] with the path: it is not there, no directory, or belongs to ids that are not the
/// caller's.
pub fn remove(tree: impl AsRef<Path>) -> Result<()> {
    remove::tree(&Hands::new()?, tree.as_ref())
}

fn failed(path: &Path, message: &str, errno: Errno) -> Error {
    let failure = Failure::new("owned-files", path.display().to_string(), message).errno(errno as i32);
    match errno {
        Errno::EPERM | Errno::EACCES | Errno::EOVERFLOW => failure
            .hint("It belongs to somebody who is neither the caller nor one of the caller's sub-ids (/etc/subuid): have root do it."),
        Errno::EMFILE => failure.hint("close some descriptors, or raise RLIMIT_NOFILE"),
        Errno::ELOOP => failure.hint("It is a link: name the directory itself."),
        Errno::E2BIG => failure.hint("List a part of it."),
        Errno::ESTALE => failure.hint("A directory was moved meanwhile: try again when nothing writes to the tree."),
        _ => failure,
    }
    .io()
}
