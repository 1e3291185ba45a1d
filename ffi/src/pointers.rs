//! What C gives, as types that say what the pointers are: the contract of the header, read here and nowhere else. Its
//! handles are `Option<&T>`, `Option<&mut T>`, and `Option<Box<T>>` where they are freed.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

use sandcell::Error;

use crate::error::SANDCELL_ERROR_CONFIG;
use crate::text::TEXT_WITH_NUL;

/// A text that C gave: NULL, or a C string that lives as long as the call. `const char *` in the header.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Text<'a>(*const c_char, PhantomData<&'a CStr>);

/// A list of texts that C gave: NULL, or C strings with a NULL at the end. `const char *const *` in the header.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Texts<'a>(*const Text<'a>, PhantomData<&'a [Text<'a>]>);

/// Bytes that C gave with their number: NULL, or readable as far as that. `const T *` in the header.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Bytes<'a, T = c_char>(*const T, PhantomData<&'a [T]>);

/// Room of the caller's, with its length: NULL, or writable as far as that. `char *` in the header.
#[derive(Debug)]
#[repr(transparent)]
pub struct Room<'a>(*mut u8, PhantomData<&'a mut [u8]>);

/// Where C wants an answer: NULL, or writable; what is there before is never read. `T *` in the header.
#[derive(Debug)]
#[repr(transparent)]
pub struct Place<'a, T>(Option<&'a mut MaybeUninit<T>>);

/// A struct that C gave: NULL, or readable as far as its first word says, its size. `const T *` in the header.
#[cfg(feature = "image")]
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Given<'a, T>(*const T, PhantomData<&'a T>);

/// A struct that C wants filled: NULL, or writable as far as its first word says, its size. `T *` in the header.
#[derive(Debug)]
#[repr(transparent)]
pub struct Answer<'a, T>(*mut T, PhantomData<&'a mut T>);

/// What begins with its size, a `usize`.
///
/// # Safety
/// It is `repr(C)`, that is its first field, no field is followed by padding, and any bytes are values of those behind it
/// that are read.
pub unsafe trait BeginsWithSize {}

impl Text<'_> {
    #[cfg(feature = "image")]
    pub(crate) const NULL: Self = Text(std::ptr::null(), PhantomData);

    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

#[cfg(feature = "image")]
impl Texts<'_> {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

impl<'a, T> Place<'a, T> {
    #[cfg(test)]
    pub(crate) fn new(place: &'a mut MaybeUninit<T>) -> Self {
        Place(Some(place))
    }

    /// What is put there, beginning with `first`; None for NULL.
    pub(crate) fn begin(self, first: T) -> Option<&'a mut T> {
        self.0.map(|place| place.write(first))
    }
}

/// Bytes that C gave; `name` is what an error calls them.
pub(crate) fn bytes<'a>(text: Text<'a>, name: &str) -> Result<&'a OsStr, Error> {
    if text.is_null() {
        return Err(Error::option(name, "is NULL"));
    }
    if std::ptr::eq(text.0, &raw const TEXT_WITH_NUL) {
        return Err(Error::option(name, "contains a NUL byte: the text would end there"));
    }
    // SAFETY: not NULL; a C string that lives long enough, as its type says.
    Ok(OsStr::from_bytes(unsafe { CStr::from_ptr(text.0) }.to_bytes()))
}

/// Bytes with a length, any bytes.
pub(crate) fn blob<'a, T>(bytes: Bytes<'a, T>, length: usize, name: &str) -> Result<&'a [u8], Error> {
    match (bytes.0.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Error::option(name, "is NULL")),
        (_, huge) if huge > isize::MAX as usize => Err(Error::option(name, "is longer than memory can be")),
        // SAFETY: not NULL, and that long, as its type says.
        _ => Ok(unsafe { std::slice::from_raw_parts(bytes.0.cast(), length) }),
    }
}

/// Room for as many bytes, which are written and never read.
pub(crate) fn room<'a>(room: Room<'a>, length: usize) -> Result<&'a mut [u8], Error> {
    if room.0.is_null() {
        return Err(Error::option("buffer", "is NULL"));
    }
    // SAFETY: not NULL, and writable that far, as its type says; bytes may have any value.
    Ok(unsafe { std::slice::from_raw_parts_mut(room.0, length.min(isize::MAX as usize)) })
}

/// The words of a list; `name` is what an error calls it.
pub(crate) fn list(list: Texts<'_>, name: &str) -> Result<Vec<OsString>, Error> {
    if list.0.is_null() {
        return Err(Error::option(name, "is NULL"));
    }
    let mut words = Vec::new();
    for at in 0.. {
        // SAFETY: the NULL at the end has not been met yet.
        let word = unsafe { list.0.add(at).read() };
        if word.is_null() {
            break;
        }
        words.push(bytes(word, name)?.to_owned());
    }
    Ok(words)
}

impl<'a, T: BeginsWithSize> Answer<'a, T> {
    /// Words that begin with how many bytes they are, or less.
    #[cfg(test)]
    pub(crate) fn new(words: &'a mut [usize]) -> Self {
        assert!(words[0] <= size_of_val(words));
        Answer(words.as_mut_ptr().cast(), PhantomData)
    }

    /// The size that the caller has set; None for NULL.
    pub(crate) fn size(&self) -> Option<usize> {
        // SAFETY: not NULL; that much can be read, as its type says.
        (!self.0.is_null()).then(|| unsafe { self.0.cast::<usize>().read() })
    }

    /// Writes as many bytes of an answer as the caller has room for; all bytes of what this library does not know of are
    /// 0xff. An error where there is no place, or less than `least`.
    pub(crate) fn fill(self, least: usize, make: impl FnOnce(usize) -> T) -> c_int {
        let Some(size) = self.size().filter(|size| *size >= least) else {
            return SANDCELL_ERROR_CONFIG;
        };
        let known = make(size);
        // SAFETY: `size` bytes may be written, as the type says, and `known` has as many as are copied.
        unsafe {
            self.0.cast::<u8>().write_bytes(0xff, size);
            self.0.cast::<u8>().copy_from_nonoverlapping((&raw const known).cast(), size.min(size_of::<T>()));
        }
        0
    }
}

#[cfg(feature = "image")]
impl<T: BeginsWithSize> Given<'_, T> {
    /// Writes over `defaults` as much as the caller knows of; Err where its size is less than `least`, or where it asks for
    /// more than this library knows of.
    pub(crate) fn over(self, mut defaults: T, least: usize) -> Result<T, &'static str> {
        if self.0.is_null() {
            return Ok(defaults);
        }
        // SAFETY: not NULL; that much can be read, as its type says.
        let size = unsafe { self.0.cast::<usize>().read() };
        if size < least {
            return Err("its size is not set");
        }
        let known = size.min(size_of::<T>());
        // SAFETY: `size` bytes can be read, as the type says, and as many of `defaults` written as it has.
        let rest = unsafe {
            (&raw mut defaults).cast::<u8>().copy_from_nonoverlapping(self.0.cast(), known);
            std::slice::from_raw_parts(self.0.cast::<u8>().add(known), size - known)
        };
        match rest.iter().all(|&byte| byte == 0) {
            true => Ok(defaults),
            false => Err("asks for something that this version does not know"),
        }
    }
}
