//! The files that a build may copy: a directory, patterns in it, and what `.dockerignore` takes out.
//!
//! The directory may be a checkout of somebody else's, or a program may still write to it: it is walked by descriptor,
//! and what is read is the file that was looked at.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::files::dirs_in;
use super::glob::{fits, fits_beginning};
use crate::error::{Failure, Result};
use crate::images::tar::PATH_LIMIT;
use crate::resolve::image::clean;
use crate::sys::beneath::{self, Plain, Refused, Trail};

const IGNORE: &str = ".dockerignore";

/// A directory with what is to be ignored in it.
pub(crate) struct Context {
    dir: PathBuf,
    root: OwnedFd,
    ignore: Vec<Rule>,
}

/// A line of `.dockerignore`.
struct Rule {
    segments: Vec<Vec<u8>>,
    /// It takes back what earlier ones have taken out.
    back: bool,
}

/// A file of the context.
pub(crate) struct Entry {
    /// Beneath the source that it was found by; empty for the source itself.
    pub below: PathBuf,
    /// Beneath the context.
    pub path: PathBuf,
    pub stat: FileStat,
}

impl Entry {
    pub(crate) fn is(&self, kind: SFlag) -> bool {
        beneath::kind(&self.stat) == kind
    }
}

/// A directory that is being walked through.
struct Level {
    names: std::vec::IntoIter<CString>,
    /// Where its own entry stands.
    place: usize,
    ignored: bool,
    /// Something in it is not ignored.
    holds: bool,
    below: PathBuf,
}

impl Context {
    /// `ignore`: a file that counts instead of `.dockerignore`, where it is there.
    pub(crate) fn open(dir: &Path, ignore: Option<&Path>) -> Result<Context> {
        let failed =
            |e: &io::Error| Failure::new("build-context", dir.display().to_string(), "opening it").cause(e).config();
        let real = fs::canonicalize(dir).map_err(|e| failed(&e))?;
        let root = beneath::top(&real).map_err(|e| failed(&e.into()))?;
        let context = Context { dir: real, root, ignore: Vec::new() };
        let text = match ignore.filter(|path| path.symlink_metadata().is_ok()) {
            Some(path) => named_ignore_file(path)?,
            None => context.ignore_file()?,
        };
        // Editors of other systems begin files with a mark, which is no part of the first name.
        let ignore = text.trim_start_matches('\u{feff}').lines().filter_map(rule).collect();
        Ok(Context { ignore, ..context })
    }

    /// The text of `.dockerignore`; empty where there is none. What is there and cannot be read is an error: files that
    /// it takes out would be copied.
    fn ignore_file(&self) -> Result<String> {
        let path = Path::new(IGNORE);
        let refused = |why: &Refused| {
            let subject = self.dir.join(path).display().to_string();
            why.told(Failure::new("build-context", subject, "reading what is to be ignored")).config()
        };
        let place = match beneath::open(self.root.as_fd(), path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(String::new()),
            other => other.map_err(|errno| refused(&errno.into()))?,
        };
        let is_link = beneath::kind(&fstat(&place).map_err(|errno| refused(&errno.into()))?) == SFlag::S_IFLNK;
        let place = if is_link { self.named(path)? } else { place };
        let read = beneath::regular(&Plain, place.as_fd()).and_then(|file| beneath::read(file, beneath::SHORT));
        String::from_utf8(read.map_err(|why| refused(&why))?).map_err(|_| {
            let subject = self.dir.join(path).display().to_string();
            Failure::new("build-context", subject, "is not UTF-8").hint("Save it as UTF-8 text.").config()
        })
    }

    fn failed(&self, path: &Path, message: &str, errno: Errno) -> crate::Error {
        let path = self.dir.join(path).display().to_string();
        Failure::new("build-context", path, message).errno(errno as i32).setup()
    }

    /// Where a path that the caller names leads, beneath the context. It may be a link, as long as it stays within.
    fn real(&self, path: &Path) -> Result<PathBuf> {
        let full = self.dir.join(path);
        let failed = |e: &io::Error| {
            let what = "looking at a source of COPY";
            Failure::new("build-context", full.display().to_string(), what).cause(e).setup()
        };
        // A name only: what it means when it is opened, no link can change.
        let real = fs::canonicalize(&full).map_err(|e| failed(&e))?;
        real.strip_prefix(&self.dir).map(Path::to_owned).map_err(|_| {
            let subject = full.display().to_string();
            Failure::new("build-context", subject, "is a link that leads out of the context")
                .hint("copy the file itself into the context")
                .config()
        })
    }

    /// What the caller names, as a mere path.
    fn named(&self, path: &Path) -> Result<OwnedFd> {
        self.place(&self.real(path)?)
    }

    /// A path without links, as a mere path.
    fn place(&self, path: &Path) -> Result<OwnedFd> {
        beneath::open(self.root.as_fd(), path, OFlag::O_PATH | OFlag::O_NOFOLLOW)
            .map_err(|errno| self.failed(path, "opening it in the context", errno))
    }

    /// The file of an entry: the very one that was found.
    fn found(&self, entry: &Entry) -> Result<(OwnedFd, FileStat)> {
        let place = self.place(&entry.path)?;
        let stat = fstat(&place).map_err(|errno| self.failed(&entry.path, "opening it in the context", errno))?;
        if beneath::identity(&stat) != beneath::identity(&entry.stat) || !entry.is(beneath::kind(&stat)) {
            let path = self.dir.join(&entry.path).display().to_string();
            return Err(Failure::new("build-context", path, "it was replaced while it was copied")
                .hint("Build again when nothing writes to the context.")
                .setup());
        }
        Ok((place, stat))
    }

    /// A file for reading, and its size.
    pub(crate) fn file(&self, entry: &Entry) -> Result<(File, u64)> {
        let (place, stat) = self.found(entry)?;
        let file = beneath::regular(&Plain, place.as_fd()).map_err(|why| {
            let path = self.dir.join(&entry.path).display().to_string();
            why.told(Failure::new("build-context", path, "opening a file")).setup()
        })?;
        Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// The target of a link.
    pub(crate) fn link(&self, entry: &Entry) -> Result<Vec<u8>> {
        let (place, _) = self.found(entry)?;
        let target = readlinkat(&place, "").map_err(|errno| self.failed(&entry.path, "reading a link", errno))?;
        Ok(target.as_bytes().to_vec())
    }

    /// What a source of COPY means: every file that the pattern fits.
    pub(crate) fn matches(&self, pattern: &str, deep: bool) -> Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        // As docker has it: `..` leads no higher than the context.
        for name in clean(Path::new("/"), pattern).iter().skip(1) {
            if deep && name == "**" {
                found = dirs_in(self, &found)?;
                continue;
            }
            let is_pattern = is_pattern(name.as_bytes());
            let mut next = Vec::new();
            for dir in &found {
                if is_pattern {
                    next.extend(self.fitting(dir, name)?);
                } else {
                    next.push(dir.join(name));
                }
            }
            next.sort();
            found = next;
        }
        let kind_of = |path: &Path| Some(beneath::kind(&fstat(&self.unfollowed(path)?).ok()?));
        found.retain(|path| match kind_of(path) {
            Some(kind) => {
                let dir = kind == SFlag::S_IFDIR;
                path.as_os_str().is_empty() || !self.ignored(path) || dir && self.has_exceptions()
            }
            None => false,
        });
        // A pattern may fit nothing, as long as another source is there: `package-lock.json* yarn.lock*`.
        if found.is_empty() && !is_pattern(pattern.as_bytes()) {
            let message = "no such file in the context, or .dockerignore takes it out";
            return Err(Failure::new("build-context", pattern.escape_debug().to_string(), message).config());
        }
        Ok(found)
    }

    /// What the caller names, where it is there; the last part may be a link, which is not followed.
    fn unfollowed(&self, path: &Path) -> Option<OwnedFd> {
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
        let parent = self.real(parent).ok()?;
        self.place(&name.map_or(parent.clone(), |name| parent.join(name))).ok()
    }

    /// The names in a directory that a pattern fits.
    fn fitting(&self, dir: &Path, pattern: &OsStr) -> Result<Vec<PathBuf>> {
        let failed = |errno| self.failed(dir, "listing a directory", errno);
        let Some(place) = self.unfollowed(dir) else { return Ok(Vec::new()) };
        if beneath::kind(&fstat(&place).map_err(failed)?) != SFlag::S_IFDIR {
            return Ok(Vec::new());
        }
        let listed = beneath::list(&Plain, place.as_fd()).map_err(failed)?;
        let names = beneath::names(listed.as_fd()).map_err(failed)?;
        let fitting = names.iter().filter(|name| fits(pattern.as_bytes(), name.to_bytes()));
        Ok(fitting.map(|name| dir.join(OsStr::from_bytes(name.to_bytes()))).collect())
    }

    /// A source with everything in it that is not ignored, each directory before what is in it. What lies beneath the
    /// source is copied as it is; no link in it is followed.
    pub(crate) fn walk(&self, source: &Path) -> Result<Vec<Entry>> {
        let source = self.real(source)?;
        let mut entries = Vec::new();
        let place = self.place(&source)?;
        let stat = fstat(&place).map_err(|errno| self.failed(&source, "looking at a file", errno))?;
        if beneath::kind(&stat) != SFlag::S_IFDIR {
            if source.as_os_str().is_empty() || !self.ignored(&source) {
                entries.push(Entry { below: PathBuf::new(), path: source, stat });
            }
            return Ok(entries);
        }
        let top =
            beneath::list(&Plain, place.as_fd()).map_err(|errno| self.failed(&source, "listing a directory", errno))?;
        let mut trail = Trail::new(&Plain, top);
        let mut levels = Vec::new();
        levels.extend(self.enter(&trail, &source, PathBuf::new(), stat, &mut entries)?);
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                let done = levels.pop();
                self.leave(&mut trail, &source, done, levels.last_mut(), &mut entries)?;
                continue;
            };
            let below = level.below.join(OsStr::from_bytes(name.to_bytes()));
            let at = source.join(&below);
            if at.as_os_str().len() > PATH_LIMIT {
                return Err(self.failed(
                    &level.below,
                    "holds a path that is too long for a layer",
                    Errno::ENAMETOOLONG,
                ));
            }
            let stat = beneath::stat(trail.dir(), &name).map_err(|e| self.failed(&at, "looking at a file", e))?;
            if beneath::kind(&stat) == SFlag::S_IFDIR {
                trail.down(&name).map_err(|e| self.failed(&at, "listing a directory", e))?;
                match self.enter(&trail, &source, below, stat, &mut entries)? {
                    Some(inner) => levels.push(inner),
                    None => drop(trail.up().map_err(|e| self.failed(&at, "listing a directory", e))?),
                }
            } else if !self.ignored(&at) {
                level.holds = true;
                entries.push(Entry { below, path: at, stat });
            }
        }
        Ok(entries)
    }

    /// A directory that the walk has come to; none where nothing in it is wanted.
    fn enter(
        &self,
        trail: &Trail<'_>,
        source: &Path,
        below: PathBuf,
        stat: FileStat,
        entries: &mut Vec<Entry>,
    ) -> Result<Option<Level>> {
        // Not with a slash at the end, which would make a directory of a file.
        let at = if below.as_os_str().is_empty() { source.to_owned() } else { source.join(&below) };
        let ignored = !at.as_os_str().is_empty() && self.ignored(&at);
        if ignored && !self.has_exceptions() {
            return Ok(None);
        }
        let names = beneath::names(trail.dir()).map_err(|e| self.failed(&at, "listing a directory", e))?;
        let place = entries.len();
        entries.push(Entry { below: below.clone(), path: at, stat });
        Ok(Some(Level { names: names.into_iter(), place, ignored, holds: false, below }))
    }

    fn leave(
        &self,
        trail: &mut Trail<'_>,
        source: &Path,
        done: Option<Level>,
        above: Option<&mut Level>,
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        let (Some(done), Some(above)) = (done, above) else { return Ok(()) };
        // An ignored directory is there only for what is not.
        if done.ignored && !done.holds {
            entries.truncate(done.place);
        }
        above.holds |= done.holds || !done.ignored;
        let at = source.join(&done.below);
        trail.up().map(drop).map_err(|errno| self.failed(&at, "it was moved while it was copied", errno))
    }

    /// Whether something in an ignored directory may be wanted all the same.
    fn has_exceptions(&self) -> bool {
        self.ignore.iter().any(|rule| rule.back)
    }

    fn ignored(&self, path: &Path) -> bool {
        let segments: Vec<&[u8]> = path.iter().map(|part| part.as_bytes()).collect();
        let mut ignored = false;
        for rule in &self.ignore {
            // A rule about a directory is one about all that is in it.
            if fits_beginning(&rule.segments, &segments) {
                ignored = !rule.back;
            }
        }
        ignored
    }
}

pub(super) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[\\".contains(byte))
}

/// `DOCKERFILE.dockerignore`, which the caller has named as it has the Dockerfile.
fn named_ignore_file(path: &Path) -> Result<String> {
    let failure = || Failure::new("build-context", path.display().to_string(), "reading what is to be ignored");
    let bytes = beneath::read_named(path, beneath::SHORT).map_err(|why| why.told(failure()).config())?;
    String::from_utf8(bytes).map_err(|_| failure().hint("Save it as UTF-8 text.").config())
}

fn rule(line: &str) -> Option<Rule> {
    let is_comment = line.starts_with('#');
    let line = line.trim();
    if line.is_empty() || is_comment {
        return None;
    }
    let (line, back) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for part in Path::new(line).components() {
        match part {
            Component::Normal(name) => segments.push(name.as_bytes().to_vec()),
            // What is outside of the context is none of its files.
            Component::ParentDir if segments.pop().is_none() && !line.starts_with('/') => return None,
            _ => {}
        }
    }
    (!segments.is_empty()).then_some(Rule { segments, back })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_decides_what_is_ignored() {
        let text = "# comment\n\ntarget\n/docs/\n**/*.tmp\n!docs/keep.md\n!**/need.tmp\n  spaces  \n\
            ../out\na/../in\n/../top\n";
        let root = beneath::top(Path::new("/")).unwrap();
        let context = Context { dir: PathBuf::new(), root, ignore: text.lines().filter_map(rule).collect() };
        for (path, is) in [
            ("target", true),
            ("target/a/b", true),
            ("src/target", false),
            ("docs", true),
            ("docs/x", true),
            ("docs/keep.md", false),
            ("a.tmp", true),
            ("a/b/c.tmp", true),
            ("a/need.tmp", false),
            ("spaces", true),
            ("# comment", false),
            ("out", false),
            ("in", true),
            ("top", true),
        ] {
            assert_eq!(context.ignored(Path::new(path)), is, "{path}");
        }
    }
}
