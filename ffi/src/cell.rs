//! A started sandbox in which many programs can be run.

use std::ffi::{c_char, c_int};

use crate::changes::Changes;
use crate::child::{Child, hand_out_fd, host_port};
use crate::command::Command;
use crate::error::{ErrorObject, entry, free};
use crate::policy::Policy;
use crate::result::RunResult;
use crate::text::{Answer, Place, empty, hand_out, handle, wrong};
use crate::usage::{Usage, fill};

/// A started sandbox in which many programs can be run. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Cell {
    pub(crate) cell: sandcell::Cell,
}

/// Starts a sandbox in which many programs can be run, one after another or at once.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_start(
    policy: Option<&Policy>,
    cell: Place<'_, *mut Cell>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(cell, "cell")?;
        let cell = handle(policy, "policy")?.sandbox()?.start()?;
        *place = Box::into_raw(Box::new(Cell { cell }));
        Ok(())
    })
}

/// Runs a program to its end in the cell; as sandcell_run_command.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_run(
    cell: Option<&Cell>,
    command: Option<&Command>,
    result: Place<'_, *mut RunResult>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(result, "result")?;
        let (cell, command) = (handle(cell, "cell")?, handle(command, "command")?);
        *place = Box::into_raw(command.output(|program| cell.cell.command(program))?);
        Ok(())
    })
}

/// Starts a program in the cell; as sandcell_spawn.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_spawn(
    cell: Option<&Cell>,
    command: Option<&Command>,
    child: Place<'_, *mut Child>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(child, "child")?;
        let (cell, command) = (handle(cell, "cell")?, handle(command, "command")?);
        *place = Box::into_raw(command.spawn(|program| cell.cell.command(program))?);
        Ok(())
    })
}

/// Puts a new pidfd into `*fd`: readable when the cell has ended. It is yours to close and CLOEXEC; see
/// sandcell_child_pidfd.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_pidfd(
    cell: Option<&Cell>,
    fd: Place<'_, c_int>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || hand_out_fd(fd, || Ok(handle(cell, "cell")?.cell.pidfd()?)))
}

/// Stops everything in the cell until sandcell_cell_thaw. It needs a cgroup: start the cell with a limit.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_freeze(cell: Option<&Cell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(cell, "cell")?.cell.freeze()?))
}

/// Lets everything in it go on.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_thaw(cell: Option<&Cell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(cell, "cell")?.cell.thaw()?))
}

/// Changes the limits that `limits` names, of which nothing else counts; the others stay. Only kinds of limits that the
/// cell was started with.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_set_limits(
    cell: Option<&Cell>,
    limits: Option<&Policy>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let limits = &handle(limits, "limits")?.builder()?.policy().limits;
        Ok(handle(cell, "cell")?.cell.set_limits(limits)?)
    })
}

/// What the cell has used so far: how long it has lived, and what its cgroups count, SANDCELL_UNKNOWN where it has none. `usage->size` must be set to `sizeof *usage` before.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_usage(
    cell: Option<&Cell>,
    usage: Answer<'_, Usage>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || match fill(Some(&handle(cell, "cell")?.cell.usage()), usage) {
        0 => Ok(()),
        _ => Err(wrong("usage", "is NULL, or its size is not set")),
    })
}

/// The files that differ from the layers so far; none for a root that is no overlay. To be freed with
/// sandcell_changes_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_changes(
    cell: Option<&Cell>,
    changes: Place<'_, *mut Changes>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(changes, "changes")?;
        let list = handle(cell, "cell")?.cell.changes()?;
        *place = Box::into_raw(Box::new(Changes::from(&list[..])));
        Ok(())
    })
}

/// The port of the host at which this port of the cell is published, by UDP or TCP: the one that was chosen, where 0 was asked
/// for; 0 where it is not published.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_host_port(cell: Option<&Cell>, cell_port: u16, udp: bool) -> u16 {
    cell.map_or(0, |cell| host_port(cell.cell.published(), cell_port, udp))
}

/// Who the programs are, what is enforced and which ports are published, as `{identity, enforced, published}` of a report, to be freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_report_json(
    cell: Option<&Cell>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let cell = &handle(cell, "cell")?.cell;
        *place = hand_out(sandcell::report::standing_to_json(&cell.identity(), cell.enforced(), cell.published()));
        Ok(())
    })
}

/// Ends the cell now, with everything in it. What waits for a program in it learns that it was killed, and what is asked of
/// the cell afterwards is an error that says so.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_kill(cell: Option<&Cell>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || {
        handle(cell, "cell")?.cell.kill();
        Ok(())
    })
}

/// Frees a cell. It ends when the children that were started in it are freed, too. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_cell_free(cell: Option<Box<Cell>>) {
    free(cell)
}
