//! The system calls that need rights over the files of sub-ids, made where those rights are. What comes back are
//! descriptors, and with those the caller itself can go on.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::Result;
use crate::ids::{self, Proxy};
use crate::rawsys::{self, nr};
use crate::sys::beneath::Opener;

const AT_REMOVEDIR: usize = 0x200;
const RENAME_NOREPLACE: usize = 1;

/// Who touches the files: a process in a user namespace that has all of the caller's ids, or the caller itself.
pub(crate) struct Hands {
    proxy: Option<Proxy>,
}

impl Hands {
    pub(crate) fn new() -> Result<Hands> {
        Ok(Hands { proxy: ids::proxy_over_sub_ids()? })
    }

    /// With the caller's own rights only.
    #[cfg(feature = "image")]
    pub(crate) fn own() -> Hands {
        Hands { proxy: None }
    }

    /// # Safety
    /// As [`Proxy::call`].
    unsafe fn call(&self, number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the caller answers for the arguments.
        unsafe {
            match &self.proxy {
                Some(proxy) => proxy.call(number, arguments),
                None => rawsys::check(rawsys::syscall6(number, a, b, c, d, e, f)),
            }
        }
        .map_err(Errno::from_raw)
    }

    /// openat(2), never through a link. The descriptor is the caller's.
    pub(crate) fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = (flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).bits() as usize;
        // SAFETY: the name ends with NUL; the descriptor that comes back is new.
        unsafe {
            let fd = self.call(nr::OPENAT, [dir.as_raw_fd() as usize, name.as_ptr() as usize, flags, 0, 0, 0])?;
            Ok(OwnedFd::from_raw_fd(fd as i32))
        }
    }

    /// Opens a directory for reading; where its mode keeps even its owner out, the owner is let in.
    pub(crate) fn open_dir(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        match self.open(dir, name, flags) {
            // With a proxy the mode is no obstacle, so this is not the caller's to change.
            Err(Errno::EACCES) if self.proxy.is_none() => {
                let place = self.open(dir, name, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
                let stat = nix::sys::stat::fstat(&place)?;
                self.chmod(place.as_fd(), stat.st_mode & 0o7777 | 0o700)?;
                self.reopen(place.as_fd())
            }
            other => other,
        }
    }

    /// Opens for reading what was opened as a mere path: the file itself, whatever has its name by now.
    pub(crate) fn reopen(&self, place: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let path = CString::new(format!("/proc/self/fd/{}", place.as_raw_fd())).expect("digits");
        let flags = (OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits() as usize;
        // SAFETY: the path ends with NUL; the descriptor that comes back is new.
        unsafe {
            let fd = self.call(nr::OPENAT, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0])?;
            Ok(OwnedFd::from_raw_fd(fd as i32))
        }
    }

    /// Also for a descriptor that was opened as a mere path.
    pub(crate) fn chmod(&self, fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
        let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("digits");
        // SAFETY: the path ends with NUL.
        unsafe { self.call(nr::FCHMODAT, [libc::AT_FDCWD as usize, path.as_ptr() as usize, mode as usize, 0, 0, 0]) }
            .map(drop)
    }

    pub(crate) fn chown(&self, fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
        let (empty, flag) = (c"".as_ptr() as usize, rawsys::AT_EMPTY_PATH);
        // SAFETY: the empty path ends with NUL.
        unsafe { self.call(nr::FCHOWNAT, [fd.as_raw_fd() as usize, empty, uid as usize, gid as usize, flag, 0]) }
            .map(drop)
    }

    /// The value of an attribute of an open file: how many bytes it has. Also for a mere path.
    pub(crate) fn attribute(&self, fd: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
        let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("digits");
        let (place, size) = (value.as_mut_ptr() as usize, value.len());
        // SAFETY: path and name end with NUL, and the place is as large as is said.
        unsafe { self.call(nr::GETXATTR, [path.as_ptr() as usize, name.as_ptr() as usize, place, size, 0, 0]) }
    }

    pub(super) fn unlink(&self, dir: BorrowedFd<'_>, name: &CStr, is_dir: bool) -> Result<(), Errno> {
        let flag = if is_dir { AT_REMOVEDIR } else { 0 };
        // SAFETY: the name ends with NUL.
        unsafe { self.call(nr::UNLINKAT, [dir.as_raw_fd() as usize, name.as_ptr() as usize, flag, 0, 0, 0]) }.map(drop)
    }

    /// Never over something that is there.
    pub(super) fn rename(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        to: BorrowedFd<'_>,
        as_name: &CStr,
    ) -> Result<(), Errno> {
        let (from, onto) = (dir.as_raw_fd() as usize, to.as_raw_fd() as usize);
        let arguments = [from, name.as_ptr() as usize, onto, as_name.as_ptr() as usize, RENAME_NOREPLACE, 0];
        // SAFETY: both names end with NUL.
        unsafe { self.call(nr::RENAMEAT2, arguments) }.map(drop)
    }
}

impl Opener for Hands {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd, Errno> {
        Hands::open(self, dir, name, flags)
    }

    fn open_dir(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        Hands::open_dir(self, dir, name)
    }

    fn reopen(&self, place: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        Hands::reopen(self, place)
    }
}
