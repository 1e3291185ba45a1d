//! What even SIGKILL does not end: a process that waits in the kernel for a file system that does not answer (FUSE, NFS).
//!
//! Nobody is made to wait for it. Its ids stay leased and its files kept from others as long as it may live; it is looked
//! for again whenever the same `Sandbox` starts something, and when that is dropped.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::ids::Lease;
use crate::overlay::upper::DiskUpper;
use crate::sys;

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
