//! Across the border: what C gives is borrowed for the call, text that C gets is ended by a NUL.

#[cfg(feature = "image")]
use std::ffi::OsString;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::time::Duration;

use sandcell::Error;

use crate::error::ErrorObject;
use crate::limits::SANDCELL_UNLIMITED;
pub(crate) use crate::pointers::*;

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

pub(crate) fn hand_out(text: impl Into<Vec<u8>>) -> *mut c_char {
    c_text(text).into_raw()
}

/// Stands for a text that C cannot hold.
pub(crate) static TEXT_WITH_NUL: c_char = 0;

/// A text that every function refuses like any other mistake in its place, because it contains a NUL byte: for wrappers in
/// languages whose strings may. Pass it instead of what C would cut off. To be compared by its address only.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_text_with_nul() -> *const c_char {
    &raw const TEXT_WITH_NUL
}

/// A time that C gave; SANDCELL_UNLIMITED has no end.
pub(crate) fn milliseconds(count: u64) -> Duration {
    if count == SANDCELL_UNLIMITED { Duration::MAX } else { Duration::from_millis(count) }
}

/// The same as a path, which may not be empty.
pub(crate) fn path<'a>(text: Text<'a>, name: &str) -> Result<&'a Path, Error> {
    match bytes(text, name)? {
        empty if empty.is_empty() => Err(Error::option(name, "is an empty path")),
        path => Ok(Path::new(path)),
    }
}

/// The same as a word, which must be UTF-8.
pub(crate) fn word<'a>(text: Text<'a>, name: &str) -> Result<&'a str, Error> {
    bytes(text, name)?.to_str().ok_or_else(|| Error::option(name, "is not UTF-8"))
}

/// Text that may be left out.
#[cfg(feature = "image")]
pub(crate) fn maybe<'a>(text: Text<'a>, name: &str) -> Result<Option<&'a str>, Error> {
    if text.is_null() { Ok(None) } else { word(text, name).map(Some) }
}

/// The same, each of which must be UTF-8.
#[cfg(feature = "image")]
pub(crate) fn words(texts: Texts<'_>, name: &str) -> Result<Vec<String>, Error> {
    let text = |word: OsString| word.into_string().map_err(|_| Error::option(name, "is not UTF-8"));
    list(texts, name)?.into_iter().map(text).collect()
}

pub(crate) fn wrong(subject: &str, message: &str) -> ErrorObject {
    ErrorObject::from(Error::option(subject, message))
}

/// What a handle holds; `name` is what an error calls it.
pub(crate) fn handle<'a, T>(handle: Option<&'a T>, name: &str) -> Result<&'a T, ErrorObject> {
    handle.ok_or_else(|| wrong(name, "is NULL"))
}

/// The place for a handle, NULL to begin with: it is so after every error.
pub(crate) fn empty<'a, T>(place: Place<'a, *mut T>, name: &str) -> Result<&'a mut *mut T, ErrorObject> {
    place.begin(std::ptr::null_mut()).ok_or_else(|| wrong(name, "is NULL: there is no place for the answer"))
}
