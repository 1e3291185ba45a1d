//! Supervisors whose program has ended, with all that it started, and which are about to end themselves: nobody waits for that.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::supervise::init::Init;
use crate::sys;

/// More than these are waited for: each has a process and descriptors.
const MOST: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Ending(Mutex<Vec<Arc<Init>>>);

impl Ending {
    /// Takes one in, and reaps those that have ended meanwhile.
    pub(crate) fn add(&self, init: Arc<Init>) {
        let mut over = Vec::new();
        {
            let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            list.push(init);
            let surplus = list.len().saturating_sub(MOST);
            over.extend(list.drain(..surplus));
            over.extend(list.extract_if(.., |init| sys::is_readable(init.pidfd.as_fd())));
        }
        // Not under the lock: one that still lives is waited for here.
        drop(over);
    }
}
