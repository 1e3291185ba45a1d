//! What runs changed in an overlay: the upper directory, read as overlayfs wrote it. The program may still be writing to
//! it, and may have made anything there: it is walked by descriptor, and the list has an end.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};

use crate::error::{Failure, Result};
use crate::ids::Assigned;
use crate::policy::files::Files;
use crate::report::{Change, ChangeKind};
use crate::subid_tree::Reach;
use crate::sys::beneath::{self, Opener, Trail};

/// Bytes of a list, so that no program fills its caller's memory with names.
const MOST: usize = 40 << 20;
/// What a path takes beside its bytes.
const EACH: usize = 64;
/// What a name takes while its directory is looked at.
const NAME: usize = size_of::<Name>() + 48;

/// Where a walk ended, why, and what it had found by then.
pub(crate) struct Stopped {
    pub at: PathBuf,
    pub errno: Errno,
    pub found: Vec<Change>,
}

impl Stopped {
    /// Adds the reason to a failure.
    pub(crate) fn told(&self, mut failure: Failure) -> Failure {
        match self.errno {
            Errno::E2BIG => {
                failure.message = format!("the list of changes is longer than {} MiB", MOST >> 20);
                failure.hint("Ask for no list, or have the program write elsewhere: to a bound directory or a volume.")
            }
            Errno::ESTALE => {
                failure.message = "a directory was moved while the changes were listed".to_owned();
                failure.hint("List them when nothing writes there any more.")
            }
            errno => failure.errno(errno as i32).hint("the caller must be able to read both"),
        }
    }
}

/// Lists them, sorted by path. Directories count only for themselves, not for what is in them.
pub(crate) fn list(upper: BorrowedFd<'_>, files: &Files, identity: &Assigned) -> Result<Vec<Change>> {
    all(upper, files, identity).map_err(failed)
}

/// The same after a run, whose outcome must not depend on what its program wrote: whether the list is cut.
pub(crate) fn list_of_run(upper: BorrowedFd<'_>, files: &Files, identity: &Assigned) -> Result<(Vec<Change>, bool)> {
    match all(upper, files, identity) {
        Ok(changes) => Ok((changes, false)),
        Err(Stopped { errno: Errno::E2BIG | Errno::ESTALE, found, .. }) => Ok((found, true)),
        Err(stopped) => Err(failed(stopped)),
    }
}

fn all(upper: BorrowedFd<'_>, files: &Files, identity: &Assigned) -> std::result::Result<Vec<Change>, Stopped> {
    let Some(layers) = files.layers() else { return Ok(Vec::new()) };
    // Copied up only because something in it changed, unless its own attributes differ.
    let differs = |old: &Attributes, new: &Attributes| {
        old.mode != new.mode || !identity.same_owner((old.uid, old.gid), (new.uid, new.gid))
    };
    compare(upper, layers, &differs)
}

fn failed(stopped: Stopped) -> crate::Error {
    let subject = Path::new("/").join(&stopped.at).display().to_string();
    stopped.told(Failure::new("changes", subject, "cannot compare upper and layers here")).io()
}

/// What an upper changes about layers, the lowest first. `differs`: whether a directory counts that is in both.
pub(crate) fn compare(
    upper: BorrowedFd<'_>,
    layers: &[PathBuf],
    differs: &dyn Fn(&Attributes, &Attributes) -> bool,
) -> std::result::Result<Vec<Change>, Stopped> {
    let reach = Reach::default();
    let mut walk = Walk { reach: &reach, layers, differs, changes: Vec::new(), left: MOST };
    let mut path = PathBuf::new();
    let walked = walk.whole(upper, &mut path);
    let mut found = walk.changes;
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    match walked {
        Ok(()) => Ok(found),
        Err(errno) => Err(Stopped { at: path, errno, found }),
    }
}

/// What counts of a file. There may be many of them at once.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    is_whiteout: bool,
}

impl Attributes {
    fn is_dir(&self) -> bool {
        self.mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
    }
}

impl From<FileStat> for Attributes {
    fn from(stat: FileStat) -> Attributes {
        let is_whiteout = beneath::is_whiteout(&stat);
        Attributes { mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid, is_whiteout }
    }
}

struct Walk<'a> {
    reach: &'a Reach,
    layers: &'a [PathBuf],
    differs: &'a dyn Fn(&Attributes, &Attributes) -> bool,
    changes: Vec<Change>,
    /// Bytes that the list may still take.
    left: usize,
}

/// The layers that may show through at a place, topmost first: their numbers.
type Through = Vec<u16>;

/// A directory that is being walked through.
struct Level {
    /// Its directories, each with the layers that have it.
    inner: std::vec::IntoIter<(CString, Through)>,
    /// It hides what is below, and so does all in it.
    opaque: bool,
}

/// A name in the upper, and what the layers have of that name.
struct Name {
    name: CString,
    is: Attributes,
    below: Option<Attributes>,
    /// No layer further down counts.
    decided: bool,
    through: Through,
}

impl Walk<'_> {
    /// `path`: where it is, also when it fails.
    fn whole(&mut self, upper: BorrowedFd<'_>, path: &mut PathBuf) -> Result<(), Errno> {
        let mut trail = Trail::new(self.reach, self.reach.open_dir(upper, c".")?);
        let through = (0..self.layers.len() as u16).rev().collect();
        let mut levels = vec![self.level(trail.dir(), path, through, false)?];
        while let Some(level) = levels.last_mut() {
            let Some((name, through)) = level.inner.next() else {
                levels.pop();
                if !levels.is_empty() {
                    trail.up()?;
                    path.pop();
                }
                continue;
            };
            let opaque = level.opaque;
            path.push(OsStr::from_bytes(name.to_bytes()));
            match trail.down(&name) {
                Ok(()) => levels.push(self.level(trail.dir(), path, through, opaque)?),
                // Another file took its place meanwhile.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => drop(path.pop()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Lists what has changed in a directory itself.
    fn level(&mut self, dir: BorrowedFd<'_>, at: &Path, through: Through, hidden: bool) -> Result<Level, Errno> {
        let opaque = hidden || self.reach.is_opaque(dir)?;
        let mut names = self.names(dir)?;
        let mut gone = BTreeMap::new();
        for layer in through {
            let top = beneath::top(&self.layers[usize::from(layer)])?;
            let below = match self.reach.open_below(top.as_fd(), at, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                other => other?,
            };
            self.look(&below, layer, &mut names)?;
            if opaque {
                self.hidden(&below, &names, &mut gone)?;
            }
            if self.reach.is_opaque(below.as_fd())? {
                break;
            }
        }
        let mut inner = Vec::new();
        for name in names {
            let path = Path::new("/").join(at).join(OsStr::from_bytes(name.name.to_bytes()));
            if let Some(kind) = self.kind(&name) {
                self.tell(kind, path)?;
            }
            if name.is.is_dir() {
                self.take(EACH)?;
                inner.push((name.name, name.through));
            }
        }
        for (name, _) in gone.into_iter().filter(|(_, shows)| *shows) {
            self.tell(ChangeKind::Deleted, Path::new("/").join(at).join(OsStr::from_bytes(name.to_bytes())))?;
        }
        Ok(Level { inner: inner.into_iter(), opaque })
    }

    fn kind(&self, name: &Name) -> Option<ChangeKind> {
        match &name.below {
            below if name.is.is_whiteout => below.map(|_| ChangeKind::Deleted),
            None => Some(ChangeKind::Added),
            Some(old) if name.is.is_dir() && old.is_dir() => {
                (self.differs)(old, &name.is).then_some(ChangeKind::Modified)
            }
            Some(_) => Some(ChangeKind::Modified),
        }
    }

    fn tell(&mut self, kind: ChangeKind, path: PathBuf) -> Result<(), Errno> {
        self.take(path.as_os_str().len() + EACH)?;
        self.changes.push(Change { kind, path });
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), Errno> {
        self.left = self.left.checked_sub(bytes).ok_or(Errno::E2BIG)?;
        Ok(())
    }

    /// The names of the upper, sorted.
    fn names(&self, dir: BorrowedFd<'_>) -> Result<Vec<Name>, Errno> {
        let mut all = self.bounded(dir)?;
        all.sort_unstable();
        let mut names = Vec::with_capacity(all.len());
        for name in all {
            match self.reach.stat(dir, &name) {
                Ok(stat) => {
                    names.push(Name { name, is: stat.into(), below: None, decided: false, through: Vec::new() });
                }
                // Removed meanwhile.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(names)
    }

    fn bounded(&self, dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
        let most = self.left / NAME;
        let names = beneath::batch(dir, most + 1)?;
        if names.len() > most { Err(Errno::E2BIG) } else { Ok(names) }
    }

    /// What a layer has of these names, where no layer above it has decided.
    fn look(&self, layer: &OwnedFd, number: u16, names: &mut [Name]) -> Result<(), Errno> {
        for name in names.iter_mut().filter(|name| !name.decided) {
            let is = match self.reach.stat(layer.as_fd(), &name.name) {
                Err(Errno::ENOENT) => continue,
                other => Attributes::from(other?),
            };
            if is.is_dir() {
                // Directories show through each other until something else is in the way.
                name.below = name.below.or(Some(is));
                name.through.push(number);
            } else {
                name.below = name.below.or((!is.is_whiteout).then_some(is));
                name.decided = true;
            }
        }
        Ok(())
    }

    /// What an opaque directory hides and does not replace is deleted: the names of a layer, each with whether it shows.
    fn hidden(&self, layer: &OwnedFd, names: &[Name], gone: &mut BTreeMap<CString, bool>) -> Result<(), Errno> {
        for name in self.bounded(layer.as_fd())? {
            if names.binary_search_by(|there| there.name.cmp(&name)).is_err() && !gone.contains_key(&name) {
                let shows = !beneath::is_whiteout(&self.reach.stat(layer.as_fd(), &name)?);
                gone.insert(name, shows);
                if gone.len() > self.left / NAME {
                    return Err(Errno::E2BIG);
                }
            }
        }
        Ok(())
    }
}
