//! The one system call of this room that neither std nor nix wraps.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether systemd has marked this cgroup as handed over (`Delegate=yes`). `user.delegate` since systemd 251; the older
/// `trusted.delegate` is seen by root only.
pub(super) fn marked_as_delegated(cgroup: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(cgroup.as_os_str().as_bytes()) else { return false };
    [c"user.delegate", c"trusted.delegate"].into_iter().any(|name: &CStr| {
        let mut value = [0_u8; 8];
        // SAFETY: both strings end in NUL, and the kernel writes at most `value.len()` bytes into `value`.
        let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        length == 1 && value[0] == b'1'
    })
}
