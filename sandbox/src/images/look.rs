//! What an image is, and what a run changed.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

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
    pub fn history_json(&self) -> String {
        let row = |row: HistoryRow| {
            json!({
                "created": row.created, "createdBy": row.created_by, "size": row.size, "comment": row.comment,
                "layer": row.layer,
            })
        };
        self.history().into_iter().map(row).collect::<Value>().to_string()
    }

    /// Everything about the image as JSON, with the keys of `podman inspect`.
    pub fn inspect(&self) -> String {
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
        .to_string()
    }
}

impl Store {
    /// [`Store::images`] as JSON: `Id`, `Names`, `Created`, `Size`, `SharedSize`, `Layers`.
    ///
    /// # Errors
    /// Those of [`Store::images`].
    pub fn images_json(&self) -> Result<String> {
        let mut all = Vec::new();
        for image in &self.images()? {
            let sizes = self.sizes(image)?;
            all.push(json!({
                "Id": image.id.hex(), "Names": image.names, "Created": image.config.created,
                "Size": sizes.total, "SharedSize": sizes.shared, "Layers": image.layers.len(),
            }));
        }
        Ok(Value::Array(all).to_string())
    }

    /// [`Store::volumes`] as JSON: `Name`, `Mountpoint`, `CreatedUnix`, `InUse`.
    ///
    /// # Errors
    /// Those of [`Store::volumes`].
    pub fn volumes_json(&self) -> Result<String> {
        let one = |volume: VolumeInfo| {
            let created = volume.created.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
            json!({"Name": volume.name, "Mountpoint": volume.path, "CreatedUnix": created, "InUse": volume.in_use})
        };
        Ok(self.volumes()?.into_iter().map(one).collect::<Value>().to_string())
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

/// What runs changed about the layers below a kept upper (the lowest first), sorted by path. `upper` is the directory
/// that was given as [`Upper::Dir`](crate::Upper::Dir).
///
/// # Errors
/// `Config` where the directory is no kept upper; `Setup` where it cannot be read, for instance because it belongs to
/// ids that are not the caller's sub-ids.
pub fn changes(upper: &Path, layers: &[PathBuf]) -> Result<Vec<Change>> {
    let opened = crate::overlay::upper::open_kept(upper)?;
    // Every directory that was copied up counts: it may have been changed.
    let all = crate::overlay::changes::compare(opened.as_fd(), layers, &|_, _| true).map_err(|stopped| {
        let subject = upper.join("upper").join(&stopped.at).display().to_string();
        stopped.told(Failure::new("image-diff", subject, "reading the upper directory")).setup()
    })?;
    let kind = |kind| match kind {
        crate::ChangeKind::Added => ChangeKind::Added,
        crate::ChangeKind::Modified => ChangeKind::Modified,
        crate::ChangeKind::Deleted => ChangeKind::Deleted,
    };
    Ok(all.into_iter().map(|change| Change { kind: kind(change.kind), path: change.path }).collect())
}
