//! A started sandbox in which many programs can be run.

use std::ffi::{c_char, c_int};

use crate::changes::Changes;
use crate::child::{Child, duplicate, hand_out_fd};
use crate::command::Command;
use crate::error::{ErrorObject, entry, free};
use crate::policy::Policy;
use crate::result::RunResult;
use crate::text::{empty, hand_out, handle, wrong};
use crate::usage::{Usage, fill};

/// A started sandbox in which many programs can be run. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Cell {
    pub(crate) cell: sandcell::Cell,
}

/// Starts a sandbox in which many programs can be run, one after another or at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_start(
    policy: *const Policy,
    cell: *mut *mut Cell,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(cell, "cell")?;
            let cell = handle(policy, "policy")?.sandbox()?.start()?;
            *place = Box::into_raw(Box::new(Cell { cell }));
            Ok(())
        })
    }
}

/// Runs a program to its end in the cell; as sandcell_run_command.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_run(
    cell: *const Cell,
    command: *const Command,
    result: *mut *mut RunResult,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(result, "result")?;
            let (cell, command) = (handle(cell, "cell")?, handle(command, "command")?);
            *place = Box::into_raw(command.output(|program| cell.cell.command(program))?);
            Ok(())
        })
    }
}

/// Starts a program in the cell; as sandcell_spawn.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_spawn(
    cell: *const Cell,
    command: *const Command,
    child: *mut *mut Child,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(child, "child")?;
            let (cell, command) = (handle(cell, "cell")?, handle(command, "command")?);
            *place = Box::into_raw(command.spawn(|program| cell.cell.command(program))?);
            Ok(())
        })
    }
}

/// Puts a new pidfd into `*fd`: readable when the cell has ended. It is yours to close and CLOEXEC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_pidfd(cell: *const Cell, fd: *mut c_int, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe { entry(error, || hand_out_fd(fd, || duplicate(&handle(cell, "cell")?.cell))) }
}

/// Stops everything in the cell until sandcell_cell_thaw. It needs a cgroup: start the cell with a limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_freeze(cell: *const Cell, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe { entry(error, || Ok(handle(cell, "cell")?.cell.freeze()?)) }
}

/// Lets everything in it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_thaw(cell: *const Cell, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe { entry(error, || Ok(handle(cell, "cell")?.cell.thaw()?)) }
}

/// Changes the limits that `limits` names, of which nothing else counts; the others stay. Only kinds of limits that the
/// cell was started with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_set_limits(
    cell: *const Cell,
    limits: *const Policy,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let limits = &handle(limits, "limits")?.builder()?.policy().limits;
            Ok(handle(cell, "cell")?.cell.set_limits(limits)?)
        })
    }
}

/// What the cell has used so far, as far as its cgroups count it. `usage->size` must be set to `sizeof *usage` before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_usage(
    cell: *const Cell,
    usage: *mut Usage,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || match fill(Some(&handle(cell, "cell")?.cell.usage()), usage) {
            0 => Ok(()),
            _ => Err(wrong("usage", "is NULL, or its size is not set")),
        })
    }
}

/// The files that differ from the layers so far; none for a root that is no overlay. To be freed with
/// sandcell_changes_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_changes(
    cell: *const Cell,
    changes: *mut *mut Changes,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(changes, "changes")?;
            let list = handle(cell, "cell")?.cell.changes()?;
            *place = Box::into_raw(Box::new(Changes::from(&list[..])));
            Ok(())
        })
    }
}

/// Who the programs are and what is enforced, as `{identity, enforced}` of a report, to be freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_report_json(
    cell: *const Cell,
    json: *mut *mut c_char,
    error: *mut *mut ErrorObject,
) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            let place = empty(json, "json")?;
            let cell = &handle(cell, "cell")?.cell;
            *place = hand_out(sandcell::report::standing_to_json(&cell.identity(), cell.enforced()));
            Ok(())
        })
    }
}

/// Ends the cell now, with everything in it. What waits for a program in it learns that it was killed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_kill(cell: *const Cell, error: *mut *mut ErrorObject) -> c_int {
    // SAFETY: NULL, live, or writable by contract.
    unsafe {
        entry(error, || {
            handle(cell, "cell")?.cell.kill();
            Ok(())
        })
    }
}

/// Frees a cell. It ends when the children that were started in it are freed, too. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandcell_cell_free(cell: *mut Cell) {
    // SAFETY: NULL or a handle that is freed once, by contract.
    unsafe { free(cell) }
}
