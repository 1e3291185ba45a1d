//! What came of a run.

use std::ffi::{CString, c_char, c_int};

use sandcell::Output;

use crate::text::c_text;

/// What came of a run. It never changes: any number of threads may read it at once.
#[derive(Debug)]
pub struct RunResult {
    kind: CString,
    exit_code: c_int,
    /// Both with a NUL behind the last byte.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    report: CString,
    wall_ns: u64,
    memory_peak: Option<u64>,
}

impl From<Output> for RunResult {
    fn from(output: Output) -> RunResult {
        let Output { mut stdout, mut stderr, report, .. } = output;
        stdout.push(0);
        stderr.push(0);
        RunResult {
            kind: c_text(report.outcome.kind()),
            exit_code: report.outcome.exit_status(),
            wall_ns: u64::try_from(report.usage.wall.as_nanos()).unwrap_or(u64::MAX),
            memory_peak: report.usage.memory_peak_bytes,
            report: c_text(sandcell::report::to_json(&Ok(report))),
            stdout,
            stderr,
        }
    }
}

/// How the program ended: `exited`, `signaled`, `timed_out`, `out_of_memory`, `output_limit`, `syscall_denied` or
/// `killed`. The text lives as long as the result; "" for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_outcome(result: *const RunResult) -> *const c_char {
    // SAFETY: NULL or a live handle by contract.
    unsafe { result.as_ref() }.map_or(c"", |r| &r.kind).as_ptr()
}

/// The status that a shell would show: the program's own, 128 + n for a signal, 124 timed out, 137 out of memory or
/// killed, 153 output limit, 159 system call denied. -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_exit_code(result: *const RunResult) -> c_int {
    // SAFETY: NULL or a live handle by contract.
    unsafe { result.as_ref() }.map_or(-1, |r| r.exit_code)
}

/// What the program wrote to standard output. A NUL follows the last byte, which `length` (may be NULL) does not count.
/// The bytes live as long as the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_stdout(result: *const RunResult, length: *mut usize) -> *const c_char {
    // SAFETY: NULL or a live handle, NULL or writable, by contract.
    unsafe { captured(result.as_ref().map(|r| &r.stdout[..]), length) }
}

/// What the program wrote to standard error, in the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_stderr(result: *const RunResult, length: *mut usize) -> *const c_char {
    // SAFETY: NULL or a live handle, NULL or writable, by contract.
    unsafe { captured(result.as_ref().map(|r| &r.stderr[..]), length) }
}

/// # Safety
/// `length` is NULL or may be written to.
unsafe fn captured(bytes: Option<&[u8]>, length: *mut usize) -> *const c_char {
    let bytes = bytes.unwrap_or(b"\0");
    if !length.is_null() {
        // SAFETY: not NULL; writable by this function's contract.
        unsafe { length.write(bytes.len() - 1) };
    }
    bytes.as_ptr().cast()
}

/// The whole report as one line of JSON, UTF-8. The text lives as long as the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_report_json(result: *const RunResult) -> *const c_char {
    // SAFETY: NULL or a live handle by contract.
    unsafe { result.as_ref() }.map_or(c"", |r| &r.report).as_ptr()
}

/// Nanoseconds from the start of the program to its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_wall_ns(result: *const RunResult) -> u64 {
    // SAFETY: NULL or a live handle by contract.
    unsafe { result.as_ref() }.map_or(0, |r| r.wall_ns)
}

/// Puts the most memory held at once into `bytes` and returns true; false where nothing on this host counted it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_memory_peak(result: *const RunResult, bytes: *mut u64) -> bool {
    // SAFETY: NULL or a live handle by contract.
    match unsafe { result.as_ref() }.and_then(|r| r.memory_peak) {
        Some(peak) if !bytes.is_null() => {
            // SAFETY: not NULL; writable by contract.
            unsafe { bytes.write(peak) };
            true
        }
        _ => false,
    }
}

/// Frees a result. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_result_free(result: *mut RunResult) {
    if !result.is_null() {
        // SAFETY: not NULL; by contract it came from this library and is freed once.
        drop(unsafe { Box::from_raw(result) });
    }
}
