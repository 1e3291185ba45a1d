//! OCI image layouts: `oci-layout`, `index.json`, `blobs/sha256/HEX`.

use std::collections::HashSet;
use std::path::Path;

use super::files::Files;
use super::{Found, failure};
use crate::error::Result;
use crate::images::config::ImageConfig;
use crate::images::layer::LayerSource;
use crate::images::manifest::{Descriptor, Document, INDEX_DEPTH, Manifest, fitting};
use crate::images::platform::Platform;
use crate::images::reference::{Digest, Reference};
use crate::images::stream::Part;

/// Images of one layout.
const IMAGE_LIMIT: usize = 1000;

pub(super) fn images(files: &Files, path: &Path, platform: &Platform, max_layers: usize) -> Result<Vec<Found>> {
    let subject = format!("{}: index.json", path.display());
    let Document::Index(entries) = Document::parse(&files.document("index.json")?, None, &subject, max_layers)? else {
        return Err(failure(path, "its index.json is no index").setup());
    };
    let mut layout = Layout { files, path, platform, max_layers, found: Vec::new(), seen: HashSet::new() };
    for entry in fitting(&entries, platform, &subject)? {
        layout.follow(entry, names(entry), 0)?;
    }
    if layout.found.is_empty() {
        return Err(failure(path, "no image in its index").setup());
    }
    Ok(layout.found)
}

struct Layout<'a> {
    files: &'a Files,
    path: &'a Path,
    platform: &'a Platform,
    max_layers: usize,
    found: Vec<Found>,
    /// Indexes on the way that were followed.
    seen: HashSet<Digest>,
}

impl Layout<'_> {
    fn follow(&mut self, entry: &Descriptor, names: Vec<Reference>, depth: usize) -> Result<()> {
        let subject = format!("{}: {}", self.path.display(), entry.digest);
        let bytes = self.document(entry)?;
        match Document::parse(&bytes, Some(&entry.media_type), &subject, self.max_layers)? {
            Document::Manifest(manifest) => {
                let found = self.image(manifest, bytes, names, &subject)?;
                self.found.push(found);
                if self.found.len() > IMAGE_LIMIT {
                    return Err(failure(self.path, format!("more than {IMAGE_LIMIT} images")).setup());
                }
                Ok(())
            }
            Document::Index(entries) => {
                if !self.seen.insert(entry.digest) {
                    return Err(failure(
                        self.path,
                        format!("the index {} leads to itself, or stands there twice", entry.digest),
                    )
                    .setup());
                }
                if depth >= INDEX_DEPTH {
                    return Err(failure(self.path, format!("indexes in indexes, more than {INDEX_DEPTH} deep")).setup());
                }
                // One platform, one image: where several fit, the first is meant.
                match fitting(&entries, self.platform, &subject)?.first() {
                    Some(entry) => self.follow(entry, names, depth + 1),
                    None => Err(failure(self.path, "an empty index").setup()),
                }
            }
        }
    }

    fn image(&self, manifest: Manifest, bytes: Vec<u8>, names: Vec<Reference>, subject: &str) -> Result<Found> {
        let config_bytes = self.document(&manifest.config)?;
        let config = ImageConfig::parse(&config_bytes, subject, self.max_layers)?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (layers, ids) = (manifest.layers.len(), diff_ids.len());
            return Err(
                failure(self.path, format!("{layers} layers in the manifest, {ids} in the configuration")).setup()
            );
        }
        let layers = manifest.layers.iter().zip(diff_ids).map(|((layer, compression), diff_id)| {
            Ok(LayerSource {
                blob: self.blob(layer)?.into(),
                compression: Some(*compression),
                digest: Some(layer.digest),
                diff_id: Some(diff_id),
                name: format!("layer {}", layer.digest),
            })
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok(Found { config: Some(config_bytes), manifest: Some(bytes), layers, names })
    }

    fn document(&self, of: &Descriptor) -> Result<Vec<u8>> {
        self.blob(of)?;
        let bytes = self.files.document(&blob_name(of.digest))?;
        let is = Digest::of(&bytes);
        if is != of.digest {
            return Err(failure(self.path, format!("the content of {} has the digest {is}", of.digest))
                .hint("the image was damaged or changed on its way; get it again")
                .setup());
        }
        Ok(bytes)
    }

    fn blob(&self, of: &Descriptor) -> Result<Part> {
        let part = self.files.part(&blob_name(of.digest))?;
        if part.len != of.size {
            let message = format!("{} has {} bytes, its descriptor says {}", of.digest, part.len, of.size);
            return Err(failure(self.path, message).setup());
        }
        Ok(part)
    }
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// containerd and Docker write the full name, others a name or only a tag; podman reads it as a name too.
fn names(entry: &Descriptor) -> Vec<Reference> {
    let annotation = |key| entry.annotations.as_ref()?.get(key);
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .into_iter()
        .filter_map(|key| annotation(key)?.parse::<Reference>().ok())
        .filter(|reference| reference.digest().is_none())
        .take(1)
        .collect()
}
