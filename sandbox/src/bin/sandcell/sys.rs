//! Calls for which there is no safe form: taking over a descriptor that the shell has opened, and ending by a signal.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use nix::libc;

/// A copy of the caller's descriptor `number`. To be called before this program opens anything of its own, which
/// could have the same number.
pub fn inherited(number: i32) -> io::Result<File> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is used for this one call only, and a number that is not open makes the call fail with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fd.try_clone_to_owned().map(File::from)
}

/// Ends this process by `signal`, without a core dump: it would be ours, not the program's. Returns where the signal
/// ends nothing.
pub fn end_by(signal: i32) {
    let _ = nix::sys::prctl::set_dumpable(false);
    // SAFETY: no handler is installed, one is removed (Rust's own for SIGSEGV would return); the set is initialised
    // before it is used, and nothing but this thread runs.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(signal);
    }
}
