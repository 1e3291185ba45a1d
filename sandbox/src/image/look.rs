//! What an image is, and what a run changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::reference::Digest;
use super::store::Image;
use crate::error::{Failure, Result};

/// A line of `history`, the newest step first as `podman history` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryRow {
    /// RFC 3339; empty where the image does not say.
    pub created: String,
    /// The command.
    pub created_by: String,
    /// Bytes of the layer's files; 0 for a step without a layer.
    pub size: u64,
    /// Free text.
    pub comment: String,
    /// The layer; none for a step that changed the configuration only.
    pub layer: Option<Digest>,
}

impl Image {
    /// The steps that made the image, the newest first. Layers that the history does not speak of stand at its end.
    pub fn history(&self) -> Vec<HistoryRow> {
        let mut layers = self.layers.iter();
        let mut rows = Vec::new();
        for step in self.config.history.iter().flatten() {
            let layer = if step.empty_layer { None } else { layers.next() };
            rows.push(HistoryRow {
                created: step.created.clone().unwrap_or_default(),
                created_by: step.created_by.clone().unwrap_or_default(),
                size: layer.map_or(0, |layer| layer.bytes),
                comment: step.comment.clone().unwrap_or_default(),
                layer: layer.map(|layer| layer.diff_id),
            });
        }
        let silent = layers.map(|layer| HistoryRow {
            created: String::new(),
            created_by: String::new(),
            size: layer.bytes,
            comment: String::new(),
            layer: Some(layer.diff_id),
        });
        rows.extend(silent);
        rows.reverse();
        rows
    }

    /// Everything about the image as JSON, with the keys of `podman inspect`.
    pub fn inspect(&self) -> Value {
        let config: Value = serde_json::from_slice(&self.config_bytes).unwrap_or_default();
        let layers: Vec<&Digest> = self.layers.iter().map(|layer| &layer.diff_id).collect();
        json!({
            "Id": self.id.hex(),
            "RepoTags": self.names,
            "Created": config["created"],
            "Author": config["author"],
            "Architecture": config["architecture"],
            "Os": config["os"],
            "Config": config["config"],
            "RootFS": {"Type": "layers", "Layers": layers},
            "History": config["history"],
            "Size": self.layers.iter().map(|layer| layer.bytes).sum::<u64>(),
            "Layers": self.layers,
        })
    }
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// Its content, mode, owner or attributes may differ: it was opened for writing or changed.
    Modified,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    /// The letter that `docker diff` has for it: `A`, `C`, `D`.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// A path that a run changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Change {
    /// Inside; absolute.
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What an overlay's upper directory changes about the layers below it (the lowest first), sorted by path.
///
/// # Errors
/// `Setup` where the upper cannot be read, for instance because it belongs to other ids.
pub fn changes(upper: &Path, layers: &[PathBuf]) -> Result<Vec<Change>> {
    let failed = |path: &Path, e: &io::Error| {
        Failure::new("image-diff", path.display().to_string(), "reading the upper directory").cause(e).setup()
    };
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let path = upper.join(&dir);
        for entry in fs::read_dir(&path).map_err(|e| failed(&path, &e))? {
            let entry = entry.map_err(|e| failed(&path, &e))?;
            let name = dir.join(entry.file_name());
            let meta = entry.metadata().map_err(|e| failed(&entry.path(), &e))?;
            let below = is_below(layers, &name);
            let whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
            let kind = match (whiteout, below) {
                (true, true) => ChangeKind::Deleted,
                // Made and deleted again by the same run.
                (true, false) => continue,
                (false, true) => ChangeKind::Modified,
                (false, false) => ChangeKind::Added,
            };
            if meta.is_dir() {
                pending.push(name.clone());
                if is_opaque(&entry.path()) {
                    hidden_by_opaque(upper, layers, &name, &mut found);
                }
            }
            found.insert(Path::new("/").join(name), kind);
        }
    }
    Ok(found.into_iter().map(|(path, kind)| Change { path, kind }).collect())
}

/// What a directory that replaces another of the same name took away.
fn hidden_by_opaque(upper: &Path, layers: &[PathBuf], dir: &Path, found: &mut BTreeMap<PathBuf, ChangeKind>) {
    for layer in layers {
        let Ok(entries) = fs::read_dir(layer.join(dir)) else { continue };
        for entry in entries.flatten() {
            let name = dir.join(entry.file_name());
            if is_below(layers, &name) && upper.join(&name).symlink_metadata().is_err() {
                found.insert(Path::new("/").join(name), ChangeKind::Deleted);
            }
        }
    }
}

/// Whether a path can be seen in the layers: the uppermost one that has it, or hides it, decides.
fn is_below(layers: &[PathBuf], path: &Path) -> bool {
    'layers: for layer in layers.iter().rev() {
        let mut at = layer.clone();
        let mut hides = false;
        for part in path.components() {
            hides = hides || is_opaque(&at);
            at.push(part);
            match at.symlink_metadata() {
                Ok(meta) if meta.file_type().is_char_device() && meta.rdev() == 0 => return false,
                // A link or file where the path goes on hides the directories below.
                Ok(meta) if !meta.is_dir() => return at == layer.join(path),
                Ok(_) => {}
                Err(_) if hides => return false,
                Err(_) => continue 'layers,
            }
        }
        return true;
    }
    false
}

fn is_opaque(dir: &Path) -> bool {
    ["user.overlay.opaque", "trusted.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 2];
        rustix::fs::lgetxattr(dir.as_os_str().as_bytes(), *name, &mut value[..]).is_ok_and(|n| &value[..n] == b"y")
    })
}
