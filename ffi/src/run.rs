//! The calls that do something.

use std::ffi::{c_char, c_int};

use sandcell::{Error, Sandbox};

use crate::error::{ErrorObject, guard, settle};
use crate::policy::Policy;
use crate::result::RunResult;
use crate::text::{bytes, hand_out};

/// Version of the library as text, such as `0.1.0`; SANDCELL_VERSION is that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Runs a program to its end in a sandbox of its own and captures what it writes; its standard input is empty.
/// `argv` ends with a NULL, its first is the program. How the program ended is in the result; an error (the return
/// value is not 0 then, and the result NULL) means that the sandbox failed or the program could not be executed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_run(
    policy: *const Policy,
    argv: *const *const c_char,
    result: *mut *mut RunResult,
    error: *mut *mut ErrorObject,
) -> c_int {
    let done = guard(|| {
        // SAFETY: NULL or writable by contract.
        let place = unsafe { empty(result, "result") }?;
        // SAFETY: NULL or a live handle by contract.
        let sandbox = unsafe { sandbox(policy) }?;
        // SAFETY: NULL or a list of C strings with a NULL at its end by contract.
        let words = unsafe { list(argv) }?;
        let (program, args) = words.split_first().ok_or_else(|| wrong("argv", "names no program"))?;
        let output = sandbox.command(program).args(args).output().map_err(|e| ErrorObject::from(&e))?;
        *place = Box::into_raw(Box::new(output.into()));
        Ok(())
    });
    // SAFETY: NULL or writable by contract.
    unsafe { settle(done, error) }
}

/// The steps that a run would take, as a JSON array of `{name, subject, words}`, to be freed with sandcell_text_free.
/// Nothing is run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_explain_json(
    policy: *const Policy,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    let done = guard(|| {
        // SAFETY: NULL or writable by contract.
        let place = unsafe { empty(json, "json") }?;
        // SAFETY: NULL or a live handle by contract.
        let steps = unsafe { sandbox(policy) }?.explain().map_err(|e| ErrorObject::from(&e))?;
        *place = hand_out(sandcell::report::steps_to_json(&steps));
        Ok(())
    });
    // SAFETY: NULL or writable by contract.
    unsafe { settle(done, error) }
}

/// What this host allows, as a JSON array of `{name, ok, detail, remedy}`, to be freed with sandcell_text_free. Found by
/// trying: takes some tens of milliseconds and starts a few small sandboxes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_doctor_json(json: *mut *mut c_char, error: *mut *mut ErrorObject) -> c_int {
    let done = guard(|| {
        // SAFETY: NULL or writable by contract.
        let place = unsafe { empty(json, "json") }?;
        *place = hand_out(sandcell::report::findings_to_json(&sandcell::doctor()));
        Ok(())
    });
    // SAFETY: NULL or writable by contract.
    unsafe { settle(done, error) }
}

fn wrong(subject: &str, message: &str) -> ErrorObject {
    ErrorObject::from(&Error::option(subject, message))
}

/// The place for an answer, NULL to begin with: it is so after every error.
///
/// # Safety
/// `place` is NULL or may be written to as long as the result lives.
unsafe fn empty<'a, T>(place: *mut *mut T, name: &str) -> Result<&'a mut *mut T, ErrorObject> {
    if place.is_null() {
        return Err(wrong(name, "is NULL: there is no place for the answer"));
    }
    // SAFETY: not NULL; writable by this function's contract. Written first, it need not be initialized.
    unsafe {
        place.write(std::ptr::null_mut());
        Ok(&mut *place)
    }
}

/// # Safety
/// `policy` is NULL or a live handle.
unsafe fn sandbox(policy: *const Policy) -> Result<Sandbox, ErrorObject> {
    // SAFETY: by this function's contract.
    unsafe { policy.as_ref() }.ok_or_else(|| wrong("policy", "is NULL"))?.sandbox()
}

/// # Safety
/// `argv` is NULL or a list of C strings with a NULL at its end, and outlives the result.
unsafe fn list<'a>(argv: *const *const c_char) -> Result<Vec<&'a std::ffi::OsStr>, ErrorObject> {
    if argv.is_null() {
        return Err(wrong("argv", "is NULL"));
    }
    let mut words = Vec::new();
    for at in 0.. {
        // SAFETY: the NULL at the end has not been met yet.
        let word = unsafe { argv.add(at).read() };
        if word.is_null() {
            break;
        }
        // SAFETY: a C string by this function's contract.
        words.push(unsafe { bytes(word, "argv") }.map_err(|e| ErrorObject::from(&e))?);
    }
    Ok(words)
}
