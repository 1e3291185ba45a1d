//! `COPY`: files of the context as a layer, written as a tar of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Step;
use super::context::{Context, Entry};
use super::make::{Layer, Making};
use crate::error::Result;
use crate::image::merged::Merged;
use crate::image::pack::{NewMember, TarWriter};
use crate::image::run::{clean, user_of};
use crate::image::store::{InUse, failed};
use crate::image::tar::Kind;
use crate::policy::User;

/// A member of the new layer; without an entry a directory on the way.
struct Planned {
    entry: Option<Entry>,
    owner: (u32, u32),
    mode: u32,
    mtime: i64,
}

impl Making<'_> {
    pub(super) fn copy(
        &mut self,
        step: &Step,
        context: &Context,
        paths: &str,
        owner: Option<&str>,
        mode: Option<u32>,
    ) -> Result<Layer> {
        let words = self.words(step, paths)?;
        let wrong = |message: &str| self.failure(&step.text, step.line, message).config();
        let (dest, sources) = match words.split_last() {
            Some((dest, sources)) if !sources.is_empty() => (dest, sources),
            _ => return Err(wrong("takes sources and a destination")),
        };
        let located = |error: crate::Error| {
            let failure = error.failure();
            let message = format!("{}: {}", failure.subject, failure.message);
            let located = self.failure(&step.text, step.line, message).hint(failure.hint.clone());
            failure.errno.map_or(located.clone(), |errno| located.errno(errno)).config()
        };
        let mut found = Vec::new();
        for source in sources {
            found.extend(context.matches(source).map_err(located)?);
        }
        let layers = self.kept.as_ref().map(|kept| kept.layers.clone()).unwrap_or_default();
        let merged = Merged { layers: &layers };
        let owner = match owner {
            None => (0, 0),
            Some(text) => match &self.words(step, text)?[..] {
                [text] => ids_of(text, &layers).map_err(located)?,
                _ => return Err(wrong("--chown takes one word")),
            },
        };
        let workdir = self.config["config"]["WorkingDir"].as_str().unwrap_or("/");
        let place = clean(&Path::new("/").join(workdir), dest);
        let circle = || wrong("the destination goes through links that run in a circle");
        let resolved = merged.resolve(&place).ok_or_else(circle)?;
        let is_dir = merged.find(&resolved).is_some_and(|found| found.meta.is_dir());
        let into = dest.ends_with('/') || dest.ends_with("/.") || dest == "." || found.len() > 1 || is_dir;

        let mut plan =
            Plan { members: BTreeMap::new(), merged: &merged, kept: self.kept.as_ref(), latest: self.build.timestamp };
        for source in &found {
            let entries = context.walk(source).map_err(located)?;
            let whole_dir = entries.first().is_some_and(|entry| entry.meta.is_dir());
            // A directory's content is copied, a file itself.
            let top = match source.file_name() {
                Some(name) if into && !whole_dir => resolved.join(name),
                _ => resolved.clone(),
            };
            plan.add(&top, entries, owner, mode).map_err(|message| wrong(&message))?;
        }
        let members = plan.members;
        let lock = self.store.shared()?;
        let temp = self.store.temp_dir()?;
        let path = temp.path.join("packed");
        let write = || -> std::io::Result<File> {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 17, file));
            for (path, planned) in &members {
                write_member(&mut tar, path, planned)?;
            }
            tar.finish()?.into_inner().map_err(|e| e.into_error())
        };
        let file = write().map_err(|e| failed(&path, "packing what is copied", &e))?;
        let diff_id = self.store.layer_of_tar(file, &step.text)?;
        Ok(Layer { diff_id, _lock: lock })
    }
}

fn write_member(tar: &mut TarWriter<BufWriter<File>>, path: &Path, planned: &Planned) -> std::io::Result<()> {
    let (mut size, mut link, mut kind) = (0, Vec::new(), Kind::Dir);
    if let Some(entry) = &planned.entry {
        if entry.meta.is_symlink() {
            (kind, link) = (Kind::Symlink, std::fs::read_link(&entry.path)?.as_os_str().as_bytes().to_vec());
        } else if entry.meta.is_file() {
            (kind, size) = (Kind::File, entry.meta.len());
        }
    }
    tar.header(&NewMember {
        path: path.as_os_str().as_bytes(),
        kind,
        mode: planned.mode,
        uid: planned.owner.0,
        gid: planned.owner.1,
        size,
        mtime: planned.mtime,
        link: &link,
        xattrs: &[],
    })?;
    match &planned.entry {
        Some(entry) if kind == Kind::File => tar.content(size, File::open(&entry.path)?),
        _ => Ok(()),
    }
}

/// `--chown`: a group that is not named is the number of the user, as other builders have it.
fn ids_of(text: &str, layers: &[PathBuf]) -> Result<(u32, u32)> {
    Ok(match user_of(text, layers, None)? {
        User::Fixed { uid, gid } => (uid, if text.contains(':') { gid } else { uid }),
        _ => (0, 0),
    })
}

struct Plan<'a> {
    members: BTreeMap<PathBuf, Planned>,
    merged: &'a Merged<'a>,
    kept: Option<&'a InUse>,
    latest: Option<i64>,
}

impl Plan<'_> {
    /// `top`: where the first entry goes, in the image, without links.
    fn add(
        &mut self,
        top: &Path,
        entries: Vec<Entry>,
        owner: (u32, u32),
        mode: Option<u32>,
    ) -> std::result::Result<(), String> {
        // Where directories of the source went; a link of the image to a directory is gone through, not replaced.
        let mut places: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let mut wanted = BTreeSet::new();
        for entry in entries {
            let place = match (entry.below.parent(), entry.below.file_name()) {
                (Some(parent), Some(name)) => match places.get(parent) {
                    Some(parent) => parent.join(name),
                    None => top.join(&entry.below),
                },
                _ => top.to_owned(),
            };
            if entry.meta.is_dir() {
                let place = self.merged.resolve(&Path::new("/").join(&place)).unwrap_or(place);
                places.insert(entry.below.clone(), place.clone());
                wanted.extend(place.parent().map(Path::to_owned));
                if place.as_os_str().is_empty() || self.existing(&place) {
                    continue;
                }
                self.members.insert(place, self.planned(entry, owner, mode));
                continue;
            }
            if !entry.meta.is_file() && !entry.meta.is_symlink() {
                return Err(format!("{} is neither a file, a directory nor a link", entry.path.display()));
            }
            if place.as_os_str().is_empty() {
                return Err("the destination is the root directory".to_owned());
            }
            wanted.extend(place.parent().map(Path::to_owned));
            self.members.insert(place, self.planned(entry, owner, mode));
        }
        for dir in wanted {
            for dir in dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
                if !self.members.contains_key(dir) && !self.existing(dir) {
                    let mtime = self.latest.unwrap_or(0);
                    self.members.insert(dir.to_owned(), Planned { entry: None, owner: (0, 0), mode: 0o755, mtime });
                }
            }
        }
        Ok(())
    }

    /// A directory that the image has stays as it is: it is in the new layer with what it has below.
    fn existing(&mut self, dir: &Path) -> bool {
        let Some(found) = self.merged.find(dir).filter(|found| found.meta.is_dir()) else { return false };
        let meta = &found.meta;
        let (mut owner, mut mode) = ((0, 0), meta.permissions().mode() & 0o7777);
        if let Some((uid, gid, said)) = self.kept.and_then(|kept| kept.owner(found.layer, dir)) {
            (owner, mode) = ((uid, gid), said);
        }
        self.members.insert(dir.to_owned(), Planned { entry: None, owner, mode, mtime: meta.mtime() });
        true
    }

    fn planned(&self, entry: Entry, owner: (u32, u32), mode: Option<u32>) -> Planned {
        let own = if entry.meta.is_symlink() { 0o777 } else { entry.meta.permissions().mode() & 0o7777 };
        let mode = mode.filter(|_| !entry.meta.is_symlink()).unwrap_or(own);
        let mtime = self.latest.map_or(entry.meta.mtime(), |latest| latest.min(entry.meta.mtime()));
        Planned { owner, mode, mtime, entry: Some(entry) }
    }
}
