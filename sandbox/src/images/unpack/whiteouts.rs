//! Members that take away what the layers below have, and what aufs left in archives.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::{IMPLIED, Unpacker, failed, is_whiteout, make_opaque, open_nofollow, refuse};
use crate::images::tar::{Member, Refusal};
use crate::sys::beneath;

/// Where aufs had files with several names; hard links of old archives lead there.
pub(super) const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// Whether a directory is one in which aufs kept its own things.
pub(super) fn is_of_aufs(dir: &[u8]) -> bool {
    dir.starts_with(b".wh..wh.")
}

impl Unpacker<'_> {
    /// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all that the directory has there. What such a file holds
    /// means nothing, and Docker's old storage linked it to one that all share. The name alone makes it one, as elsewhere.
    pub(super) fn whiteout(&mut self, member: &Member, parent: &[u8], hidden: &[u8]) -> Result<(), Refusal> {
        let path = &member.path[..];
        // Leftovers of aufs (`.wh..wh.plnk` and such) mean nothing any more; Docker and podman pass them over too.
        if hidden.starts_with(b".wh.") && hidden != b".wh..opq" {
            return Ok(());
        }
        if hidden == b".wh..opq" {
            let at = self.parent(path, parent)?;
            return make_opaque(self.dirs[at].1.as_fd(), path);
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(path, "a whiteout of nothing"));
        }
        let at = self.parent(path, parent)?;
        let dir = self.dirs[at].1.as_fd();
        match rustix::fs::mknodat(dir, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // A whiteout counts for the layers below only; what this layer itself has there stays.
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, hidden, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| failed(path, "looking at what is there already", e))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let opened = self.open_dir(at, path, hidden)?;
                    make_opaque(opened.as_fd(), path)?;
                    self.mark_listed(opened.as_fd(), path)?;
                }
                Ok(())
            }
            Err(e) => Err(failed(path, "making a whiteout", e)),
            Ok(()) => {
                self.counts.whiteouts += 1;
                Ok(())
            }
        }
    }

    /// The layers below say nothing of it any more.
    pub(super) fn mark_listed(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Refusal> {
        if self.counts.implied > 0 {
            match rustix::fs::fremovexattr(dir, IMPLIED) {
                Ok(()) => self.counts.implied -= 1,
                Err(Errno::NODATA) => {}
                Err(e) => return Err(failed(path, "marking its directory as listed", e)),
            }
        }
        Ok(())
    }

    /// What aufs shared between hard links is no part of the layer.
    pub(super) fn remove_links_of_aufs(&mut self) -> Result<(), Refusal> {
        let Ok(dir) = open_nofollow(self.root.as_fd(), AUFS_LINKS) else { return Ok(()) };
        let fail = |e| failed(AUFS_LINKS, "removing what aufs left", e);
        let names = beneath::names(dir.as_fd()).map_err(|errno| fail(Errno::from_raw_os_error(errno as i32)))?;
        for name in &names {
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(fail)?;
            self.counts.tree_bytes -= stat.st_size as u64;
        }
        rustix::fs::unlinkat(&self.root, AUFS_LINKS, AtFlags::REMOVEDIR).map_err(fail)?;
        self.counts.implied -= 1;
        Ok(())
    }

    /// Where a whiteout stands in the way of a member's directory, that is a new one, which hides the old.
    pub(super) fn replace_whiteout(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), Refusal> {
        let fail = |e| failed(path, "making its directory", e);
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        if !is_whiteout(&stat) {
            return Ok(());
        }
        rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(fail)?;
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)).map_err(fail)?;
        let made = open_nofollow(dir, name).map_err(fail)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(fail)?;
        make_opaque(made.as_fd(), path)
    }
}
