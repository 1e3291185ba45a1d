//! Where named cells are: `$XDG_RUNTIME_DIR/sandcell/cells/NAME`, or in /run/user/UID (/run for root), or in
//! /tmp/sandcell-UID; the user's alone, mode 0700. A reboot empties all of these.
//!
//! A name is taken by a lock and not by a file: `lock` has two bytes, the first locked by who starts the cell, the
//! second by its keeper. Where neither is locked and there is no outcome, nobody is there: the name is free.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl, openat};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};
use nix::sys::stat::{Mode, fstat, mkdirat};

use crate::error::{Failure, Result};
use crate::sys::lock::Lock;
use crate::wire::keeper as names;

/// No name is longer: it is part of file names, and of messages.
const MOST: usize = 64;
const CELLS: &str = "cells";

/// The directory of one cell.
#[derive(Debug)]
pub(crate) struct Place {
    pub name: String,
    pub path: PathBuf,
    pub dir: OwnedFd,
}

/// What the lock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    ByKeeper,
    ByStarter,
    Nobody,
}

/// Letters, digits, `_`, `.` and `-`, not at the beginning: nothing that leads out of a directory or looks like an option.
pub(crate) fn check(name: &str) -> Result<()> {
    let usual = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let wrong = |message: String| {
        let failure = Failure::new("option", format!("name={}", name.escape_debug()), message);
        Err(failure.hint("Use letters, digits, `_`, `.` and `-`, with a letter or digit first.").config())
    };
    match name.chars().next() {
        None => wrong("a cell needs a name".to_owned()),
        _ if name.len() > MOST => wrong(format!("is longer than {MOST} characters")),
        Some(first) if !first.is_ascii_alphanumeric() || !name.chars().all(usual) => {
            wrong("is no name for a cell".to_owned())
        }
        _ => Ok(()),
    }
}

/// All directories where cells of this user may be, the best first: others may have been chosen by a process with
/// another environment.
fn bases() -> Vec<(PathBuf, String)> {
    let uid = nix::unistd::geteuid();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let run = if uid.is_root() { PathBuf::from("/run") } else { PathBuf::from(format!("/run/user/{uid}")) };
    let mut all: Vec<_> = given.into_iter().chain([run]).map(|dir| (dir, "sandcell".to_owned())).collect();
    all.dedup();
    all.push((PathBuf::from("/tmp"), format!("sandcell-{uid}")));
    all
}

/// Opens `parent/name/cells`. What is not the user's alone is refused.
fn open_base(parent: &Path, name: &str, make: bool) -> io::Result<(PathBuf, OwnedFd)> {
    let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let uid = nix::unistd::geteuid().as_raw();
    let above = openat(AT_FDCWD, parent, directory, Mode::empty())?;
    let stat = fstat(&above)?;
    // Another user's directory would only be safe with the sticky bit, as /tmp has it.
    if !(stat.st_uid == uid || stat.st_uid == 0) || (stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0) {
        return Err(io::Error::other("the directory above it belongs to another user, or others may write to it"));
    }
    let mut dir = above;
    for part in [name, CELLS] {
        if make {
            match mkdirat(&dir, part, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        dir = openat(&dir, part, directory | OFlag::O_NOFOLLOW, Mode::empty())?;
        let stat = fstat(&dir)?;
        match () {
            () if stat.st_uid != uid => return Err(io::Error::other(format!("belongs to UID {}", stat.st_uid))),
            () if stat.st_mode & 0o077 != 0 => {
                return Err(io::Error::other("others have permissions on it (chmod 700)"));
            }
            () => {}
        }
    }
    Ok((parent.join(name).join(CELLS), dir))
}

/// The directories that are there.
fn existing() -> impl Iterator<Item = (PathBuf, OwnedFd)> {
    bases().into_iter().filter_map(|(parent, name)| open_base(&parent, &name, false).ok())
}

/// The place of a name, wherever it is.
pub(crate) fn find(name: &str) -> Result<Option<Place>> {
    check(name)?;
    Ok(existing().find_map(|(path, base)| open(&path, &base, name)))
}

fn open(path: &Path, base: &OwnedFd, name: &str) -> Option<Place> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let dir = openat(base, name, flags, Mode::empty()).ok()?;
    Some(Place { name: name.to_owned(), path: path.join(name), dir })
}

/// All that are there, by name.
pub(crate) fn all() -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for (path, base) in existing() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if check(&name).is_ok() && !found.iter().any(|place| place.name == name) {
                found.extend(open(&path, &base, &name));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Held for moments by whoever makes or removes names.
fn hold_names(base: &OwnedFd) -> io::Result<Lock> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Lock::exclusive(File::from(openat(base, ".lock", flags, mode)?))
}

/// Takes a name: its new directory, and the lock that says that somebody is starting a cell there.
pub(crate) fn take(name: &str) -> Result<(Place, Starting)> {
    check(name)?;
    let mut reasons = Vec::new();
    for (parent, part) in bases() {
        match open_base(&parent, &part, true) {
            Ok((path, base)) => return take_in(&path, &base, name),
            Err(error) => reasons.push(format!("{}: {error}", parent.join(part).display())),
        }
    }
    Err(Failure::new("cell-name", reasons.join("; "), "there is no place for named cells")
        .hint("Set XDG_RUNTIME_DIR to a directory of the caller's own, mode 0700.")
        .setup())
}

fn take_in(path: &Path, base: &OwnedFd, name: &str) -> Result<(Place, Starting)> {
    let failed = |e: &io::Error| {
        Failure::new("cell-name", path.join(name).display().to_string(), "cannot be made").cause(e).setup()
    };
    let _names = hold_names(base).map_err(|e| failed(&e))?;
    if let Some(place) = find(name)? {
        place.refuse_taken()?;
        place.remove().map_err(|e| failed(&e))?;
    }
    let place = (|| {
        DirBuilder::new().mode(0o700).create(path.join(name))?;
        open(path, base, name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    })()
    .map_err(|e| failed(&e))?;
    let starting = place.start().map_err(|e| failed(&e))?;
    Ok((place, starting))
}

/// The first byte of the lock: let go with the value, or with the process.
#[derive(Debug)]
pub(crate) struct Starting {
    file: File,
}

impl Drop for Starting {
    fn drop(&mut self) {
        // Let go, not only closed: a process that was forked meanwhile has a copy.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&flock(libc::F_UNLCK, 0)));
    }
}

impl Place {
    /// Opens a file of the cell's directory.
    pub(crate) fn open(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
    }

    fn start(&self) -> io::Result<Starting> {
        let file = self.open(text(names::LOCK), OFlag::O_RDWR | OFlag::O_CREAT)?;
        fcntl(&file, FcntlArg::F_OFD_SETLK(&flock(libc::F_WRLCK, 0)))?;
        Ok(Starting { file })
    }

    pub(crate) fn held(&self) -> io::Result<Held> {
        let file = match self.open(text(names::LOCK), OFlag::O_RDWR) {
            // Made and not locked yet, or removed: nobody's either way.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Held::Nobody),
            other => other?,
        };
        for (byte, held) in [(1, Held::ByKeeper), (0, Held::ByStarter)] {
            let mut lock = flock(libc::F_WRLCK, byte);
            fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
            if i32::from(lock.l_type) != libc::F_UNLCK {
                return Ok(held);
            }
        }
        Ok(Held::Nobody)
    }

    /// Whether it has left its outcome.
    pub(crate) fn is_over(&self) -> bool {
        self.open(text(names::OUTCOME), OFlag::O_RDONLY).is_ok()
    }

    fn refuse_taken(&self) -> Result<()> {
        let taken = |message: &str, hint: String| {
            Err(Failure::new("cell-name", &self.name, message).errno(libc::EEXIST).hint(hint).setup())
        };
        match self.held().map_err(|e| self.failed("cannot be looked at", &e))? {
            Held::ByKeeper if !self.is_over() => {
                let hint = format!("End and remove it: `sandcell rm -f {}`; or choose another name.", self.name);
                taken("the name is taken by a cell that runs", hint)
            }
            Held::ByStarter => taken("a cell of this name is being started", "Choose another name.".to_owned()),
            _ if self.is_over() => {
                let message = "the name is taken by a cell that has ended and left its outcome";
                taken(message, format!("Remove it: `sandcell rm {}`.", self.name))
            }
            // What a keeper that was killed has left.
            _ => Ok(()),
        }
    }

    /// Removes the directory, and the log.
    pub(crate) fn remove(&self) -> io::Result<()> {
        if let Ok(log) = self.log_dir() {
            match fs::remove_dir_all(&log) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::remove_dir_all(&self.path)
    }

    /// The same, unless somebody starts or keeps a cell there.
    pub(crate) fn remove_unheld(&self) -> Result<()> {
        let base = self.path.parent().unwrap_or(Path::new("/"));
        let removed = || {
            let _names = hold_names(&File::open(base)?.into())?;
            // Somebody else may have removed it, and started another one.
            let same = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino);
            match nix::sys::stat::lstat(&self.path) {
                Ok(stat) if same(stat) == same(fstat(&self.dir)?) => self.remove(),
                Ok(_) | Err(Errno::ENOENT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        removed().map_err(|e| self.failed("cannot be removed", &e))
    }

    /// Where the log is, as it was noted.
    pub(crate) fn log_dir(&self) -> io::Result<PathBuf> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.open("log", OFlag::O_RDONLY)?, &mut bytes)?;
        let path = PathBuf::from(OsString::from_vec(bytes));
        match path.is_absolute() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.name))
        {
            true => Ok(path),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    pub(crate) fn failed(&self, message: &str, e: &io::Error) -> crate::Error {
        Failure::new("cell", &self.name, message).cause(e).io()
    }

    /// The socket for clients, bound; the keeper will listen.
    pub(crate) fn listener(&self) -> nix::Result<OwnedFd> {
        let fd =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        bind(fd.as_raw_fd(), &self.address()?)?;
        Ok(fd)
    }

    /// By the directory's descriptor: sockets have short names.
    fn address(&self) -> nix::Result<UnixAddr> {
        UnixAddr::new(format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), text(names::SOCKET)).as_str())
    }

    /// A connection to the keeper; `None` where there is none.
    pub(crate) fn connect(&self) -> Result<Option<OwnedFd>> {
        match self.held().map_err(|e| self.failed("cannot be looked at", &e))? {
            Held::ByKeeper => {}
            _ => return Ok(None),
        }
        let connection = (|| {
            let fd = socket(
                AddressFamily::Unix,
                SockType::SeqPacket,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                None,
            )?;
            connect(fd.as_raw_fd(), &self.address()?)?;
            let who = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::PeerCredentials)?;
            // The directory is the user's alone; this holds even where it was not.
            if who.uid() != nix::unistd::geteuid().as_raw() {
                return Err(Errno::EPERM);
            }
            fcntl(&fd, FcntlArg::F_SETFL(OFlag::empty()))?;
            Ok(fd)
        })();
        match connection {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Failure::new("keeper", &self.name, "cannot connect to its keeper")
                .errno(errno as i32)
                .hint("Look whether the keeper is stopped, or has too many clients.")
                .io()),
        }
    }

    pub(crate) fn dir(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn text(name: &std::ffi::CStr) -> &str {
    name.to_str().unwrap_or_default()
}

fn flock(kind: i32, byte: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

/// Where logs are: on disk, `$XDG_STATE_HOME/sandcell/cells`, or in ~/.local/state; beside the cell where there is no home.
///
/// The directory, and what its keeper is to hold: a descriptor of it, and a lock.
pub(crate) fn make_log_dir(place: &Place) -> Result<(PathBuf, Vec<OwnedFd>)> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()).or_else(home);
    let on_disk = state.filter(|dir| dir.is_absolute()).map(|dir| dir.join("sandcell/cells"));
    let made = on_disk.clone().map(|dir| make_log_in(&dir, place));
    let made = match made {
        Some(Ok(made)) => Ok(made),
        _ => make_log_in(&place.path, place),
    };
    made.map_err(|e| {
        let dir = on_disk.unwrap_or_else(|| place.path.clone());
        let failure = Failure::new("cell-log", dir.display().to_string(), "the log cannot be made there").cause(&e);
        failure.hint("Set XDG_STATE_HOME to a directory of the caller's own, with room.").setup()
    })
}

fn make_log_in(dir: &Path, place: &Place) -> io::Result<(PathBuf, Vec<OwnedFd>)> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let stat = fstat(&openat(AT_FDCWD, dir, flags, Mode::empty())?)?;
    if stat.st_uid != nix::unistd::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(io::Error::other("it is not the caller's alone"));
    }
    sweep_logs(dir);
    let random = u32::from_ne_bytes(crate::sys::random::<4>()?);
    let path = dir.join(format!("{}.{random:08x}", place.name));
    DirBuilder::new().mode(0o700).create(&path)?;
    note_log(&path, place).inspect_err(|_| {
        // Somewhere else it may be possible, and here nothing stays.
        let _ = (fs::remove_dir_all(&path), fs::remove_file(place.path.join("log")));
    })
}

fn note_log(path: &Path, place: &Place) -> io::Result<(PathBuf, Vec<OwnedFd>)> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = openat(AT_FDCWD, path, flags, Mode::empty())?;
    // Where the log is; and then whose log it is, for `sweep_logs`.
    note(&place.path.join("log"), path.as_os_str().as_bytes())?;
    let mut of = boot();
    of.push(b'\n');
    of.extend_from_slice(place.path.as_os_str().as_bytes());
    let of = note(&path.join(OF), &of)?;
    of.try_lock().map_err(io::Error::from)?;
    Ok((path.to_owned(), vec![fd, of.into()]))
}

const OF: &str = "of";

fn note(path: &Path, text: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text)?;
    Ok(file)
}

/// What tells one start of the machine from another.
fn boot() -> Vec<u8> {
    fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim_ascii().to_vec()
}

/// Removes logs of cells that are not there any more: those of another boot, and those that a keeper that was killed has
/// left. A cell that cannot be seen from here, because /tmp is another one, keeps its log.
fn sweep_logs(dir: &Path) {
    let boot = boot();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(mut of) = File::open(path.join(OF)) else { continue };
        let mut text = Vec::new();
        let Ok(_) = io::Read::read_to_end(&mut of, &mut text) else { continue };
        let Some(end) = text.iter().position(|byte| *byte == b'\n') else { continue };
        let cell = Path::new(std::ffi::OsStr::from_bytes(&text[end + 1..]));
        let is_its = || fs::read(cell.join("log")).is_ok_and(|noted| noted == path.as_os_str().as_bytes());
        let is_seen = || cell.parent().is_some_and(Path::is_dir);
        let is_gone = text[..end] != boot || is_seen() && !is_its();
        if !boot.is_empty() && is_gone && of.try_lock().is_ok() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}
