//! Why the kernel makes no namespaces, and what to do about it.

use std::ffi::CStr;
use std::fs::File;

use nix::errno::Errno;

use crate::error::Failure;

/// Why the kernel makes no namespaces: one kind and one remedy for a cause, whoever was about to make them.
pub(crate) fn refused(failure: Failure, errno: Errno) -> crate::Error {
    match errno {
        Errno::ENOSPC if read_number(c"/proc/sys/user/max_user_namespaces") == Some(0) => failure
            .hint("user namespaces are switched off here: sysctl user.max_user_namespaces=10000; or a weaker sandbox without them: `isolation` landlock")
            .unsupported(),
        Errno::ENOSPC => {
            failure.hint("a limit on namespaces is reached: raise user.max_*_namespaces").setup()
        }
        Errno::EPERM if read_number(c"/proc/sys/kernel/unprivileged_userns_clone") == Some(0) => {
            failure.hint("sysctl kernel.unprivileged_userns_clone=1").unsupported()
        }
        Errno::EPERM | Errno::ENOSYS => failure
            .hint("something around the caller forbids user namespaces: a container's seccomp profile, a chroot, or AppArmor; a weaker sandbox does without them: `isolation` landlock")
            .unsupported(),
        Errno::EAGAIN => failure.hint("RLIMIT_NPROC or a pids limit of the caller is reached").setup(),
        Errno::EUSERS => failure.hint("user namespaces are nested too deeply here").unsupported(),
        Errno::EINVAL => failure.hint("the kernel was built without namespaces (CONFIG_USER_NS and its like)").unsupported(),
        _ => failure.setup(),
    }
}

/// A number of /proc/sys; `None` where it is not there.
pub(crate) fn read_number(path: &CStr) -> Option<u32> {
    let file = File::open(path.to_str().ok()?).ok()?;
    std::io::read_to_string(file).ok()?.trim().parse().ok()
}
