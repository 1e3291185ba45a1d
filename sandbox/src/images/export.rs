//! Images for other tools: OCI layouts and `docker load` archives, the layers as they came in, to the byte.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::manifest::{Descriptor, Document, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use super::pack::{NewMember, TarWriter};
use super::reference::{Digest, Reference};
use super::store::{Image, LayerInfo, Store, because, failed};
use super::stream::{CHUNK, Decoder, Part, Tee, chunked};
use super::tar::Kind;
use crate::error::{Failure, Result};

/// What [`Store::export`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// An OCI layout in a new or empty directory.
    OciDir,
    /// An OCI layout as a tar.
    OciArchive,
    /// What `docker load` reads; layers uncompressed, as that format has them.
    DockerArchive,
}

impl Store {
    /// Writes images to a new file or directory. Every layer is verified on the way. What was written is removed again
    /// after an error.
    ///
    /// # Errors
    /// Those of [`Store::image`]; `Config` where the target is there already; `Setup` where it cannot be written or a
    /// layer of the store is damaged.
    pub fn export(&self, images: &[&str], format: Format, to: &Path) -> Result<()> {
        let _held = crate::sys::HeldFileSizeSignal::new();
        let kept = images.iter().map(|name| self.use_image(name)).collect::<Result<Vec<_>>>()?;
        let images: Vec<(&Image, Vec<Reference>)> =
            kept.iter().zip(images).map(|(kept, name)| (&kept.image, chosen_names(&kept.image, name))).collect();
        let taken = match format {
            Format::OciDir => fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) || to.is_file(),
            _ => to.symlink_metadata().is_ok(),
        };
        if taken {
            return Err(failure(to, "there is something already").hint("give a new file or directory").config());
        }
        let result = match format {
            Format::OciDir => self.write_oci(&images, &mut Dir { path: to.to_owned() }),
            Format::OciArchive => Archive::create(to).and_then(|mut out| {
                self.write_oci(&images, &mut out)?;
                out.finish()
            }),
            Format::DockerArchive => Archive::create(to).and_then(|mut out| {
                self.write_docker(&images, &mut out)?;
                out.finish()
            }),
        };
        if result.is_err() {
            let _ = match format {
                Format::OciDir => super::store::remove_tree(to),
                _ => fs::remove_file(to),
            };
        }
        result
    }

    /// The same to a stream, such as a pipe to `docker load`: an archive, of which a part is written where the end is an
    /// error.
    ///
    /// # Errors
    /// Those of [`Store::export`]; `Config` for [`Format::OciDir`].
    pub fn export_to(&self, images: &[&str], format: Format, to: impl Write) -> Result<()> {
        let kept = images.iter().map(|name| self.use_image(name)).collect::<Result<Vec<_>>>()?;
        let images: Vec<(&Image, Vec<Reference>)> =
            kept.iter().zip(images).map(|(kept, name)| (&kept.image, chosen_names(&kept.image, name))).collect();
        let mut out = Archive::on(Path::new("-"), to);
        match format {
            Format::OciDir => {
                let failure = failure(Path::new("-"), "a directory cannot be written to a stream");
                return Err(failure.hint("Name a directory, or write an archive.").config());
            }
            Format::OciArchive => self.write_oci(&images, &mut out)?,
            Format::DockerArchive => self.write_docker(&images, &mut out)?,
        }
        out.finish()
    }

    fn write_oci(&self, images: &[(&Image, Vec<Reference>)], out: &mut dyn Files) -> Result<()> {
        out.file("oci-layout", &mut &br#"{"imageLayoutVersion":"1.0.0"}"#[..], 30)?;
        let mut written = HashSet::new();
        let mut entries = Vec::new();
        for (image, names) in images {
            for layer in &image.layers {
                if written.insert(layer.blob) {
                    let mut blob = Tee::new(self.blob(layer)?, None);
                    out.file(&blob_name(layer.blob), &mut blob, layer.blob_size)?;
                    check(layer.blob, blob.digest())?;
                }
            }
            let mut blob = |bytes: &[u8]| -> Result<Digest> {
                let digest = Digest::of(bytes);
                if written.insert(digest) {
                    out.file(&blob_name(digest), &mut &*bytes, bytes.len() as u64)?;
                }
                Ok(digest)
            };
            blob(&image.config_bytes)?;
            let manifest = self.manifest(image)?;
            let digest = blob(&manifest.0)?;
            let entry = |name: Option<&Reference>| {
                let annotations = name.map(|name| {
                    let tag = name.tag().unwrap_or("latest").to_owned();
                    BTreeMap::from([
                        ("io.containerd.image.name".to_owned(), name.to_string()),
                        ("org.opencontainers.image.ref.name".to_owned(), tag),
                    ])
                });
                let (media_type, size) = (manifest.1.clone(), manifest.0.len() as u64);
                Descriptor { media_type, digest, size, platform: None, annotations }
            };
            match &names[..] {
                [] => entries.push(entry(None)),
                names => entries.extend(names.iter().map(|name| entry(Some(name)))),
            }
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        let index = to_json(&index)?;
        out.file("index.json", &mut &index[..], index.len() as u64)
    }

    /// The manifest that the image came with, where the store has the very blobs that it names; else one of our own.
    fn manifest(&self, image: &Image) -> Result<(Vec<u8>, String)> {
        if let Some(bytes) = self.manifest_bytes(image.id)
            && let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, None, "", usize::MAX)
            && manifest.config.digest == image.id
            && manifest.layers.iter().map(|(layer, _)| layer.digest).eq(image.layers.iter().map(|layer| layer.blob))
        {
            let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let media_type = document["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
            return Ok((bytes, media_type));
        }
        let descriptor = |media_type: &str, digest: Digest, size: u64| json!({"mediaType": media_type, "digest": digest, "size": size});
        let layers: Vec<Value> =
            image.layers.iter().map(|l| descriptor(l.compression.media_type(), l.blob, l.blob_size)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, image.id, image.config_bytes.len() as u64),
            "layers": layers,
        });
        Ok((to_json(&manifest)?, OCI_MANIFEST.to_owned()))
    }

    fn write_docker(&self, images: &[(&Image, Vec<Reference>)], out: &mut dyn Files) -> Result<()> {
        let mut written = HashSet::new();
        let mut entries = Vec::new();
        for (image, names) in images {
            for layer in &image.layers {
                if written.insert(layer.diff_id) {
                    let decoder = Decoder::new(chunked(self.blob(layer)?), layer.compression);
                    let mut tar = Tee::new(decoder, None);
                    out.file(&format!("{}.tar", layer.diff_id.hex()), &mut tar, layer.tar_size)?;
                    check(layer.diff_id, tar.digest())?;
                }
            }
            let config = format!("{}.json", image.id.hex());
            if written.insert(image.id) {
                out.file(&config, &mut &image.config_bytes[..], image.config_bytes.len() as u64)?;
            }
            let layers: Vec<String> = image.layers.iter().map(|l| format!("{}.tar", l.diff_id.hex())).collect();
            let tags: Vec<String> = names.iter().map(Reference::to_string).collect();
            entries.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
        }
        let manifest = to_json(&Value::Array(entries))?;
        out.file("manifest.json", &mut &manifest[..], manifest.len() as u64)
    }

    fn blob(&self, layer: &LayerInfo) -> Result<Part> {
        let path = self.layer_dir(layer.diff_id).join("blob");
        let file = File::open(&path).map_err(|e| failed(&path, "reading a layer", &e))?;
        Ok(Part { file: file.into(), offset: 0, len: layer.blob_size })
    }
}

/// The name that was asked for, or all of them where it was asked for by its id.
fn chosen_names(image: &Image, asked: &str) -> Vec<Reference> {
    let names = || image.names.iter().filter_map(|name| name.parse().ok());
    if let Ok(asked) = asked.parse::<Reference>()
        && let Some(name) = asked.candidates().iter().find(|candidate| image.names.contains(candidate))
    {
        return name.parse().into_iter().collect();
    }
    names().collect()
}

fn failure(path: &Path, message: &str) -> Failure {
    Failure::new("image-export", path.display().to_string(), message)
}

fn check(said: Digest, is: Digest) -> Result<()> {
    if said == is {
        return Ok(());
    }
    Err(Failure::new("image-store", said.to_string(), format!("the layer in the store is damaged: it has {is}"))
        .hint("remove the image and load it again")
        .setup())
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn to_json(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Failure::new("image-export", "", e.to_string()).setup())
}

/// A place for files of known size.
trait Files {
    fn file(&mut self, name: &str, from: &mut dyn Read, size: u64) -> Result<()>;
}

struct Dir {
    path: PathBuf,
}

impl Files for Dir {
    fn file(&mut self, name: &str, from: &mut dyn Read, size: u64) -> Result<()> {
        let path = self.path.join(name);
        let mut write = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
            let mut to = BufWriter::with_capacity(CHUNK, File::create_new(&path)?);
            if io::copy(from, &mut to)? != size {
                return Err(io::Error::other("not as long as it should be"));
            }
            to.flush()
        };
        write().map_err(|e| because(failure(&path, "writing it"), &e))
    }
}

struct Archive<W: Write> {
    path: PathBuf,
    tar: TarWriter<BufWriter<W>>,
    dirs: HashSet<String>,
}

impl Archive<File> {
    fn create(path: &Path) -> Result<Archive<File>> {
        let file = File::create_new(path).map_err(|e| because(failure(path, "making it"), &e))?;
        Ok(Archive::on(path, file))
    }
}

impl<W: Write> Archive<W> {
    fn on(path: &Path, to: W) -> Archive<W> {
        let tar = TarWriter::new(BufWriter::with_capacity(CHUNK, to));
        Archive { path: path.to_owned(), tar, dirs: HashSet::new() }
    }

    fn finish(self) -> Result<()> {
        self.tar.finish().map(drop).map_err(|e| because(failure(&self.path, "writing it"), &e))
    }
}

impl<W: Write> Files for Archive<W> {
    fn file(&mut self, name: &str, from: &mut dyn Read, size: u64) -> Result<()> {
        let mut write = || {
            for (at, _) in name.match_indices('/') {
                let dir = &name[..at];
                if self.dirs.insert(dir.to_owned()) {
                    let header = NewMember::file(dir.as_bytes(), 0);
                    self.tar.header(&NewMember { kind: Kind::Dir, mode: 0o755, ..header })?;
                }
            }
            self.tar.header(&NewMember::file(name.as_bytes(), size))?;
            self.tar.content(size, &mut *from)?;
            if from.read(&mut [0])? != 0 {
                return Err(io::Error::other("longer than it should be"));
            }
            Ok(())
        };
        write().map_err(|e| because(failure(&self.path, name), &e))
    }
}
