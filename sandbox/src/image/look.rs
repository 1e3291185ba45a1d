//! What an image is, and what a run changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::merged::Merged;
use super::reach::{Reach, names};
use super::reference::Digest;
use super::store::{Image, Store};
use super::volume::VolumeInfo;
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

    /// [`Image::history`] as JSON: `created`, `createdBy`, `size`, `comment`, `layer`.
    pub fn history_json(&self) -> Value {
        let row = |row: HistoryRow| {
            json!({
                "created": row.created, "createdBy": row.created_by, "size": row.size, "comment": row.comment,
                "layer": row.layer,
            })
        };
        self.history().into_iter().map(row).collect()
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

impl Store {
    /// [`Store::images`] as JSON: `Id`, `Names`, `Created`, `Size`, `SharedSize`, `Layers`.
    ///
    /// # Errors
    /// Those of [`Store::images`].
    pub fn images_json(&self) -> Result<Value> {
        let mut all = Vec::new();
        for image in &self.images()? {
            let sizes = self.sizes(image)?;
            all.push(json!({
                "Id": image.id.hex(), "Names": image.names, "Created": image.config.created,
                "Size": sizes.total, "SharedSize": sizes.shared, "Layers": image.layers.len(),
            }));
        }
        Ok(Value::Array(all))
    }

    /// [`Store::volumes`] as JSON: `Name`, `Mountpoint`, `CreatedUnix`, `InUse`.
    ///
    /// # Errors
    /// Those of [`Store::volumes`].
    pub fn volumes_json(&self) -> Result<Value> {
        let one = |volume: VolumeInfo| {
            let created = volume.created.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
            json!({"Name": volume.name, "Mountpoint": volume.path, "CreatedUnix": created, "InUse": volume.in_use})
        };
        Ok(self.volumes()?.into_iter().map(one).collect())
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
/// `Setup` where the upper cannot be read, for instance because it belongs to ids that are not the caller's sub-ids.
pub fn changes(upper: &Path, layers: &[PathBuf]) -> Result<Vec<Change>> {
    let failed = |path: &Path, e: Errno| {
        let path = upper.join(path).display().to_string();
        Failure::new("image-diff", path, "reading the upper directory").cause(&e.into()).setup()
    };
    let (reach, merged) = (Reach::default(), Merged { layers });
    let mut found = BTreeMap::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty()).map_err(|e| failed(Path::new(""), e))?;
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let opened = reach.open_below(root.as_fd(), dir.as_os_str().as_bytes()).map_err(|e| failed(&dir, e))?;
        let listed = opened.try_clone().map_err(|_| failed(&dir, Errno::MFILE))?;
        let names = names(listed).map_err(|e| failed(&dir, e))?;
        if is_opaque_dir(&reach, opened.as_fd()) {
            hidden_by_opaque(&names, &merged, &dir, &mut found);
        }
        for (name, _) in names {
            let path = dir.join(OsStr::from_bytes(&name));
            let stat = reach.stat(opened.as_fd(), &name).map_err(|e| failed(&path, e))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let below = merged.find(&path).is_some();
            let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
            let change = match (whiteout, below) {
                (true, true) => ChangeKind::Deleted,
                // Made and deleted again by the same run.
                (true, false) => continue,
                (false, true) => ChangeKind::Modified,
                (false, false) => ChangeKind::Added,
            };
            if kind == FileType::Directory {
                pending.push(path.clone());
            }
            found.insert(Path::new("/").join(path), change);
        }
    }
    Ok(found.into_iter().map(|(path, kind)| Change { path, kind }).collect())
}

fn is_opaque_dir(reach: &Reach, dir: BorrowedFd<'_>) -> bool {
    [c"user.overlay.opaque", c"trusted.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 2];
        reach.attribute(dir, name, &mut value).is_ok_and(|n| &value[..n] == b"y")
    })
}

/// What a directory that replaces another of the same name took away.
fn hidden_by_opaque(
    names: &[(Vec<u8>, FileType)],
    merged: &Merged<'_>,
    dir: &Path,
    found: &mut BTreeMap<PathBuf, ChangeKind>,
) {
    for layer in merged.layers {
        let Ok(entries) = fs::read_dir(layer.join(dir)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let path = dir.join(&name);
            if names.iter().all(|(there, _)| there != name.as_bytes()) && merged.find(&path).is_some() {
                found.insert(Path::new("/").join(path), ChangeKind::Deleted);
            }
        }
    }
}
