//! Locks of the store: `flock(2)` on files in it, so that a lock ends with its holder however that ends.
//!
//! - `lock`: shared while something is added or looked up, exclusive while something is removed. Whoever holds it
//!   exclusively knows that nothing in `tmp/` belongs to anyone alive.
//! - `locks/HEX`: exclusive while a layer is made, so that it is made once. Taken in the order of the digests.
//! - `images/HEX/config.json`: shared while an image is in use by a run.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Failure, Result};
use crate::sys::lock::Lock;

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::new("image-store", path.display().to_string(), "opening a lock").cause(&e).setup())
}

fn failed(path: &Path, error: std::io::Error) -> crate::Error {
    Failure::new("image-store", path.display().to_string(), "waiting for a lock").cause(&error).setup()
}

/// Waits; others may hold it shared too.
pub(crate) fn shared(path: &Path) -> Result<Lock> {
    Lock::shared(open(path)?).map_err(|e| failed(path, e))
}

/// Waits until nobody else holds it.
pub(crate) fn exclusive(path: &Path) -> Result<Lock> {
    Lock::exclusive(open(path)?).map_err(|e| failed(path, e))
}

/// At once, or an error.
pub(crate) fn exclusive_now(path: &Path) -> Result<Lock> {
    try_exclusive(path)?.ok_or_else(|| failed(path, std::io::ErrorKind::WouldBlock.into()))
}

/// None where somebody else holds it.
pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
    Lock::try_exclusive(open(path)?).map_err(|e| failed(path, e))
}
