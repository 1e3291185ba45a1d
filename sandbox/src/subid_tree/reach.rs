//! Reading a tree that may belong to the caller's sub-ids, as a run of several ids leaves its upper: as the caller
//! itself while that works, and where it does not, with what [`crate::subid_tree`] reaches with.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat};

use super::sys::Hands;
use crate::sys;
use crate::sys::beneath::{self, Opener, Plain};

/// See the module.
#[derive(Default)]
pub(crate) struct Reach {
    hands: OnceCell<Option<Hands>>,
}

impl Reach {
    /// Again with longer arms, where permission was all that lacked.
    fn further<T>(&self, tried: Result<T, Errno>, again: impl FnOnce(&Hands) -> Result<T, Errno>) -> Result<T, Errno> {
        match tried {
            Err(Errno::EACCES) => match self.hands.get_or_init(|| Hands::new().ok()) {
                Some(hands) => again(hands),
                None => Err(Errno::EACCES),
            },
            other => other,
        }
    }

    /// Opens a path beneath a directory, through no link.
    pub(crate) fn open_below(&self, root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        self.further(beneath::open(root, path, flags), |hands| {
            let (mut dir, mut parts) = (None, path.components().peekable());
            while let Some(part) = parts.next() {
                let name = CString::new(part.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
                let wanted = if parts.peek().is_some() { OFlag::O_PATH | OFlag::O_DIRECTORY } else { flags };
                dir = Some(hands.open(dir.as_ref().map_or(root, |dir: &OwnedFd| dir.as_fd()), &name, wanted)?);
            }
            dir.map_or_else(|| hands.open(root, c".", flags), Ok)
        })
    }

    /// What a name in a directory is.
    pub(crate) fn stat(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<FileStat, Errno> {
        self.further(beneath::stat(dir, name), |hands| fstat(hands.open(dir, name, OFlag::O_PATH)?))
    }

    /// Where a link leads.
    #[cfg(feature = "image")]
    pub(crate) fn read_link(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<std::ffi::OsString, Errno> {
        nix::fcntl::readlinkat(self.open(dir, name, OFlag::O_PATH)?, "")
    }

    /// How many bytes the attribute of an open file has.
    pub(crate) fn attribute(&self, file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
        let tried = sys::attribute_into(&beneath::path_of(file), name, &mut *value);
        self.further(tried, |hands| hands.attribute(file, name, value))
    }

    /// Whether overlayfs hides what lies below a directory.
    pub(crate) fn is_opaque(&self, dir: BorrowedFd<'_>) -> Result<bool, Errno> {
        for name in [c"user.overlay.opaque", c"trusted.overlay.opaque"] {
            let mut value = [0; 8];
            match self.attribute(dir, name, &mut value) {
                Ok(length) if &value[..length] == b"y" => return Ok(true),
                // None, a value that is longer, or a name that only the host's root may ask for.
                Ok(_) | Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ERANGE | Errno::EPERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }
}

impl Opener for Reach {
    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd, Errno> {
        self.further(Plain.open(dir, name, flags), |hands| hands.open(dir, name, flags))
    }

    fn reopen(&self, place: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        self.further(Plain.reopen(place), |hands| hands.reopen(place))
    }
}
