//! Directories that layers need and do not list.
//!
//! A layer that only removes `etc/motd`, or has files without their directories, says nothing of `etc`: owner, mode and
//! attributes of the layer below are to show. On the disk the directory must be there, with a mode of ours, and
//! overlayfs would show that one. So such directories are marked when they are unpacked, and an image in which they
//! would hide something has one more tree above its layers, of these directories as they should be seen:
//! `images/HEX/implied/fs`, and beside it `withheld` as a layer has it. The root is none of them: a run's is its own.
//!
//! Two more things that a layer's own tree cannot say stand there: a directory with whiteouts that no other layer has
//! (overlayfs lists them in one that it need not merge, and then nobody can open what is listed), and a whiteout in the
//! place of a device that was not made, where a file of a layer below would show.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use serde::{Deserialize, Serialize};

use super::merged::{Merged, once};
use super::owners::{Owner, copy_attributes, copy_times, own_attributes, owners_of};
use super::reference::Digest;
use super::store::{LayerInfo, Store, failed};
use super::unpack::{IMPLIED, Withheld, escape, unescape};
use crate::error::Result;

/// How much of that a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Implied {
    /// Directories that the tree has and the tar does not list.
    pub implied: u64,
    /// Whiteouts in the tree.
    pub whiteouts: u64,
    /// Devices that the tar lists and the tree has not.
    pub devices: u64,
}

type Owners = BTreeMap<PathBuf, Owner>;
type OwnersByLayer = BTreeMap<usize, Owners>;

/// What the tree is to show.
#[derive(Default)]
struct Shown {
    /// Each with the layer that says what it is.
    dirs: BTreeMap<PathBuf, usize>,
    /// Where a whiteout stands for a device.
    hidden: BTreeSet<PathBuf>,
    owners: OwnersByLayer,
}

impl Store {
    /// Makes the tree for an image of these layers, where it needs one. Under the shared lock.
    pub(crate) fn make_implied(&self, layers: &[LayerInfo], to: &Path) -> Result<()> {
        let layers = once(layers);
        let trees: Vec<PathBuf> = layers.iter().map(|layer| self.layer_dir(layer.diff_id).join("fs")).collect();
        let merged = Merged { layers: &trees };
        let mut shown = Shown::default();
        for (layer, tree) in layers.iter().zip(&trees).skip(1) {
            if layer.implied.implied > 0 {
                each_dir(tree, &mut |path, _| match is_implied(&tree.join(path)) {
                    true => shown.consider(&merged, path),
                    false => Ok(()),
                })?;
            }
        }
        for (layer, tree) in layers.iter().zip(&trees) {
            if layer.implied.whiteouts > 0 {
                each_dir(tree, &mut |path, has_whiteouts| {
                    if has_whiteouts && !path.as_os_str().is_empty() && merged.is_of_one_layer(path) {
                        let layer = merged.find(path).map_or(0, |found| found.layer);
                        shown.insert(path, layer, &trees)?;
                    }
                    Ok(())
                })?;
            }
        }
        for (index, layer) in layers.iter().enumerate().filter(|(_, layer)| layer.implied.devices > 0) {
            for path in self.devices(layer.diff_id)? {
                if merged.find(&path).is_some_and(|found| found.layer < index) {
                    shown.hidden.insert(path);
                }
            }
        }
        if shown.dirs.is_empty() && shown.hidden.is_empty() {
            return Ok(());
        }
        shown.add_parents(&merged)?;
        shown.make(&trees, to).map_err(|e| failed(to, "making the directories that layers imply", &e))
    }
}

impl Shown {
    fn insert(&mut self, path: &Path, layer: usize, trees: &[PathBuf]) -> Result<()> {
        owners_in(&mut self.owners, layer, trees)?;
        self.dirs.insert(path.to_owned(), layer);
        Ok(())
    }

    /// Notes an implied directory, where it would hide what a layer below says of it.
    fn consider(&mut self, merged: &Merged<'_>, path: &Path) -> Result<()> {
        let trees = merged.layers;
        let listed = |layer: usize| !is_implied(&trees[layer].join(path));
        let shown = merged.find(path).filter(|shown| shown.meta.is_dir() && !listed(shown.layer));
        let said = merged.find_where(path, listed).filter(|said| said.meta.is_dir());
        let (Some(shown), Some(said)) = (shown, said) else { return Ok(()) };
        let source = trees[said.layer].join(path);
        let noted = own_attributes(&source).map_err(|e| failed(&source, "reading its attributes", &e))?;
        let mode = |meta: &fs::Metadata| meta.permissions().mode();
        let owned = owners_in(&mut self.owners, said.layer, trees)?.contains_key(path);
        if owned || !noted.is_empty() || mode(&shown.meta) != mode(&said.meta) {
            self.dirs.insert(path.to_owned(), said.layer);
        }
        Ok(())
    }

    fn add_parents(&mut self, merged: &Merged<'_>) -> Result<()> {
        for path in self.dirs.keys().chain(&self.hidden).cloned().collect::<Vec<_>>() {
            for parent in path.ancestors().skip(1) {
                if let Some(found) = merged.find(parent).filter(|_| !self.dirs.contains_key(parent)) {
                    self.insert(parent, found.layer, merged.layers)?;
                }
            }
        }
        Ok(())
    }

    fn make(&self, trees: &[PathBuf], to: &Path) -> io::Result<()> {
        fs::create_dir(to)?;
        let mut withheld = File::create_new(to.join("withheld"))?;
        for (path, layer) in &self.dirs {
            let (from, to) = (trees[*layer].join(path), to.join("fs").join(path));
            fs::create_dir(&to)?;
            copy_attributes(&from, &to)?;
            fs::set_permissions(&to, fs::metadata(&from)?.permissions())?;
            if let Some((uid, gid, mode)) = self.owners.get(layer).and_then(|owners| owners.get(path)) {
                let path = escape(path.as_os_str().as_bytes());
                let record = Withheld { path, uid: *uid, gid: *gid, mode: *mode, device: None, xattrs: Vec::new() };
                let mut line = serde_json::to_vec(&record)?;
                line.push(b'\n');
                withheld.write_all(&line)?;
            }
        }
        for path in &self.hidden {
            let to = to.join("fs").join(path);
            rustix::fs::mknodat(rustix::fs::CWD, &to, FileType::CharacterDevice, Mode::empty(), 0)?;
        }
        // Whoever reads it could not tell a list that a power cut has emptied from an empty one.
        withheld.sync_all()?;
        for (path, layer) in self.dirs.iter().rev() {
            let from = fs::metadata(trees[*layer].join(path))?;
            copy_times(&from, &to.join("fs").join(path))?;
        }
        Ok(())
    }
}

impl Store {
    /// Paths of the devices that a layer has in its archive, and not in its tree.
    fn devices(&self, layer: Digest) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for withheld in self.withheld(layer)? {
            let withheld = withheld?;
            if withheld.device.is_some() {
                paths.push(PathBuf::from(OsString::from_vec(unescape(&withheld.path))));
            }
        }
        Ok(paths)
    }
}

fn owners_in<'a>(owners: &'a mut OwnersByLayer, layer: usize, trees: &[PathBuf]) -> Result<&'a Owners> {
    Ok(match owners.entry(layer) {
        Entry::Vacant(vacant) => vacant.insert(owners_of(trees[layer].parent().unwrap_or(&trees[layer]))?),
        Entry::Occupied(occupied) => occupied.into_mut(),
    })
}

fn is_implied(dir: &Path) -> bool {
    let mut value = [0u8; 1];
    rustix::fs::lgetxattr(dir, IMPLIED, &mut value[..]).is_ok()
}

/// Calls for every directory of a tree, with whether whiteouts are in it.
fn each_dir(tree: &Path, call: &mut impl FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(at) = pending.pop() {
        let dir = tree.join(&at);
        let mut whiteouts = false;
        let mut list = || -> io::Result<()> {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                whiteouts |= kind.is_char_device();
                if kind.is_dir() {
                    pending.push(at.join(entry.file_name()));
                }
            }
            Ok(())
        };
        list().map_err(|e| failed(&dir, "looking for directories that the layer implies", &e))?;
        call(&at, whiteouts)?;
    }
    Ok(())
}
