//! The other end of a program's terminal, as a descriptor.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use sandcell::{Error, Terminal, TerminalSize};

use crate::error::{ErrorObject, entry};
use crate::text::{Bytes, Place, Room, blob, room, wrong};

/// A handle of its own for one call.
fn terminal(fd: c_int) -> Result<Terminal, ErrorObject> {
    let not = |error: std::io::Error| {
        Error::option("terminal", format!("descriptor {fd} is not that of a terminal: {error}"))
    };
    if fd < 0 {
        return Err(wrong("terminal", "is no descriptor"));
    }
    // SAFETY: not -1, and used for this call only; where it is not open the call says so.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(fd.try_clone_to_owned().and_then(Terminal::try_from).map_err(not)?)
}

fn failed(error: std::io::Error) -> ErrorObject {
    Error::option("terminal", error.to_string()).into()
}

fn time(milliseconds: i64) -> Duration {
    u64::try_from(milliseconds).map_or(Duration::MAX, Duration::from_millis)
}

/// Changes the size of the terminal; programs in the foreground get SIGWINCH. `fd` is that of sandcell_child_take_terminal, here
/// and below.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_terminal_resize(
    fd: c_int,
    rows: u16,
    columns: u16,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || terminal(fd)?.resize(TerminalSize::new(rows, columns)).map_err(failed))
}

/// Reads what the program has shown, `length` bytes at most, and waits `timeout_ms` milliseconds for it at most; a negative
/// number waits as long as it takes. `*count` is how many bytes there are now in `buffer`: 0 when nobody has the terminal any
/// more, -1 where nothing came in time. Escape sequences among them are the program's.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_terminal_read(
    fd: c_int,
    buffer: Room<'_>,
    length: usize,
    timeout_ms: i64,
    count: Place<'_, i64>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let count = count.begin(-1).ok_or_else(|| wrong("count", "is NULL: there is no place for the answer"))?;
        let read = terminal(fd)?.read_timeout(room(buffer, length)?, time(timeout_ms)).map_err(failed)?;
        *count = read.map_or(-1, |read| read as i64);
        Ok(())
    })
}

/// Types `length` bytes, or as many as the program takes within `timeout_ms` milliseconds; a negative number waits as long as it
/// takes. `*count` is how many that were.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_terminal_write(
    fd: c_int,
    bytes: Bytes<'_>,
    length: usize,
    timeout_ms: i64,
    count: Place<'_, i64>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let count = count.begin(0).ok_or_else(|| wrong("count", "is NULL: there is no place for the answer"))?;
        let bytes = blob(bytes, length, "bytes")?;
        *count = terminal(fd)?.write_timeout(bytes, time(timeout_ms)).map_err(failed)? as i64;
        Ok(())
    })
}
