//! Reading a tree that may belong to the caller's sub-ids, as a run of several ids leaves its upper: as the caller
//! itself while that works, and where it does not, with what [`crate::owned`] reaches with.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::owned::Hands;

/// See the module.
#[derive(Default)]
pub(crate) struct Reach {
    hands: OnceCell<Option<Hands>>,
}

type Io<T> = rustix::io::Result<T>;

impl Reach {
    /// Again with longer arms, where permission was all that lacked.
    fn further<T>(&self, tried: Io<T>, again: impl FnOnce(&Hands) -> nix::Result<T>) -> Io<T> {
        match tried {
            Err(Errno::ACCESS) => match self.hands.get_or_init(|| Hands::new().ok()) {
                Some(hands) => again(hands).map_err(|errno| Errno::from_raw_os_error(errno as i32)),
                None => Err(Errno::ACCESS),
            },
            other => other,
        }
    }

    /// Opens an entry of a directory for reading, never through a link.
    pub fn open(&self, dir: BorrowedFd<'_>, name: &[u8], directory: bool) -> Io<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = if directory { flags | OFlags::DIRECTORY } else { flags };
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let theirs = OFlag::from_bits_retain(flags.bits().cast_signed());
        self.further(rustix::fs::openat(dir, &name, flags, Mode::empty()), |hands| hands.open(dir, &name, theirs))
    }

    /// Opens a directory by its path beneath another, never through a link.
    pub fn open_below(&self, root: BorrowedFd<'_>, path: &[u8]) -> Io<OwnedFd> {
        let mut dir =
            rustix::fs::openat(root, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            dir = self.open(dir.as_fd(), name, true)?;
        }
        Ok(dir)
    }

    pub fn stat(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Io<Stat> {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let tried = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW);
        self.further(tried, |hands| {
            let place = hands.open(dir, &name, OFlag::O_PATH)?;
            rustix::fs::fstat(&place).map_err(|errno| nix::Error::from_raw(errno.raw_os_error()))
        })
    }

    pub fn read_link(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Io<Vec<u8>> {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let tried = rustix::fs::readlinkat(dir, &name, Vec::new());
        let target = self.further(tried, |hands| {
            let place = hands.open(dir, &name, OFlag::O_PATH)?;
            rustix::fs::readlinkat(&place, c"", Vec::new()).map_err(|errno| nix::Error::from_raw(errno.raw_os_error()))
        })?;
        Ok(target.into_bytes())
    }

    /// How many bytes the attribute has.
    pub fn attribute(&self, file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Io<usize> {
        let tried = rustix::fs::fgetxattr(file, name, &mut *value);
        self.further(tried, |hands| hands.attribute(file, name, value))
    }
}

/// The names in an open directory, sorted, each with whether it is a directory where the file system says so.
pub(crate) fn names(dir: OwnedFd) -> Io<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    // Not `read_from`, which opens the directory once more.
    for entry in rustix::fs::Dir::new(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_bytes().to_vec(), entry.file_type()));
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}
