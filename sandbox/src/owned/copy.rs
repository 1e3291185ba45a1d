//! Copying a tree of leased ids into files of the caller's own.

use std::ffi::OsStr;
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

const DEEPEST: usize = 256;
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
    copy.directory(source.as_fd(), to.as_fd(), Path::new(""), DEEPEST)?;
    Ok(copy.left_out)
}

impl Copy<'_> {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, prefix: &Path, depth: usize) -> Result<()> {
        let tree = self.tree;
        let at = |path: &Path, errno| failed(&tree.join(path), "cannot be copied", errno);
        let stat = fstat(from).map_err(|errno| at(prefix, errno))?;
        for name in walk::names(from).map_err(|errno| at(prefix, errno))? {
            let path = prefix.join(OsStr::from_bytes(name.to_bytes()));
            let mut one = || -> Result<Option<_>, Errno> {
                let place = self.hands.open(from, &name, OFlag::O_PATH)?;
                let stat = fstat(&place)?;
                match walk::kind(&stat) {
                    EntryKind::File => {
                        let source = self.hands.open(from, &name, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
                        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                        let made = openat(to, name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
                        content(&File::from(source), &File::from(made.try_clone().map_err(|_| Errno::EMFILE)?))?;
                        finish(made.as_fd(), &stat)?;
                    }
                    EntryKind::Symlink => symlinkat(readlinkat(&place, "")?.as_os_str(), to, name.as_c_str())?,
                    EntryKind::Directory => {
                        if depth == 0 {
                            return Err(Errno::ELOOP);
                        }
                        mkdirat(to, name.as_c_str(), Mode::S_IRWXU)?;
                        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                        let made = openat(to, name.as_c_str(), flags, Mode::empty())?;
                        return Ok(Some((self.hands.open_dir(from, &name)?, made)));
                    }
                    EntryKind::Other => self.left_out.push(path.clone()),
                }
                Ok(None)
            };
            if let Some((from, to)) = one().map_err(|errno| at(&path, errno))? {
                self.directory(from.as_fd(), to.as_fd(), &path, depth - 1)?;
            }
        }
        finish(to, &stat).map_err(|errno| at(prefix, errno))
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
