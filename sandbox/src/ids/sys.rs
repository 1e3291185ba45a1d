//! The few system calls of this room for which neither std nor nix has a safe function.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::rawsys::call;
use crate::rawsys::{self, nr};

fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Whether the file gains capabilities when it is executed: capabilities(7).
pub(super) fn has_file_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    const NAME: &CStr = c"security.capability";
    // SAFETY: both strings end with NUL; without a buffer the call only tells the length.
    unsafe { call!(nr::GETXATTR, path.as_ptr(), NAME.as_ptr(), 0, 0) }.is_ok()
}

/// A detached copy of the mount at a path, with what is mounted beneath it where `recursive`, under the ids of a user
/// namespace: open_tree(2), mount_setattr(2).
pub(super) fn idmapped(path: &Path, namespace: BorrowedFd<'_>, recursive: bool) -> nix::Result<OwnedFd> {
    const OPEN_TREE_CLONE: usize = 1;
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| nix::errno::Errno::EINVAL)?;
    let deep = if recursive { rawsys::AT_RECURSIVE } else { 0 };
    // struct mount_attr: set, clear, propagation, user namespace.
    let attributes = [MOUNT_ATTR_IDMAP, 0, 0, namespace.as_raw_fd() as u64];
    // SAFETY: both paths end with NUL; the attributes have the layout and size of struct mount_attr; the descriptor
    // that comes back is new.
    unsafe {
        let flags = OPEN_TREE_CLONE | rawsys::O_CLOEXEC | deep;
        let tree = call!(nr::OPEN_TREE, rawsys::AT_FDCWD, path.as_ptr(), flags)
            .map(|fd| OwnedFd::from_raw_fd(fd as i32))
            .map_err(nix::errno::Errno::from_raw)?;
        let (size, flags) = (size_of_val(&attributes), rawsys::AT_EMPTY_PATH | deep);
        call!(nr::MOUNT_SETATTR, tree.as_raw_fd(), c"".as_ptr(), flags, attributes.as_ptr(), size)
            .map_err(nix::errno::Errno::from_raw)?;
        Ok(tree)
    }
}

/// A descriptor for a process: pidfd_open(2).
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the descriptor that comes back is new and nobody else's.
    unsafe {
        let fd = call!(nr::PIDFD_OPEN, pid, 0).map_err(os_error)?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Kills the process behind the descriptor; one that has ended already is no error worth telling.
pub(super) fn pidfd_kill(pidfd: BorrowedFd<'_>) {
    // SAFETY: numbers and a null pointer, which stands for the signal's default details.
    let _ = unsafe { call!(nr::PIDFD_SEND_SIGNAL, pidfd.as_raw_fd(), rawsys::SIGKILL, 0, 0) };
}

/// Waits for the end of exactly this child, whatever signal it sends at its end, and reaps it.
pub(super) fn pidfd_reap(pidfd: BorrowedFd<'_>) {
    // `P_PIDFD` wants Linux 5.4. `__WALL`: a child without an exit signal is invisible to an ordinary wait.
    let options = libc::WEXITED | libc::__WALL;
    // SAFETY: numbers and null pointers where the call has nothing to tell us.
    while unsafe { call!(nr::WAITID, libc::P_PIDFD, pidfd.as_raw_fd(), 0, options, 0) } == Err(rawsys::EINTR) {}
}
