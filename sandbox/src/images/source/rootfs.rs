//! Plain root file systems: a tar, or a directory that is packed on the way.

use std::fs::File;
use std::path::Path;

use super::files::open_file;
use super::{Found, failure};
use crate::error::Result;
use crate::images::layer::{LayerSource, of_packed_file};
use crate::images::pack::{Owners, pack};
use crate::images::store::{Store, TempDir, failed};
use crate::images::stream::Part;

pub(super) fn open(path: &Path, store: &Store) -> Result<(Vec<Found>, Option<TempDir>)> {
    let meta = std::fs::metadata(path).map_err(|e| failure(path, "opening it").cause(&e).setup())?;
    let name = path.display().to_string();
    let (layer, temp) = if meta.is_dir() {
        let temp = store.temp_dir()?;
        let to = temp.path.join("packed");
        let file = File::options().read(true).write(true).create_new(true).open(&to);
        let mut file = file.map_err(|e| failed(&to, "packing a directory", &e))?;
        pack(path, &mut file, &Owners::as_they_are(), None, None)?;
        (of_packed_file(file, &name)?, Some(temp))
    } else {
        let file = open_file(path).map_err(|e| failure(path, "opening it").cause(&e).setup())?;
        return Ok((of_tar(path, file)?, None));
    };
    Ok((vec![Found { config: None, manifest: None, layers: vec![layer], names: Vec::new() }], temp))
}

/// A tar, packed or not.
pub(super) fn of_tar(path: &Path, file: File) -> Result<Vec<Found>> {
    let len = file.metadata().map_err(|e| failure(path, "reading it").cause(&e).setup())?.len();
    let blob = Part { file: file.into(), offset: 0, len }.into();
    let name = path.display().to_string();
    let layers = vec![LayerSource { blob, compression: None, digest: None, diff_id: None, name }];
    Ok(vec![Found { config: None, manifest: None, layers, names: Vec::new() }])
}
