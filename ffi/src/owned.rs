//! Trees whose files belong to leased ids: kept uppers, homes and images that sandboxes wrote.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use sandcell::owned::{self, EntryKind};

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, entry, free};
use crate::text::{answer, c_text, empty, path};

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
    list: Vec<(CString, owned::Entry)>,
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

/// Lists everything in a directory whose files belong to ids that were leased for sandboxes, which the caller may not
/// even look into otherwise: each directory before what is in it, in the order of the names. No link is followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_owned_list(
    tree: *const c_char,
    owned: *mut *mut Owned,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, writable, or a C string by contract.
    unsafe {
        entry(error, || {
            let place = empty(owned, "owned")?;
            let files = owned::list(path(tree, "tree")?)?;
            let list = files.into_iter().map(|file| (c_text(file.path.as_os_str().as_bytes()), file)).collect();
            *place = Box::into_raw(Box::new(Owned { list }));
            Ok(())
        })
    }
}

/// How many files there are; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_owned_count(owned: *const Owned) -> usize {
    // SAFETY: NULL or a live handle by contract.
    unsafe { owned.as_ref() }.map_or(0, |owned| owned.list.len())
}

/// Writes one of them to `*file`, whose `size` must be set to `sizeof *file` before. SANDCELL_ERROR_CONFIG beyond the
/// last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_owned_get(owned: *const Owned, index: usize, file: *mut OwnedEntry) -> c_int {
    // SAFETY: NULL or a live handle by contract.
    let Some((name, of)) = (unsafe { owned.as_ref() }).and_then(|owned| owned.list.get(index)) else {
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
    // SAFETY: NULL or writable as far as it says itself, by contract; no field is followed by padding.
    unsafe { answer(file, size_of::<OwnedEntry>(), make) }
}

/// Frees a list. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_owned_free(owned: *mut Owned) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(owned) }
}

/// Copies such a directory to `copy`, which must not be there, as the caller's own: without set-user-ID and
/// set-group-ID, owners, ACLs and extended attributes. `*left_out` (may be NULL) is how many have no copy: devices, pipes
/// and sockets, SANDCELL_OWNED_OTHER in the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_owned_copy_out(
    tree: *const c_char,
    copy: *const c_char,
    left_out: *mut usize,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, writable, or C strings by contract.
    unsafe {
        entry(error, || {
            let without = owned::copy_out(path(tree, "tree")?, path(copy, "copy")?)?;
            if !left_out.is_null() {
                left_out.write(without.len());
            }
            Ok(())
        })
    }
}

/// Makes the caller the owner of the directory and of everything in it. Modes stay, without set-user-ID and set-group-ID
/// of files. No sandbox may be running on it; a kept upper can be used again afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_owned_reclaim(tree: *const c_char, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, writable, or a C string by contract.
    unsafe { entry(error, || Ok(owned::reclaim(path(tree, "tree")?)?)) }
}

/// Removes the directory and everything in it: any depth, any modes, no link followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_owned_remove(tree: *const c_char, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, writable, or a C string by contract.
    unsafe { entry(error, || Ok(owned::remove(path(tree, "tree")?)?)) }
}
