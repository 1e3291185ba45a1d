//! Locks of the kernel's on open files (flock(2)): they end with their holder, however that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::{Mutex, MutexGuard, TryLockError as Busy};
use std::time::Duration;

/// A lock that is held. It is let go and not only closed: a process that another thread is about to start has a copy
/// of every descriptor until its exec, and the lock would live as long as the copy. A forked process that drops its
/// copy of this value does not let go of what is its parent's.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    owner: u32,
}

impl Lock {
    fn held(file: File) -> Lock {
        Lock { file, owner: std::process::id() }
    }

    /// Waits until nobody else holds it.
    pub(crate) fn exclusive(file: File) -> io::Result<Lock> {
        file.lock()?;
        Ok(Lock::held(file))
    }

    /// Waits; others may hold it shared too.
    #[cfg(feature = "image")]
    pub(crate) fn shared(file: File) -> io::Result<Lock> {
        file.lock_shared()?;
        Ok(Lock::held(file))
    }

    /// What holds it: whoever has a copy of it holds the lock, too.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Closed and not let go: somebody else holds it now.
    pub(crate) fn hand_over(&mut self) {
        self.owner = 0;
    }

    /// The same shared lock once more, on an open file description of its own.
    #[cfg(feature = "image")]
    pub(crate) fn again(&self) -> io::Result<File> {
        let file = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file)))?;
        file.lock_shared()?;
        Ok(file)
    }

    /// None where somebody else holds it.
    pub(crate) fn try_exclusive(file: File) -> io::Result<Option<Lock>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock::held(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            let _ = self.file.unlock();
        }
    }
}

/// A lock on a range of bytes, as fcntl(2) takes it.
pub(crate) fn bytes(kind: i32, start: u64, length: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start as i64,
        l_len: length as i64,
        l_pid: 0,
    }
}

/// What others have for moments only. `None`: a thread had it when this process was forked.
pub(crate) fn briefly<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..50 {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(Busy::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(Busy::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_let_go_is_free_although_a_copy_of_its_descriptor_is_open() {
        let path = std::env::temp_dir().join(format!("sandcell-lock-{}", std::process::id()));
        let open = || File::create(&path).unwrap();
        let held = Lock::exclusive(open()).unwrap();
        let copy = held.file.try_clone().unwrap();
        assert!(Lock::try_exclusive(open()).unwrap().is_none(), "it is held");
        drop(held);
        assert!(Lock::try_exclusive(open()).unwrap().is_some(), "it was let go");
        drop(copy);
        let mut kept = Lock::exclusive(open()).unwrap();
        kept.owner = 1;
        let copy = kept.file.try_clone().unwrap();
        drop(kept);
        assert!(Lock::try_exclusive(open()).unwrap().is_none(), "a forked process has let go of its parent's");
        drop(copy);
        std::fs::remove_file(&path).unwrap();
    }
}
