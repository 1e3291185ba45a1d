//! Cells with a name, which outlive whoever started them.

use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use sandcell::{Detach, LogLine, LogReader, Restart};

use crate::cell::Cell;
use crate::command::Command;
use crate::error::{ErrorObject, entry, free};
use crate::policy::Policy;
use crate::result::RunResult;
use crate::text::{Answer, BeginsWithSize, Bytes, Place, Text, empty, hand_out, handle, milliseconds, word, wrong};

/// Keeps the main program's standard input, for sandcell_named_write.
pub const SANDCELL_DETACH_KEEP_STDIN: u64 = 1;
/// Starts the main program again when it has failed: any end but status 0.
pub const SANDCELL_DETACH_RESTART_ON_FAILURE: u64 = 2;
/// Starts the main program again whenever it has ended.
pub const SANDCELL_DETACH_RESTART_ALWAYS: u64 = 4;

/// A cell with a name, of the calling user. It ends by sandcell_named_stop or sandcell_named_kill, or with its main program,
/// and not with this handle or this process. Any number of threads may use it at once.
#[derive(Debug)]
pub struct NamedCell {
    cell: sandcell::NamedCell,
    attached: Mutex<Option<sandcell::Attached>>,
}

impl NamedCell {
    fn new(cell: sandcell::NamedCell) -> *mut NamedCell {
        Box::into_raw(Box::new(NamedCell { cell, attached: Mutex::new(None) }))
    }
}

/// Reads the log of a cell: for one thread at a time.
#[derive(Debug)]
pub struct Log {
    reader: LogReader,
    line: Option<LogLine>,
}

/// A line of a log, or a part of one. Set `size` to `sizeof` before you pass it: as many bytes are written.
#[derive(Debug)]
#[repr(C)]
pub struct LogRecord {
    /// sizeof(sandcell_log_record_t)
    pub size: usize,
    /// Where it begins in the log.
    pub offset: u64,
    /// Where the next one does: sandcell_log_seek takes it.
    pub next: u64,
    /// When it was written: nanoseconds since 1970.
    pub time_ns: u64,
    /// What the program wrote, without the line's end; it lives until the next call with the same log.
    pub text: *const c_char,
    /// How many bytes that is: they may be any.
    pub length: usize,
    /// 1 for standard output, 2 for standard error; 0 where there is no line.
    pub stream: c_int,
    /// Whether the line goes on in the next part of the same stream: 0 or 1.
    pub partial: c_int,
}

// SAFETY: as the trait asks.
unsafe impl BeginsWithSize for LogRecord {}

/// Starts a cell with a name: letters, digits, `_`, `.` and `-`, at most 64. `command` is its main program, whose output is
/// the log and with which it ends; NULL for a cell without one. `log_max_size`: bytes of a file of the log, `log_files`: how
/// many are kept; 0 for what is usual, 10 MiB and 5. `flags`: SANDCELL_DETACH_ flags.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_detach(
    policy: Option<&Policy>,
    name: Text<'_>,
    command: Option<&Command>,
    log_max_size: u64,
    log_files: u32,
    flags: u64,
    named: Place<'_, *mut NamedCell>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(named, "named")?;
        let sandbox = handle(policy, "policy")?.sandbox()?;
        let mut detach = Detach::new(word(name, "name")?);
        if log_max_size != 0 {
            detach = detach.log_max_size(log_max_size);
        }
        if log_files != 0 {
            detach = detach.log_files(log_files);
        }
        let restart = match flags & (SANDCELL_DETACH_RESTART_ON_FAILURE | SANDCELL_DETACH_RESTART_ALWAYS) {
            0 => Restart::No,
            SANDCELL_DETACH_RESTART_ON_FAILURE => Restart::OnFailure,
            SANDCELL_DETACH_RESTART_ALWAYS => Restart::Always,
            _ => return Err(wrong("flags", "has both kinds of restart")),
        };
        if flags & !7 != 0 {
            return Err(wrong("flags", "has flags that nobody knows"));
        }
        detach = detach.restart(restart).keep_stdin(flags & SANDCELL_DETACH_KEEP_STDIN != 0);
        let cell = match command {
            Some(command) => command.detach(&detach, |program| sandbox.command(program))?,
            None => detach.start(&sandbox)?,
        };
        *place = NamedCell::new(cell);
        Ok(())
    })
}

/// The cell of this name, of the calling user.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_find(
    name: Text<'_>,
    named: Place<'_, *mut NamedCell>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(named, "named")?;
        *place = NamedCell::new(sandcell::Cell::find(word(name, "name")?)?);
        Ok(())
    })
}

/// What is known of all cells of the calling user, as a JSON array of what sandcell_named_info_json gives; to be freed with
/// sandcell_text_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_list_json(json: Place<'_, *mut c_char>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let infos: Vec<_> = sandcell::cells().into_iter().filter_map(|cell| cell.info().ok()).collect();
        *place = hand_out(sandcell::cells_to_json(&infos));
        Ok(())
    })
}

/// How it stands, what it uses, and what came of it, as a JSON array with one object; to be freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_info_json(
    named: Option<&NamedCell>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let info = handle(named, "named")?.cell.info()?;
        *place = hand_out(sandcell::cells_to_json(&[info]));
        Ok(())
    })
}

/// The live cell, for all that a cell can do. sandcell_cell_kill ends it for everybody, sandcell_cell_free does not.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_cell(
    named: Option<&NamedCell>,
    cell: Place<'_, *mut Cell>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(cell, "cell")?;
        let cell = handle(named, "named")?.cell.cell()?;
        *place = Box::into_raw(Box::new(Cell { cell }));
        Ok(())
    })
}

/// SIGTERM for the main program, and the end of everything after `grace_ms`; waits for that.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_stop(
    named: Option<&NamedCell>,
    grace_ms: u64,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || Ok(handle(named, "named")?.cell.stop(Some(milliseconds(grace_ms)))?))
}

/// Ends it now, with everything in it; waits for that.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_kill(named: Option<&NamedCell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(named, "named")?.cell.kill()?))
}

/// A signal for the main program.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_signal(
    named: Option<&NamedCell>,
    signal: c_int,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || Ok(handle(named, "named")?.cell.signal(signal)?))
}

/// Stops everything in it until sandcell_named_resume. It needs a cgroup.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_pause(named: Option<&NamedCell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(named, "named")?.cell.pause()?))
}

/// Lets everything in it go on.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_resume(named: Option<&NamedCell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(named, "named")?.cell.resume()?))
}

/// Waits for its end, not longer than `timeout_ms`, and puts what came of it into `*result`; NULL there while it lives.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_wait(
    named: Option<&NamedCell>,
    timeout_ms: u64,
    result: Place<'_, *mut RunResult>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(result, "result")?;
        if let Some(report) = handle(named, "named")?.cell.wait_timeout(milliseconds(timeout_ms))? {
            *place = Box::into_raw(Box::new(report.into()));
        }
        Ok(())
    })
}

/// Writes all of it to the standard input that SANDCELL_DETACH_KEEP_STDIN has kept. The first call takes it, for this handle
/// alone until that is freed; where somebody else has it, that is an error.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_write(
    named: Option<&NamedCell>,
    data: Bytes<'_>,
    length: usize,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let named = handle(named, "named")?;
        let bytes = crate::text::blob(data, length, "data")?;
        let mut attached = named.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let input = match &mut *attached {
            Some(input) => input,
            place => place.insert(named.cell.attach(false)?),
        };
        std::io::Write::write_all(input, bytes)
            .map_err(|e| sandcell::Error::option("data", format!("cannot be written: {e}")).into())
    })
}

/// Ends that input: the program reads its end.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_close_stdin(named: Option<&NamedCell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || {
        let named = handle(named, "named")?;
        let attached = named.attached.lock().unwrap_or_else(PoisonError::into_inner).take();
        let input = attached.map_or_else(|| named.cell.attach(false), Ok)?;
        Ok(input.close()?)
    })
}

/// Removes what it has left when it ended: its outcome and its log.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_remove(named: Option<&NamedCell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(named, "named")?.cell.remove()?))
}

/// Frees the handle. The cell lives on. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_free(named: Option<Box<NamedCell>>) {
    free(named)
}

/// Its log, from the first line that is still there.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_named_log(
    named: Option<&NamedCell>,
    log: Place<'_, *mut Log>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(log, "log")?;
        let reader = handle(named, "named")?.cell.log()?;
        *place = Box::into_raw(Box::new(Log { reader, line: None }));
        Ok(())
    })
}

/// Goes on at this offset: that of a line, or its `next`. Nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_log_seek(log_of: Option<&mut Log>, offset: u64) {
    if let Some(log) = log_of {
        log.reader.seek(offset);
    }
}

/// The next line, for which it waits no longer than `timeout_ms`; `line->stream` is 0 where none has come, or none will: the
/// cell has ended. `line->size` must be set to `sizeof *line` before.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_log_next(
    log_of: Option<&mut Log>,
    timeout_ms: u64,
    line: Answer<'_, LogRecord>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        if line.size().is_none_or(|size| size < size_of::<usize>()) {
            return Err(wrong("line", "is NULL, or its size is not set"));
        }
        let log = log_of.ok_or_else(|| wrong("log_of", "is NULL"))?;
        let until = Instant::now().checked_add(milliseconds(timeout_ms));
        log.line = log.reader.next_line()?;
        while log.line.is_none() && timeout_ms != 0 && log.reader.wait(until)? {
            log.line = log.reader.next_line()?;
        }
        match line.fill(size_of::<usize>(), |size| record(log.line.as_ref(), size)) {
            0 => Ok(()),
            _ => Err(wrong("line", "is NULL, or its size is not set")),
        }
    })
}

fn record(line: Option<&LogLine>, size: usize) -> LogRecord {
    let nanoseconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    LogRecord {
        size,
        offset: line.map_or(0, |line| line.offset),
        next: line.map_or(0, |line| line.next),
        time_ns: line.map_or(0, |line| u64::try_from(nanoseconds(line.time)).unwrap_or(u64::MAX)),
        text: line.map_or(std::ptr::null(), |line| line.text.as_ptr().cast()),
        length: line.map_or(0, |line| line.text.len()),
        stream: line.map_or(0, |line| line.stream),
        partial: line.map_or(0, |line| c_int::from(line.partial)),
    }
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_log_free(log_of: Option<Box<Log>>) {
    free(log_of)
}
