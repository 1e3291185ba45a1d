//! What neither std nor nix wraps: an attribute of a cgroup, and a process that holds one.
#![allow(unsafe_code)]

use std::ffi::CStr;
#[cfg(feature = "systemd")]
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[cfg(feature = "systemd")]
use crate::{rawsys, sys};

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

/// A process that does nothing until the value goes, or the calling process: init that never gets a Plan.
#[cfg(feature = "systemd")]
#[derive(Debug)]
pub(crate) struct Idle {
    child: std::process::Child,
    control: Option<OwnedFd>,
}

#[cfg(feature = "systemd")]
impl Idle {
    pub(crate) fn start() -> std::io::Result<Idle> {
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};
        let init = sys::sealed_memory(c"sandcell-init", sandcell_init::PROGRAM, true)?;
        let (ours, theirs) = sys::message_sockets()?;
        let mut command = Command::new(format!("/proc/self/fd/{}", init.as_raw_fd()));
        command.env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // SAFETY: one system call; what the caller left open for others is not held open here.
        unsafe { command.pre_exec(|| rawsys::cloexec_from(3).map_err(std::io::Error::from_raw_os_error)) };
        Ok(Idle { child: command.spawn()?, control: Some(ours) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

#[cfg(feature = "systemd")]
impl Drop for Idle {
    fn drop(&mut self) {
        // It ends when the other side of its socket is gone.
        drop(self.control.take());
        let _ = self.child.wait();
    }
}
