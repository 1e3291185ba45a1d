//! Error objects, and the wall that keeps panics in.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use sandcell::Error;

use crate::stack;
use crate::text::{Place, c_text};

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
            hint: c_text(hint_in_c(error.hint())),
            report: c_text(sandcell::report::error_to_json(error)),
        }
    }
}

/// The options that hints name, by what they are called in C. The library's own names are those of the builder.
const IN_C: [(&str, &str); 23] = [
    ("`sandcell doctor` (or `doctor()`)", "sandcell_doctor_json"),
    ("`sandcell doctor`", "sandcell_doctor_json"),
    ("`sandbox.command(..)`", "sandcell_run_command or sandcell_spawn"),
    ("`sandcell files reclaim DIR`", "sandcell_owned_reclaim"),
    ("`sandcell files reclaim`", "sandcell_owned_reclaim"),
    ("`sandcell load`", "sandcell_store_load"),
    ("`sandcell volume ls`", "sandcell_store_volumes_json"),
    ("`isolation` landlock", "sandcell_policy_set_isolation(policy, \"landlock\")"),
    ("`isolation`", "sandcell_policy_set_isolation"),
    ("`memory`", "sandcell_policy_set_memory"),
    ("`disk`", "sandcell_policy_set_disk"),
    ("`inodes`", "sandcell_policy_set_inodes"),
    ("`pids`", "sandcell_policy_set_pids"),
    ("`timeout`", "sandcell_policy_set_timeout_ms"),
    ("`network`", "sandcell_policy_set_network"),
    ("`best_effort`", "sandcell_policy_add_best_effort"),
    ("`ro`", "sandcell_policy_add_ro"),
    ("`rw`", "sandcell_policy_add_rw"),
    ("`layer`", "sandcell_policy_add_layer"),
    ("`thaw()`", "sandcell_cell_thaw"),
    ("`join`", "sandcell_entry_join"),
    ("(id_count)", "(sandcell_policy_set_id_count)"),
    ("best effort for ", "sandcell_policy_add_best_effort with "),
];

/// A hint in the words of who asks.
fn hint_in_c(hint: &str) -> String {
    IN_C.iter().fold(hint.to_owned(), |hint, (name, in_c)| hint.replace(name, in_c))
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

impl ErrorObject {
    fn no_thread(error: &std::io::Error) -> ErrorObject {
        ErrorObject {
            kind: SANDCELL_ERROR_SETUP,
            errno: error.raw_os_error().unwrap_or(0),
            stage: c_text("thread"),
            subject: CString::default(),
            message: c_text(format!("the calling thread has too little stack, and another cannot be started: {error}")),
            hint: c_text("Call with 256 KiB of stack, or raise RLIMIT_NPROC."),
            report: CString::default(),
        }
    }
}

/// What a panic carries.
type Panic = Box<dyn Any + Send>;

/// What the work panicked with, if it did.
type Panicked = Option<Panic>;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Frees a handle; what its parts do then is behind the wall, too.
pub(crate) fn free<T>(handle: Option<Box<T>>) {
    if let Some(handle) = handle {
        let _ = guard(|| {
            drop(handle);
            Ok(())
        });
    }
}

/// Does what an entry does, with enough stack. A panic becomes an error object, and nothing of it is printed.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T, ErrorObject>) -> Result<T, ErrorObject> {
    guard_by(work, with_enough_stack)
}

fn guard_by<T>(
    work: impl FnOnce() -> Result<T, ErrorObject>,
    wall: fn(&mut dyn FnMut()) -> Result<Panicked, ErrorObject>,
) -> Result<T, ErrorObject> {
    let mut work = Some(work);
    let mut done = None;
    let panic = wall(&mut || done = work.take().map(|work| work()))?;
    match (panic, done) {
        (None, Some(done)) => done,
        (panic, _) => Err(ErrorObject::of_panic(panic.as_deref())),
    }
}

#[inline(never)]
fn with_enough_stack(work: &mut dyn FnMut()) -> Result<Panicked, ErrorObject> {
    if !stack::is_small() {
        return Ok(behind_the_wall(work));
    }
    let mut panic = None;
    match stack::elsewhere(&mut || panic = behind_the_wall(work)) {
        Ok(outer) => Ok(outer.or(panic)),
        Err(error) => Err(ErrorObject::no_thread(&error)),
    }
}

/// For what must be done in the calling thread, which has enough stack.
fn in_this_thread(work: &mut dyn FnMut()) -> Result<Panicked, ErrorObject> {
    Ok(behind_the_wall(work))
}

#[inline(never)]
fn behind_the_wall(work: &mut dyn FnMut()) -> Panicked {
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
pub(crate) fn entry(place: Place<'_, *mut ErrorObject>, work: impl FnOnce() -> Result<(), ErrorObject>) -> c_int {
    let mut work = Some(work);
    entry_by(place, &mut || work.take().map_or(Ok(()), |work| work()))
}

/// The part of it that is the same for all entries: there are many, and each would have a copy.
#[inline(never)]
fn entry_by(place: Place<'_, *mut ErrorObject>, work: &mut dyn FnMut() -> Result<(), ErrorObject>) -> c_int {
    settle(guard(work), place)
}

/// The same in the calling thread, however little stack it has: for what a process with a single thread calls.
pub(crate) fn entry_here(place: Place<'_, *mut ErrorObject>, work: impl FnOnce() -> Result<(), ErrorObject>) -> c_int {
    settle(guard_by(work, in_this_thread), place)
}

#[inline(never)]
fn settle(done: Result<(), ErrorObject>, place: Place<'_, *mut ErrorObject>) -> c_int {
    let place = place.begin(std::ptr::null_mut());
    match (done, place) {
        (Ok(()), _) => 0,
        (Err(error), None) => error.kind,
        (Err(error), Some(place)) => {
            let kind = error.kind;
            *place = Box::into_raw(Box::new(error));
            kind
        }
    }
}

/// One of the SANDCELL_ERROR_ numbers, which stay what they are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_kind(error: Option<&ErrorObject>) -> c_int {
    error.map_or(0, |e| e.kind)
}

/// The system's error number, 0 where no system call failed.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_errno(error: Option<&ErrorObject>) -> c_int {
    error.map_or(0, |e| e.errno)
}

/// Stable name of the step that failed, such as `option` or `uid-map`. The text lives as long as the error; "" for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_stage(error: Option<&ErrorObject>) -> *const c_char {
    error.map_or(c"", |e| &e.stage).as_ptr()
}

/// The path, option, program or limit that it is about; may be empty.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_subject(error: Option<&ErrorObject>) -> *const c_char {
    error.map_or(c"", |e| &e.subject).as_ptr()
}

/// The whole story in one line: subject, what went wrong, the system's reason, the stage.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_message(error: Option<&ErrorObject>) -> *const c_char {
    error.map_or(c"", |e| &e.message).as_ptr()
}

/// What to do about it; may be empty.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_hint(error: Option<&ErrorObject>) -> *const c_char {
    error.map_or(c"", |e| &e.hint).as_ptr()
}

/// The report of the run that failed, as one line of JSON in the form of sandcell_result_report_json; "" for
/// SANDCELL_ERROR_INTERNAL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_report_json(error: Option<&ErrorObject>) -> *const c_char {
    error.map_or(c"", |e| &e.report).as_ptr()
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_error_free(error: Option<Box<ErrorObject>>) {
    free(error)
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_object_with_its_words_and_nothing_is_printed() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| {
            TOLD.fetch_add(1, Ordering::Relaxed);
        }));
        /// An entry as all are, with a mistake in it.
        extern "C" fn broken(error: Place<'_, *mut ErrorObject>) -> c_int {
            entry(error, || panic!("the {} broke", "cup"))
        }
        let mut place = MaybeUninit::uninit();
        let kind = broken(Place::new(&mut place));
        // SAFETY: the entry has put an error there.
        let error = unsafe { Box::from_raw(place.assume_init()) };
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
