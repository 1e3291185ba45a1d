//! The file system that an image's layers come to, seen without mounting it: as overlayfs would show it.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

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
