//! Removing a tree that a hostile archive or program made: any depth, any modes, no link followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Names that are read before they are worked on, so that a directory of a million entries costs no memory.
const BATCH: usize = 4096;

/// Removes a directory and everything in it; a path that is not there is fine.
///
/// Every directory is emptied into the top one before it goes, so that neither the stack nor the descriptors grow with
/// the depth.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    let top = match open(rustix::fs::CWD, path.as_os_str().as_encoded_bytes()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut moved = 0u64;
    loop {
        let entries = batch(top.as_fd())?;
        if entries.is_empty() {
            break;
        }
        for (name, is_dir) in entries {
            if !is_dir {
                rustix::fs::unlinkat(&top, &name[..], AtFlags::empty())?;
                continue;
            }
            let dir = open(top.as_fd(), &name)?;
            loop {
                let inner = batch(dir.as_fd())?;
                if inner.is_empty() {
                    break;
                }
                for (inner_name, is_dir) in inner {
                    if !is_dir {
                        rustix::fs::unlinkat(&dir, &inner_name[..], AtFlags::empty())?;
                    } else if rustix::fs::unlinkat(&dir, &inner_name[..], AtFlags::REMOVEDIR).is_err() {
                        drop(open(dir.as_fd(), &inner_name)?);
                        move_up(dir.as_fd(), &inner_name, top.as_fd(), &mut moved)?;
                    }
                }
            }
            rustix::fs::unlinkat(&top, &name[..], AtFlags::REMOVEDIR)?;
        }
    }
    std::fs::remove_dir(path)
}

fn move_up(dir: BorrowedFd<'_>, name: &[u8], top: BorrowedFd<'_>, moved: &mut u64) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        let to = format!(".removing-{moved}");
        match rustix::fs::renameat_with(dir, name, top, &to, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

/// Opens a directory, letting its owner in first where the mode does not.
fn open<F: AsFd>(dir: F, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // An O_NOFOLLOW open has just said that this is a directory.
            rustix::fs::chmodat(&dir, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(&dir, name, flags, Mode::empty())?
        }
        other => other?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        rustix::fs::fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}

fn batch(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, bool)>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        names.push((name.to_vec(), kind == FileType::Directory));
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}
