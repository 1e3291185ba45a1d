//! What even SIGKILL does not end: a process that waits in the kernel for a file system that does not answer (FUSE, NFS).
//!
//! Nobody is made to wait for it. Its ids stay leased and its files kept from others as long as it may live; it is looked
//! for again whenever the same `Sandbox` starts something, and when that is dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::Lease;
use crate::overlay::upper::DiskUpper;
use crate::sys;
use crate::sys::procfs;

/// How long a sandbox that was told to end is waited for: its memory may take a while, but what waits in the kernel for a
/// file system that does not answer ends when that does, and not before.
pub(crate) const DEATH: Duration = Duration::from_secs(5);

/// How long what is about to end goes on without a change before it is taken for stuck.
pub(crate) const STILL: Duration = Duration::from_millis(100);

/// Waits for the end of a sandbox that was killed, while it is seen to end; false where it lives on.
pub(crate) fn ends(pidfd: BorrowedFd<'_>) -> bool {
    let until = Instant::now() + DEATH;
    let mut before = procfs::motion(pidfd);
    loop {
        if sys::wait_readable(&[pidfd], Some(Instant::now() + STILL)).map_or(true, |ended| ended[0]) {
            return true;
        }
        let now = procfs::motion(pidfd);
        if !now.ends(&before) || Instant::now() >= until {
            return false;
        }
        before = now;
    }
}

/// One sandbox that was killed and lives on.
#[derive(Debug)]
pub(crate) struct Remains {
    pub pidfd: OwnedFd,
    pub _lease: Option<Lease>,
    pub _upper: Option<DiskUpper>,
}

#[derive(Debug, Default)]
pub(crate) struct Stuck(Mutex<Vec<Remains>>);

impl Stuck {
    pub(crate) fn keep(&self, remains: Remains) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(remains);
    }

    /// Lets go of those that have ended meanwhile.
    pub(crate) fn look_again(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|remains| !remains.gone());
    }
}

impl Remains {
    fn gone(&self) -> bool {
        let gone = sys::is_readable(self.pidfd.as_fd());
        if gone {
            sys::reap(self.pidfd.as_fd());
        }
        gone
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.look_again();
        // Until the end of this process, rather than given to others.
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(std::mem::forget);
    }
}
