//! Removing a tree of any depth.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use super::sys::Hands;
use super::{failed, walk};
use crate::error::Result;
use crate::sys::beneath;

/// Names that are read before they are worked on, so that a directory of a million entries costs no memory.
const BATCH: usize = 4096;

/// Every directory is emptied into the top one before it goes, so that neither the stack nor the descriptors grow with
/// the depth.
pub(super) fn tree(hands: &Hands, path: &Path) -> Result<()> {
    quietly(hands, path).map_err(|errno| failed(path, "cannot be removed", errno))
}

/// The same, and only the error number where it fails.
pub(crate) fn quietly(hands: &Hands, path: &Path) -> Result<(), Errno> {
    let real = walk::absolute(path)?;
    let top = open(hands, AT_FDCWD, &real)?;
    let mut moved = 0;
    empty(hands, top.as_fd(), &mut |name| {
        let dir = open(hands, top.as_fd(), name)?;
        empty(hands, dir.as_fd(), &mut |inner| {
            // Opened, and so made open to its owner: a directory cannot be moved without a right to write to it.
            drop(open(hands, dir.as_fd(), inner)?);
            match hands.unlink(dir.as_fd(), inner, true) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => move_up(hands, dir.as_fd(), inner, top.as_fd(), &mut moved),
                other => other,
            }
        })?;
        hands.unlink(top.as_fd(), name, true)
    })?;
    hands.unlink(AT_FDCWD, &real, true)
}

/// Removes the files in a directory and hands over its directories, until nothing is left.
fn empty(
    hands: &Hands,
    dir: BorrowedFd<'_>,
    directory: &mut dyn FnMut(&CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    loop {
        let names = beneath::batch(dir, BATCH)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            match hands.unlink(dir, &name, false) {
                Err(Errno::EISDIR) => directory(&name)?,
                // Somebody else was quicker.
                Err(Errno::ENOENT) => {}
                other => other?,
            }
        }
    }
}

fn move_up(hands: &Hands, dir: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let to = CString::new(format!(".removing-{moved}")).expect("no NUL");
        match hands.rename(dir, name, top, &to) {
            Err(Errno::EEXIST) => {}
            other => return other,
        }
    }
}

/// Opens a directory and makes sure that what is in it can be removed.
fn open(hands: &Hands, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let opened = hands.open_dir(dir, name)?;
    let stat = nix::sys::stat::fstat(&opened)?;
    if stat.st_mode & 0o700 != 0o700 {
        hands.chmod(opened.as_fd(), 0o700)?;
    }
    Ok(opened)
}
