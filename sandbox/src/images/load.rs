//! A source into the store: what is missing is made, layers side by side, and the images appear when all is there.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use super::layer::{LayerSource, Made, make};
use super::platform::Platform;
use super::reference::{Digest, Reference};
use super::source::{self, Found, Source};
use super::store::{LayerInfo, Store, write_file};
use super::stream::{STOPPED, Stop};
use crate::error::{Failure, Result};
use crate::sys::lock::Lock;

/// Told while a load runs, from several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A layer that the store has already.
    #[non_exhaustive]
    Present {
        /// Its diff id.
        diff_id: Digest,
    },
    /// Bytes of the packed layers that were read, and how many there are in all.
    #[non_exhaustive]
    Bytes {
        /// So far.
        done: u64,
        /// In all layers that are being made.
        total: u64,
    },
}

/// How to load; see [`Store::load`].
#[derive(Default)]
pub struct Load<'a> {
    name: Option<Reference>,
    created: Option<String>,
    progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    durable: bool,
    platform: Option<Platform>,
    pub(super) stop: Arc<AtomicBool>,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names that it has now by this load.
    pub names: Vec<String>,
    /// Layers that were made; the others were there.
    pub new_layers: usize,
}

impl<'a> Load<'a> {
    /// With the names that the source gives.
    pub fn new() -> Load<'a> {
        Load::default()
    }

    /// The name of the image, instead of those that the source gives. An error where the source has several images.
    pub fn name(mut self, name: Reference) -> Load<'a> {
        self.name = Some(name);
        self
    }

    /// The date (RFC 3339) of an image made of a plain root file system; without it the image has none, so that the
    /// same files make the same image.
    pub fn created(mut self, date: impl Into<String>) -> Load<'a> {
        self.created = Some(date.into());
        self
    }

    /// The platform whose images are meant, instead of this host's: to hand them on, for they cannot run here. A plain root
    /// file system becomes an image of it.
    pub fn platform(mut self, platform: Platform) -> Load<'a> {
        self.platform = Some(platform);
        self
    }

    pub(super) fn wanted(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }

    /// Waits until the layers are on the disk. Without it a power cut in the next half minute can take them; the store
    /// then notices and says so.
    pub fn durable(mut self) -> Load<'a> {
        self.durable = true;
        self
    }

    /// Ends with an error soon after this is set; the store is as it was before. A load that fails sets it too.
    pub fn stop(mut self, stop: Arc<AtomicBool>) -> Load<'a> {
        self.stop = stop;
        self
    }

    /// Is told how far it is.
    pub fn progress(mut self, progress: &'a (dyn Fn(Progress) + Sync)) -> Load<'a> {
        self.progress = Some(progress);
        self
    }
}

/// Layers that are made at a time. Each needs up to 20 MB, with two threads, and more would wait for the disk.
const WORKERS: usize = 3;

impl Store {
    /// Loads all images of a source that this host can run, or of [`Load::platform`]. After an error the store is as it was before.
    ///
    /// # Errors
    /// `Setup` where the source cannot be read, is damaged, breaks a limit or would do harm: the subject is the member
    /// of the layer, the file or the document that it is about. `Unsupported` where no image of the source is
    /// for the platform.
    pub fn load(&self, source: &Source, how: &Load<'_>) -> Result<Vec<Loaded>> {
        self.load_found(how, |stop| source::open(source, self, &how.wanted(), stop))
    }

    /// The same of an archive that comes from a stream, as `docker save` writes it to a pipe. The path of `source` is
    /// what errors call it. The stream is read to its end before anything else happens, and
    /// [`Limits::layer_bytes`](super::Limits::layer_bytes) holds for all of it.
    ///
    /// # Errors
    /// Those of [`Store::load`].
    pub fn load_from(&self, mut input: impl Read, source: &Source, how: &Load<'_>) -> Result<Vec<Loaded>> {
        self.load_found(how, |stop| source::read(source, &mut input, self, &how.wanted(), stop))
    }

    fn load_found<T>(
        &self,
        how: &Load<'_>,
        open: impl FnOnce(&Stop) -> Result<(Vec<Found>, T)>,
    ) -> Result<Vec<Loaded>> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        self.sweep_if_idle()?;
        let _lock = self.shared()?;
        let deadline = self.limits.time.and_then(|time| Instant::now().checked_add(time));
        let stop = Stop { deadline, stopped: how.stop.clone() };
        // Kept until the last layer was read.
        let (mut found, _temp) = open(&stop)?;
        if let Some(name) = &how.name {
            if name.digest().is_some() {
                return Err(Failure::new("image-reference", name.to_string(), "a digest cannot be given").config());
            }
            match &mut found[..] {
                [one] => one.names = vec![name.clone()],
                several => {
                    let message = format!("one name for the {} images of the source", several.len());
                    return Err(Failure::new("image-reference", name.to_string(), message).config());
                }
            }
        }
        self.add(found, how, &stop)
    }

    /// Makes what is missing of these images, and then the images. Under the shared lock.
    pub(crate) fn add(&self, found: Vec<Found>, how: &Load<'_>, stop: &Stop) -> Result<Vec<Loaded>> {
        let made = self.make_layers(&found, how, stop)?;
        let mut named = Vec::new();
        let mut loaded = Vec::new();
        for found in &found {
            let config = match &found.config {
                Some(config) => config.clone(),
                None => plain_config(&made.unnamed, &how.wanted(), how.created.as_deref())?,
            };
            let id = self.publish_image(&config, found.manifest.as_deref())?;
            let names: Vec<String> = found.names.iter().map(Reference::to_string).collect();
            named.extend(names.iter().map(|name| (name.clone(), id)));
            loaded.push(Loaded { id, names, new_layers: made.new });
        }
        self.change_refs(|refs| refs.extend(named))?;
        Ok(loaded)
    }

    /// Makes the layers that are not there and puts all into their places.
    pub(crate) fn make_layers(&self, found: &[Found], how: &Load<'_>, stop: &Stop) -> Result<MadeLayers> {
        let mut wanted: BTreeMap<Digest, LayerSource> = BTreeMap::new();
        let mut sources = Vec::new();
        for layer in found.iter().flat_map(|found| &found.layers) {
            match layer.diff_id {
                Some(diff_id) => drop(wanted.entry(diff_id).or_insert_with(|| layer.clone())),
                None => sources.push(layer.clone()),
            }
        }
        let tell = |progress| how.progress.map_or((), |tell| tell(progress));
        // In the order of the digests, so that two loads never wait for each other.
        let mut locks: Vec<Lock> = Vec::new(); // until the layers are in their places
        for (diff_id, layer) in wanted {
            if self.layer(diff_id)?.is_none() {
                let lock = self.lock_layer(diff_id)?;
                if self.layer(diff_id)?.is_none() {
                    locks.push(lock);
                    sources.push(layer);
                    continue;
                }
            }
            tell(Progress::Present { diff_id });
        }
        let total = sources.iter().map(|layer| layer.blob.len()).sum();
        let done = Mutex::new(0u64);
        let report = |bytes| {
            if let (Some(tell), Ok(mut done)) = (how.progress, done.lock()) {
                *done += bytes;
                tell(Progress::Bytes { done: *done, total });
            }
        };
        let made = self.make_side_by_side(sources, stop, &report)?;
        if how.durable && !made.is_empty() {
            self.sync()?;
            for made in &made {
                write_file(&made.temp.path.join("settled"), b"")?;
            }
        }
        let mut result = MadeLayers { new: made.len(), unnamed: Vec::new() };
        for made in &made {
            self.publish_layer(&made.temp, &made.info)?;
            result.unnamed.push(made.info.clone());
        }
        Ok(result)
    }

    fn make_side_by_side(
        &self,
        mut sources: Vec<LayerSource>,
        stop: &Stop,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Made>> {
        // The largest first: what is left for the end is then small.
        sources.sort_by_key(|layer| std::cmp::Reverse(layer.blob.len()));
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS).min(sources.len());
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let work = || {
            while let Some(layer) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                let made = make(self, layer.clone(), stop, report);
                if made.is_err() {
                    stop.stopped.store(true, Ordering::Relaxed);
                }
                if let Ok(mut results) = results.lock() {
                    results.push(made);
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<io::Result<_>> = (1..workers)
                .map(|_| std::thread::Builder::new().name("sandcell-layer".into()).spawn_scoped(scope, work))
                .collect();
            // A thread that could not be started only makes it slower.
            drop(others);
            work();
        });
        let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut made = Vec::new();
        let mut first = None;
        for result in results {
            match result {
                Ok(one) => made.push(one),
                Err(error) if error.failure().message == STOPPED => drop(first.get_or_insert(error)),
                Err(error) if first.as_ref().is_none_or(|e: &crate::Error| e.failure().message == STOPPED) => {
                    first = Some(error);
                }
                Err(_) => {}
            }
        }
        match first {
            Some(error) => Err(error),
            None => Ok(made),
        }
    }
}

pub(crate) struct MadeLayers {
    pub new: usize,
    /// All that were made; a plain root file system has one.
    pub unnamed: Vec<LayerInfo>,
}

/// The configuration of an image that was only files until now.
fn plain_config(layers: &[LayerInfo], platform: &Platform, created: Option<&str>) -> Result<Vec<u8>> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let mut config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "Cmd": ["/bin/sh"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "a root file system"}],
    });
    if let Some(created) = created {
        config["created"] = json!(created);
        config["history"][0]["created"] = json!(created);
    }
    serde_json::to_vec(&config).map_err(|e| Failure::new("image-config", "a root file system", e.to_string()).setup())
}
