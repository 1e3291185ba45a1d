//! Copying a tree of leased ids into files of the caller's own.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek, symlinkat};

use super::sys::Hands;
use super::{EntryKind, failed, walk};
use crate::error::Result;
use crate::sys::beneath::{self, Plain, Trail};

const CHUNK: usize = 1 << 18;

/// Where a copy is at.
struct Copy<'a> {
    hands: &'a Hands,
    tree: &'a Path,
    left_out: Vec<PathBuf>,
}

pub(super) fn tree(hands: &Hands, tree: &Path, dest: &Path) -> Result<Vec<PathBuf>> {
    let source = walk::open_top(hands, tree)?;
    let open = || {
        fs::DirBuilder::new().mode(0o700).create(dest)?;
        Ok(nix::fcntl::open(dest, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?)
    };
    let to = open().map_err(|e: io::Error| {
        let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        failed(dest, "cannot be made", errno)
    })?;
    let mut copy = Copy { hands, tree, left_out: Vec::new() };
    copy.whole(Trail::new(hands, source), Trail::new(&Plain, to))?;
    Ok(copy.left_out)
}

/// A directory that is being copied.
struct Level {
    names: std::vec::IntoIter<CString>,
    stat: FileStat,
}

fn level(from: &Trail<'_>) -> Result<Level, Errno> {
    Ok(Level { names: beneath::names(from.dir())?.into_iter(), stat: fstat(from.dir())? })
}

impl Copy<'_> {
    fn whole(&mut self, mut from: Trail<'_>, mut to: Trail<'_>) -> Result<()> {
        let tree = self.tree;
        let at = |path: &Path, errno| failed(&tree.join(path), "cannot be copied", errno);
        let mut path = PathBuf::new();
        let mut levels = vec![level(&from).map_err(|errno| at(&path, errno))?];
        while let Some(here) = levels.last_mut() {
            if let Some(name) = here.names.next() {
                path.push(OsStr::from_bytes(name.to_bytes()));
                match self.one(&mut from, &mut to, &name, &path).map_err(|errno| at(&path, errno))? {
                    Some(inner) => levels.push(inner),
                    None => drop(path.pop()),
                }
            } else if let Some(done) = levels.pop() {
                // The mode comes last: without a right to search nobody comes back up.
                let left = if levels.is_empty() { None } else { Some(to.up().map_err(|errno| at(&path, errno))?) };
                finish(left.as_ref().map_or(to.dir(), |left| left.as_fd()), &done.stat)
                    .map_err(|errno| at(&path, errno))?;
                if left.is_some() {
                    from.up().map_err(|errno| at(&path, errno))?;
                    path.pop();
                }
            }
        }
        Ok(())
    }

    /// Copies what is no directory; of a directory, which both sides then are in, the level.
    fn one(
        &mut self,
        from: &mut Trail<'_>,
        to: &mut Trail<'_>,
        name: &CStr,
        path: &Path,
    ) -> Result<Option<Level>, Errno> {
        let place = match self.hands.open(from.dir(), name, OFlag::O_PATH) {
            // Removed meanwhile.
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        };
        let stat = fstat(&place)?;
        match walk::kind(&stat) {
            EntryKind::File => {
                // What was looked at, not what has its name now.
                let source = self.hands.reopen(place.as_fd())?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let made = openat(to.dir(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
                content(&File::from(source), &File::from(made.try_clone().map_err(|_| Errno::EMFILE)?))?;
                finish(made.as_fd(), &stat)?;
            }
            EntryKind::Symlink => symlinkat(readlinkat(&place, "")?.as_os_str(), to.dir(), name)?,
            EntryKind::Directory => {
                match from.down(name) {
                    // Another file took its place meanwhile.
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
                    other => other?,
                }
                mkdirat(to.dir(), name, Mode::S_IRWXU)?;
                to.down(name)?;
                return level(from).map(Some);
            }
            EntryKind::Other => self.left_out.push(path.to_owned()),
        }
        Ok(None)
    }
}

/// Mode and times, once nothing more is written.
fn finish(fd: BorrowedFd<'_>, stat: &FileStat) -> Result<(), Errno> {
    fchmod(fd, Mode::from_bits_truncate(stat.st_mode & 0o1777))?;
    let time = |seconds, nanoseconds| TimeSpec::new(seconds, nanoseconds);
    futimens(fd, &time(stat.st_atime, stat.st_atime_nsec), &time(stat.st_mtime, stat.st_mtime_nsec))
}

/// What is in the file, and holes where it has holes: a file may say that it is larger than the disk.
fn content(from: &File, to: &File) -> Result<(), Errno> {
    let raw = |e: io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    let length = from.metadata().map_err(raw)?.len().cast_signed();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        let start = match lseek(from, at, Whence::SeekData) {
            Err(Errno::ENXIO) => break,
            // A file system that knows nothing of holes.
            Err(Errno::EINVAL) => at,
            other => other?,
        };
        let end = lseek(from, start, Whence::SeekHole).unwrap_or(length).min(length);
        at = start;
        while at < end {
            let want = CHUNK.min((end - at) as usize);
            match from.read_at(&mut buffer[..want], at.cast_unsigned()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It has become shorter.
                Ok(0) => return Ok(()),
                Ok(read) => {
                    to.write_all_at(&buffer[..read], at.cast_unsigned()).map_err(raw)?;
                    at += read as i64;
                }
                Err(e) => return Err(raw(e)),
            }
        }
    }
    to.set_len(length.cast_unsigned()).map_err(raw)
}
