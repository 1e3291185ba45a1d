//! A program that runs.

use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandcell::Controller;

use crate::error::{ErrorObject, entry, free};
use crate::result::RunResult;
use crate::text::{empty, hand_out, handle, wrong};

/// A program that runs. Any number of threads may use it at once; of two that wait, the second waits for the first.
#[derive(Debug)]
pub struct Child {
    running: Mutex<Running>,
    /// Apart from the program itself: whoever waits must not keep another from reading.
    pipes: Mutex<Pipes>,
    controller: Controller,
    pidfd: OwnedFd,
    id: u32,
}

#[derive(Debug)]
struct Running {
    child: sandcell::Child,
    input: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Child {
    pub(crate) fn new(mut child: sandcell::Child, input: Option<Vec<u8>>) -> Result<Child, ErrorObject> {
        let pidfd = duplicate(&child)?;
        let pipes = Pipes { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() };
        Ok(Child {
            controller: child.controller(),
            id: child.id(),
            pidfd,
            pipes: Mutex::new(pipes),
            running: Mutex::new(Running { child, input }),
        })
    }

    fn pipes(&self) -> MutexGuard<'_, Pipes> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn duplicate(fd: &impl AsFd) -> Result<OwnedFd, ErrorObject> {
    fd.as_fd().try_clone_to_owned().map_err(|e| wrong("pidfd", &format!("cannot be duplicated: {e}")))
}

/// Puts a descriptor where the caller wants it; there is -1 after an error.
///
/// # Safety
/// `place` is NULL or may be written to.
pub(crate) unsafe fn hand_out_fd(
    place: *mut c_int,
    make: impl FnOnce() -> Result<OwnedFd, ErrorObject>,
) -> Result<(), ErrorObject> {
    if place.is_null() {
        return Err(wrong("fd", "is NULL: there is no place for the answer"));
    }
    // SAFETY: not NULL; writable by this function's contract.
    unsafe { place.write(-1) };
    let fd = make()?;
    // SAFETY: as above.
    unsafe { place.write(fd.into_raw_fd()) };
    Ok(())
}

/// Puts a new pidfd into `*fd`: readable when the program has ended, for poll(2) and the like. It is yours to close and
/// CLOEXEC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_pidfd(
    child: *const Child,
    fd: *mut c_int,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe { entry(error, || hand_out_fd(fd, || duplicate(&handle(child, "child")?.pidfd))) }
}

/// The program's process number inside the sandbox; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_id(child: *const Child) -> u32 {
    // SAFETY: NULL or a live handle by contract.
    unsafe { child.as_ref() }.map_or(0, |c| c.id)
}

/// Our end of the pipe to standard input, which is yours from now on and CLOEXEC; -1 where there is none (any more).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_take_stdin(child: *const Child) -> c_int {
    // SAFETY: NULL or a live handle by contract.
    let pipe = unsafe { child.as_ref() }.and_then(|c| c.pipes().stdin.take());
    pipe.map_or(-1, |pipe| OwnedFd::from(pipe).into_raw_fd())
}

/// Our end of the pipe from standard output, in the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_take_stdout(child: *const Child) -> c_int {
    // SAFETY: NULL or a live handle by contract.
    let pipe = unsafe { child.as_ref() }.and_then(|c| c.pipes().stdout.take());
    pipe.map_or(-1, |pipe| OwnedFd::from(pipe).into_raw_fd())
}

/// Our end of the pipe from standard error, in the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_take_stderr(child: *const Child) -> c_int {
    // SAFETY: NULL or a live handle by contract.
    let pipe = unsafe { child.as_ref() }.and_then(|c| c.pipes().stderr.take());
    pipe.map_or(-1, |pipe| OwnedFd::from(pipe).into_raw_fd())
}

/// Waits for the end of the program, but no longer than `timeout_ms`; a negative number waits as long as it takes, and
/// closes a pipe to standard input that is still here first. Where the program still runs then, 0 is returned and
/// `*result` is NULL. May be called again after the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_wait(
    child: *const Child,
    timeout_ms: i64,
    result: *mut *mut RunResult,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(result, "result")?;
            let child = handle(child, "child")?;
            let report = match u64::try_from(timeout_ms) {
                Ok(milliseconds) => child.running().child.wait_timeout(Duration::from_millis(milliseconds))?,
                Err(_) => {
                    drop(child.pipes().stdin.take());
                    Some(child.running().child.wait()?)
                }
            };
            if let Some(report) = report {
                *place = Box::into_raw(Box::new(report.into()));
            }
            Ok(())
        })
    }
}

/// Writes what sandcell_command_set_input gave, reads those outputs that are pipes to their end, and waits for the end
/// of the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_wait_output(
    child: *const Child,
    result: *mut *mut RunResult,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(result, "result")?;
            let child = handle(child, "child")?;
            let mut running = child.running();
            let mut pipes = child.pipes();
            (running.child.stdin, running.child.stdout, running.child.stderr) =
                (pipes.stdin.take(), pipes.stdout.take(), pipes.stderr.take());
            drop(pipes);
            let input = running.input.take();
            let output = running.child.wait_with_output(input.as_deref())?;
            *place = Box::into_raw(Box::new(output.into()));
            Ok(())
        })
    }
}

/// Sends a signal to the program. No error if it has ended already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_signal(
    child: *const Child,
    signal: c_int,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe { entry(error, || Ok(handle(child, "child")?.controller.signal(signal)?)) }
}

/// Ends the program and all that it started, at once. Waiting tells what came of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_kill(child: *const Child, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe { entry(error, || Ok(handle(child, "child")?.controller.kill()?)) }
}

/// Who the program is and what is enforced, as `{identity, enforced}` of a report, to be freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_report_json(
    child: *const Child,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(json, "json")?;
            let running = handle(child, "child")?.running();
            let (identity, enforced) = (running.child.identity(), running.child.enforced());
            *place = hand_out(sandcell::report::standing_to_json(&identity, enforced));
            Ok(())
        })
    }
}

/// Frees a child. A program that still runs is ended, with all that it started. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_child_free(child: *mut Child) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(child) }
}
