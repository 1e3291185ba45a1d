//! Manifests and indexes, OCI's and Docker's: which blobs an image is made of, and which image fits this host.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::platform::Platform;
use super::reference::Digest;
use crate::error::{Failure, Result};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// How deep indexes may stand in indexes: an index of images per platform in the index of a layout, and one to spare.
pub(crate) const INDEX_DEPTH: usize = 3;

/// The longest manifest, index or configuration that is read: 4 MiB, the bound that registries use.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip, of one or many members.
    Gzip,
    /// Zstandard, of one or many frames.
    Zstd,
}

impl Compression {
    /// OCI's media type of a layer that is packed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// From the first bytes of the content.
    pub(crate) fn sniff(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// A reference to a blob by its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    // `urls` (foreign layers) are not followed and never given credentials (CVE-2020-15157): the blob comes from where
    // the manifest came from, or the image is refused.
}

/// An image: a configuration and its layers, the lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<(Descriptor, Compression)>,
}

/// What stands at the end of a reference.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// Both kinds at once, so that a document that is both can be refused (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Either {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index. `said` is the media type that the reference to it gave, where there was one.
    pub(crate) fn parse(bytes: &[u8], said: Option<&str>, subject: &str, max_layers: usize) -> Result<Document> {
        let refuse = |message: String| Failure::new("image-manifest", subject, message).setup();
        let document: Either =
            serde_json::from_slice(bytes).map_err(|e| refuse(format!("this manifest does not parse: {e}")))?;
        if document.schema_version != 2 {
            let old = if document.fs_layers.is_some() { " (Docker's schema 1, dead since 2019)" } else { "" };
            return Err(refuse(format!("schemaVersion {}{old}, and only 2 is read", document.schema_version)));
        }
        let image = document.config.is_some() || document.layers.is_some() || document.fs_layers.is_some();
        if image && document.manifests.is_some() {
            return Err(refuse("this document is an index and a manifest at once".into()));
        }
        if let (Some(said), Some(is)) = (said, &document.media_type)
            && said != is
        {
            return Err(refuse(format!("referred to as {said}, but it calls itself {is}")));
        }
        let media_type = said.or(document.media_type.as_deref());
        match media_type {
            Some(OCI_INDEX | DOCKER_INDEX) if image => Err(refuse("called an index, but it is a manifest".into())),
            Some(OCI_MANIFEST | DOCKER_MANIFEST) if !image => {
                Err(refuse("called a manifest, but it has no configuration".into()))
            }
            Some(OCI_INDEX | DOCKER_INDEX | OCI_MANIFEST | DOCKER_MANIFEST) | None => Ok(()),
            Some(other) => Err(refuse(format!("unknown media type {other}"))),
        }?;
        if let Some(manifests) = document.manifests {
            return Ok(Document::Index(manifests));
        }
        let (Some(config), Some(layers)) = (document.config, document.layers) else {
            return Err(refuse("neither an index nor a manifest with a configuration and layers".into()));
        };
        if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(refuse(format!("unknown media type {} of the configuration", config.media_type)));
        }
        if layers.len() > max_layers {
            return Err(refuse(format!("{} layers, and at most {max_layers} are accepted", layers.len())));
        }
        let layers = layers.into_iter().map(|layer| match layer_compression(&layer.media_type) {
            Some(compression) => Ok((layer, compression)),
            None => Err(refuse(format!("unknown media type {} of layer {}", layer.media_type, layer.digest))),
        });
        Ok(Document::Manifest(Manifest { config, layers: layers.collect::<Result<_>>()? }))
    }
}

fn layer_compression(media_type: &str) -> Option<Compression> {
    let kind = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1."))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.diff."))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff."))?;
    match kind {
        "tar" => Some(Compression::None),
        "tar+gzip" | "tar.gzip" => Some(Compression::Gzip),
        "tar+zstd" | "tar.zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// The entries of an index that are for a platform; attestations and other platforms are passed over. An entry that
/// does not name its platform counts as fitting: its configuration is checked when the image is run.
pub(crate) fn fitting<'a>(entries: &'a [Descriptor], wanted: &Platform, subject: &str) -> Result<Vec<&'a Descriptor>> {
    let fitting: Vec<_> = entries.iter().filter(|e| e.platform.as_ref().is_none_or(|p| p.fits(wanted))).collect();
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    let mut others: Vec<String> = entries.iter().filter_map(|e| e.platform.as_ref()).map(Platform::to_string).collect();
    others.sort();
    others.dedup();
    others.truncate(20);
    Err(Failure::new("image-manifest", subject, format!("no image for {wanted}; it has: {}", others.join(", ")))
        .hint("ask whoever publishes the image for this platform")
        .unsupported())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn manifest(layer_type: &str, extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{D}","size":1}},
            "layers":[{{"mediaType":"{layer_type}","digest":"{D}","size":1}}]{extra}}}"#
        )
    }

    fn refusal(text: &str) -> String {
        Document::parse(text.as_bytes(), None, "m", 100).expect_err(text).to_string()
    }

    #[test]
    fn layers_of_oci_and_docker_are_known_by_their_media_types() {
        for (media_type, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
        ] {
            match Document::parse(manifest(media_type, "").as_bytes(), None, "m", 100) {
                Ok(Document::Manifest(m)) => assert_eq!(m.layers[0].1, compression),
                other => panic!("{other:?}"),
            }
        }
        assert!(refusal(&manifest("application/x-iso9660-image", "")).contains("application/x-iso9660-image"));
    }

    #[test]
    fn a_manifest_that_is_also_an_index_is_refused() {
        let text = manifest("application/vnd.oci.image.layer.v1.tar", r#","manifests":[]"#);
        assert!(refusal(&text).contains("at once"));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let text = manifest("application/vnd.oci.image.layer.v1.tar", r#","layers":[]"#);
        assert!(refusal(&text).contains("duplicate field"));
    }

    #[test]
    fn documents_that_are_no_manifest_are_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"schemaVersion":2}"#,
            &format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":null,"layers":[]}}"#),
            r#"{"schemaVersion":2,"mediaType":"text/plain","manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:../../etc","size":1}]}"#,
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:00","size":-1}]}"#,
        ] {
            refusal(text);
        }
        let deep = "[".repeat(100_000);
        refusal(&deep);
    }

    #[test]
    fn too_many_layers_are_refused() {
        let layer = format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{D}","size":1}}"#);
        let layers = vec![layer; 10_000].join(",");
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{D}","size":1}},"layers":[{layers}]}}"#
        );
        assert!(refusal(&text).contains("10000 layers"));
    }

    #[test]
    fn the_platform_is_chosen_from_an_index_and_others_are_named() {
        let entry = |platform: &str| {
            format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{D}","size":1,"platform":{platform}}}"#)
        };
        let arm = entry(r#"{"os":"linux","architecture":"arm64"}"#);
        let amd = entry(r#"{"os":"linux","architecture":"amd64"}"#);
        let attestation = entry(r#"{"os":"unknown","architecture":"unknown"}"#);
        let read = |entries: &[&str]| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            match Document::parse(text.as_bytes(), Some(OCI_INDEX), "i", 10).unwrap() {
                Document::Index(entries) => entries,
                other => panic!("{other:?}"),
            }
        };
        let both = read(&[&arm, &amd, &attestation]);
        for (platform, at) in [("arm64", 0), ("amd64", 1)] {
            let chosen = fitting(&both, &platform.parse().unwrap(), "i").unwrap();
            assert!(chosen.len() == 1 && std::ptr::eq(chosen[0], &raw const both[at]), "{platform}");
        }
        let error = fitting(&read(&[&arm, &attestation]), &"amd64".parse().unwrap(), "i").unwrap_err().to_string();
        assert!(error.contains("linux/arm64"), "{error}");
    }
}
