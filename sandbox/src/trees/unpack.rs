//! A tar stream becomes a tree, beneath an open directory.

use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::{Left, failed, refused};
use crate::images::tar::{Kind, Member, Reader, Refusal};
use crate::sys::beneath::{self, Opener, Plain};

/// Names of directories are kept until the end, where they get their modes.
const MOST_KEPT: usize = 64 << 20;
/// Zeros of this length become a hole.
const HOLE: usize = 4096;

/// Unpacks into the directory. Files belong to whoever calls; set-id bits and extended attributes are left out.
///
/// # Errors
/// An archive that is none, and what cannot be written.
pub fn unpack(archive: impl BufRead, dir: OwnedFd, left: Left<'_>) -> io::Result<()> {
    let mut reader = Reader::new(archive);
    let mut unpacking = Unpacking { dir, modes: Vec::new(), kept: 0 };
    while let Some(member) = reader.next().map_err(broken)? {
        unpacking.one(&mut reader, &member, left)?;
    }
    unpacking.finish()
}

/// Unpacks an archive of one file into one that is open and empty. What is no ordinary file gets zeros for holes.
///
/// # Errors
/// An archive that is none, or of something else, and what cannot be written.
pub fn unpack_file(archive: impl BufRead, file: &File) -> io::Result<()> {
    let mut reader = Reader::new(archive);
    let other = || io::Error::new(io::ErrorKind::InvalidData, "it is no archive of a file");
    match reader.next().map_err(broken)? {
        Some(member) if member.kind == Kind::File => write(&mut reader, &member, file)?,
        _ => return Err(other()),
    }
    // To its end: whoever writes it is not to find the pipe closed.
    reader.next().map_err(broken)?.map_or(Ok(()), |_| Err(other()))
}

struct Unpacking {
    dir: OwnedFd,
    modes: Vec<(Vec<u8>, u32)>,
    kept: usize,
}

impl Unpacking {
    fn one<R: BufRead>(&mut self, reader: &mut Reader<R>, member: &Member, left: Left<'_>) -> io::Result<()> {
        let fail = |errno: Errno| failed(&member.path, errno);
        if member.path.is_empty() {
            return Ok(());
        }
        let (above, name) = split(&member.path);
        let parent = self.parent(above).map_err(fail)?;
        let parent = parent.as_fd();
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        match member.kind {
            Kind::Dir => self.directory(parent, path, member)?,
            Kind::File => {
                make_room(parent, path).map_err(fail)?;
                let file = create(parent, name).map_err(fail)?;
                write(reader, member, &file)?;
                fchmod(&file, Mode::from_bits_truncate(member.mode & 0o777)).map_err(fail)?;
                let time = TimeSpec::new(member.mtime.0, i64::from(member.mtime.1));
                futimens(&file, &time, &time).map_err(fail)?;
            }
            Kind::Symlink => {
                make_room(parent, path).map_err(fail)?;
                symlinkat(Path::new(std::ffi::OsStr::from_bytes(&member.link)), parent, path).map_err(fail)?;
            }
            Kind::HardLink => {
                let (above, target) = split(&member.link);
                let target = Path::new(std::ffi::OsStr::from_bytes(target));
                let from = self.parent(above).map_err(fail)?;
                make_room(parent, path).map_err(fail)?;
                linkat(from, target, parent, path, AtFlags::empty()).map_err(fail)?;
            }
            Kind::CharDevice | Kind::BlockDevice => left(&member.path, "a device"),
            Kind::Fifo => left(&member.path, "a FIFO"),
        }
        Ok(())
    }

    /// One that the caller may use for now; its mode comes at the end.
    fn directory(&mut self, parent: BorrowedFd<'_>, path: &Path, member: &Member) -> io::Result<()> {
        match mkdirat(parent, path, Mode::S_IRWXU) {
            Ok(()) => {
                self.kept += member.path.len();
                if self.kept > MOST_KEPT {
                    return Err(refused(&member.path, "too many directories"));
                }
                self.modes.push((member.path.clone(), member.mode & 0o777));
                Ok(())
            }
            Err(Errno::EEXIST) => beneath::open(parent, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
                .map(|_| ())
                .map_err(|e| refused(&member.path, &format!("something else is in its place ({e})"))),
            Err(errno) => Err(failed(&member.path, errno)),
        }
    }

    /// The directory of this path, made where it is not there; never through a link.
    fn parent(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW);
        let whole = Path::new(std::ffi::OsStr::from_bytes(path));
        match beneath::open(self.dir.as_fd(), whole, PLACE) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let mut here = beneath::open(self.dir.as_fd(), Path::new(""), PLACE)?;
        for name in whole.components() {
            let name: &Path = name.as_ref();
            match mkdirat(&here, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            here = beneath::open(here.as_fd(), name, PLACE)?;
        }
        Ok(here)
    }

    /// The inner ones first: an outer one may shut them off.
    fn finish(self) -> io::Result<()> {
        for (path, mode) in self.modes.into_iter().rev() {
            let whole = Path::new(std::ffi::OsStr::from_bytes(&path));
            let dir = beneath::open(self.dir.as_fd(), whole, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW);
            let done = dir.and_then(|dir| fchmod(&dir, Mode::from_bits_truncate(mode)));
            done.map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// What is there makes room, unless it is a directory: nothing is written through it.
fn make_room(parent: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// A new file, for the caller alone until it has its mode.
fn create(parent: BorrowedFd<'_>, name: &[u8]) -> Result<File, Errno> {
    let name = std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)?;
    Plain.open(parent, &name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL).map(File::from)
}

fn write<R: BufRead>(reader: &mut Reader<R>, member: &Member, file: &File) -> io::Result<()> {
    let fail = |error: io::Error| failed(&member.path, error);
    let mut to = Place { file, at: 0, holes: file.metadata().map_err(fail)?.is_file() };
    let mut segments = member.segments.iter().flatten();
    let mut left = if member.segments.is_some() { 0 } else { u64::MAX };
    loop {
        while left == 0 {
            let Some(segment) = segments.next() else { return to.zeros(member.size).map_err(fail) };
            to.zeros(segment.offset).map_err(fail)?;
            left = segment.len;
        }
        let piece = reader.piece().map_err(broken)?;
        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX)).min(1 << 20);
        if length == 0 {
            // A hole at its end is not written.
            return to.zeros(member.size).map_err(fail);
        }
        let piece = &piece[..length];
        let written = match length >= HOLE && piece.iter().all(|byte| *byte == 0) {
            true => to.zeros(to.at + length as u64),
            false => to.bytes(piece),
        };
        written.map_err(fail)?;
        reader.consume(length);
        left -= length as u64;
    }
}

/// Where a file is written to.
struct Place<'a> {
    file: &'a File,
    at: u64,
    /// Whether it can have holes.
    holes: bool,
}

impl Place<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Zeros up to here: a hole, where there can be one.
    fn zeros(&mut self, until: u64) -> io::Result<()> {
        if self.holes {
            self.at = until;
            self.file.set_len(until)?;
            return self.file.seek(SeekFrom::Start(until)).map(|_| ());
        }
        while self.at < until {
            let length = (until - self.at).min(HOLE as u64);
            self.bytes(&[0; HOLE][..length as usize])?;
        }
        Ok(())
    }
}

fn broken(refusal: Refusal) -> io::Error {
    let text = format!("{}: {}", refusal.member, refusal.message);
    refusal.io.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}
