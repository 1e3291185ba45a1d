//! Going through a tree that a hostile program made: by descriptors, link by link of the path, never by path.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::sys::Hands;
use super::{EntryKind, failed};
use crate::error::Result;

/// Each level holds a descriptor or two, and 1,024 are what a process usually has.
const DEEPEST: usize = 512;

/// A file that the walk has come to.
pub(super) struct Node<'a> {
    /// Relative to the tree.
    pub path: &'a Path,
    pub stat: FileStat,
    /// Opened as a mere path.
    pub fd: BorrowedFd<'a>,
}

pub(super) fn kind(stat: &FileStat) -> EntryKind {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => EntryKind::File,
        SFlag::S_IFDIR => EntryKind::Directory,
        SFlag::S_IFLNK => EntryKind::Symlink,
        _ => EntryKind::Other,
    }
}

/// The tree's own directory. It may not be a link itself, as for `std::fs::remove_dir_all`.
pub(super) fn open_top(hands: &Hands, tree: &Path) -> Result<OwnedFd> {
    absolute(tree)
        .and_then(|path| hands.open_dir(AT_FDCWD, &path))
        .map_err(|errno| failed(tree, "cannot be opened as a directory", errno))
}

/// Without looking at it: the caller itself may not be allowed to.
pub(super) fn absolute(tree: &Path) -> Result<CString, Errno> {
    let path = std::path::absolute(tree).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::ENOENT)))?;
    let path: std::path::PathBuf = path.components().collect(); // no slash at the end: it would follow a link
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Calls `visit` for everything beneath the tree, each directory before what is in it.
pub(super) fn each(hands: &Hands, tree: &Path, visit: &mut dyn FnMut(&Node<'_>) -> Result<()>) -> Result<()> {
    let top = open_top(hands, tree)?;
    below(hands, tree, top.as_fd(), Path::new(""), DEEPEST, visit)
}

fn below(
    hands: &Hands,
    tree: &Path,
    dir: BorrowedFd<'_>,
    prefix: &Path,
    depth: usize,
    visit: &mut dyn FnMut(&Node<'_>) -> Result<()>,
) -> Result<()> {
    let at = |path: &Path, errno| failed(&tree.join(path), "cannot be read", errno);
    for name in names(dir).map_err(|errno| at(prefix, errno))? {
        let path = prefix.join(OsStr::from_bytes(name.to_bytes()));
        let found = hands.open(dir, &name, OFlag::O_PATH).and_then(|fd| Ok((fstat(&fd)?, fd)));
        let (stat, fd) = match found {
            // Removed meanwhile, by a sandbox that is still alive.
            Err(Errno::ENOENT) => continue,
            other => other.map_err(|errno| at(&path, errno))?,
        };
        visit(&Node { path: &path, stat, fd: fd.as_fd() })?;
        if kind(&stat) == EntryKind::Directory {
            let inner = depth.checked_sub(1).ok_or(Errno::ELOOP).and_then(|_| hands.open_dir(dir, &name));
            drop(fd);
            below(hands, tree, inner.map_err(|errno| at(&path, errno))?.as_fd(), &path, depth - 1, visit)?;
        }
    }
    Ok(())
}

/// The names in a directory, sorted.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = batch(dir, usize::MAX)?;
    names.sort();
    Ok(names)
}

/// At most so many names.
pub(super) fn batch(dir: BorrowedFd<'_>, most: usize) -> Result<Vec<CString>, Errno> {
    // The duplicate shares its position, which the iterator puts back to the beginning.
    let mut dir = Dir::from_fd(dir.try_clone_to_owned().map_err(|_| Errno::EMFILE)?)?;
    let own = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
    dir.iter()
        .filter(|entry| !entry.as_ref().is_ok_and(|entry| own(entry.file_name())))
        .take(most)
        .map(|entry| Ok(entry?.file_name().to_owned()))
        .collect()
}
