//! The file system that an image's layers come to, seen without mounting it: as overlayfs would show it.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::store::LayerInfo;

/// As many links are followed on the way to a file as the kernel follows.
const LINKS: usize = 40;

/// Layers, the lowest first.
pub(crate) struct Merged<'a> {
    pub layers: &'a [PathBuf],
}

/// A file, where it is there: which layer shows it, and what it is.
pub(crate) struct Found {
    pub layer: usize,
    pub meta: Metadata,
}

pub(crate) fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(dir: &Path) -> bool {
    ["user.overlay.opaque", "trusted.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 2];
        rustix::fs::lgetxattr(dir.as_os_str().as_bytes(), *name, &mut value[..]).is_ok_and(|n| &value[..n] == b"y")
    })
}

/// The layers of an image for an overlay, the lowest first, in which none may be twice. All that a lower one of two says,
/// the upper one says again, whatever lies between: so the lower adds nothing, and hides nothing that is not hidden.
pub(crate) fn once(layers: &[LayerInfo]) -> Vec<&LayerInfo> {
    let mut seen = HashSet::new();
    let mut kept: Vec<_> = layers.iter().rev().filter(|layer| seen.insert(layer.diff_id)).collect();
    kept.reverse();
    kept
}

impl Merged<'_> {
    /// The uppermost layer that has the path, or hides it, decides. Relative; its parents must not be links.
    pub(crate) fn find(&self, path: &Path) -> Option<Found> {
        self.find_where(path, |_| true)
    }

    /// The same, but of a directory only those layers count that are `meant`.
    pub(crate) fn find_where(&self, path: &Path, meant: impl Fn(usize) -> bool) -> Option<Found> {
        'layers: for (layer, dir) in self.layers.iter().enumerate().rev() {
            let mut at = dir.clone();
            let mut hides = false;
            let mut last = fs::symlink_metadata(&at).ok()?;
            for part in path.components() {
                hides = hides || is_opaque(&at);
                at.push(part);
                match at.symlink_metadata() {
                    Ok(meta) if is_whiteout(&meta) => return None,
                    // A link or file where the path goes on hides the directories below.
                    Ok(meta) if !meta.is_dir() => {
                        return (at == dir.join(path)).then_some(Found { layer, meta });
                    }
                    Ok(meta) => last = meta,
                    Err(_) if hides => return None,
                    Err(_) => continue 'layers,
                }
            }
            if meant(layer) {
                return Some(Found { layer, meta: last });
            }
            if hides {
                return None;
            }
        }
        None
    }

    /// The names in a directory, sorted. Relative; neither it nor its parents may be links.
    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = BTreeSet::new();
        for layer in self.layers {
            let mut at = layer.clone();
            // A link of the layer would lead to a directory of the host.
            let is_dir = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            if !dir.components().all(|part| {
                at.push(part);
                is_dir(&at)
            }) {
                continue;
            }
            for entry in fs::read_dir(&at)? {
                names.insert(entry?.file_name());
            }
        }
        Ok(names.into_iter().filter(|name| self.find(&dir.join(name)).is_some()).collect())
    }

    /// Whether a directory is made of what a single layer has. Of such a one overlayfs lists whiteouts too.
    pub(crate) fn is_of_one_layer(&self, dir: &Path) -> bool {
        let Some(first) = self.find(dir).filter(|found| found.meta.is_dir()) else { return false };
        is_opaque(&self.layers[first.layer].join(dir))
            || self.find_where(dir, |layer| layer < first.layer).is_none_or(|next| !next.meta.is_dir())
    }

    /// Where an absolute path leads with all links in it followed, as a process of the image would follow them. What is
    /// not there is itself. `None` where links run in circles.
    pub(crate) fn resolve(&self, path: &Path) -> Option<PathBuf> {
        // The first part last, so that a link's target goes on top; the empty one is the root.
        let parts = |path: &Path| -> Vec<OsString> {
            let part = |part: Component<'_>| match part {
                Component::RootDir => OsString::new(),
                part => part.as_os_str().to_owned(),
            };
            path.components().rev().map(part).collect()
        };
        let mut pending = parts(path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_bytes() {
                b"" => at.clear(),
                b"." => {}
                b".." => drop(at.pop()),
                _ => {
                    at.push(&part);
                    let Some(found) = self.find(&at).filter(|found| found.meta.is_symlink()) else { continue };
                    links += 1;
                    if links > LINKS {
                        return None;
                    }
                    let target = fs::read_link(self.layers[found.layer].join(&at)).ok()?;
                    at.pop();
                    pending.extend(parts(&target));
                }
            }
        }
        Some(at)
    }
}
