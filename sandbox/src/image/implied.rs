//! Directories that layers need and do not list.
//!
//! A layer that only removes `etc/motd`, or has files without their directories, says nothing of `etc`: owner, mode and
//! attributes of the layer below are to show. On the disk the directory must be there, with a mode of ours, and
//! overlayfs would show that one. So such directories are marked when they are unpacked, and an image in which they
//! would hide something has one more tree above its layers, of these directories as they should be seen:
//! `images/HEX/implied/fs`, and beside it `withheld` as a layer has it. The root is none of them: a run's is its own.

use std::collections::btree_map::{BTreeMap, Entry};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::merged::Merged;
use super::owners::{Owner, copy_attributes, copy_times, own_attributes, owners_of};
use super::store::{LayerInfo, Store, failed};
use super::unpack::{IMPLIED, Withheld, escape};
use crate::error::Result;

type Owners = BTreeMap<PathBuf, Owner>;
type OwnersByLayer = BTreeMap<usize, Owners>;

impl Store {
    /// Makes the tree for an image of these layers, where it needs one. Under the shared lock.
    pub(crate) fn make_implied(&self, layers: &[LayerInfo], to: &Path) -> Result<()> {
        let trees: Vec<PathBuf> = layers.iter().map(|layer| self.layer_dir(layer.diff_id).join("fs")).collect();
        let merged = Merged { layers: &trees };
        let mut owners = OwnersByLayer::new();
        // Each with the layer that says what it is.
        let mut dirs: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut consider = |path: &Path| -> Result<()> {
            let listed = |layer: usize| !is_implied(&trees[layer].join(path));
            let shown = merged.find(path).filter(|shown| shown.meta.is_dir() && !listed(shown.layer));
            let said = merged.find_where(path, listed).filter(|said| said.meta.is_dir());
            let (Some(shown), Some(said)) = (shown, said) else { return Ok(()) };
            let source = trees[said.layer].join(path);
            let noted = own_attributes(&source).map_err(|e| failed(&source, "reading its attributes", &e))?;
            let mode = |meta: &fs::Metadata| meta.permissions().mode();
            let owned = owners_in(&mut owners, said.layer, &trees)?.contains_key(path);
            if owned || !noted.is_empty() || mode(&shown.meta) != mode(&said.meta) {
                dirs.insert(path.to_owned(), said.layer);
            }
            Ok(())
        };
        for (layer, tree) in layers.iter().zip(&trees).skip(1) {
            if layer.implied > 0 {
                marked(tree, &mut consider)?;
            }
        }
        if dirs.is_empty() {
            return Ok(());
        }
        for path in dirs.keys().cloned().collect::<Vec<_>>() {
            for parent in path.ancestors().skip(1) {
                if let Some(shown) = merged.find(parent).filter(|_| !dirs.contains_key(parent)) {
                    owners_in(&mut owners, shown.layer, &trees)?;
                    dirs.insert(parent.to_owned(), shown.layer);
                }
            }
        }
        let make = || -> io::Result<()> {
            fs::create_dir(to)?;
            let mut withheld = File::create_new(to.join("withheld"))?;
            for (path, layer) in &dirs {
                let (from, to) = (trees[*layer].join(path), to.join("fs").join(path));
                fs::create_dir(&to)?;
                copy_attributes(&from, &to)?;
                fs::set_permissions(&to, fs::metadata(&from)?.permissions())?;
                if let Some((uid, gid, mode)) = owners.get(layer).and_then(|owners| owners.get(path)) {
                    let path = escape(path.as_os_str().as_bytes());
                    let record = Withheld { path, uid: *uid, gid: *gid, mode: *mode, device: None, xattrs: Vec::new() };
                    let mut line = serde_json::to_vec(&record)?;
                    line.push(b'\n');
                    withheld.write_all(&line)?;
                }
            }
            // Whoever reads it could not tell a list that a power cut has emptied from an empty one.
            withheld.sync_all()?;
            for (path, layer) in dirs.iter().rev() {
                let from = fs::metadata(trees[*layer].join(path))?;
                copy_times(&from, &to.join("fs").join(path))?;
            }
            Ok(())
        };
        make().map_err(|e| failed(to, "making the directories that layers imply", &e))
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

/// Calls for every directory of a tree that is marked.
fn marked(tree: &Path, call: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(at) = pending.pop() {
        let dir = tree.join(&at);
        if is_implied(&dir) {
            call(&at)?;
        }
        let mut list = || -> io::Result<()> {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    pending.push(at.join(entry.file_name()));
                }
            }
            Ok(())
        };
        list().map_err(|e| failed(&dir, "looking for directories that the layer implies", &e))?;
    }
    Ok(())
}
