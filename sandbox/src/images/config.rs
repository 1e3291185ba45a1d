//! The configuration of an image: what it runs by default and how it came to be.
//!
//! OCI's `application/vnd.oci.image.config.v1+json` and Docker's `…container.image.v1+json` are the same document.
//! A key that stands twice is an error (serde refuses it): two readers could otherwise see two images.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use super::reference::Digest;
use crate::error::{Failure, Result};

/// What an image says about itself. The bytes that it was read from are kept as they are; their digest is the
/// image's id.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct ImageConfig {
    /// RFC 3339, as the image has it.
    #[serde(default)]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default)]
    pub author: Option<String>,
    /// In Go's words: `amd64`, `arm64`, ….
    #[serde(default)]
    pub architecture: String,
    /// In Go's words: `linux`, `windows`, ….
    #[serde(default)]
    pub os: String,
    /// Defaults of a run.
    #[serde(default)]
    pub config: Option<RunConfig>,
    /// The layers.
    pub rootfs: RootFs,
    /// One entry a step of the build, the oldest first; may have fewer or more entries than there are layers.
    #[serde(default)]
    pub history: Option<Vec<HistoryEntry>>,
}

impl std::fmt::Debug for super::store::Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the configuration: whoever made the image wrote it, and its variables may be secrets.
        let mut image = f.debug_struct("Image");
        image.field("id", &self.id).field("names", &self.names).field("layers", &self.layers).finish_non_exhaustive()
    }
}

/// The layers of an image.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed tars, the lowest layer first.
    pub diff_ids: Vec<Digest>,
}

/// Defaults of a run, in the words of a Dockerfile.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct RunConfig {
    /// `USER`: a name or number, with `:GROUP` perhaps.
    #[serde(default)]
    pub user: Option<String>,
    /// `EXPOSE`: `80/tcp`, for people to read.
    #[serde(default, deserialize_with = "keys")]
    pub exposed_ports: Option<BTreeSet<String>>,
    /// `ENV`: `KEY=VALUE`.
    #[serde(default)]
    pub env: Option<Vec<String>>,
    /// `ENTRYPOINT`.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`: the program, or the arguments of the entry point.
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    /// `VOLUME`: directories whose content outlives a run.
    #[serde(default, deserialize_with = "keys")]
    pub volumes: Option<BTreeSet<String>>,
    /// `WORKDIR`.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// `LABEL`.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// `STOPSIGNAL`.
    #[serde(default)]
    pub stop_signal: Option<String>,
}

/// The keys of an object whose values say nothing.
fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeSet<String>>, D::Error> {
    let object = Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(from)?;
    Ok(object.map(|object| object.into_keys().collect()))
}

/// A step of the build.
#[derive(Debug, Clone, Default, Deserialize)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// The command.
    #[serde(default)]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default)]
    pub author: Option<String>,
    /// Free text.
    #[serde(default)]
    pub comment: Option<String>,
    /// The step changed the configuration only and has no layer.
    #[serde(default)]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads and checks a configuration; `max_layers` is the store's limit.
    pub(crate) fn parse(bytes: &[u8], subject: &str, max_layers: usize) -> Result<ImageConfig> {
        let refuse = |message: String| Failure::new("image-config", subject, message).setup();
        let config: ImageConfig = serde_json::from_slice(bytes)
            .map_err(|e| refuse(format!("this image configuration does not parse: {e}")))?;
        if config.rootfs.kind != "layers" {
            return Err(refuse(format!("rootfs.type is {:?} and must be \"layers\"", config.rootfs.kind)));
        }
        let layers = config.rootfs.diff_ids.len();
        if layers > max_layers {
            return Err(refuse(format!("{layers} layers, and at most {max_layers} are accepted")));
        }
        if !config.os.is_empty() && config.os != "linux" {
            return Err(refuse(format!("an image for {:?}; only Linux images run here", config.os)));
        }
        Ok(config)
    }

    /// The defaults of a run; empty where the image has none.
    pub fn run(&self) -> RunConfig {
        self.config.clone().unwrap_or_default()
    }
}
