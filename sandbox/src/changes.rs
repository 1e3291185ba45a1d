//! What a run changed in its overlay: the upper directory, read as overlayfs wrote it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::identity::Assigned;
use crate::policy::{Policy, Root};

/// How a path differs from the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It is in none of the layers.
    Added,
    /// It is in the layers with other content or attributes.
    Modified,
    /// It is in the layers and is gone.
    Deleted,
}

/// A path that differs from the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Inside; absolute.
    pub path: PathBuf,
}

/// Lists them, sorted by path. Directories count only for themselves, not for what is in them.
pub(crate) fn list(upper: BorrowedFd<'_>, policy: &Policy, identity: &Assigned) -> Result<Vec<Change>> {
    let Root::Layers(layers) = &policy.root else { return Ok(Vec::new()) };
    // The descriptor is the way in: the directory may have no path in our mount namespace.
    let top = PathBuf::from(format!("/proc/self/fd/{}", upper.as_raw_fd()));
    let lower: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    let mut changes = Vec::new();
    walk(&top, Path::new(""), &lower, identity, &mut changes)?;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// `lower`: the layers' directories at this place, topmost first, as far as they show through.
fn walk(top: &Path, at: &Path, lower: &[PathBuf], identity: &Assigned, changes: &mut Vec<Change>) -> Result<()> {
    let dir = top.join(at);
    let opaque = is_opaque(&dir).map_err(|e| unread(at, &e))?;
    let through: &[PathBuf] = if opaque { &[] } else { lower };
    let mut seen = Vec::new();
    for entry in fs::read_dir(&dir).map_err(|e| unread(at, &e))? {
        let entry = entry.map_err(|e| unread(at, &e))?;
        let name = entry.file_name();
        let path = at.join(&name);
        let full = Path::new("/").join(&path);
        let meta = entry.metadata().map_err(|e| unread(&path, &e))?;
        let below = find(lower, &name).map_err(|e| unread(&path, &e))?;
        seen.push(name.clone());
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            if below.is_some() {
                changes.push(Change { kind: ChangeKind::Deleted, path: full });
            }
            continue;
        }
        match (&below, meta.is_dir()) {
            (None, _) => changes.push(Change { kind: ChangeKind::Added, path: full }),
            (Some(old), true) if old.is_dir() => {
                // Copied up only because something in it changed, unless its own attributes differ.
                if old.mode() != meta.mode() || !identity.same_owner((old.uid(), old.gid()), (meta.uid(), meta.gid())) {
                    changes.push(Change { kind: ChangeKind::Modified, path: full });
                }
            }
            (Some(_), _) => changes.push(Change { kind: ChangeKind::Modified, path: full }),
        }
        if meta.is_dir() {
            let through = shown(through, &name).map_err(|e| unread(&path, &e))?;
            walk(top, &path, &through, identity, changes)?;
        }
    }
    if opaque {
        gone(lower, at, &seen, changes)?;
    }
    Ok(())
}

/// A place that cannot be looked at: the list would be wrong.
fn unread(path: &Path, error: &io::Error) -> crate::Error {
    Failure::new("changes", Path::new("/").join(path).display().to_string(), "cannot compare upper and layers here")
        .cause(error)
        .hint("the caller must be able to read both")
        .io()
}

/// What is there; nothing is no error.
fn look(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some),
    }
}

/// The entry as the layers show it.
fn find(lower: &[PathBuf], name: &OsStr) -> io::Result<Option<fs::Metadata>> {
    for dir in lower {
        if let Some(meta) = look(&dir.join(name))? {
            return Ok(Some(meta).filter(|meta| !(meta.file_type().is_char_device() && meta.rdev() == 0)));
        }
        if is_opaque(dir)? {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The directories of this name that show through each other.
fn shown(lower: &[PathBuf], name: &OsStr) -> io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for dir in lower {
        let path = dir.join(name);
        match look(&path)? {
            Some(meta) if meta.is_dir() => {
                let opaque = is_opaque(&path)?;
                dirs.push(path);
                if opaque {
                    break;
                }
            }
            Some(_) => break,
            None => {}
        }
    }
    Ok(dirs)
}

/// What an opaque directory hides and does not replace is deleted.
fn gone(lower: &[PathBuf], at: &Path, seen: &[OsString], changes: &mut Vec<Change>) -> Result<()> {
    let fail = |e: io::Error| unread(at, &e);
    let mut names = BTreeSet::new();
    for dir in lower {
        for entry in fs::read_dir(dir).map_err(fail)? {
            names.insert(entry.map_err(fail)?.file_name());
        }
    }
    for name in names.into_iter().filter(|name| !seen.contains(name)) {
        if find(lower, &name).map_err(fail)?.is_some() {
            changes.push(Change { kind: ChangeKind::Deleted, path: Path::new("/").join(at).join(name) });
        }
    }
    Ok(())
}

fn is_opaque(dir: &Path) -> io::Result<bool> {
    Ok(crate::sys::attribute(dir, c"user.overlay.opaque")?.is_some_and(|value| value == b"y"))
}
