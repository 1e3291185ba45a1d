//! What came of a run.

use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

use sandcell::{Outcome, Output, Report, TimeLimit};

use crate::changes::Changes;
use crate::error::{ErrorObject, entry, free};
use crate::text::{Answer, Place, c_text, empty, hand_out, handle};
use crate::usage::{Usage, fill};

/// It ended by itself: sandcell_result_exit_code.
pub const SANDCELL_OUTCOME_EXITED: c_int = 1;
/// A signal ended it: sandcell_result_signal.
pub const SANDCELL_OUTCOME_SIGNALED: c_int = 2;
/// It ran past its timeout and was ended.
pub const SANDCELL_OUTCOME_TIMED_OUT: c_int = 3;
/// The memory limit ended it, or a process of its tree.
pub const SANDCELL_OUTCOME_OUT_OF_MEMORY: c_int = 4;
/// It wrote more than the output limit and was ended.
pub const SANDCELL_OUTCOME_OUTPUT_LIMIT: c_int = 5;
/// The system call filter ended it: sandcell_result_syscall.
pub const SANDCELL_OUTCOME_SYSCALL_DENIED: c_int = 6;
/// The caller ended it.
pub const SANDCELL_OUTCOME_KILLED: c_int = 7;

/// What came of a run. It never changes: any number of threads may read it at once.
#[derive(Debug)]
pub struct RunResult {
    report: Report,
    kind: CString,
    syscall: CString,
    /// Both with a NUL behind the last byte.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    leftovers: Vec<CString>,
    changes: Option<Changes>,
    /// Made when it is first asked for.
    json: OnceLock<CString>,
}

impl From<Report> for RunResult {
    fn from(report: Report) -> RunResult {
        RunResult {
            kind: c_text(report.outcome.kind()),
            syscall: match &report.outcome {
                Outcome::SyscallDenied { syscall, .. } => c_text(syscall.as_str()),
                _ => CString::default(),
            },
            stdout: vec![0],
            stderr: vec![0],
            leftovers: report.leftovers.iter().map(|leftover| c_text(leftover.command.as_str())).collect(),
            changes: report.changes.as_deref().map(Changes::from),
            json: OnceLock::new(),
            report,
        }
    }
}

impl From<Output> for RunResult {
    fn from(output: Output) -> RunResult {
        let Output { mut stdout, mut stderr, report, .. } = output;
        stdout.push(0);
        stderr.push(0);
        RunResult { stdout, stderr, ..RunResult::from(report) }
    }
}

/// How the program ended, as one of the SANDCELL_OUTCOME_ numbers, which stay what they are: for a `switch`. A later version
/// may have more. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_outcome_number(result: Option<&RunResult>) -> c_int {
    match result.map(|r| r.report.outcome.kind()) {
        None => 0,
        Some("exited") => SANDCELL_OUTCOME_EXITED,
        Some("signaled") => SANDCELL_OUTCOME_SIGNALED,
        Some("timed_out") => SANDCELL_OUTCOME_TIMED_OUT,
        Some("out_of_memory") => SANDCELL_OUTCOME_OUT_OF_MEMORY,
        Some("output_limit") => SANDCELL_OUTCOME_OUTPUT_LIMIT,
        Some("syscall_denied") => SANDCELL_OUTCOME_SYSCALL_DENIED,
        Some(_) => SANDCELL_OUTCOME_KILLED,
    }
}

/// How the program ended: `exited`, `signaled`, `timed_out`, `out_of_memory`, `output_limit`, `syscall_denied` or
/// `killed`. The text lives as long as the result; "" for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_outcome(result: Option<&RunResult>) -> *const c_char {
    result.map_or(c"", |r| &r.kind).as_ptr()
}

/// Which time ran out, where the outcome is `timed_out`: `wall` or `cpu`; "" otherwise.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_timed_out_of(result: Option<&RunResult>) -> *const c_char {
    match result.and_then(|r| r.report.timed_out) {
        Some(TimeLimit::Wall) => c"wall",
        Some(_) => c"cpu",
        None => c"",
    }
    .as_ptr()
}

/// The status that a shell would show: the program's own, 128 + n for a signal, 124 timed out, 137 out of memory or
/// killed, 153 output limit, 159 system call denied; 125 instead of 0 where leftovers make the run a failure. -1 for
/// NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_exit_code(result: Option<&RunResult>) -> c_int {
    result.map_or(-1, |r| r.report.exit_status())
}

/// The signal that ended the program, 0 where it was none.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_signal(result: Option<&RunResult>) -> c_int {
    match result.map(|r| &r.report.outcome) {
        Some(Outcome::Signaled { signal, .. }) => *signal,
        _ => 0,
    }
}

/// The name (or number) of the system call that was denied; "" where none was.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_syscall(result: Option<&RunResult>) -> *const c_char {
    result.map_or(c"", |r| &r.syscall).as_ptr()
}

/// What the program wrote to standard output, as far as it was captured. A NUL follows the last byte, which `length` (may
/// be NULL) does not count. The bytes live as long as the result.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_stdout(result: Option<&RunResult>, length: Place<'_, usize>) -> *const c_char {
    captured(result.map(|r| &r.stdout[..]), length)
}

/// What the program wrote to standard error, in the same way.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_stderr(result: Option<&RunResult>, length: Place<'_, usize>) -> *const c_char {
    captured(result.map(|r| &r.stderr[..]), length)
}

fn captured(bytes: Option<&[u8]>, length: Place<'_, usize>) -> *const c_char {
    let bytes = bytes.unwrap_or(b"\0");
    length.begin(bytes.len() - 1);
    bytes.as_ptr().cast()
}

/// The whole report as one line of JSON, UTF-8: outcome, usage, identity, what was enforced by what, leftovers, changes.
/// The text lives as long as the result; "" for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_report_json(result: Option<&RunResult>) -> *const c_char {
    result.map_or(c"", |r| r.json.get_or_init(|| c_text(sandcell::report::to_json(&Ok(r.report.clone()))))).as_ptr()
}

/// What the run used. `usage->size` must be set to `sizeof *usage` before.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_usage(result: Option<&RunResult>, usage: Answer<'_, Usage>) -> c_int {
    fill(result.map(|r| &r.report.usage), usage)
}

/// Who the program was: its UID inside. UINT32_MAX for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_uid(result: Option<&RunResult>) -> u32 {
    result.map_or(u32::MAX, |r| r.report.identity.uid)
}

/// The same UID as the host sees it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_host_uid(result: Option<&RunResult>) -> u32 {
    result.map_or(u32::MAX, |r| r.report.identity.host_uid)
}

/// The files that the run changed in its overlay, where sandcell_command_set_track_changes asked for them; otherwise NULL.
/// The list belongs to the result.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_changes(result: Option<&RunResult>) -> *const Changes {
    result.and_then(|r| r.changes.as_ref()).map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Whether that list is not complete: it would be longer than 40 MiB, or something moved directories meanwhile.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_changes_truncated(result: Option<&RunResult>) -> bool {
    result.is_some_and(|r| r.report.changes_truncated)
}

/// How many processes were alive when the program ended, where sandcell_policy_set_leftovers asked for them.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_leftover_count(result: Option<&RunResult>) -> usize {
    result.map_or(0, |r| r.leftovers.len())
}

/// The command line of one of them; "" beyond the last.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_leftover_command(result: Option<&RunResult>, index: usize) -> *const c_char {
    result.and_then(|r| r.leftovers.get(index)).map_or(c"", |c| c).as_ptr()
}

/// The profile that sandcell_command_set_learn asked for, in the form that sandcell_policy_set_seccomp_json takes, to be
/// freed with sandcell_text_free; NULL where it was not asked for.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_learned_json(
    result: Option<&RunResult>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        if let Some(profile) = &handle(result, "result")?.report.learned {
            *place = hand_out(profile.to_json()?);
        }
        Ok(())
    })
}

/// Frees a result. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_result_free(result: Option<Box<RunResult>>) {
    free(result)
}
