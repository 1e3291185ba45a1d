//! Archives of `docker save` and `podman save`: `manifest.json` names configurations, layers and tags.

use std::path::Path;

use serde::Deserialize;

use super::files::Files;
use super::{Found, failure};
use crate::error::Result;
use crate::images::config::ImageConfig;
use crate::images::layer::LayerSource;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn images(files: &Files, path: &Path, max_layers: usize) -> Result<Vec<Found>> {
    let entries: Vec<Entry> = serde_json::from_slice(&files.document("manifest.json")?)
        .map_err(|e| failure(path, format!("its manifest.json does not parse: {e}")).setup())?;
    if entries.is_empty() || entries.len() > 1000 {
        return Err(failure(path, format!("{} images in it", entries.len())).setup());
    }
    entries.into_iter().map(|entry| image(files, path, entry, max_layers)).collect()
}

fn image(files: &Files, path: &Path, entry: Entry, max_layers: usize) -> Result<Found> {
    let bytes = files.document(&plain(path, &entry.config)?)?;
    let subject = format!("{}: {}", path.display(), entry.config);
    let config = ImageConfig::parse(&bytes, &subject, max_layers)?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != entry.layers.len() {
        let (layers, ids) = (entry.layers.len(), diff_ids.len());
        return Err(failure(path, format!("{layers} layers in manifest.json, {ids} in the configuration")).setup());
    }
    let layers = entry.layers.iter().zip(diff_ids).map(|(name, diff_id)| {
        Ok(LayerSource {
            blob: files.part(&plain(path, name)?)?.into(),
            compression: None,
            digest: None,
            diff_id: Some(diff_id),
            name: format!("layer {diff_id}"),
        })
    });
    let layers = layers.collect::<Result<_>>()?;
    let names = entry.repo_tags.unwrap_or_default().iter().map(|tag| tag.parse()).collect::<Result<_>>()?;
    Ok(Found { config: Some(bytes), manifest: None, layers, names })
}

/// The archive's own names, nothing that leads out of it. Other tools write `./a.tar` and `/a.tar` too.
fn plain(path: &Path, name: &str) -> Result<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || parts.contains(&"..") || name.ends_with('/') || name.contains('\0') {
        return Err(failure(path, format!("{name:?} is no name of a file in it")).setup());
    }
    Ok(parts.join("/"))
}
