//! Where images come from.

mod docker;
mod files;
mod oci;
mod rootfs;

use std::io::Read;
use std::path::{Path, PathBuf};

use super::layer::LayerSource;
use super::platform::Platform;
use super::reference::Reference;
use super::store::{Store, TempDir};
use super::stream::Stop;
use crate::error::{Failure, Result};
use files::Files;

/// Where images come from. Archives may be plain tars, or packed with gzip, zstd, xz or bzip2.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// An OCI layout or a `docker save` archive, whichever it is.
    Detect(PathBuf),
    /// An OCI layout: a directory or an archive of one.
    Oci(PathBuf),
    /// What `docker save` and `podman save` write.
    Docker(PathBuf),
    /// A plain root file system: a tar or a directory, as mmdebstrap and debootstrap make them. It becomes an image
    /// of one layer.
    RootFs(PathBuf),
}

/// An image as a source has it.
pub(crate) struct Found {
    /// None for a plain root file system, whose configuration is made when its digest is known.
    pub config: Option<Vec<u8>>,
    pub manifest: Option<Vec<u8>>,
    pub layers: Vec<LayerSource>,
    pub names: Vec<Reference>,
}

/// The images of a source. The temporary directory, where there is one, holds an archive that had to be decompressed:
/// it must live until all layers were read.
pub(crate) fn open(
    source: &Source,
    store: &Store,
    platform: &Platform,
    stop: &Stop,
) -> Result<(Vec<Found>, Option<TempDir>)> {
    let (Source::Detect(path) | Source::Oci(path) | Source::Docker(path) | Source::RootFs(path)) = source;
    if let Source::RootFs(path) = source {
        return rootfs::open(path, store);
    }
    let (files, temp) = Files::open(path, store, stop)?;
    Ok((images(source, &files, store, platform)?, temp))
}

/// The same, but that the archive is what comes from a stream; the source's path stands in errors. Two temporary
/// directories may be needed.
pub(crate) fn read(
    source: &Source,
    input: &mut dyn Read,
    store: &Store,
    platform: &Platform,
    stop: &Stop,
) -> Result<(Vec<Found>, [Option<TempDir>; 2])> {
    let (Source::Detect(path) | Source::Oci(path) | Source::Docker(path) | Source::RootFs(path)) = source;
    let (file, stream) = files::spool(path, input, store, stop)?;
    if let Source::RootFs(path) = source {
        return Ok((rootfs::of_tar(path, file)?, [Some(stream), None]));
    }
    let (files, unpacked) = Files::of_archive(path, file, store, stop)?;
    Ok((images(source, &files, store, platform)?, [Some(stream), unpacked]))
}

fn images(source: &Source, files: &Files, store: &Store, platform: &Platform) -> Result<Vec<Found>> {
    let (Source::Detect(path) | Source::Oci(path) | Source::Docker(path) | Source::RootFs(path)) = source;
    let (oci, docker) = (files.has("oci-layout"), files.has("manifest.json"));
    match source {
        Source::Docker(_) => docker::images(files, path, store.limits.layers),
        // Docker 25 and later write both; OCI's has digests for everything.
        _ if oci => oci::images(files, path, platform, store.limits.layers),
        Source::Detect(_) if docker => docker::images(files, path, store.limits.layers),
        Source::Oci(_) => Err(failure(path, "no OCI layout: there is no oci-layout in it").setup()),
        _ => Err(failure(path, "neither an OCI layout nor a docker-save archive")
            .hint("a plain root file system is loaded as one: --format rootfs, or Source::RootFs")
            .setup()),
    }
}

fn failure(path: &Path, message: impl Into<String>) -> Failure {
    Failure::new("image-source", path.display().to_string(), message)
}
