//! Where COPY and `RUN --mount=type=bind` take files from: the context, or the layers of a stage or image.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, lstat};
use rustix::io::Errno;
use sha2::Digest as _;

use super::context::{Context, Entry, is_pattern};
use super::glob::fits;
use crate::error::{Failure, Result};
use crate::images::merged::{Found, Merged};
use crate::images::owners::{Owner, owners_of};
use crate::images::reference::Digest;
use crate::images::store::{InUse, failed};
use crate::images::tar::Xattr;
use crate::resolve::image::clean;

pub(super) trait Files {
    /// What a source of COPY means: every file that the pattern fits.
    /// `deep`: `**` stands for any number of directories.
    fn matches(&self, pattern: &str, deep: bool) -> Result<Vec<PathBuf>>;
    /// A source with everything in it, each directory before what is in it.
    fn walk(&self, source: &Path) -> Result<Vec<Entry>>;
    /// For reading, and its size.
    fn file(&self, entry: &Entry) -> Result<(File, u64)>;
    /// The target of a link.
    fn link(&self, entry: &Entry) -> Result<Vec<u8>>;
    /// Owner, group and mode that it keeps where nobody says otherwise.
    fn owner(&self, entry: &Entry) -> Owner;
}

impl Files for Context {
    fn matches(&self, pattern: &str, deep: bool) -> Result<Vec<PathBuf>> {
        Context::matches(self, pattern, deep)
    }

    fn walk(&self, source: &Path) -> Result<Vec<Entry>> {
        Context::walk(self, source)
    }

    fn file(&self, entry: &Entry) -> Result<(File, u64)> {
        Context::file(self, entry)
    }

    fn link(&self, entry: &Entry) -> Result<Vec<u8>> {
        Context::link(self, entry)
    }

    /// The caller's files are root's in an image.
    fn owner(&self, entry: &Entry) -> Owner {
        (0, 0, entry.stat.st_mode & 0o7777)
    }
}

/// The files of an image, as its layers come to them. The layers are the store's: nobody else writes to them.
pub(super) struct ImageFiles {
    name: String,
    layers: Vec<PathBuf>,
    owners: Vec<BTreeMap<PathBuf, Owner>>,
}

impl ImageFiles {
    pub fn new(name: &str, image: &InUse) -> Result<ImageFiles> {
        let dir_of = |tree: &PathBuf| owners_of(tree.parent().unwrap_or(tree));
        let owners = image.layers.iter().map(dir_of).collect::<Result<_>>()?;
        Ok(ImageFiles { name: name.to_owned(), layers: image.layers.clone(), owners })
    }

    fn merged(&self) -> Merged<'_> {
        Merged { layers: &self.layers }
    }

    fn failure(&self, path: &Path, message: &str) -> Failure {
        Failure::new("build-context", format!("{} in {}", path.display(), self.name), message)
    }

    fn found(&self, path: &Path) -> Result<Found> {
        self.merged().find(path).ok_or_else(|| self.failure(path, "no such file in the image").config())
    }

    fn entry(&self, source: &Path, below: &Path, found: &Found) -> Result<Entry> {
        let path = if below.as_os_str().is_empty() { source.to_owned() } else { source.join(below) };
        let place = self.layers[found.layer].join(&path);
        let stat = lstat(&place).map_err(|e| self.failure(&path, "looking at it").errno(e as i32).setup())?;
        Ok(Entry { below: below.to_owned(), path, stat })
    }
}

impl Files for ImageFiles {
    fn matches(&self, pattern: &str, deep: bool) -> Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        for name in clean(Path::new("/"), pattern).iter().skip(1) {
            if deep && name == "**" {
                found = dirs_in(self, &found)?;
                continue;
            }
            if !is_pattern(name.as_bytes()) {
                found.iter_mut().for_each(|path| path.push(name));
                continue;
            }
            let mut next = Vec::new();
            for dir in &found {
                let Some(dir) = self.merged().resolve(&Path::new("/").join(dir)) else { continue };
                let names =
                    self.merged().list(&dir).map_err(|e| failed(&dir, "listing a directory of an image", &e))?;
                next.extend(names.iter().filter(|n| fits(name.as_bytes(), n.as_bytes())).map(|n| dir.join(n)));
            }
            next.sort();
            found = next;
        }
        let is_there = |path: &PathBuf| {
            let place = self.merged().resolve(&Path::new("/").join(path));
            place.is_some_and(|place| place.as_os_str().is_empty() || self.merged().find(&place).is_some())
        };
        found.retain(is_there);
        if found.is_empty() && !is_pattern(pattern.as_bytes()) {
            return Err(self.failure(Path::new(pattern), "no such file in the image").config());
        }
        Ok(found)
    }

    fn walk(&self, source: &Path) -> Result<Vec<Entry>> {
        // What is named may be a link; what lies beneath it is copied as it is.
        let source = self.merged().resolve(&Path::new("/").join(source));
        let source = source.ok_or_else(|| self.failure(Path::new(""), "links that run in a circle").config())?;
        let mut entries = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let at = if below.as_os_str().is_empty() { source.clone() } else { source.join(&below) };
            let entry = self.entry(&source, &below, &self.found(&at)?)?;
            if entry.is(SFlag::S_IFDIR) {
                let names = self.merged().list(&at).map_err(|e| failed(&at, "listing a directory of an image", &e))?;
                pending.extend(names.into_iter().rev().map(|name| below.join(name)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn file(&self, entry: &Entry) -> Result<(File, u64)> {
        let path = self.layers[self.found(&entry.path)?.layer].join(&entry.path);
        let closed = entry.stat.st_mode & 0o400 == 0;
        // The layer is the caller's; a mode may shut its owner out all the same.
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        let opened = match closed && !nix::unistd::geteuid().is_root() {
            true => mode(entry.stat.st_mode & 0o7777 | 0o400).and_then(|()| {
                let opened = open(&path);
                mode(entry.stat.st_mode & 0o7777)?;
                opened
            }),
            false => open(&path),
        };
        let file = opened.map_err(|e| failed(&path, "reading a file of an image", &e))?;
        Ok((file, u64::try_from(entry.stat.st_size).unwrap_or(0)))
    }

    fn link(&self, entry: &Entry) -> Result<Vec<u8>> {
        let path = self.layers[self.found(&entry.path)?.layer].join(&entry.path);
        let target = fs::read_link(&path).map_err(|e| failed(&path, "reading a link of an image", &e))?;
        Ok(target.into_os_string().into_vec())
    }

    fn owner(&self, entry: &Entry) -> Owner {
        let own = (0, 0, entry.stat.st_mode & 0o7777);
        let Some(found) = self.merged().find(&entry.path) else { return own };
        self.owners[found.layer].get(&entry.path).copied().unwrap_or(own)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// No member of a layer has more of them.
const ATTRIBUTES: usize = 512 << 10;

/// The attributes of a file that COPY keeps: those of `user.`, but for overlayfs's own. Others mean something to this
/// host, or give rights.
pub(super) fn attributes(file: &File, path: &Path) -> Result<Vec<Xattr>> {
    let failed = |e: Errno| {
        let failure = Failure::new("build-context", path.display().to_string(), "reading its extended attributes");
        failure.errno(e.raw_os_error()).setup()
    };
    // As much as the kernel has of each.
    let mut list = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let (mut all, mut taken) = (Vec::new(), 0);
    for name in list[..length].split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..]).map_err(failed)?;
        value.truncate(length);
        taken += name.len() + length;
        if taken > ATTRIBUTES {
            let message = "its extended attributes are longer than a layer takes (512 KiB)";
            return Err(Failure::new("build-context", path.display().to_string(), message)
                .hint("Remove some of them with `setfattr -x NAME FILE`.")
                .config());
        }
        all.push((name.to_vec(), value));
    }
    all.sort();
    Ok(all)
}

/// Directories with all that are in them.
pub(super) fn dirs_in(files: &dyn Files, found: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = std::collections::BTreeSet::new();
    for dir in found {
        let inside = files.walk(dir)?.into_iter().filter(|entry| entry.is(SFlag::S_IFDIR));
        all.extend(inside.map(|entry| dir.join(entry.below).components().collect::<PathBuf>()));
    }
    Ok(all.into_iter().collect())
}

/// A copy of a source, for a program that may do with it what it likes, and a digest of all that is in it.
pub(super) fn copy_out(files: &dyn Files, source: &Path, to: &Path) -> Result<Digest> {
    let fail = |e: &std::io::Error| failed(to, "copying what is mounted", e);
    let mut hasher = sha2::Sha256::new();
    let mut later: HashMap<PathBuf, u32> = HashMap::new();
    for entry in files.walk(source)? {
        let place = if entry.below.as_os_str().is_empty() { to.to_owned() } else { to.join(&entry.below) };
        let mode = entry.stat.st_mode & 0o777;
        hasher.update(format!("{:o} {:?}\n", entry.stat.st_mode, entry.below));
        if entry.is(SFlag::S_IFDIR) {
            fs::DirBuilder::new().mode(0o700).create(&place).map_err(|e| fail(&e))?;
            later.insert(place, mode | 0o700);
        } else if entry.is(SFlag::S_IFLNK) {
            let target = files.link(&entry)?;
            hasher.update(&target);
            symlink(OsStr::from_bytes(&target), &place).map_err(|e| fail(&e))?;
        } else if entry.is(SFlag::S_IFREG) {
            let (file, _) = files.file(&entry)?;
            let out = File::options().write(true).create_new(true).mode(mode | 0o600).open(&place);
            let mut tee = crate::images::stream::Tee::new(file, None);
            let mut out = out.map_err(|e| fail(&e))?;
            std::io::copy(&mut tee, &mut out).and_then(|_| out.flush()).map_err(|e| fail(&e))?;
            hasher.update(tee.digest().to_string());
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).map_err(|e| fail(&e))?;
        }
    }
    for (dir, mode) in later {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).map_err(|e| fail(&e))?;
    }
    Ok(Digest::from_hasher(hasher))
}
