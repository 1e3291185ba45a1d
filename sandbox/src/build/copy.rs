//! `COPY` and `ADD`: files of the context, a stage or an image as a layer, written as a tar of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;

use super::archive::{ONLY_BELOW, Unpacking, is_archive};
use super::context::Entry;
use super::files::{Files, attributes};
use super::flags::{Chmod, chmod};
use super::glob::fits_beginning;
use super::make::{Layer, Making};
use super::words::expand_document;
use super::{CopyStep, Step};
use crate::error::{Error, Result};
use crate::images::merged::Merged;
use crate::images::pack::{NewMember, TarWriter};
use crate::images::store::{InUse, failed};
use crate::images::tar::{Kind, Refusal};
use crate::policy::User;
use crate::resolve::image::{clean, topmost_first, user_of};

/// A member of the new layer.
struct Planned {
    what: What,
    owner: (u32, u32),
    mode: u32,
    mtime: i64,
    /// The how manieth source it is of: names of one file stay names of one file within each.
    source: usize,
}

enum What {
    /// A directory on the way.
    Dir,
    Entry(Entry),
    /// A here-document.
    Text(Vec<u8>),
}

/// What is copied: where it was found, and with `--parents` where it goes beneath the destination.
struct Source {
    path: PathBuf,
    below: Option<PathBuf>,
}

/// Where it goes.
struct Target {
    /// In the image, through its links.
    place: PathBuf,
    /// It is a directory, or becomes one.
    into: bool,
}

impl Making<'_> {
    pub(super) fn copy(&mut self, step: &Step, copy: &CopyStep) -> Result<Layer> {
        let words = self.words(step, &copy.paths)?;
        let (dest, sources) = match words.split_last() {
            Some((dest, sources)) if !sources.is_empty() || !copy.documents.is_empty() => (dest, sources),
            _ => return Err(self.wrong(step, "takes sources and a destination")),
        };
        let files = if sources.is_empty() { None } else { Some(self.files(step, copy.from.as_deref())?) };
        let this = &*self;
        let mut found = Vec::new();
        for source in sources {
            let of_source = files.as_deref().map_or(Ok(Vec::new()), |files| matches(files, source, copy.parents));
            found.extend(of_source.map_err(|error| this.located(step, &error))?);
        }
        if found.is_empty() && copy.documents.is_empty() {
            return Err(this.wrong(step, "no such file in the context, or .dockerignore takes it out"));
        }
        let layers = this.kept.as_ref().map(|kept| kept.layers.clone()).unwrap_or_default();
        let merged = Merged { layers: &layers };
        let target = this.target(step, &merged, dest, found.len() + copy.documents.len() > 1 || copy.parents)?;
        let mut plan = this.plan(step, copy, &merged)?;
        if target.into && (dest.ends_with('/') || found.len() > 1) {
            plan.directory(&target.place).map_err(|message| this.wrong(step, &message))?;
        }
        let archives = this.collect(step, copy, &mut plan, &target, (&found, files.as_deref()))?;
        for document in &copy.documents {
            let mut text = document.plain();
            if document.expands {
                text = expand_document(&text, &this.variables()).map_err(|message| this.wrong(step, &message))?;
            }
            let top = if target.into { target.place.join(&document.name) } else { target.place.clone() };
            plan.text(&top, text.into_bytes()).map_err(|message| this.wrong(step, &message))?;
        }
        let (dest, limits, latest) = (&target.place, &this.store.limits, plan.latest);
        let unpacking = Unpacking { merged: &merged, dest, latest, limits };
        let unpacked = unpacking.last(&archives).map_err(|refusal| this.refused(step, &refusal))?;
        plan.members.retain(|path, _| !unpacked.contains_key(path));
        this.write_layer(step, &plan.members, files.as_deref(), &|tar| {
            let beside = |path: &Path| plan.members.contains_key(path);
            unpacking.write(&archives, &unpacked, &beside, tar).map_err(|refusal| this.refused(step, &refusal))
        })
    }

    /// The directory that the configuration names, where the image has none: it belongs to its user.
    pub(super) fn working_dir(&self, step: &Step) -> Result<Option<Layer>> {
        let layers = self.kept.as_ref().map(|kept| kept.layers.clone()).unwrap_or_default();
        let merged = Merged { layers: &layers };
        let dir = self.config["config"]["WorkingDir"].as_str().unwrap_or("/");
        let Some(place) = merged.resolve(Path::new(dir)) else { return Ok(None) };
        if place.as_os_str().is_empty() || merged.find(&place).is_some_and(|found| found.meta.is_dir()) {
            return Ok(None);
        }
        let user = self.config["config"]["User"].as_str().unwrap_or_default();
        let owner = match user_of(user, &topmost_first(&layers)) {
            Ok(User::Fixed { uid, gid }) => Some((uid, gid)),
            _ => None,
        };
        let mut plan = self.plan(step, &CopyStep::default(), &merged)?;
        plan.owner = owner;
        plan.directory(&place).map_err(|message| self.wrong(step, &message))?;
        self.write_layer(step, &plan.members, None, &|_| Ok(())).map(Some)
    }

    fn wrong(&self, step: &Step, message: &str) -> Error {
        self.failure(&step.text, step.line, message).config()
    }

    fn located(&self, step: &Step, error: &Error) -> Error {
        let failure = error.failure();
        let message = format!("{}: {}", failure.subject, failure.message);
        let located = self.failure(&step.text, step.line, message).hint(failure.hint.clone());
        failure.errno.map_or(located.clone(), |errno| located.errno(errno)).config()
    }

    fn refused(&self, step: &Step, refusal: &Refusal) -> Error {
        let failure = self.failure(&step.text, step.line, format!("{}: {}", refusal.member, refusal.message));
        let hint = match refusal.message.ends_with(ONLY_BELOW) {
            true => "Pack the archive with that file in it, or make the link after ADD: RUN ln TARGET NAME.",
            false => "Look at it with `tar -tvf ARCHIVE`, and pack it without what is refused.",
        };
        refusal.io.as_ref().map_or_else(|| failure.clone().hint(hint), |e| failure.clone().cause(e)).config()
    }

    fn target(&self, step: &Step, merged: &Merged<'_>, dest: &str, several: bool) -> Result<Target> {
        let workdir = self.config["config"]["WorkingDir"].as_str().unwrap_or("/");
        let place = clean(&Path::new("/").join(workdir), dest);
        let circle = || self.wrong(step, "the destination goes through links that run in a circle");
        let resolved = merged.resolve(&place).ok_or_else(circle)?;
        let is_dir = resolved.as_os_str().is_empty() || merged.find(&resolved).is_some_and(|found| found.meta.is_dir());
        let into = dest.ends_with('/') || dest.ends_with("/.") || dest == "." || several || is_dir;
        if into {
            return Ok(Target { place: resolved, into });
        }
        // A file takes the place of a link, and is not written through it.
        let parent = merged.resolve(place.parent().unwrap_or(Path::new("/"))).ok_or_else(circle)?;
        Ok(Target { place: parent.join(place.file_name().unwrap_or_default()), into })
    }

    fn plan<'a>(&'a self, step: &Step, copy: &CopyStep, merged: &'a Merged<'a>) -> Result<Plan<'a>> {
        let one = |text: &str, flag: &str| match &self.words(step, text)?[..] {
            [text] => Ok(text.clone()),
            _ => Err(self.wrong(step, &format!("{flag} takes one word"))),
        };
        let owner = match copy.owner.as_deref() {
            None => None,
            Some(text) => {
                let ids = ids_of(&one(text, "--chown")?, merged.layers);
                Some(ids.map_err(|error| self.located(step, &error))?)
            }
        };
        let mode = match copy.mode.as_deref() {
            None => None,
            Some(text) => {
                let mode = chmod(&one(text, "--chmod")?);
                Some(mode.map_err(|(message, hint)| self.failure(&step.text, step.line, message).hint(hint).config())?)
            }
        };
        let (kept, latest) = (self.kept.as_ref(), self.build.timestamp);
        Ok(Plan { members: BTreeMap::new(), merged, kept, latest, owner, mode, sources: 0 })
    }

    /// Plans what was found; what is to be unpacked comes back.
    fn collect(
        &self,
        step: &Step,
        copy: &CopyStep,
        plan: &mut Plan<'_>,
        target: &Target,
        (found, files): (&[Source], Option<&dyn Files>),
    ) -> Result<Vec<File>> {
        let mut archives = Vec::new();
        let Some(files) = files else { return Ok(archives) };
        let excluded = self.excluded(step, copy)?;
        for source in found {
            let mut entries = files.walk(&source.path).map_err(|error| self.located(step, &error))?;
            if let [only] = &entries[..]
                && copy.unpacks
                && only.is(SFlag::S_IFREG)
            {
                let (file, _) = files.file(only).map_err(|error| self.located(step, &error))?;
                if is_archive(&file) {
                    archives.push(file);
                    plan.directory(&target.place).map_err(|message| self.wrong(step, &message))?;
                    continue;
                }
            }
            let whole_dir = entries.first().is_some_and(|entry| entry.is(SFlag::S_IFDIR));
            entries.retain(|entry| {
                let name = if whole_dir { Some(&*entry.below) } else { source.path.file_name().map(Path::new) };
                let parts: Vec<&[u8]> = name.into_iter().flatten().map(OsStr::as_bytes).collect();
                parts.is_empty() || !excluded.iter().any(|rule| fits_beginning(rule, &parts))
            });
            // A directory's content is copied, a file itself.
            let top = match (&source.below, source.path.file_name()) {
                (Some(below), _) => target.place.join(below),
                (None, Some(name)) if target.into && !whole_dir => target.place.join(name),
                _ if whole_dir => plan.merged.resolve(&Path::new("/").join(&target.place)).unwrap_or_default(),
                _ => target.place.clone(),
            };
            plan.add(&top, entries, files).map_err(|message| self.wrong(step, &message))?;
        }
        Ok(archives)
    }

    /// The patterns of `--exclude`, in their parts.
    fn excluded(&self, step: &Step, copy: &CopyStep) -> Result<Vec<Vec<Vec<u8>>>> {
        let mut rules = Vec::new();
        for text in &copy.excluded {
            for word in self.words(step, text)? {
                rules.push(clean(Path::new("/"), &word).iter().skip(1).map(|part| part.as_bytes().to_vec()).collect());
            }
        }
        Ok(rules)
    }

    /// Members, and what `more` writes behind them, as a layer of the store.
    fn write_layer(
        &self,
        step: &Step,
        members: &BTreeMap<PathBuf, Planned>,
        files: Option<&dyn Files>,
        more: &dyn Fn(&mut TarWriter<BufWriter<File>>) -> Result<()>,
    ) -> Result<Layer> {
        let lock = self.store.shared()?;
        let temp = self.store.temp_dir()?;
        let path = temp.path.join("packed");
        let packing = |e: &std::io::Error| failed(&path, "packing what is copied", e);
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(|e| packing(&e))?;
        let mut tar = TarWriter::new(BufWriter::with_capacity(1 << 17, file));
        let mut names = HashMap::new();
        for (name, planned) in members {
            write_member(&mut tar, name, planned, files, &mut names)?.map_err(|e| packing(&e))?;
        }
        more(&mut tar)?;
        let written = tar.finish().and_then(|out| out.into_inner().map_err(|e| e.into_error()));
        let file = written.map_err(|e| packing(&e))?;
        let diff_id = self.store.layer_of_tar(file, &step.text)?;
        Ok(Layer { diff_id, _lock: lock })
    }
}

/// What a source means. With `--parents`, what stands behind `/./` in it is kept, and `**` stands for directories.
fn matches(files: &dyn Files, pattern: &str, parents: bool) -> Result<Vec<Source>> {
    let found = files.matches(pattern, parents)?.into_iter();
    if !parents {
        return Ok(found.map(|path| Source { path, below: None }).collect());
    }
    let base = pattern.find("/./").map_or(0, |at| clean(Path::new("/"), &pattern[..at]).iter().count() - 1);
    let below = |path: &Path| Some(path.iter().skip(base).collect());
    Ok(found.map(|path| Source { below: below(&path), path }).collect())
}

/// What is inside is the result of writing; what is outside, of reading what is copied.
fn write_member(
    tar: &mut TarWriter<BufWriter<File>>,
    path: &Path,
    planned: &Planned,
    files: Option<&dyn Files>,
    names: &mut HashMap<(usize, u64, u64), PathBuf>,
) -> Result<std::io::Result<()>> {
    let (mut size, mut link, mut kind, mut content) = (0, Vec::new(), Kind::Dir, None);
    let mut xattrs = Vec::new();
    let first = match &planned.what {
        What::Entry(entry) if entry.is(SFlag::S_IFREG) && entry.stat.st_nlink > 1 => {
            let first =
                names.entry((planned.source, entry.stat.st_dev, entry.stat.st_ino)).or_insert_with(|| path.to_owned());
            Some(&*first).filter(|first| *first != path)
        }
        _ => None,
    };
    match (&planned.what, files) {
        (What::Entry(entry), Some(files)) if entry.is(SFlag::S_IFLNK) => {
            (kind, link) = (Kind::Symlink, files.link(entry)?);
        }
        (What::Entry(_), _) if first.is_some() => {
            (kind, link) =
                (Kind::HardLink, first.map(|first| first.as_os_str().as_bytes().to_vec()).unwrap_or_default());
        }
        (What::Entry(entry), Some(files)) if entry.is(SFlag::S_IFREG) => {
            let (file, bytes) = files.file(entry)?;
            xattrs = attributes(&file, &entry.path)?;
            (kind, size, content) = (Kind::File, bytes, Some(file));
        }
        (What::Text(text), _) => (kind, size) = (Kind::File, text.len() as u64),
        _ => {}
    }
    let member = NewMember {
        path: path.as_os_str().as_bytes(),
        kind,
        mode: planned.mode,
        uid: planned.owner.0,
        gid: planned.owner.1,
        size,
        mtime: planned.mtime,
        link: &link,
        xattrs: &xattrs,
    };
    Ok(tar.header(&member).and_then(|()| match (content, &planned.what) {
        (Some(file), _) => tar.content(size, file),
        (None, What::Text(text)) => tar.content(size, &text[..]),
        _ => Ok(()),
    }))
}

/// `--chown`: a group that is not named is that of the user's account, or the number that stands for the user.
fn ids_of(text: &str, layers: &[PathBuf]) -> Result<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let is_number = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
    let text = match (user, group) {
        ("", group) => format!("0:{group}"),
        (user, "") if is_number => format!("{user}:{user}"),
        (user, "") => user.to_owned(),
        _ => text.to_owned(),
    };
    Ok(match user_of(&text, &topmost_first(layers))? {
        User::Fixed { uid, gid } => (uid, gid),
        _ => (0, 0),
    })
}

struct Plan<'a> {
    members: BTreeMap<PathBuf, Planned>,
    merged: &'a Merged<'a>,
    kept: Option<&'a InUse>,
    latest: Option<i64>,
    /// What the step says, instead of what the files have.
    owner: Option<(u32, u32)>,
    mode: Option<Chmod>,
    sources: usize,
}

impl Plan<'_> {
    /// `top`: where the first entry goes, in the image, without links.
    fn add(&mut self, top: &Path, entries: Vec<Entry>, files: &dyn Files) -> std::result::Result<(), String> {
        // Where directories of the source went; a link of the image to a directory is gone through, not replaced.
        let mut places: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let mut wanted = BTreeSet::new();
        self.sources += 1;
        for entry in entries {
            let place = match (entry.below.parent(), entry.below.file_name()) {
                (Some(parent), Some(name)) => match places.get(parent) {
                    Some(parent) => parent.join(name),
                    None => top.join(&entry.below),
                },
                _ => top.to_owned(),
            };
            if place.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
                return Err(format!(
                    "{} has a name that would remove another file from the image",
                    entry.path.display()
                ));
            }
            if entry.is(SFlag::S_IFDIR) {
                let place = self.merged.resolve(&Path::new("/").join(&place)).unwrap_or(place);
                places.insert(entry.below.clone(), place.clone());
                wanted.extend(place.parent().map(Path::to_owned));
                let is_made = matches!(self.members.get(&place), Some(Planned { what: What::Dir, .. }));
                if place.as_os_str().is_empty() || is_made || self.existing(&place)? {
                    continue;
                }
                self.members.insert(place, self.planned(entry, files));
                continue;
            }
            if !entry.is(SFlag::S_IFREG) && !entry.is(SFlag::S_IFLNK) {
                return Err(format!("{} is neither a file, a directory nor a link", entry.path.display()));
            }
            if place.as_os_str().is_empty() {
                return Err("the destination is the root directory".to_owned());
            }
            if self.merged.find(&place).is_some_and(|found| found.meta.is_dir()) {
                return Err(format!("/{} is a directory in the image, and a file here", place.display()));
            }
            wanted.extend(place.parent().map(Path::to_owned));
            self.members.insert(place, self.planned(entry, files));
        }
        for dir in wanted {
            self.directory(&dir)?;
        }
        Ok(())
    }

    fn text(&mut self, place: &Path, text: Vec<u8>) -> std::result::Result<(), String> {
        if let Some(parent) = place.parent() {
            self.directory(parent)?;
        }
        let owner = self.owner.unwrap_or((0, 0));
        let mode = self.mode.as_ref().map_or(0o644, |mode| mode.of(0o644, false));
        let mtime = self.latest.unwrap_or(0);
        self.members.insert(place.to_owned(), Planned { what: What::Text(text), owner, mode, mtime, source: 0 });
        Ok(())
    }

    /// A directory with its parents: as it is in the image, or new.
    fn directory(&mut self, dir: &Path) -> std::result::Result<(), String> {
        for dir in dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            if !self.members.contains_key(dir) && !self.existing(dir)? {
                let (mtime, owner) = (self.latest.unwrap_or(0), self.owner.unwrap_or((0, 0)));
                self.members.insert(dir.to_owned(), Planned { what: What::Dir, owner, mode: 0o755, mtime, source: 0 });
            }
        }
        Ok(())
    }

    /// A directory that the image has stays as it is: it is in the new layer with what it has below.
    fn existing(&mut self, dir: &Path) -> std::result::Result<bool, String> {
        let Some(found) = self.merged.find(dir) else { return Ok(false) };
        let meta = &found.meta;
        if !meta.is_dir() {
            return Err(format!("/{} is no directory in the image", dir.display()));
        }
        let (mut owner, mut mode) = ((0, 0), meta.permissions().mode() & 0o7777);
        if let Some((uid, gid, said)) = self.kept.and_then(|kept| kept.owner(found.layer, dir)) {
            (owner, mode) = ((uid, gid), said);
        }
        self.members.insert(dir.to_owned(), Planned { what: What::Dir, owner, mode, mtime: meta.mtime(), source: 0 });
        Ok(true)
    }

    fn planned(&self, entry: Entry, files: &dyn Files) -> Planned {
        let is_link = entry.is(SFlag::S_IFLNK);
        let (uid, gid, own) = files.owner(&entry);
        let owner = self.owner.unwrap_or((uid, gid));
        let mode =
            if is_link { 0o777 } else { self.mode.as_ref().map_or(own, |mode| mode.of(own, entry.is(SFlag::S_IFDIR))) };
        let mtime = self.latest.map_or(entry.stat.st_mtime, |latest| latest.min(entry.stat.st_mtime));
        Planned { owner, mode, mtime, source: self.sources, what: What::Entry(entry) }
    }
}
