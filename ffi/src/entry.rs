//! The way of a process of the caller's into a cell: for test runners that fork.

use std::ffi::{c_char, c_int};

use crate::cell::Cell;
use crate::error::{ErrorObject, entry, free};
use crate::text::{empty, hand_out, handle, path, wrong};

/// What a process needs to enter a cell. It belongs to one thread, and to the children that are forked for it.
#[derive(Debug)]
pub struct Entry {
    /// None once it is used up.
    inner: Option<sandcell::Entry>,
}

/// # Safety
/// `way` is NULL or a live handle that no other thread uses now.
unsafe fn entry_of<'a>(way: *mut Entry) -> Result<&'a mut sandcell::Entry, ErrorObject> {
    // SAFETY: by this function's contract.
    let inner = unsafe { way.as_mut() }.ok_or_else(|| wrong("way", "is NULL"))?.inner.as_mut();
    inner.ok_or_else(|| wrong("way", "is used up"))
}

/// Prepares the way into a cell for one process that the caller forks: its child calls sandcell_entry_join and forks
/// again, waits and does nothing else; the child's child calls sandcell_entry_confine and has from then on what a program
/// of the cell has. Both must have one thread only, and after an error of either the process must end with _exit(2). Its
/// memory is a copy of the caller's, secrets included: this is for what runs with the caller's consent and may fail, such as
/// tests, and not for hostile code. The policy's timeout and output limit do not hold for it; sandcell_cell_kill ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_entry(
    cell: *const Cell,
    way: *mut *mut Entry,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(way, "way")?;
            let inner = Some(handle(cell, "cell")?.cell.entry()?);
            *place = Box::into_raw(Box::new(Entry { inner }));
            Ok(())
        })
    }
}

/// The home of the cell's programs, to be freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_home(
    cell: *const Cell,
    home: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(home, "home")?;
            let home = handle(cell, "cell")?.cell.home();
            *place = hand_out(home.into_os_string().into_encoded_bytes());
            Ok(())
        })
    }
}

/// Working directory inside; that of the policy by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_entry_chdir(
    way: *mut Entry,
    dir: *const c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, writable, or a C string by contract.
    unsafe { entry(error, || Ok(entry_of(way)?.current_dir(path(dir, "dir")?).map(drop)?)) }
}

/// File mode creation mask; that of the policy by default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_entry_umask(way: *mut Entry, mask: u32, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            entry_of(way)?.umask(mask);
            Ok(())
        })
    }
}

/// Keeps a descriptor under its number; all others are closed. One that is a directory, or only a path, makes
/// sandcell_entry_confine fail: it would lead out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_entry_keep_fd(way: *mut Entry, fd: c_int, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            entry_of(way)?.keep_fd(fd);
            Ok(())
        })
    }
}

/// The first step, in a process that was forked for it: enters the cell's namespaces. What it forks now is in the cell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_entry_join(way: *mut Entry, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe { entry(error, || Ok(entry_of(way)?.join()?)) }
}

/// The second step, in a process that was forked by one that has joined: becomes what a program of the cell is. The
/// entry is used up, and must not be freed there: its descriptors are closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_entry_confine(way: *mut Entry, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live or writable by contract.
    unsafe {
        entry(error, || {
            entry_of(way)?;
            let inner = (*way).inner.take();
            inner.map_or(Ok(()), |inner| Ok(inner.confine()?))
        })
    }
}

/// Frees an entry, where it was made. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_entry_free(way: *mut Entry) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(way) }
}
