//! Locks of the kernel's on open files (flock(2)): they end with their holder, however that ends.

use std::fs::{File, TryLockError};
use std::io;

/// A lock that is held. It is let go and not only closed: a process that another thread is about to start has a copy
/// of every descriptor until its exec, and the lock would live as long as the copy.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Waits until nobody else holds it.
    pub(crate) fn exclusive(file: File) -> io::Result<Lock> {
        file.lock()?;
        Ok(Lock(file))
    }

    /// Waits; others may hold it shared too.
    #[cfg(feature = "image")]
    pub(crate) fn shared(file: File) -> io::Result<Lock> {
        file.lock_shared()?;
        Ok(Lock(file))
    }

    /// None where somebody else holds it.
    pub(crate) fn try_exclusive(file: File) -> io::Result<Option<Lock>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_let_go_is_free_although_a_copy_of_its_descriptor_is_open() {
        let path = std::env::temp_dir().join(format!("sandcell-lock-{}", std::process::id()));
        let open = || File::create(&path).unwrap();
        let held = Lock::exclusive(open()).unwrap();
        let copy = held.0.try_clone().unwrap();
        assert!(Lock::try_exclusive(open()).unwrap().is_none(), "it is held");
        drop(held);
        assert!(Lock::try_exclusive(open()).unwrap().is_some(), "it was let go");
        drop(copy);
        std::fs::remove_file(&path).unwrap();
    }
}
