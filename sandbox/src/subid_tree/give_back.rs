//! What the programs of one sandbox have left in a directory of the caller's, made the caller's: the option `reclaim`.
//!
//! The sandbox is gone by then, but its programs made the tree, and another sandbox may be at work in it. Nothing is changed but
//! owners and groups that are the sandbox's own ids, each on the file that was looked at.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::sys::Hands;
use crate::error::{Failure, Result};
use crate::ids::Assigned;
use crate::printable::printable;
use crate::sys::beneath::{self, Trail};

/// Programs choose how many files there are, and the caller waits.
const MOST_FILES: usize = 1 << 21;
const LONGEST: Duration = Duration::from_secs(60);
/// A directory in which the walk is may be moved by somebody else: then it begins anew.
const TRIES: usize = 8;
/// So many are named; the others are counted.
const MOST_NAMED: usize = 8;

/// A file or directory that is bound writable, held since before the sandbox began: what its path means at the end is for
/// programs to say.
#[derive(Debug)]
pub(crate) struct Bound {
    path: PathBuf,
    place: OwnedFd,
}

impl Bound {
    pub(crate) fn open(path: &Path) -> Result<Bound> {
        match openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(place) => Ok(Bound { path: path.to_owned(), place }),
            Err(errno) => {
                let failure = Failure::new("reclaim", path.display().to_string(), "cannot be opened");
                Err(failure.errno(errno as i32).hint("Name a file or directory that is there.").setup())
            }
        }
    }
}

/// Gives all of them to the caller. What could not be done, in words.
pub(crate) fn give_back(bounds: &[Bound], ids: &Assigned) -> Vec<String> {
    let mut failed = Failed::default();
    let caller = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if ids.are_only(caller) {
        return Vec::new();
    }
    match Hands::new() {
        Err(error) => failed.words.push(error.to_string()),
        Ok(hands) => {
            let mut walk =
                Walk { hands: &hands, ids, caller, left: MOST_FILES, until: Instant::now() + LONGEST, failed };
            for bound in bounds {
                if let Err(errno) = walk.tree(bound) {
                    walk.failed.add(&bound.path, errno);
                }
            }
            failed = walk.failed;
        }
    }
    failed.told()
}

#[derive(Default)]
struct Failed {
    words: Vec<String>,
    more: usize,
}

impl Failed {
    fn add(&mut self, path: &Path, errno: Errno) {
        if self.words.len() == MOST_NAMED {
            self.more += 1;
            return;
        }
        let why = match errno {
            Errno::E2BIG => "there are too many files to look at".to_owned(),
            Errno::ETIMEDOUT => format!("that takes more than {} s", LONGEST.as_secs()),
            errno => errno.to_string(),
        };
        self.words.push(format!("{}: {why}", printable(path.as_os_str().as_bytes())));
    }

    fn told(self) -> Vec<String> {
        let told = |why| format!("not given back to the caller (`sandcell files reclaim DIR` does it later): {why}");
        let more = (self.more > 0).then(|| format!("{} more files", self.more));
        self.words.into_iter().chain(more).map(told).collect()
    }
}

struct Walk<'a> {
    hands: &'a Hands,
    ids: &'a Assigned,
    caller: (u32, u32),
    left: usize,
    until: Instant,
    failed: Failed,
}

impl Walk<'_> {
    /// The tree's own file, and all beneath it on the same file system.
    fn tree(&mut self, bound: &Bound) -> Result<(), Errno> {
        let stat = fstat(&bound.place)?;
        if is_dir(&stat) {
            // Before its owner is changed: its mode may keep out everybody but that one.
            let again = (0..TRIES).map(|_| self.beneath(bound, &stat)).find(|done| *done != Err(Errno::ESTALE));
            again.unwrap_or(Err(Errno::ESTALE))?;
        }
        self.give(bound.place.as_fd(), &stat)
    }

    fn beneath(&mut self, bound: &Bound, top: &FileStat) -> Result<(), Errno> {
        let hands = self.hands;
        let mut trail = Trail::new(hands, hands.open_dir(bound.place.as_fd(), c".")?);
        let mut path = bound.path.clone();
        let mut levels = vec![self.names(&trail)?];
        while let Some(names) = levels.last_mut() {
            let Some(name) = names.next() else {
                levels.pop();
                if !levels.is_empty() {
                    trail.up()?;
                    path.pop();
                }
                continue;
            };
            path.push(OsStr::from_bytes(name.to_bytes()));
            match self.enter(&mut trail, &name, top) {
                Ok(true) => match self.names(&trail) {
                    Ok(names) => {
                        levels.push(names);
                        continue;
                    }
                    Err(errno @ (Errno::E2BIG | Errno::ETIMEDOUT)) => return Err(errno),
                    Err(errno) => {
                        self.failed.add(&path, errno);
                        trail.up()?;
                    }
                },
                Ok(false) => {}
                Err(errno) => self.failed.add(&path, errno),
            }
            path.pop();
        }
        Ok(())
    }

    /// Gives a file, and goes into a directory. Whether the walk is in it now.
    fn enter(&mut self, trail: &mut Trail<'_>, name: &CStr, top: &FileStat) -> Result<bool, Errno> {
        let place = match self.hands.open(trail.dir(), name, OFlag::O_PATH) {
            // Removed meanwhile.
            Err(Errno::ENOENT) => return Ok(false),
            other => other?,
        };
        let stat = fstat(&place)?;
        if stat.st_dev != top.st_dev {
            return Ok(false);
        }
        self.give(place.as_fd(), &stat)?;
        drop(place);
        if !is_dir(&stat) {
            return Ok(false);
        }
        match trail.down(name) {
            Ok(()) if fstat(trail.dir())?.st_dev == top.st_dev => Ok(true),
            Ok(()) => trail.up().map(|_| false),
            // Another file took its place meanwhile.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(false),
            // Of somebody else, who lets others neither look into it nor add to it: programs could not either.
            Err(Errno::EACCES) if stat.st_mode & 0o003 != 0o003 => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn names(&mut self, trail: &Trail<'_>) -> Result<std::vec::IntoIter<std::ffi::CString>, Errno> {
        if Instant::now() >= self.until {
            return Err(Errno::ETIMEDOUT);
        }
        let names = beneath::batch(trail.dir(), self.left + 1)?;
        self.left = self.left.checked_sub(names.len()).ok_or(Errno::E2BIG)?;
        Ok(names.into_iter())
    }

    /// chown(2) of what belongs to the sandbox's ids; set-user-ID and capabilities of the file go with it.
    fn give(&self, place: BorrowedFd<'_>, stat: &FileStat) -> Result<(), Errno> {
        let new = |id, caller, own: bool| if own && id != caller { caller } else { u32::MAX };
        let uid = new(stat.st_uid, self.caller.0, self.ids.uid_map.inside_of(stat.st_uid).is_some());
        let gid = new(stat.st_gid, self.caller.1, self.ids.gid_map.inside_of(stat.st_gid).is_some());
        if (uid, gid) == (u32::MAX, u32::MAX) { Ok(()) } else { self.hands.chown(place, uid, gid) }
    }
}

fn is_dir(stat: &FileStat) -> bool {
    beneath::kind(stat) == SFlag::S_IFDIR
}
