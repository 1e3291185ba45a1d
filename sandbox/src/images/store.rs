//! The store: a directory of the caller's, mode 0700, in which everything is complete or not there at all.
//!
//! ```text
//! version                      the layout's number
//! lock, locks/HEX              see `lock`
//! layers/HEX/                  a layer, named by its diff id:
//!     fs/                        its tree, for overlayfs
//!     blob                       its tar as it came, for exports that are the same to the byte
//!     layer.json, withheld       sizes and digests; what the tree does not say
//!     settled                    the layer is known to be on the disk
//! images/HEX/                  an image, named by its id (the digest of its configuration):
//!     config.json, manifest.json as they came
//!     implied/                   see `implied`
//! refs.json                    names, each with the id of its image
//! volumes/NAME/                see `volume`
//! builds/, cache/              what builds are writing; their steps, each with the layer that it came to
//! tmp/                         what is being made
//! ```
//!
//! A layer or image is made in `tmp/` and renamed to its place when it is whole and verified, so whatever kills the
//! process, nothing partial is ever seen. Waiting for the disk would double the time of a load, so that is done only
//! on request ([`Load::durable`](super::Load::durable)); instead a layer that was made before the last boot is looked
//! over once, and one that a power cut has damaged counts as not there.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::implied::Implied;
use super::layer::{boot_id, tree_bytes};
use super::manifest::Compression;
use super::reference::{Digest, Reference};
use super::unpack::Withheld;
use super::{Limits, lock};
use crate::error::{Failure, Result};
use crate::subid_tree::{Hands, remove_with};
use crate::sys::lock::Lock;

const VERSION: &str = "1\n";

/// A directory of images. Any number of processes and threads can use one at a time.
///
/// ```no_run
/// use sandcell::image::{Load, Source, Store};
///
/// let store = Store::open_default()?;
/// for image in store.load(&Source::Detect("debian.tar".into()), &Load::new())? {
///     println!("{} {:?}", image.id, image.names);
/// }
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) limits: Limits,
}

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerInfo {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the tar as it is kept.
    pub blob: Digest,
    /// Bytes of the tar as it is kept.
    pub blob_size: u64,
    /// How it is kept.
    pub compression: Compression,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Bytes of the files in it.
    pub bytes: u64,
    /// Members of the tar.
    pub members: u64,
    /// What `implied` looks for in the tree; see there.
    #[serde(default, flatten)]
    pub(crate) implied: Implied,
    /// Bytes of all files that the tree has, a file with two names counted twice.
    pub(crate) tree_bytes: u64,
    /// The kernel's boot id when it was made.
    pub(crate) boot: String,
}

/// An image in the store.
#[derive(Clone)]
#[non_exhaustive]
pub struct Image {
    /// Digest of its configuration.
    pub id: Digest,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// What it says about itself.
    pub config: ImageConfig,
    /// The configuration's bytes.
    pub config_bytes: Vec<u8>,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerInfo>,
}

/// Bytes of an image's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// In all its layers.
    pub total: u64,
    /// In layers that other images have too.
    pub shared: u64,
}

/// An image that is kept while this value lives, for a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct InUse {
    /// The image.
    pub image: Image,
    /// Directories for [`Root::Layers`](crate::Root::Layers), the lowest first.
    pub layers: Vec<PathBuf>,
    pub(crate) lock: Lock,
}

impl InUse {
    /// Owner, group and permission bits that a path has in a layer, where its tree does not have them.
    pub(crate) fn owner(&self, layer: usize, path: &Path) -> Option<(u32, u32, u32)> {
        use std::os::unix::ffi::OsStrExt;
        let escaped = super::unpack::escape(path.as_os_str().as_bytes());
        let records = read_withheld(self.layers[layer].parent()?).ok()?.filter_map(Result::ok);
        records.filter(|record| record.path == escaped).last().map(|record| (record.uid, record.gid, record.mode))
    }
}

pub(crate) fn failed(path: &Path, doing: &str, error: &io::Error) -> crate::Error {
    because(Failure::new("image-store", path.display().to_string(), doing), error)
}

/// The cause, and the remedy where the disk is full.
pub(crate) fn because(failure: Failure, error: &io::Error) -> crate::Error {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            failure.cause(error).hint("make room, or prune the store, and try again").setup()
        }
        _ => failure.cause(error).setup(),
    }
}

fn gone(what: String) -> crate::Error {
    Failure::new("image-store", what, "not in the store, or damaged").hint("load it again").setup()
}

fn make_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|e| failed(path, "making a directory", &e)),
    }
}

impl Store {
    /// The store of this user: `$XDG_DATA_HOME/sandcell/images`, or `~/.local/share/sandcell/images`.
    ///
    /// # Errors
    /// `Config` where neither variable is set to an absolute path, and those of [`Store::open`].
    pub fn open_default() -> Result<Store> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data =
            absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share"))).ok_or_else(|| {
                Failure::new("image-store", "HOME", "no directory for images").hint("say where the store is").config()
            })?;
        fs::create_dir_all(data.join("sandcell")).map_err(|e| failed(&data, "making a directory", &e))?;
        Store::open(data.join("sandcell/images"))
    }

    /// A store in this directory, which is made where it is not there (its parent must be).
    ///
    /// # Errors
    /// `Config` where the directory is another user's, or holds something that is no store; `Setup` where it cannot
    /// be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        let dir = dir.into();
        let dir = std::path::absolute(&dir).map_err(|e| failed(&dir, "finding the store", &e))?;
        make_dir(&dir)?;
        let refuse = |message: &str, hint: &str| {
            Err(Failure::new("image-store", dir.display().to_string(), message).hint(hint).config())
        };
        let meta = fs::metadata(&dir).map_err(|e| failed(&dir, "looking at the store", &e))?;
        if !meta.is_dir() {
            return refuse("no directory", "give the directory of a store");
        }
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return refuse("belongs to another user", "give a directory of your own");
        }
        let version = dir.join("version");
        match fs::read_to_string(&version) {
            Ok(text) if text == VERSION => {}
            Ok(text) => {
                return refuse(&format!("a store of version {:?}, and this is 1", text.trim()), "use a newer sandcell");
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut entries = fs::read_dir(&dir).map_err(|e| failed(&dir, "looking at the store", &e))?;
                // Another process may be making the same store just now.
                let known = ["lock", "locks", "layers", "images", "tmp", "version", "volumes", "builds", "cache"];
                if entries.any(|e| e.is_ok_and(|e| !known.iter().any(|k| e.file_name() == *k))) {
                    return refuse("not empty and no store", "give an empty directory, or one that is not there yet");
                }
            }
            Err(e) => return Err(failed(&version, "reading the store's version", &e)),
        }
        if meta.permissions().mode() & 0o7777 != 0o700 {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
                .map_err(|e| failed(&dir, "closing the store to others", &e))?;
        }
        for name in ["locks", "layers", "images", "tmp"] {
            make_dir(&dir.join(name))?;
        }
        let store = Store { dir, limits: Limits::default() };
        if !version.exists() {
            let _lock = lock::exclusive(&store.dir.join("lock"))?;
            store.replace_file("version", VERSION.as_bytes())?;
        }
        Ok(store)
    }

    /// The same store with other limits for what is loaded through it.
    pub fn with_limits(mut self, limits: Limits) -> Store {
        self.limits = limits;
        self
    }

    /// What may be loaded through this handle.
    pub fn limits_mut(&mut self) -> &mut Limits {
        &mut self.limits
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn layer_dir(&self, diff_id: Digest) -> PathBuf {
        self.dir.join("layers").join(diff_id.hex())
    }

    pub(crate) fn image_dir(&self, id: Digest) -> PathBuf {
        self.dir.join("images").join(id.hex())
    }

    /// Keeps everything in the store while something is added or looked up.
    pub(crate) fn shared(&self) -> Result<Lock> {
        lock::shared(&self.dir.join("lock"))
    }

    pub(crate) fn lock_layer(&self, diff_id: Digest) -> Result<Lock> {
        lock::exclusive(&self.dir.join("locks").join(diff_id.hex()))
    }

    /// A new directory in `tmp/`, removed with the value unless it was renamed to its place. Under the shared lock.
    pub(crate) fn temp_dir(&self) -> Result<TempDir> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        for attempt in 0..1000 {
            let path = self.dir.join("tmp").join(format!("{}-{now:x}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(TempDir { path }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path, "making a directory", &e)),
            }
        }
        Err(Failure::new("image-store", self.dir.display().to_string(), "no free name in tmp/").setup())
    }

    /// Waits until all that was written to the store is on the disk, so that a rename that follows cannot survive a
    /// power cut that its content does not.
    pub(crate) fn sync(&self) -> Result<()> {
        let dir = File::open(&self.dir).map_err(|e| failed(&self.dir, "opening the store", &e))?;
        rustix::fs::syncfs(&dir).map_err(|e| failed(&self.dir, "writing the store to the disk", &e.into()))
    }

    fn replace_file(&self, name: &str, content: &[u8]) -> Result<()> {
        let temp = self.temp_dir()?;
        let from = temp.path.join("file");
        write_file(&from, content)?;
        let to = self.dir.join(name);
        // Not every file system keeps the content of a file that was renamed just before a power cut.
        let old = self.dir.join(format!("{name}.old"));
        if to.exists() {
            let _ = fs::remove_file(&old);
            fs::hard_link(&to, &old).map_err(|e| failed(&old, "keeping the last version of a file", &e))?;
        }
        fs::rename(&from, &to).map_err(|e| failed(&to, "putting a file into its place", &e))
    }

    /// A layer, where it is there and whole.
    pub(crate) fn layer(&self, diff_id: Digest) -> Result<Option<LayerInfo>> {
        let dir = self.layer_dir(diff_id);
        let path = dir.join("layer.json");
        let info: LayerInfo = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(info) => info,
                Err(_) => return Ok(None),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&path, "reading a layer", &e)),
        };
        if (!info.boot.is_empty() && info.boot == boot_id()) || dir.join("settled").exists() {
            return Ok(Some(info));
        }
        // File systems set a file's size when its content is on the disk, so sizes tell what a power cut took.
        let blob = fs::metadata(dir.join("blob")).map_or(0, |meta| meta.len());
        if blob != info.blob_size || tree_bytes(&dir.join("fs")).ok() != Some(info.tree_bytes) {
            return Ok(None);
        }
        // Lost at worst: then it is looked over again.
        let _ = fs::write(dir.join("settled"), "");
        Ok(Some(info))
    }

    /// What a layer's members are in the image and not in its tree, as [`Withheld`] has it.
    ///
    /// # Errors
    /// `Setup` where the layer is not in the store.
    pub fn withheld(&self, diff_id: Digest) -> Result<impl Iterator<Item = Result<Withheld>> + use<>> {
        read_withheld(&self.layer_dir(diff_id))
    }

    /// Puts a finished layer into its place. Under the shared lock and the layer's own.
    pub(crate) fn publish_layer(&self, temp: &TempDir, info: &LayerInfo) -> Result<()> {
        let to = self.layer_dir(info.diff_id);
        if to.exists() {
            match self.layer(info.diff_id)? {
                Some(_) => return Ok(()),
                None => self.discard(&to)?,
            }
        }
        fs::rename(&temp.path, &to).map_err(|e| failed(&to, "putting a layer into its place", &e))
    }

    /// Puts an image whose layers are all there into its place. Under the shared lock.
    pub(crate) fn publish_image(&self, config: &[u8], manifest: Option<&[u8]>) -> Result<Digest> {
        let id = Digest::of(config);
        let to = self.image_dir(id);
        if to.exists() {
            match self.config_bytes(id)? {
                Some(_) => return Ok(id),
                None => self.discard(&to)?,
            }
        }
        let temp = self.temp_dir()?;
        let layers = self.layers_of(id, &ImageConfig::parse(config, &id.to_string(), usize::MAX)?)?;
        self.make_implied(&layers, &temp.path.join("implied"))?;
        write_file(&temp.path.join("config.json"), config)?;
        if let Some(manifest) = manifest {
            write_file(&temp.path.join("manifest.json"), manifest)?;
        }
        match fs::rename(&temp.path, &to) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => Ok(id),
            other => other.map(|()| id).map_err(|e| failed(&to, "putting an image into its place", &e)),
        }
    }

    pub(crate) fn refs(&self) -> Result<BTreeMap<String, Digest>> {
        let path = self.dir.join("refs.json");
        let read = |path: &Path| match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| failed(path, "reading the names", &e.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(failed(path, "reading the names", &e)),
        };
        match read(&path) {
            Err(error) => read(&self.dir.join("refs.json.old")).map_err(|_| error),
            refs => refs,
        }
    }

    /// Changes the names, all at once or not at all. Under the shared or exclusive lock.
    pub(crate) fn change_refs<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Digest>) -> T) -> Result<T> {
        let _lock = lock::exclusive(&self.dir.join("locks/refs"))?;
        let mut refs = self.refs()?;
        let before = refs.clone();
        let result = change(&mut refs);
        if refs != before {
            let mut text =
                serde_json::to_vec_pretty(&refs).map_err(|e| failed(&self.dir, "writing names", &e.into()))?;
            text.push(b'\n');
            self.replace_file("refs.json", &text)?;
        }
        Ok(result)
    }

    pub(crate) fn image_ids(&self) -> Result<Vec<Digest>> {
        let names = list(&self.dir.join("images"))?;
        let mut ids: Vec<_> = names.iter().filter_map(|n| Digest::from_hex(n.to_str()?)).collect();
        ids.sort();
        Ok(ids)
    }

    /// None where it is not there, or damaged by a power cut.
    pub(crate) fn config_bytes(&self, id: Digest) -> Result<Option<Vec<u8>>> {
        let path = self.image_dir(id).join("config.json");
        match fs::read(&path) {
            Ok(bytes) => Ok((Digest::of(&bytes) == id).then_some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&path, "reading an image", &e)),
        }
    }

    pub(crate) fn read_image(&self, id: Digest, refs: &BTreeMap<String, Digest>) -> Result<Image> {
        let config_bytes = self.config_bytes(id)?.ok_or_else(|| gone(format!("image {id}")))?;
        let config = ImageConfig::parse(&config_bytes, &id.to_string(), usize::MAX)?;
        let layers = self.layers_of(id, &config)?;
        let names = refs.iter().filter(|(_, of)| **of == id).map(|(name, _)| name.clone()).collect();
        Ok(Image { id, names, config, config_bytes, layers })
    }

    fn layers_of(&self, id: Digest, config: &ImageConfig) -> Result<Vec<LayerInfo>> {
        let layer =
            |diff_id: &Digest| self.layer(*diff_id)?.ok_or_else(|| gone(format!("layer {diff_id} of image {id}")));
        config.rootfs.diff_ids.iter().map(layer).collect()
    }

    /// The tree that an image has above its layers, see `implied`.
    pub(crate) fn implied_dir(&self, id: Digest) -> Option<PathBuf> {
        Some(self.image_dir(id).join("implied")).filter(|dir| dir.exists())
    }

    pub(crate) fn has_image(&self, id: Digest) -> bool {
        self.image_dir(id).exists()
    }

    pub(crate) fn manifest_bytes(&self, id: Digest) -> Option<Vec<u8>> {
        fs::read(self.image_dir(id).join("manifest.json")).ok()
    }

    /// All images, those with names first, by name.
    ///
    /// # Errors
    /// `Setup` where the store cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        let _lock = self.shared()?;
        let refs = self.refs()?;
        let mut images =
            self.image_ids()?.into_iter().map(|id| self.read_image(id, &refs)).collect::<Result<Vec<_>>>()?;
        images.sort_by(|a, b| (a.names.is_empty(), &a.names, a.id).cmp(&(b.names.is_empty(), &b.names, b.id)));
        Ok(images)
    }

    /// The image of a name (`app`, `app:1`, `docker.io/library/debian:12`), of an id, or of the first digits of one
    /// (at least 6).
    ///
    /// # Errors
    /// `Config` where there is none, the digits fit several, or the name does not parse.
    pub fn image(&self, name: &str) -> Result<Image> {
        let _lock = self.shared()?;
        let refs = self.refs()?;
        self.read_image(self.resolve(name, &refs)?, &refs)
    }

    pub(crate) fn resolve(&self, name: &str, refs: &BTreeMap<String, Digest>) -> Result<Digest> {
        let ids = self.image_ids()?;
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        // A name first: `cafe12` can be one, and names are what people mean.
        let parsed: Result<Reference> = name.parse();
        if let Ok(reference) = &parsed
            && reference.digest().is_none()
            && let Some(id) = reference.candidates().iter().find_map(|candidate| refs.get(candidate))
        {
            return Ok(*id);
        }
        if (6..=64).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            let fitting: Vec<_> = ids.iter().filter(|id| id.hex().starts_with(digits)).collect();
            match fitting[..] {
                [id] => return Ok(*id),
                [] => {}
                _ => {
                    return Err(Failure::new("image-reference", name, format!("{} images begin so", fitting.len()))
                        .hint("give more digits")
                        .config());
                }
            }
        }
        let reference = match name.strip_prefix("sha256:") {
            Some(_) => name.to_owned(),
            None => parsed?.to_string(),
        };
        Err(Failure::new("image-reference", reference, "no such image in the store")
            .hint("load or pull it, or list what is there")
            .config())
    }

    /// Bytes of an image's files, and how many of them are in layers of other images too.
    ///
    /// # Errors
    /// Those of [`Store::images`].
    pub fn sizes(&self, image: &Image) -> Result<Sizes> {
        let others: HashSet<Digest> = (self.images()?.iter().filter(|other| other.id != image.id))
            .flat_map(|other| other.layers.iter().map(|layer| layer.diff_id))
            .collect();
        let mut seen = HashSet::new();
        let mut sizes = Sizes { total: 0, shared: 0 };
        for layer in image.layers.iter().filter(|layer| seen.insert(layer.diff_id)) {
            sizes.total += layer.bytes;
            sizes.shared += if others.contains(&layer.diff_id) { layer.bytes } else { 0 };
        }
        Ok(sizes)
    }

    /// Gives an image another name; one that another image had goes over to this one.
    ///
    /// # Errors
    /// Those of [`Store::image`]; `Config` where the new name has a digest.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<()> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        if name.digest().is_some() {
            return Err(Failure::new("image-reference", name.to_string(), "a digest cannot be given").config());
        }
        let _lock = self.shared()?;
        let id = self.resolve(image, &self.refs()?)?;
        self.change_refs(|refs| refs.insert(name.to_string(), id)).map(drop)
    }

    /// The image and its layers for a run; they stay while the value lives, also in another process's eyes.
    ///
    /// # Errors
    /// Those of [`Store::image`].
    pub fn use_image(&self, name: &str) -> Result<InUse> {
        let _lock = self.shared()?;
        let refs = self.refs()?;
        let id = self.resolve(name, &refs)?;
        let config = self.image_dir(id).join("config.json");
        let file = File::open(&config).map_err(|e| failed(&config, "reading an image", &e))?;
        let lock = Lock::shared(file).map_err(|e| failed(&config, "keeping an image", &e))?;
        let image = self.read_image(id, &refs)?;
        let layers = super::merged::once(&image.layers).into_iter().map(|layer| self.layer_dir(layer.diff_id));
        let layers = layers.chain(self.implied_dir(id)).map(|dir| dir.join("fs")).collect();
        Ok(InUse { image, layers, lock })
    }

    /// First out of sight in one step, then gone: a kill in between leaves something in `tmp/` only.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let temp = self.temp_dir()?;
        let to = temp.path.join("discarded");
        fs::rename(path, &to).map_err(|e| failed(path, "removing it", &e))
    }
}

/// What the tree in a directory of the store does not say.
pub(crate) fn read_withheld(dir: &Path) -> Result<impl Iterator<Item = Result<Withheld>> + use<>> {
    let path = dir.join("withheld");
    let file = File::open(&path).map_err(|e| failed(&path, "reading what a layer withholds", &e))?;
    Ok(BufReader::new(file).split(b'\n').map(move |line| {
        let line = line.map_err(|e| failed(&path, "reading what a layer withholds", &e))?;
        serde_json::from_slice(&line).map_err(|e| failed(&path, "reading what a layer withholds", &e.into()))
    }))
}

pub(crate) fn list(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(dir).map_err(|e| failed(dir, "listing a directory of the store", &e))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    names.collect::<io::Result<_>>().map_err(|e| failed(dir, "listing a directory of the store", &e))
}

pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let write = || File::create_new(path)?.write_all(content);
    write().map_err(|e| failed(path, "writing a file", &e))
}

/// Removes a directory and everything in it that is the caller's; one that is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match remove_with(&Hands::own(), path) {
        Err(Errno::ENOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// Also what belongs to the caller's sub-ids, which a run of several ids leaves.
pub(crate) fn remove_any(path: &Path) -> io::Result<()> {
    match remove_tree(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => crate::subid_tree::remove(path).map_err(Into::into),
        other => other,
    }
}

/// A directory in `tmp/`; gone with the value.
#[derive(Debug)]
pub(crate) struct TempDir {
    pub path: PathBuf,
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Renamed into its place, or removed; what cannot be removed is swept later.
        let _ = remove_any(&self.path);
    }
}
