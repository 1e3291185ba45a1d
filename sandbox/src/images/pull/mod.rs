//! Images from registries: OCI's distribution specification, version 2 of the protocol.
//!
//! | file | what |
//! |---|---|
//! | `registry` | requests: where to, redirects, what is tried again, TLS |
//! | `auth` | Docker's configuration file, tokens |
//! | `helper` | credential helpers |
//! | `guard` | how slow a registry may be, and where it may send nobody |
//! | `blob` | a layer that is unpacked while it arrives, and goes on where a connection broke |
//!
//! A registry is not trusted with anything: each document and layer is known by its digest before it is asked for (the
//! first by the caller or, for a tag, by nothing), and what comes is hashed, measured and unpacked as from a file.

mod auth;
mod blob;
mod guard;
mod helper;
mod registry;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub(crate) use blob::RemoteBlob;

use super::config::ImageConfig;
use super::layer::LayerSource;
use super::load::{Load, Loaded, Progress};
use super::manifest::{Document, INDEX_DEPTH, Manifest, fitting};
use super::platform::Platform;
use super::reference::Reference;
use super::source::Found;
use super::store::Store;
use super::stream::Stop;
use crate::error::{Failure, Result};
use registry::Registry;

/// How to pull; see [`Store::pull`].
#[derive(Default)]
pub struct Pull<'a> {
    load: Load<'a>,
    named: Option<Reference>,
    auth_file: Option<PathBuf>,
    credentials: Option<(String, String)>,
    ca_file: Option<PathBuf>,
    plain_http: bool,
    patience: Option<Duration>,
}

impl fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the password.
        let user = self.credentials.as_ref().map(|(user, _)| user);
        f.debug_struct("Pull").field("user", &user).field("plain_http", &self.plain_http).finish_non_exhaustive()
    }
}

impl<'a> Pull<'a> {
    /// With the credentials that `docker login` or `podman login` left, over TLS, named as the registry has it.
    pub fn new() -> Pull<'a> {
        Pull::default()
    }

    /// The image's name in the store, instead of the registry's.
    pub fn name(mut self, name: Reference) -> Pull<'a> {
        self.named = Some(name);
        self
    }

    /// The platform whose image is meant, as [`Load::platform`].
    pub fn platform(mut self, platform: Platform) -> Pull<'a> {
        self.load = self.load.platform(platform);
        self
    }

    /// The file with credentials, as Docker's `config.json` has them. Without it: `$REGISTRY_AUTH_FILE`,
    /// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, then `$XDG_RUNTIME_DIR/containers/auth.json`.
    pub fn auth_file(mut self, file: impl Into<PathBuf>) -> Pull<'a> {
        self.auth_file = Some(file.into());
        self
    }

    /// A user and password, instead of those of a file.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Pull<'a> {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Certificates (PEM) of authorities that are trusted besides the system's.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Pull<'a> {
        self.ca_file = Some(file.into());
        self
    }

    /// HTTP without TLS: whoever is on the way can read the image and the password. A registry on the loopback
    /// interface may speak it without being asked.
    pub fn plain_http(mut self) -> Pull<'a> {
        self.plain_http = true;
        self
    }

    /// How long a connection may be silent, or bring less than 1 KiB a second, before it counts as broken (a minute).
    /// A credential helper is killed after the same time. [`Limits::time`](super::Limits::time) bounds the whole.
    pub fn patience(mut self, time: Duration) -> Pull<'a> {
        self.patience = Some(time);
        self
    }

    /// Ends with an error soon after this is set, as [`Load::stop`]; where a server is silent, within a minute.
    pub fn stop(mut self, stop: Arc<AtomicBool>) -> Pull<'a> {
        self.load = self.load.stop(stop);
        self
    }

    /// Is told how far it is.
    pub fn progress(mut self, progress: &'a (dyn Fn(Progress) + Sync)) -> Pull<'a> {
        self.load = self.load.progress(progress);
        self
    }

    /// Waits until the layers are on the disk, as [`Load::durable`].
    pub fn durable(mut self) -> Pull<'a> {
        self.load = self.load.durable();
        self
    }
}

impl Store {
    /// Gets an image from its registry, for this host's platform or that of
    /// [`Pull::platform`]. Layers that the store has are not asked for; the
    /// others arrive and are unpacked side by side, and a connection that breaks goes on where it was. A short name is
    /// docker.io's, as everywhere. After an error the store is as it was before.
    ///
    /// A reference with a digest and no tag gives the image no name: give it one, or the next prune takes it.
    ///
    /// # Errors
    /// `Setup` where the registry cannot be reached, refuses, or sends something that it should not; the subject is
    /// the image, the layer or the layer's member. `Config` where a file of credentials or certificates cannot be read.
    /// `Unsupported` where there is no image for the platform.
    pub fn pull(&self, image: &Reference, how: &Pull<'_>) -> Result<Loaded> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        if let Some(name) = how.named.as_ref().filter(|name| name.digest().is_some()) {
            return Err(Failure::new("image-reference", name.to_string(), "a digest cannot be given").config());
        }
        self.sweep_if_idle()?;
        let _lock = self.shared()?;
        let deadline = self.limits.time.and_then(|time| Instant::now().checked_add(time));
        let stop = Stop { deadline, stopped: how.load.stop.clone() };
        let registry = Arc::new(Registry::connect(image, how, stop.clone())?);
        let mut found = find(&registry, image, &how.load.wanted(), self.limits.layers)?;
        found.names = match &how.named {
            Some(name) => vec![name.clone()],
            None => registry.full_name(image).into_iter().collect(),
        };
        let loaded = self.add(vec![found], &how.load, &stop)?;
        loaded.into_iter().next().ok_or_else(|| registry.failure("no image").setup())
    }
}

/// The way from a name to the image for a platform.
fn find(registry: &Arc<Registry>, image: &Reference, platform: &Platform, max_layers: usize) -> Result<Found> {
    let subject = image.to_string();
    let named = image.digest().map(|digest| digest.to_string()).or_else(|| image.tag().map(str::to_owned));
    let (mut bytes, said) = registry.manifest(&named.unwrap_or_else(|| "latest".into()), image.digest(), None)?;
    let mut document = Document::parse(&bytes, said.as_deref(), &subject, max_layers)?;
    for _ in 0..INDEX_DEPTH {
        let entries = match document {
            Document::Manifest(manifest) => return found(registry, manifest, bytes, &subject, max_layers),
            Document::Index(entries) => entries,
        };
        let Some(entry) = fitting(&entries, platform, &subject)?.first().copied().cloned() else {
            return Err(registry.failure("an empty index").setup());
        };
        (bytes, _) = registry.manifest(&entry.digest.to_string(), Some(entry.digest), Some(entry.size))?;
        document = Document::parse(&bytes, Some(&entry.media_type), &subject, max_layers)?;
    }
    match document {
        Document::Manifest(manifest) => found(registry, manifest, bytes, &subject, max_layers),
        // A loop cannot be made of digests; a long way can.
        Document::Index(_) => {
            Err(registry.failure(format!("indexes in indexes, more than {INDEX_DEPTH} deep")).setup())
        }
    }
}

fn found(
    registry: &Arc<Registry>,
    manifest: Manifest,
    bytes: Vec<u8>,
    subject: &str,
    max_layers: usize,
) -> Result<Found> {
    let config_bytes = registry.document(&manifest.config)?;
    let config = ImageConfig::parse(&config_bytes, subject, max_layers)?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        let message = format!("{layers} layers in the manifest, {ids} in the configuration");
        return Err(registry.failure(message).setup());
    }
    let layers = manifest.layers.iter().zip(diff_ids).map(|((layer, compression), diff_id)| LayerSource {
        blob: RemoteBlob { registry: registry.clone(), digest: layer.digest, len: layer.size }.into(),
        compression: Some(*compression),
        digest: Some(layer.digest),
        diff_id: Some(diff_id),
        name: format!("layer {} of {subject}", layer.digest),
    });
    let layers = layers.collect();
    Ok(Found { config: Some(config_bytes), manifest: Some(bytes), layers, names: Vec::new() })
}

fn read_config(path: &Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Failure::new("image-pull", path.display().to_string(), format!("reading {what}")).cause(&e).config()
    })
}
