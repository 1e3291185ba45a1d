//! Images from registries: Debian's, and small ones that lie.

#![cfg(feature = "pull")]

#[path = "../image_support/mod.rs"]
mod image_support;

mod debian;
mod hostile;
mod lies;
mod rules;
mod server;

use std::fs;

use image_support::*;
use sandcell::image::{Digest, Loaded, Pull, Store};
use serde_json::{Value, json};
use server::{Content, Server};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Bytes that do not pack.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn tars() -> Vec<Vec<u8>> {
    vec![tar(&[dir("d"), file("d/a", noise(700_000))]), tar(&[file("d/b", "second"), file("d/.wh.a", "")])]
}

/// Layers and a configuration, and the manifest that belongs to them.
pub(crate) fn image(content: &mut Content, tars: &[Vec<u8>]) -> Value {
    let layer_type = format!("{LAYER}+gzip");
    let layers: Vec<Value> = tars.iter().map(|tar| descriptor(content, &layer_type, &gzip(tar))).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = descriptor(content, CONFIG, config.to_string().as_bytes());
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
}

pub(crate) fn descriptor(content: &mut Content, media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": content.put(media_type, bytes), "size": bytes.len()})
}

/// An honest repository with the tag `1`.
pub(crate) fn honest() -> Content {
    let mut content = Content::default();
    let manifest = image(&mut content, &tars());
    let digest = content.put(MANIFEST, manifest.to_string());
    content.tag("1", digest);
    content
}

pub(crate) fn largest(content: &Content) -> (String, usize) {
    let (name, (_, bytes)) = content.0.iter().max_by_key(|(_, (_, bytes))| bytes.len()).unwrap();
    (name.clone(), bytes.len())
}

pub(crate) fn pull(store: &Store, server: &Server, how: &Pull<'_>) -> sandcell::Result<Loaded> {
    store.pull(&format!("{}/app:1", server.host).parse().unwrap(), how)
}

/// No credentials of whoever runs the tests.
pub(crate) fn plain<'a>(scratch: &Scratch) -> Pull<'a> {
    let file = scratch.path("no-credentials.json");
    fs::write(&file, "{}").unwrap();
    Pull::new().auth_file(file)
}

pub(crate) fn assert_pulled(store: &Store, loaded: &Loaded) {
    let kept = store.use_image(&loaded.id.to_string()).unwrap();
    assert_eq!(fs::read(kept.layers[0].join("d/a")).unwrap(), noise(700_000));
    assert_eq!(fs::read(kept.layers[1].join("d/b")).unwrap(), b"second");
}

pub(crate) fn assert_empty(store: &Store, what: &str) {
    for part in ["layers", "images", "tmp"] {
        assert_eq!(fs::read_dir(store.dir().join(part)).unwrap().count(), 0, "{what}: something is left in {part}/");
    }
    assert!(!store.dir().join("refs.json").exists(), "{what}: a name is left");
}
