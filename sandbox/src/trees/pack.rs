//! A tree becomes a tar stream.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::vec::IntoIter;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::{Left, MOST_NAMES, failed, refused, sparse};
use crate::images::pack::{NewMember, TarWriter};
use crate::images::tar::{Kind, PATH_LIMIT};
use crate::sys::beneath::{self, Opener, Plain, Trail};

/// Packs an open directory with all that is in it; its own name is `name`, and empty where only its content counts.
///
/// # Errors
/// What cannot be read, or changes its place while it is.
pub fn pack_tree(dir: OwnedFd, name: &[u8], out: impl Write, left: Left<'_>) -> io::Result<()> {
    let mut walk = Walk {
        out: TarWriter::new(out),
        path: name.to_vec(),
        lists: vec![names(dir.as_fd(), name)?],
        trail: Trail::new(&Plain, dir),
    };
    if !name.is_empty() {
        let stat = fstat(walk.trail.dir()).map_err(|e| failed(name, e))?;
        walk.header(Kind::Dir, &stat, 0, b"")?;
    }
    while let Some(list) = walk.lists.last_mut() {
        match list.next() {
            Some(next) => walk.one(&next, left)?,
            None => walk.leave()?,
        }
    }
    walk.out.finish().map(|_| ())
}

/// Packs an open file alone.
///
/// # Errors
/// What cannot be read.
pub fn pack_file(file: File, name: &[u8], out: impl Write) -> io::Result<()> {
    let stat = fstat(&file).map_err(|e| failed(name, e))?;
    let mut out = TarWriter::new(out);
    content(&mut out, file, name, &stat)?;
    out.finish().map(|_| ())
}

/// A file's header and what is in it. It may grow meanwhile: what it was is what is copied.
fn content(out: &mut TarWriter<impl Write>, file: File, path: &[u8], stat: &FileStat) -> io::Result<()> {
    let size = stat.st_size.unsigned_abs();
    let member = member(path, Kind::File, stat, size, b"");
    let written = match sparse::pieces(&file, size).map_err(|e| failed(path, e))? {
        Some(pieces) => {
            let segments: Vec<_> = pieces.iter().map(|piece| (piece.offset, piece.len)).collect();
            out.sparse(&member, &segments, sparse::Pieces::new(file, pieces))
        }
        None => {
            (&file).rewind().map_err(|e| failed(path, e))?;
            out.header(&member).and_then(|()| out.content(size, file))
        }
    };
    written.map_err(|e| failed(path, e))
}

struct Walk<'a, W> {
    out: TarWriter<W>,
    /// Of what is looked at.
    path: Vec<u8>,
    /// What is left of the directories from the first one to this.
    lists: Vec<IntoIter<CString>>,
    trail: Trail<'a>,
}

impl<W: Write> Walk<'_, W> {
    fn one(&mut self, name: &CStr, left: Left<'_>) -> io::Result<()> {
        let parent = self.path.len();
        if parent > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        if self.path.len() > PATH_LIMIT - 1 {
            left(&self.path, "its path is too long");
        } else if self.entered(name, left)? {
            return Ok(());
        }
        self.path.truncate(parent);
        Ok(())
    }

    /// Packs one; whether it is a directory, in which the walk is now.
    fn entered(&mut self, name: &CStr, left: Left<'_>) -> io::Result<bool> {
        let fail = |path: &[u8], errno: Errno| failed(path, errno);
        let stat = match beneath::stat(self.trail.dir(), name) {
            Ok(stat) => stat,
            // Removed since it was listed.
            Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(fail(&self.path, errno)),
        };
        match beneath::kind(&stat) {
            SFlag::S_IFDIR => {
                self.trail.down(name).map_err(|e| fail(&self.path, e))?;
                let stat = fstat(self.trail.dir()).map_err(|e| fail(&self.path, e))?;
                self.header(Kind::Dir, &stat, 0, b"")?;
                self.lists.push(names(self.trail.dir(), &self.path)?);
                return Ok(true);
            }
            SFlag::S_IFREG => {
                let (file, stat) = open(self.trail.dir(), name, &stat).map_err(|e| fail(&self.path, e))?;
                content(&mut self.out, file, &self.path, &stat)?;
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(self.trail.dir(), name).map_err(|e| fail(&self.path, e))?;
                self.header(Kind::Symlink, &stat, 0, target.as_bytes())?;
            }
            other => left(&self.path, beneath::kind_name(other)),
        }
        Ok(false)
    }

    /// Out of a directory whose list is at its end.
    fn leave(&mut self) -> io::Result<()> {
        self.lists.pop();
        if self.lists.is_empty() {
            return Ok(());
        }
        self.trail.up().map_err(|errno| match errno {
            Errno::ESTALE => refused(&self.path, "was moved while it was copied"),
            errno => failed(&self.path, errno),
        })?;
        let parent = self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.path.truncate(parent);
        Ok(())
    }

    fn header(&mut self, kind: Kind, stat: &FileStat, size: u64, link: &[u8]) -> io::Result<()> {
        self.out.header(&member(&self.path, kind, stat, size, link))
    }
}

fn member<'a>(path: &'a [u8], kind: Kind, stat: &FileStat, size: u64, link: &'a [u8]) -> NewMember<'a> {
    let (mode, mtime) = (stat.st_mode & 0o7777, stat.st_mtime.max(0));
    NewMember { path, kind, mode, uid: stat.st_uid, gid: stat.st_gid, size, mtime, link, xattrs: &[] }
}

/// Opens what was an ordinary file a moment ago, and is one now.
fn open(dir: BorrowedFd<'_>, name: &CStr, seen: &FileStat) -> Result<(File, FileStat), Errno> {
    let file = Plain.open(dir, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let stat = fstat(&file)?;
    match beneath::identity(&stat) == beneath::identity(seen) {
        true => Ok((file.into(), stat)),
        false => Err(Errno::ESTALE),
    }
}

fn names(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<IntoIter<CString>> {
    let mut names = beneath::batch(dir, MOST_NAMES + 1).map_err(|e| failed(path, e))?;
    if names.len() > MOST_NAMES {
        return Err(refused(path, &format!("more than {MOST_NAMES} names in one directory")));
    }
    names.sort();
    Ok(names.into_iter())
}
