//! Trees whose files belong to leased ids: kept uppers, homes and images that sandboxes wrote.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use sandcell::subid_tree::{self, EntryKind};

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, entry, free};
use crate::text::{Answer, BeginsWithSize, Place, Text, c_text, empty, path};

/// An ordinary file.
pub const SANDCELL_OWNED_FILE: c_int = 1;
/// A directory.
pub const SANDCELL_OWNED_DIRECTORY: c_int = 2;
/// A symbolic link.
pub const SANDCELL_OWNED_SYMLINK: c_int = 3;
/// A device (an overlay's whiteout is one), a pipe or a socket.
pub const SANDCELL_OWNED_OTHER: c_int = 4;

/// The files of a tree. It never changes: any number of threads may read it at once.
#[derive(Debug)]
pub struct Owned {
    list: Vec<(CString, subid_tree::Entry)>,
}

/// One file of a tree. Set `size` to `sizeof` before you pass it: as many bytes are written.
#[derive(Debug)]
#[repr(C)]
pub struct OwnedEntry {
    /// sizeof(sandcell_owned_entry_t)
    pub size: usize,
    /// Relative to the tree. It lives as long as the list.
    pub path: *const c_char,
    /// Bytes, as the file tells them.
    pub bytes: u64,
    /// One of the SANDCELL_OWNED_ numbers.
    pub kind: c_int,
    /// Permission bits, with set-user-ID and its like.
    pub mode: u32,
    /// The owner on the host.
    pub host_uid: u32,
    /// The group on the host.
    pub host_gid: u32,
    /// The owner inside; UINT32_MAX where no map is noted beside the tree, as it is for a kept upper of several ids.
    pub uid: u32,
    /// The group inside, likewise.
    pub gid: u32,
}

// SAFETY: as the trait asks.
unsafe impl BeginsWithSize for OwnedEntry {}

/// Lists everything in a directory whose files belong to ids that were leased for sandboxes, which the caller may not
/// even look into otherwise: each directory before what is in it, in the order of the names. No link is followed.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_owned_list(
    tree: Text<'_>,
    owned: Place<'_, *mut Owned>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(owned, "owned")?;
        let files = subid_tree::list(path(tree, "tree")?)?;
        let list = files.into_iter().map(|file| (c_text(file.path.as_os_str().as_bytes()), file)).collect();
        *place = Box::into_raw(Box::new(Owned { list }));
        Ok(())
    })
}

/// How many files there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_owned_count(owned: Option<&Owned>) -> usize {
    owned.map_or(0, |owned| owned.list.len())
}

/// Writes one of them to `*file`, whose `size` must be set to `sizeof *file` before. SANDCELL_ERROR_CONFIG beyond the
/// last.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_owned_get(owned: Option<&Owned>, index: usize, file: Answer<'_, OwnedEntry>) -> c_int {
    let Some((name, of)) = owned.and_then(|owned| owned.list.get(index)) else {
        return SANDCELL_ERROR_CONFIG;
    };
    let make = |size| OwnedEntry {
        size,
        path: name.as_ptr(),
        bytes: of.size,
        kind: match of.kind {
            EntryKind::File => SANDCELL_OWNED_FILE,
            EntryKind::Directory => SANDCELL_OWNED_DIRECTORY,
            EntryKind::Symlink => SANDCELL_OWNED_SYMLINK,
            _ => SANDCELL_OWNED_OTHER,
        },
        mode: of.mode,
        host_uid: of.host_uid,
        host_gid: of.host_gid,
        uid: of.uid.unwrap_or(u32::MAX),
        gid: of.gid.unwrap_or(u32::MAX),
    };
    file.fill(size_of::<OwnedEntry>(), make)
}

/// Frees a list. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_owned_free(owned: Option<Box<Owned>>) {
    free(owned)
}

/// Copies such a directory to `copy`, which must not be there, as the caller's own: without set-user-ID and
/// set-group-ID, owners, ACLs and extended attributes. `*left_out` (may be NULL) is how many have no copy: devices, pipes
/// and sockets, SANDCELL_OWNED_OTHER in the list.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_owned_copy_out(
    tree: Text<'_>,
    copy: Text<'_>,
    left_out: Place<'_, usize>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        left_out.begin(subid_tree::copy_out(path(tree, "tree")?, path(copy, "copy")?)?.len());
        Ok(())
    })
}

/// Makes the caller the owner of the directory and of everything in it. Modes stay, without set-user-ID and set-group-ID
/// of files. No sandbox may be running on it; a kept upper can be used again afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_owned_reclaim(tree: Text<'_>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(subid_tree::reclaim(path(tree, "tree")?)?))
}

/// Removes the directory and everything in it: any depth, any modes, no link followed.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_owned_remove(tree: Text<'_>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(subid_tree::remove(path(tree, "tree")?)?))
}
