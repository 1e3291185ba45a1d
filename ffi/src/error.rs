//! Error objects, and the wall that keeps panics in.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use sandcell::Error;

use crate::text::c_text;

/// What was asked for makes no sense; a NULL where none may be is this, too.
pub const SANDCELL_ERROR_CONFIG: c_int = 1;
/// This host cannot enforce what was asked for; the hint names the remedy.
pub const SANDCELL_ERROR_UNSUPPORTED: c_int = 2;
/// A step of building the sandbox failed. Nothing of it is left.
pub const SANDCELL_ERROR_SETUP: c_int = 3;
/// The program cannot be executed: the errno says why.
pub const SANDCELL_ERROR_EXEC: c_int = 4;
/// Talking with the program or the sandbox failed.
pub const SANDCELL_ERROR_IO: c_int = 5;
/// A mistake in sandcell itself.
pub const SANDCELL_ERROR_INTERNAL: c_int = 6;

/// Why a call failed. It never changes: any number of threads may read it at once.
#[derive(Debug, Clone)]
pub struct ErrorObject {
    pub(crate) kind: c_int,
    errno: c_int,
    stage: CString,
    subject: CString,
    message: CString,
    hint: CString,
    report: CString,
}

impl From<Error> for ErrorObject {
    fn from(error: Error) -> ErrorObject {
        ErrorObject::from(&error)
    }
}

impl From<&Error> for ErrorObject {
    fn from(error: &Error) -> ErrorObject {
        ErrorObject {
            kind: match error.kind() {
                "config" => SANDCELL_ERROR_CONFIG,
                "unsupported" => SANDCELL_ERROR_UNSUPPORTED,
                "setup" => SANDCELL_ERROR_SETUP,
                "exec" => SANDCELL_ERROR_EXEC,
                "io" => SANDCELL_ERROR_IO,
                _ => SANDCELL_ERROR_INTERNAL,
            },
            errno: error.errno().unwrap_or(0),
            stage: c_text(error.stage()),
            subject: c_text(error.subject()),
            message: c_text(error.to_string()),
            hint: c_text(error.hint()),
            report: c_text(sandcell::report::error_to_json(error)),
        }
    }
}

impl ErrorObject {
    fn of_panic(panic: Option<&(dyn Any + Send)>) -> ErrorObject {
        let words = panic.and_then(|p| p.downcast_ref::<&str>().copied());
        let words = words.or_else(|| panic?.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
        ErrorObject {
            kind: SANDCELL_ERROR_INTERNAL,
            errno: 0,
            stage: c_text("panic"),
            subject: CString::default(),
            message: c_text(format!("a mistake in sandcell itself: {words}")),
            hint: c_text("please report it"),
            report: CString::default(),
        }
    }
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Frees a handle; what its parts do then is behind the wall, too.
///
/// # Safety
/// `handle` is NULL or was made by `Box::into_raw`, and is used no more.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: not NULL; by this function's contract.
        let boxed = unsafe { Box::from_raw(handle) };
        let _ = guard(|| {
            drop(boxed);
            Ok(())
        });
    }
}

/// Does what an entry does. A panic becomes an error object, and nothing of it is printed.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T, ErrorObject>) -> Result<T, ErrorObject> {
    let mut work = Some(work);
    let mut done = None;
    let panic = behind_the_wall(&mut || done = work.take().map(|work| work()));
    match (panic, done) {
        (None, Some(done)) => done,
        (panic, _) => Err(ErrorObject::of_panic(panic.as_deref())),
    }
}

/// The part of it that is the same for all entries: there are many, and each would have a copy.
#[inline(never)]
fn behind_the_wall(work: &mut dyn FnMut()) -> Option<Box<dyn Any + Send>> {
    static HOOK: Once = Once::new();
    // The hook is that of this library's own copy of Rust's runtime; panics elsewhere are told as before.
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                before(info);
            }
        }));
    });
    let before = INSIDE.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(before);
    done.err()
}

/// An entry: does the work, puts the error where the caller wants it, if it does, and gives the number to return.
///
/// # Safety
/// `place` is NULL or may be written to.
pub(crate) unsafe fn entry(place: *mut *mut ErrorObject, work: impl FnOnce() -> Result<(), ErrorObject>) -> c_int {
    // SAFETY: passed on.
    unsafe { settle(guard(work), place) }
}

/// # Safety
/// As for [`entry`].
#[inline(never)]
unsafe fn settle(done: Result<(), ErrorObject>, place: *mut *mut ErrorObject) -> c_int {
    let (kind, object) = match done {
        Ok(()) => (0, std::ptr::null_mut()),
        Err(error) if place.is_null() => return error.kind,
        Err(error) => (error.kind, Box::into_raw(Box::new(error))),
    };
    if !place.is_null() {
        // SAFETY: not NULL; writable by this function's contract.
        unsafe { place.write(object) };
    }
    kind
}

/// One of the SANDCELL_ERROR_ numbers, which stay what they are; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_kind(error: *const ErrorObject) -> c_int {
    // SAFETY: NULL or a live handle by contract.
    unsafe { error.as_ref() }.map_or(0, |e| e.kind)
}

/// The system's error number, 0 where no system call failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_errno(error: *const ErrorObject) -> c_int {
    // SAFETY: NULL or a live handle by contract.
    unsafe { error.as_ref() }.map_or(0, |e| e.errno)
}

/// Stable name of the step that failed, such as `option` or `uid-map`. The text lives as long as the error; "" for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_stage(error: *const ErrorObject) -> *const c_char {
    // SAFETY: NULL or a live handle by contract.
    unsafe { error.as_ref() }.map_or(c"", |e| &e.stage).as_ptr()
}

/// The path, option, program or limit that it is about; may be empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_subject(error: *const ErrorObject) -> *const c_char {
    // SAFETY: NULL or a live handle by contract.
    unsafe { error.as_ref() }.map_or(c"", |e| &e.subject).as_ptr()
}

/// The whole story in one line: subject, what went wrong, the system's reason, the stage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_message(error: *const ErrorObject) -> *const c_char {
    // SAFETY: NULL or a live handle by contract.
    unsafe { error.as_ref() }.map_or(c"", |e| &e.message).as_ptr()
}

/// What to do about it; may be empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_hint(error: *const ErrorObject) -> *const c_char {
    // SAFETY: NULL or a live handle by contract.
    unsafe { error.as_ref() }.map_or(c"", |e| &e.hint).as_ptr()
}

/// The report of the run that failed, as one line of JSON in the form of sandcell_result_report_json; "" for
/// SANDCELL_ERROR_INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_report_json(error: *const ErrorObject) -> *const c_char {
    // SAFETY: NULL or a live handle by contract.
    unsafe { error.as_ref() }.map_or(c"", |e| &e.report).as_ptr()
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_error_free(error: *mut ErrorObject) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(error) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_object_with_its_words_and_nothing_is_printed() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| {
            TOLD.fetch_add(1, Ordering::Relaxed);
        }));
        /// An entry as all are, with a mistake in it.
        unsafe extern "C" fn broken(error: *mut *mut ErrorObject) -> c_int {
            // SAFETY: writable by contract.
            unsafe { entry(error, || panic!("the {} broke", "cup")) }
        }
        let mut place = std::ptr::null_mut();
        // SAFETY: a place for the error, which is then boxed again.
        let (kind, error) = unsafe { (broken(&mut place), Box::from_raw(place)) };
        assert_eq!(kind, SANDCELL_ERROR_INTERNAL);
        assert_eq!(TOLD.load(Ordering::Relaxed), 0);
        // Panics outside are the caller's and are told as before.
        assert!(catch_unwind(|| panic!("mine")).is_err());
        assert_eq!(TOLD.load(Ordering::Relaxed), 1);

        assert_eq!(error.kind, SANDCELL_ERROR_INTERNAL);
        assert!(error.message.to_str().unwrap().ends_with("the cup broke"), "{error:?}");
        assert!(guard(|| Ok(7)).is_ok_and(|seven| seven == 7));
    }
}
