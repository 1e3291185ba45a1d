//! The way of a process of the caller's into a cell: for test runners that fork.

use std::ffi::{c_char, c_int};

use crate::cell::Cell;
use crate::error::{ErrorObject, entry, entry_here, free};
use crate::text::{Place, Text, empty, hand_out, handle, path, wrong};

/// What a process needs to enter a cell. It belongs to one thread, and to the children that are forked for it.
#[derive(Debug)]
pub struct Entry {
    /// None once it is used up.
    inner: Option<sandcell::Entry>,
}

fn entry_of(cell_entry: Option<&mut Entry>) -> Result<&mut sandcell::Entry, ErrorObject> {
    let inner = cell_entry.ok_or_else(|| wrong("cell_entry", "is NULL"))?.inner.as_mut();
    inner.ok_or_else(|| wrong("cell_entry", "is used up"))
}

/// Prepares the way into a cell for one process that the caller forks: its child calls sandcell_entry_join and forks
/// again, waits and does nothing else; the child's child calls sandcell_entry_confine and has from then on what a program
/// of the cell has. Both must have one thread only, and after an error of either the process must end with _exit(2). Its
/// memory is a copy of the caller's, secrets included: this is for what runs with the caller's consent and may fail, such as
/// tests, and not for hostile code. The policy's timeout and output limit do not hold for it; sandcell_cell_kill ends it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_entry(
    cell: Option<&Cell>,
    cell_entry: Place<'_, *mut Entry>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(cell_entry, "cell_entry")?;
        let inner = Some(handle(cell, "cell")?.cell.entry()?);
        *place = Box::into_raw(Box::new(Entry { inner }));
        Ok(())
    })
}

/// The home of the cell's programs, to be freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_home(
    cell: Option<&Cell>,
    home: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(home, "home")?;
        let home = handle(cell, "cell")?.cell.home();
        *place = hand_out(home.into_os_string().into_encoded_bytes());
        Ok(())
    })
}

/// Working directory inside; that of the policy by default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_entry_chdir(
    cell_entry: Option<&mut Entry>,
    dir: Text<'_>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || Ok(entry_of(cell_entry)?.current_dir(path(dir, "dir")?).map(drop)?))
}

/// File mode creation mask; that of the policy by default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_entry_umask(
    cell_entry: Option<&mut Entry>,
    mask: u32,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        entry_of(cell_entry)?.umask(mask);
        Ok(())
    })
}

/// Keeps a descriptor under its number; all others are closed. One that is a directory, or only a path, makes
/// sandcell_entry_confine fail: it would lead out.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_entry_keep_fd(
    cell_entry: Option<&mut Entry>,
    fd: c_int,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        entry_of(cell_entry)?.keep_fd(fd);
        Ok(())
    })
}

/// The first step, in a process that was forked for it: enters the cell's namespaces. What it forks now is in the cell.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_entry_join(cell_entry: Option<&mut Entry>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry_here(error, || Ok(entry_of(cell_entry)?.join()?))
}

/// The second step, in a process that was forked by one that has joined: becomes what a program of the cell is. The
/// entry is used up, and must not be freed there: its descriptors are closed.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_entry_confine(cell_entry: Option<&mut Entry>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry_here(error, || {
        let cell_entry = cell_entry.ok_or_else(|| wrong("cell_entry", "is NULL"))?;
        let inner = cell_entry.inner.take().ok_or_else(|| wrong("cell_entry", "is used up"))?;
        Ok(inner.confine()?)
    })
}

/// Frees an entry, where it was made. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_entry_free(cell_entry: Option<Box<Entry>>) {
    free(cell_entry)
}
