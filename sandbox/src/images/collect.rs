//! What goes out of the store: names, images, the layers that only they had, and what killed processes left.

use std::collections::HashSet;
use std::fs::{self, File};

use super::config::ImageConfig;
use super::lock;
use super::reference::{Digest, Reference};
use super::store::{Store, failed, list, remove_any};
use crate::error::{Failure, Result};
use crate::sys::lock::Lock;

/// What [`Store::prune`] or [`Store::remove`] took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Images that had no name and no run.
    pub images: Vec<Digest>,
    /// Layers that no image uses any more.
    pub layers: Vec<Digest>,
    /// Bytes of their files and blobs.
    pub bytes: u64,
}

impl Store {
    /// Takes a name away; an image without any name goes, with the layers that no other image has. An id takes all
    /// names of its image away.
    ///
    /// # Errors
    /// Those of [`Store::image`], and `Setup` where a run is using the image whose last name it is.
    pub fn remove(&self, name: &str) -> Result<Pruned> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        let _lock = lock::exclusive(&self.dir.join("lock"))?;
        let refs = self.refs()?;
        let id = self.resolve(name, &refs)?;
        let names: Vec<&String> = refs.iter().filter(|(_, of)| **of == id).map(|(name, _)| name).collect();
        let one = name
            .parse::<Reference>()
            .ok()
            .and_then(|reference| reference.candidates().into_iter().find(|candidate| refs.contains_key(candidate)));
        let last = one.is_none() || names.len() <= 1;
        if last && !self.lock_unused(id)? {
            return Err(Failure::new("image-store", name, "a run is using this image").hint("end it first").setup());
        }
        self.change_refs(|refs| match one {
            Some(one) => drop(refs.remove(&one)),
            None => refs.retain(|_, of| *of != id),
        })?;
        let doomed = if last { vec![id] } else { Vec::new() };
        self.collect(doomed)
    }

    /// Removes images without a name that no run is using, layers that no image has, and what killed processes left.
    ///
    /// # Errors
    /// `Setup` where something cannot be removed.
    pub fn prune(&self) -> Result<Pruned> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        let _lock = lock::exclusive(&self.dir.join("lock"))?;
        let named: HashSet<Digest> = self.refs()?.into_values().collect();
        let mut doomed = Vec::new();
        for id in self.image_ids()? {
            if !named.contains(&id) && self.lock_unused(id)? {
                doomed.push(id);
            }
        }
        self.collect(doomed)
    }

    /// Whether no run has the image; nobody new can take it while the store's lock is exclusive.
    fn lock_unused(&self, id: Digest) -> Result<bool> {
        let path = self.image_dir(id).join("config.json");
        let file = File::open(&path).map_err(|e| failed(&path, "reading an image", &e))?;
        let lock = Lock::try_exclusive(file).map_err(|e| failed(&path, "looking whether an image is in use", &e))?;
        Ok(lock.is_some())
    }

    /// Removes these images and all layers that are left without one. Under the exclusive lock.
    fn collect(&self, images: Vec<Digest>) -> Result<Pruned> {
        let mut pruned = Pruned { images, ..Pruned::default() };
        for id in &pruned.images {
            self.discard(&self.image_dir(*id))?;
            let _ = fs::remove_file(self.dir.join("locks").join(id.hex()));
        }
        let mut used = HashSet::new();
        for id in self.image_ids()? {
            match self.config_bytes(id)? {
                Some(bytes) => {
                    used.extend(ImageConfig::parse(&bytes, &id.to_string(), usize::MAX)?.rootfs.diff_ids);
                }
                None => self.discard(&self.image_dir(id))?,
            }
        }
        for name in list(&self.dir.join("layers"))? {
            let Some(diff_id) = name.to_str().and_then(Digest::from_hex) else { continue };
            if used.contains(&diff_id) {
                continue;
            }
            if let Ok(Some(info)) = self.layer(diff_id) {
                pruned.bytes += info.bytes + info.blob_size;
            }
            self.discard(&self.layer_dir(diff_id))?;
            // Nobody waits for it: that takes the shared lock first.
            let _ = fs::remove_file(self.dir.join("locks").join(diff_id.hex()));
            pruned.layers.push(diff_id);
        }
        self.sweep()?;
        self.sweep_cache();
        Ok(pruned)
    }

    /// Takes images away that have no name and no run; their layers stay until the next `prune`.
    pub(crate) fn forget(&self, ids: impl Iterator<Item = Digest>) {
        let ids: Vec<Digest> = ids.collect();
        // Not worth waiting for: `prune` finds them too.
        let Ok(_lock) = lock::exclusive_now(&self.dir.join("lock")) else { return };
        let Ok(refs) = self.refs() else { return };
        for id in ids {
            if !refs.values().any(|named| *named == id) && self.lock_unused(id).unwrap_or(false) {
                let _ = self.discard(&self.image_dir(id));
            }
        }
    }

    /// Removes what killed processes left, where nobody is at work just now.
    pub(crate) fn sweep_if_idle(&self) -> Result<()> {
        match lock::try_exclusive(&self.dir.join("lock"))? {
            Some(_lock) => self.sweep(),
            None => Ok(()),
        }
    }

    fn sweep(&self) -> Result<()> {
        for name in list(&self.dir.join("tmp"))? {
            let path = self.dir.join("tmp").join(name);
            let gone = match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => remove_any(&path),
                _ => fs::remove_file(&path),
            };
            gone.map_err(|e| failed(&path, "removing what a killed process left", &e))?;
        }
        Ok(())
    }
}
