//! The one call for which there is no safe form: taking over a descriptor that the shell has opened.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// A copy of the caller's descriptor `number`. To be called before this program opens anything of its own, which
/// could have the same number.
pub fn inherited(number: i32) -> io::Result<File> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
    }
    // SAFETY: it is used for this one call only, and a number that is not open makes the call fail with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fd.try_clone_to_owned().map(File::from)
}
