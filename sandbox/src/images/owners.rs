//! The owners of an image's files on the disk, for runs of several ids.
//!
//! A layer's tree belongs to the caller as a whole, which is right for a run of one id, and nearly right for one of
//! many: the caller is the image's root, and most files are root's. What is not, stands once more in a small tree
//! above the layer's (`layers/HEX/owned-UID-GID-COUNT/fs/`), with its owners. It is made at the first such run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

use super::merged::once;
use super::store::{Image, Store, failed, read_withheld};
use super::unpack::unescape;
use crate::error::Result;
use crate::ids::StoreIds;
use crate::subid_tree::Hands;

/// Owner, group and permission bits in the image.
pub(crate) type Owner = (u32, u32, u32);

impl Store {
    /// The directories of an image for a run of these ids, the lowest first. The image must be in use.
    pub(crate) fn owned_layers(&self, image: &Image, ids: StoreIds) -> Result<Vec<PathBuf>> {
        let mut dirs = Vec::new();
        let mut hands = None;
        let layers = once(&image.layers).into_iter().map(|layer| (layer.diff_id, self.layer_dir(layer.diff_id)));
        let implied = self.implied_dir(image.id).map(|dir| (image.id, dir));
        for (id, dir) in layers.chain(implied) {
            dirs.push(dir.join("fs"));
            let owned = dir.join(format!("owned-{}-{}-{}", ids.uid, ids.gid, ids.most));
            if !owned.exists() {
                let _lock = self.shared()?;
                let _layer = self.lock_layer(id)?;
                if !owned.exists() {
                    if hands.is_none() {
                        hands = Some(Hands::new()?);
                    }
                    let Some(hands) = &hands else { continue };
                    let temp = self.temp_dir()?;
                    // One more directory, which stays ours: what belongs to somebody else we could not rename.
                    let holder = temp.path.join("owned");
                    fs::create_dir(&holder).map_err(|e| failed(&holder, "making a tree of owners", &e))?;
                    make_owned(&dir, &holder.join("fs"), ids, hands)?;
                    fs::rename(&holder, &owned).map_err(|e| failed(&owned, "making a tree of owners", &e))?;
                }
            }
            let tree = owned.join("fs");
            if tree.exists() {
                dirs.push(tree);
            }
        }
        Ok(dirs)
    }
}

fn make_owned(dir: &Path, to: &Path, ids: StoreIds, hands: &Hands) -> Result<()> {
    let owners = owners_of(dir)?;
    let from = dir.join("fs");
    if owners.is_empty() {
        return Ok(());
    }
    let mut copied: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut dirs = BTreeSet::new();
    for path in owners.keys() {
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            dirs.insert(parent.to_owned());
        }
    }
    let mut made = || -> io::Result<()> {
        fs::create_dir(to)?;
        for dir in &dirs {
            fs::create_dir(to.join(dir))?;
        }
        for path in owners.keys() {
            let (source, dest) = (from.join(path), to.join(path));
            let meta = fs::symlink_metadata(&source)?;
            if meta.is_dir() {
                if !dirs.contains(path) && !path.as_os_str().is_empty() {
                    fs::create_dir(&dest)?;
                }
            } else if let Some(first) = copied.get(&(meta.dev(), meta.ino())) {
                fs::hard_link(first, &dest)?;
            } else {
                copy(&source, &dest, &meta)?;
                copied.insert((meta.dev(), meta.ino()), dest);
            }
        }
        // What is in a directory first: it may belong to somebody else, and then be closed to us.
        let all: BTreeSet<&PathBuf> = dirs.iter().chain(owners.keys()).collect();
        let mut done = BTreeSet::new();
        for path in all.into_iter().rev() {
            // A file with two names is not ours any more at the second.
            if !done.insert(fs::symlink_metadata(to.join(path))?.ino()) {
                continue;
            }
            finish(&from.join(path), &to.join(path), owners.get(path), ids, hands)?;
        }
        Ok(())
    };
    made().map_err(|e| failed(to, "making a tree of owners", &e))
}

/// The files of a layer (its directory in the store) that are not simply root's, where they are on the disk.
pub(crate) fn owners_of(dir: &Path) -> Result<BTreeMap<PathBuf, Owner>> {
    let tree = &dir.join("fs");
    let mut owners = BTreeMap::new();
    let mut linked = HashMap::new();
    let fail = |e: io::Error| failed(tree, "reading the owners of a layer", &e);
    let root = rustix::fs::open(tree, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| fail(e.into()))?;
    let real = fs::canonicalize(tree).map_err(fail)?;
    for withheld in read_withheld(dir)? {
        let withheld = withheld?;
        let path = unescape(&withheld.path);
        let path = Path::new(OsStr::from_bytes(&path));
        // A parent may be a link within the layer: the overlay knows the real directory only.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            owners.insert(PathBuf::new(), (withheld.uid, withheld.gid, withheld.mode));
            continue;
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = || rustix::fs::openat2(&root, parent, flags, Mode::empty(), how);
        let Ok(parent) = super::unpack::undisturbed(open) else { continue };
        let parent = fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd())).map_err(fail)?;
        let Ok(parent) = parent.strip_prefix(&real) else { continue };
        let path = parent.join(name);
        let Ok(meta) = fs::symlink_metadata(tree.join(&path)) else { continue };
        let group_dir = meta.is_dir() && withheld.mode & 0o2000 != 0;
        if (withheld.uid, withheld.gid) == (0, 0) && !group_dir || withheld.device.is_some() {
            continue;
        }
        let owner = (withheld.uid, withheld.gid, withheld.mode);
        if meta.is_file() && meta.nlink() > 1 {
            linked.insert((meta.dev(), meta.ino()), owner);
        }
        owners.insert(path, owner);
    }
    if !linked.is_empty() {
        other_names(tree, Path::new(""), &linked, &mut owners).map_err(fail)?;
    }
    Ok(owners)
}

/// The archive has an owner for the first name of a file only.
fn other_names(
    tree: &Path,
    at: &Path,
    linked: &HashMap<(u64, u64), Owner>,
    owners: &mut BTreeMap<PathBuf, Owner>,
) -> io::Result<()> {
    for entry in fs::read_dir(tree.join(at))? {
        let entry = entry?;
        let path = at.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            other_names(tree, &path, linked, owners)?;
        } else if let Some(owner) = linked.get(&(meta.dev(), meta.ino())) {
            owners.insert(path, *owner);
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let kind = meta.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_fifo() {
        return Ok(rustix::fs::mknodat(
            rustix::fs::CWD,
            to,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?);
    }
    let opened = match File::open(from) {
        // The layer is the caller's; a mode may shut its owner out all the same.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(from, fs::Permissions::from_mode(meta.mode() & 0o7777 | 0o400))?;
            let opened = File::open(from);
            fs::set_permissions(from, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
            opened
        }
        opened => opened,
    };
    io::copy(&mut opened?, &mut File::create_new(to)?).map(drop)
}

/// Attributes, mode, times and owner, in the order in which each survives the next.
fn finish(from: &Path, to: &Path, owner: Option<&Owner>, ids: StoreIds, hands: &Hands) -> io::Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_dir() || meta.is_file() {
        copy_attributes(from, to)?;
        let group_dir = owner.map_or(0, |(.., mode)| if meta.is_dir() { mode & 0o2000 } else { 0 });
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o1777 | group_dir))?;
    }
    copy_times(&meta, to)?;
    let Some((uid, gid, _)) = owner else { return Ok(()) };
    let caller = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let (uid, gid) = ids.host((*uid, *gid), caller);
    let path = std::ffi::CString::new(to.as_os_str().as_bytes())?;
    let fd = hands.open(AT_FDCWD, &path, OFlag::O_PATH)?;
    Ok(hands.chown(fd.as_fd(), uid, gid)?)
}

pub(crate) fn copy_times(of: &fs::Metadata, to: &Path) -> io::Result<()> {
    let time = Timespec { tv_sec: of.mtime(), tv_nsec: of.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(rustix::fs::CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(crate) fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    for name in own_attributes(from)? {
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::lgetxattr(from, &name[..], &mut value[..])?;
        rustix::fs::lsetxattr(to, &name[..], &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

/// Names of the attributes that an image gave: `user.*`, but not overlay's: what is hidden below is so without them.
pub(crate) fn own_attributes(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        length => length?,
    };
    let names = list[..length].split(|byte| *byte == 0);
    let own = names.filter(|name| name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
    Ok(own.map(<[u8]>::to_vec).collect())
}
