//! Text across the border: what C gives is borrowed for the call, what C gets is ended by a NUL.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sandcell::Error;

/// Frees a text that a function handed out through a `char **`. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_text_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: not NULL, and by contract it came from `hand_out` and is freed once.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// The text without its NULs: C could not see what is behind the first.
pub(crate) fn c_text(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

pub(crate) fn hand_out(text: String) -> *mut c_char {
    c_text(text).into_raw()
}

/// Bytes that C gave; `name` is what an error calls them.
///
/// # Safety
/// `pointer` is NULL or a C string that outlives the result.
pub(crate) unsafe fn bytes<'a>(pointer: *const c_char, name: &str) -> Result<&'a OsStr, Error> {
    if pointer.is_null() {
        return Err(Error::option(name, "is NULL"));
    }
    // SAFETY: not NULL; a C string by this function's contract.
    Ok(OsStr::from_bytes(unsafe { CStr::from_ptr(pointer) }.to_bytes()))
}

/// The same as a path, which may not be empty.
///
/// # Safety
/// As for [`bytes`].
pub(crate) unsafe fn path<'a>(pointer: *const c_char, name: &str) -> Result<&'a Path, Error> {
    // SAFETY: passed on.
    match unsafe { bytes(pointer, name) }? {
        empty if empty.is_empty() => Err(Error::option(name, "is an empty path")),
        path => Ok(Path::new(path)),
    }
}

/// The same as a word, which must be UTF-8.
///
/// # Safety
/// As for [`bytes`].
pub(crate) unsafe fn word<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Error> {
    // SAFETY: passed on.
    unsafe { bytes(pointer, name) }?.to_str().ok_or_else(|| Error::option(name, "is not UTF-8"))
}
