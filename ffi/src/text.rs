//! Across the border: what C gives is borrowed for the call, text that C gets is ended by a NUL.

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sandcell::Error;

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG};

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

/// Bytes with a length, any bytes.
///
/// # Safety
/// `pointer` is NULL or has `length` bytes that outlive the result.
pub(crate) unsafe fn blob<'a>(pointer: *const c_char, length: usize, name: &str) -> Result<&'a [u8], Error> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Error::option(name, "is NULL")),
        (_, huge) if huge > isize::MAX as usize => Err(Error::option(name, "is longer than memory can be")),
        // SAFETY: not NULL; that long by this function's contract.
        _ => Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), length) }),
    }
}

/// The words of an `argv`.
///
/// # Safety
/// `argv` is NULL or a list of C strings with a NULL at its end.
pub(crate) unsafe fn list(argv: *const *const c_char) -> Result<Vec<OsString>, Error> {
    if argv.is_null() {
        return Err(Error::option("argv", "is NULL"));
    }
    let mut words = Vec::new();
    for at in 0.. {
        // SAFETY: the NULL at the end has not been met yet.
        let word = unsafe { argv.add(at).read() };
        if word.is_null() {
            break;
        }
        // SAFETY: a C string by this function's contract.
        words.push(unsafe { bytes(word, "argv") }?.to_owned());
    }
    Ok(words)
}

/// A list of words, each of which must be UTF-8; `name` is what an error calls it.
///
/// # Safety
/// As for [`list`].
#[cfg(feature = "image")]
pub(crate) unsafe fn words(argv: *const *const c_char, name: &str) -> Result<Vec<String>, Error> {
    if argv.is_null() {
        return Err(Error::option(name, "is NULL"));
    }
    // SAFETY: passed on.
    let words = unsafe { list(argv) }?;
    let text = |word: OsString| word.into_string().map_err(|_| Error::option(name, "is not UTF-8"));
    words.into_iter().map(text).collect()
}

pub(crate) fn wrong(subject: &str, message: &str) -> ErrorObject {
    ErrorObject::from(Error::option(subject, message))
}

/// Text that may be left out.
///
/// # Safety
/// As for [`word`].
#[cfg(feature = "image")]
pub(crate) unsafe fn maybe<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>, Error> {
    // SAFETY: passed on.
    if pointer.is_null() { Ok(None) } else { unsafe { word(pointer, name) }.map(Some) }
}

/// What a handle holds; `name` is what an error calls it.
///
/// # Safety
/// `handle` is NULL or a live handle that outlives the result.
pub(crate) unsafe fn handle<'a, T>(handle: *const T, name: &str) -> Result<&'a T, ErrorObject> {
    // SAFETY: by this function's contract.
    unsafe { handle.as_ref() }.ok_or_else(|| wrong(name, "is NULL"))
}

/// The place for an answer, NULL to begin with: it is so after every error.
///
/// # Safety
/// `place` is NULL or may be written to as long as the result lives.
pub(crate) unsafe fn empty<'a, T>(place: *mut *mut T, name: &str) -> Result<&'a mut *mut T, ErrorObject> {
    if place.is_null() {
        return Err(wrong(name, "is NULL: there is no place for the answer"));
    }
    // SAFETY: not NULL; writable by this function's contract. Written first, it need not be initialized.
    unsafe {
        place.write(std::ptr::null_mut());
        Ok(&mut *place)
    }
}

/// Writes as many bytes of an answer as the caller has room for, which its first word says; all bytes of what this
/// library does not know of are 0xff. An error where there is no place, or less than `least`.
///
/// # Safety
/// `place` is NULL, or its size can be read and as many bytes can be written. `T` begins with the size and has no padding.
pub(crate) unsafe fn answer<T>(place: *mut T, least: usize, make: impl FnOnce(usize) -> T) -> c_int {
    if place.is_null() {
        return SANDCELL_ERROR_CONFIG;
    }
    // SAFETY: not NULL; readable by this function's contract.
    let size = unsafe { place.cast::<usize>().read() };
    if size < least {
        return SANDCELL_ERROR_CONFIG;
    }
    let known = make(size);
    // SAFETY: `size` bytes may be written by this function's contract, and `known` has as many as are copied.
    unsafe {
        place.cast::<u8>().write_bytes(0xff, size);
        place.cast::<u8>().copy_from_nonoverlapping((&raw const known).cast(), size.min(size_of::<T>()));
    }
    0
}
