//! Named volumes: directories of the store whose content outlives runs.
//!
//! `volumes/NAME/data` is what a run sees; `volumes/NAME/lock` is locked shared by every run that has it, so that only
//! one that nobody uses can be removed.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::time::SystemTime;

use super::lock;
use super::store::{Store, failed, list};
use crate::error::{Failure, Result};
use crate::sys::lock::Lock;

/// A volume of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// When it was made.
    pub created: SystemTime,
    /// Whether a run has it now.
    pub in_use: bool,
}

fn check(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 128 && name.chars().all(fine) {
        return Ok(());
    }
    Err(Failure::new("volume", name.escape_debug().to_string(), "no name for a volume")
        .hint("begin with a letter or digit; letters, digits, `_`, `.` and `-`, at most 128")
        .config())
}

impl Store {
    fn volume_dir(&self, name: &str) -> PathBuf {
        self.dir().join("volumes").join(name)
    }

    /// The volume's directory, made where it is not there yet, and the lock that keeps it.
    pub(crate) fn use_volume(&self, name: &str) -> Result<(PathBuf, Lock)> {
        check(name)?;
        let _lock = self.shared()?;
        let dir = self.volume_dir(name);
        let data = dir.join("data");
        let make = |mode| {
            fs::create_dir_all(&dir)?;
            match DirBuilder::new().mode(mode).create(&data) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        make(0o755).map_err(|e| failed(&data, "making a volume", &e))?;
        Ok((data, lock::shared(&dir.join("lock"))?))
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// `Setup` where the store cannot be read.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        let _lock = self.shared()?;
        let dir = self.dir().join("volumes");
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut volumes = Vec::new();
        for name in list(&dir)? {
            let Some(name) = name.to_str().map(str::to_owned) else { continue };
            let dir = self.volume_dir(&name);
            let path = dir.join("data");
            let meta = fs::metadata(&dir).map_err(|e| failed(&dir, "looking at a volume", &e))?;
            let created = meta.created().unwrap_or_else(|_| {
                SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(meta.mtime().try_into().unwrap_or(0))
            });
            let in_use = lock::try_exclusive(&dir.join("lock"))?.is_none();
            volumes.push(VolumeInfo { name, path, created, in_use });
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// `Config` where there is none of that name; `Setup` where a run is using it.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        check(name)?;
        let _lock = lock::exclusive(&self.dir().join("lock"))?;
        let dir = self.volume_dir(name);
        if !dir.exists() {
            let failure = Failure::new("volume", name, "no such volume in the store");
            return Err(failure.hint("list what is there: `sandcell volume ls`").config());
        }
        match lock::try_exclusive(&dir.join("lock"))? {
            Some(_lock) => self.discard(&dir),
            None => Err(Failure::new("volume", name, "a run is using this volume").hint("end it first").setup()),
        }
    }
}
