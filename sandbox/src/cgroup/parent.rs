//! Where groups are made, open once for all sandboxes of the process, and who has which of them.
//!
//! A group is marked as in use by a lock on one byte of the directory above it, that its name says ([`place`]). It belongs to
//! an open file description (`F_OFD_SETLK`, fcntl(2)), as the leases of ids do: the kernel drops it when its holder dies,
//! however it dies. It is there before the group is, so a group without it has no owner, and never gets one again.
//! A process forked without exec shares the description, and makes one of its own for what it makes itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{FileStat, Mode, fstat};

use crate::sys::lock::{briefly, bytes};

/// An open directory of groups.
#[derive(Debug)]
pub(super) struct Parent {
    dir: File,
    owner: u32,
}

/// The mark of one group. A forked process that drops its copy does not take away what is its parent's.
#[derive(Debug)]
pub(super) struct Mark {
    parent: Arc<Parent>,
    number: u64,
}

impl Parent {
    /// Never waited for: a thread may have had the list when this process was forked, and then it is opened once more.
    pub(super) fn open(path: &Path) -> io::Result<Arc<Parent>> {
        static OPEN: Mutex<Vec<Weak<Parent>>> = Mutex::new(Vec::new());
        let parent = Parent { dir: File::open(path)?, owner: std::process::id() };
        let now = fstat(&parent.dir)?;
        let Some(mut open) = briefly(&OPEN) else { return Ok(Arc::new(parent)) };
        // By what it is: its place may have got another directory since.
        let mut found = None;
        open.retain(|other| {
            let Some(other) = other.upgrade() else { return false };
            let is_same = |seen: FileStat| (seen.st_dev, seen.st_ino) == (now.st_dev, now.st_ino);
            if other.owner == parent.owner && fstat(&other.dir).is_ok_and(is_same) {
                found = Some(other);
            }
            true
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let parent = Arc::new(parent);
        open.push(Arc::downgrade(&parent));
        Ok(parent)
    }

    /// What lies beneath it. Only those who may make groups there could put something else in its place.
    pub(super) fn open_beneath(&self, name: &str, flags: OFlag) -> io::Result<File> {
        Ok(openat(&self.dir, name, flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    /// Whether another process has that group.
    pub(super) fn is_marked(&self, number: u64) -> io::Result<bool> {
        let mut lock = bytes(libc::F_WRLCK, number, 1);
        fcntl(self.dir.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }
}

impl Mark {
    pub(super) fn new(parent: Arc<Parent>, number: u64) -> io::Result<Mark> {
        mark(&parent.dir, number)?;
        Ok(Mark { parent, number })
    }

    /// The same by another description: whoever has a copy of it has the group.
    pub(super) fn again(&self) -> io::Result<OwnedFd> {
        let dir = self.parent.open_beneath(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        mark(&dir, self.number)?;
        Ok(dir.into())
    }
}

/// The byte of the group of a name: what its last eight characters are as a number. Two may have the same; then the one is not
/// found to be without an owner while the other has one.
pub(super) fn place(name: &str) -> u64 {
    u64::from_ne_bytes(*name.as_bytes().last_chunk().unwrap_or(&[0; 8])) >> 1
}

/// Read locks: two descriptions of one process may have the same.
fn mark(dir: &File, number: u64) -> io::Result<()> {
    fcntl(dir.as_fd(), FcntlArg::F_OFD_SETLK(&bytes(libc::F_RDLCK, number, 1)))?;
    Ok(())
}

impl Drop for Mark {
    fn drop(&mut self) {
        if self.parent.owner == std::process::id() {
            let _ = fcntl(self.parent.dir.as_fd(), FcntlArg::F_OFD_SETLK(&bytes(libc::F_UNLCK, self.number, 1)));
        }
    }
}
