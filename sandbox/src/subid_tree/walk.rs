//! Going through a tree that a hostile program made: by descriptors, link by link of the path, never by path.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::sys::Hands;
use super::{EntryKind, failed};
use crate::error::Result;
use crate::sys::beneath::{self, Trail};

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
    let path: PathBuf = path.components().collect(); // no slash at the end: it would follow a link
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// A directory that is being walked through.
struct Level {
    names: std::vec::IntoIter<CString>,
}

/// Calls `visit` for everything beneath the tree, each directory before what is in it, in the order of the names.
pub(super) fn each(hands: &Hands, tree: &Path, visit: &mut dyn FnMut(&Node<'_>) -> Result<()>) -> Result<()> {
    let at = |path: &Path, errno| failed(&tree.join(path), "cannot be read", errno);
    let mut trail = Trail::new(hands, open_top(hands, tree)?);
    let mut path = PathBuf::new();
    let mut levels = vec![level(&trail).map_err(|errno| at(&path, errno))?];
    while let Some(level_here) = levels.last_mut() {
        let Some(name) = level_here.names.next() else {
            levels.pop();
            if !levels.is_empty() {
                trail.up().map_err(|errno| at(&path, errno))?;
                path.pop();
            }
            continue;
        };
        path.push(OsStr::from_bytes(name.to_bytes()));
        let found = hands.open(trail.dir(), &name, OFlag::O_PATH).and_then(|fd| Ok((fstat(&fd)?, fd)));
        let (stat, fd) = match found {
            // Removed meanwhile, by a sandbox that is still alive.
            Err(Errno::ENOENT) => {
                path.pop();
                continue;
            }
            other => other.map_err(|errno| at(&path, errno))?,
        };
        visit(&Node { path: &path, stat, fd: fd.as_fd() })?;
        drop(fd);
        let is_dir = kind(&stat) == EntryKind::Directory;
        match is_dir.then(|| trail.down(&name)) {
            Some(Ok(())) => levels.push(level(&trail).map_err(|errno| at(&path, errno))?),
            // Another file took its place meanwhile.
            Some(Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) | None => drop(path.pop()),
            Some(Err(errno)) => return Err(at(&path, errno)),
        }
    }
    Ok(())
}

fn level(trail: &Trail<'_>) -> Result<Level, Errno> {
    Ok(Level { names: beneath::names(trail.dir())?.into_iter() })
}
