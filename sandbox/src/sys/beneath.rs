//! Opening what a program can write, or could write when it ran. Everything in the library that reads, lists or changes
//! such files goes through here:
//!
//! - A path is resolved beneath a descriptor, never through a link ([`open`], [`Trail`]), or through links that stay
//!   within ([`open_within`]).
//! - A file is looked at before it is opened: a device or a FIFO is never opened, so nothing blocks ([`regular`]).
//! - What is read has a limit ([`read`]).
//! - What is changed is the file behind the descriptor, not what its name means now ([`chmod`]).

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat};

use crate::error::Failure;

/// Notes, lists and settings are short; what is longer was not written by the library.
pub(crate) const SHORT: u64 = 1 << 20;
/// The kernel takes no longer path in one call.
const LONGEST: usize = 4000;

/// Why a file is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not an ordinary file, but this.
    Kind(&'static str),
    /// It is longer than this.
    Long(u64),
    /// The kernel refuses.
    System(Errno),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused::System(errno)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Kind(kind) => write!(f, "is {kind}, not an ordinary file"),
            Refused::Long(most) => write!(f, "is longer than {most} bytes"),
            Refused::System(errno) => write!(f, "{errno}"),
        }
    }
}

impl Refused {
    /// Nothing of that name is there.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Refused::System(Errno::ENOENT | Errno::ENOTDIR))
    }

    /// Adds the reason to a failure.
    pub(crate) fn told(&self, mut failure: Failure) -> Failure {
        match self {
            Refused::System(errno) => failure.errno(*errno as i32),
            other => {
                failure.message = format!("{}: it {other}", failure.message);
                failure.hint("Put an ordinary, short file there.")
            }
        }
    }
}

/// Who opens: the caller itself, or somebody with rights over the caller's sub-ids.
pub(crate) trait Opener {
    /// openat(2) of a single name, never through a link.
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd, Errno>;

    /// A directory, for reading.
    fn open_dir(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        self.open(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    /// Opens for reading what was opened as a mere path.
    fn reopen(&self, place: BorrowedFd<'_>) -> Result<OwnedFd, Errno>;
}

/// The caller with the rights that it has.
pub(crate) struct Plain;

const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

impl Opener for Plain {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(dir, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    }

    fn reopen(&self, place: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        openat(AT_FDCWD, &path_of(place), READ, Mode::empty())
    }
}

/// A path for calls that take no descriptor of a mere path. It means the file itself, whatever its name means by now.
pub(crate) fn path_of(place: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// The directory that the caller names. Links on the way to it are the caller's.
pub(crate) fn top(path: &Path) -> Result<OwnedFd, Errno> {
    openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The same as a mere path, which needs no right to read it.
pub(crate) fn place(path: &Path) -> Result<OwnedFd, Errno> {
    openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a path of any length beneath a directory, through no link at all. The last one is opened itself with
/// `O_PATH | O_NOFOLLOW`.
pub(crate) fn open(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let never = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let mut rest = path.as_os_str().as_bytes();
    let mut held: Option<OwnedFd> = None;
    while rest.len() > LONGEST {
        let cut = rest[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        let from = held.as_ref().map_or(dir, |fd| fd.as_fd());
        held = Some(resolve(from, &rest[..cut], OFlag::O_PATH | OFlag::O_DIRECTORY, never)?);
        rest = &rest[cut + 1..];
    }
    resolve(held.as_ref().map_or(dir, |fd| fd.as_fd()), rest, flags, never)
}

/// Opens a path as it is seen from a root: links are followed and never lead out of the directory.
pub(crate) fn open_within(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let within = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    resolve(root, path.as_os_str().as_bytes(), flags, within)
}

fn resolve(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag, how: ResolveFlag) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(how);
    let mut attempts = 0;
    loop {
        // Again where something was renamed elsewhere in the system while the kernel walked a `..` of a link.
        match openat2(dir, path, how) {
            Err(Errno::EAGAIN) if attempts < 64 => attempts += 1,
            other => return other,
        }
    }
}

/// The file of a path that was opened as a mere path, for reading. A device or FIFO is refused without being opened.
pub(crate) fn regular(opener: &dyn Opener, place: BorrowedFd<'_>) -> Result<File, Refused> {
    match kind(&fstat(place)?) {
        SFlag::S_IFREG => Ok(File::from(opener.reopen(place)?)),
        other => Err(Refused::Kind(kind_name(other))),
    }
}

/// The directory of a mere path, to be listed.
#[cfg(feature = "image")]
pub(crate) fn list(opener: &dyn Opener, place: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    opener.open_dir(place, c".")
}

/// Everything in a file, where that is not more than `most` bytes.
pub(crate) fn read(file: File, most: u64) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    if bytes.len() as u64 > most { Err(Refused::Long(most)) } else { Ok(bytes) }
}

/// A short file beneath a directory, through no link.
#[cfg(any(feature = "image", test))]
pub(crate) fn read_short(dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>, Refused> {
    let place = open(dir, path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    read(regular(&Plain, place.as_fd())?, SHORT)
}

/// A file that the caller names: links are followed, and a device, a FIFO or a long file is refused.
pub(crate) fn read_named(path: &Path, most: u64) -> Result<Vec<u8>, Refused> {
    let place = openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    read(regular(&Plain, place.as_fd())?, most)
}

/// Settings that the caller names: the same, but what a shell makes of `<(...)`, or `/dev/stdin`, is read to its end. No
/// program can put anything into these directories.
pub(crate) fn read_settings(path: &Path) -> Result<Vec<u8>, Refused> {
    const MOST: u64 = 16 << 20;
    if ["/dev", "/dev/fd", "/proc/self/fd"].iter().any(|dir| path.parent() == Some(Path::new(dir))) {
        let file = openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        return read(File::from(file), MOST);
    }
    read_named(path, MOST)
}

/// Sets the mode of the file behind a descriptor, also one of a mere path; fchmod(2) refuses those.
pub(crate) fn chmod(place: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_bits_truncate(mode);
    // The kernel's own link to the open file, which is followed on purpose.
    fchmodat(AT_FDCWD, &path_of(place), mode, FchmodatFlags::FollowSymlink)
}

/// What a name in a directory is.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &CStr) -> Result<FileStat, Errno> {
    fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The type bits.
pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// A type in words.
pub(crate) fn kind_name(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFREG => "an ordinary file",
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    }
}

/// An overlay's mark for a name that is deleted.
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Which file it is.
pub(crate) fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = batch(dir, usize::MAX)?;
    names.sort();
    Ok(names)
}

/// At most so many names.
pub(crate) fn batch(dir: BorrowedFd<'_>, most: usize) -> Result<Vec<CString>, Errno> {
    // The duplicate shares its position, which the iterator puts back to the beginning.
    let copy = dir.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    let number = copy.as_raw_fd();
    let mut dir = Dir::from_fd(copy).inspect_err(|_| {
        // Where fdopendir(3) fails, nix 0.31 has given the descriptor away to nobody.
        let _ = nix::unistd::close(number);
    })?;
    let own = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
    dir.iter()
        .filter(|entry| !entry.as_ref().is_ok_and(|entry| own(entry.file_name())))
        .take(most)
        .map(|entry| Ok(entry?.file_name().to_owned()))
        .collect()
}

/// A walk through a tree of any depth with a single descriptor: down by name, never through a link, and up by `..`,
/// where that is still the directory that the walk came from.
pub(crate) struct Trail<'a> {
    opener: &'a dyn Opener,
    dir: OwnedFd,
    above: Vec<(u64, u64)>,
}

impl<'a> Trail<'a> {
    pub(crate) fn new(opener: &'a dyn Opener, dir: OwnedFd) -> Trail<'a> {
        Trail { opener, dir, above: Vec::new() }
    }

    /// Where the walk is.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn down(&mut self, name: &CStr) -> Result<(), Errno> {
        let here = identity(&fstat(&self.dir)?);
        self.dir = self.opener.open_dir(self.dir.as_fd(), name)?;
        self.above.push(here);
        Ok(())
    }

    /// Gives back the directory that is left. `ESTALE` where it was moved meanwhile: what is above it now is none of
    /// ours.
    pub(crate) fn up(&mut self) -> Result<OwnedFd, Errno> {
        let came_from = self.above.pop().ok_or(Errno::ENOENT)?;
        let above = self.opener.open(self.dir.as_fd(), c"..", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        if identity(&fstat(&above)?) != came_from {
            return Err(Errno::ESTALE);
        }
        Ok(std::mem::replace(&mut self.dir, above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sandcell-beneath-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn no_link_is_gone_through_and_no_fifo_is_opened() {
        let dir = scratch("kinds");
        fs::create_dir(dir.join("real")).unwrap();
        fs::write(dir.join("real/file"), "content").unwrap();
        symlink("real", dir.join("link")).unwrap();
        symlink("file", dir.join("real/last")).unwrap();
        nix::unistd::mkfifo(&dir.join("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let top = top(&dir).unwrap();
        let read = |path: &str| read_short(top.as_fd(), Path::new(path));
        assert_eq!(read("real/file").unwrap(), b"content");
        assert_eq!(read("link/file"), Err(Refused::System(Errno::ELOOP)));
        assert_eq!(read("real/last"), Err(Refused::Kind("a symbolic link")));
        assert_eq!(read("fifo"), Err(Refused::Kind("a FIFO")));
        assert_eq!(read("real"), Err(Refused::Kind("a directory")));
        assert_eq!(read("../etc/passwd"), Err(Refused::System(Errno::EXDEV)));
        assert!(read("nothing").unwrap_err().is_absent());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let dir = scratch("long");
        let file = File::create(dir.join("long")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(read_short(top(&dir).unwrap().as_fd(), Path::new("long")), Err(Refused::Long(SHORT)));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_mode_is_set_on_the_file_that_was_opened_and_not_on_what_has_its_name_now() {
        let dir = scratch("mode");
        fs::write(dir.join("file"), "").unwrap();
        fs::write(dir.join("victim"), "").unwrap();
        let top = top(&dir).unwrap();
        let place = open(top.as_fd(), Path::new("file"), OFlag::O_PATH | OFlag::O_NOFOLLOW).unwrap();
        fs::rename(dir.join("file"), dir.join("moved")).unwrap();
        symlink("victim", dir.join("file")).unwrap();
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777;
        let before = mode("victim");
        chmod(place.as_fd(), 0o741).unwrap();
        assert_eq!((mode("moved"), mode("victim")), (0o741, before));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_walk_that_was_moved_away_does_not_go_on_above() {
        let dir = scratch("trail");
        fs::create_dir_all(dir.join("tree/a/b")).unwrap();
        fs::create_dir_all(dir.join("elsewhere")).unwrap();
        let mut trail = Trail::new(&Plain, top(&dir.join("tree")).unwrap());
        trail.down(c"a").unwrap();
        trail.down(c"b").unwrap();
        fs::rename(dir.join("tree/a/b"), dir.join("elsewhere/b")).unwrap();
        assert_eq!(trail.up().unwrap_err(), Errno::ESTALE);
        fs::remove_dir_all(&dir).unwrap();
    }
}
