//! The calls that do something.

use std::ffi::{c_char, c_int};

use crate::child::Child;
use crate::command::Command;
use crate::error::{ErrorObject, entry};
use crate::policy::Policy;
use crate::result::RunResult;
use crate::text::{Place, Texts, empty, hand_out, handle, list};

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
pub extern "C" fn sandcell_run(
    policy: Option<&Policy>,
    argv: Texts<'_>,
    result: Place<'_, *mut RunResult>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || run(policy, empty(result, "result")?, &Command::new(list(argv, "argv")?)))
}

/// The same for a program with more to say about it than its arguments.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_run_command(
    policy: Option<&Policy>,
    command: Option<&Command>,
    result: Place<'_, *mut RunResult>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || run(policy, empty(result, "result")?, handle(command, "command")?))
}

fn run(policy: Option<&Policy>, place: &mut *mut RunResult, command: &Command) -> Result<(), ErrorObject> {
    let sandbox = handle(policy, "policy")?.sandbox()?;
    *place = Box::into_raw(command.output(|program| sandbox.command(program))?);
    Ok(())
}

/// Starts a program in a sandbox of its own, which ends with it. Returns when the program has been executed; standard
/// streams are inherited by default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_spawn(
    policy: Option<&Policy>,
    command: Option<&Command>,
    child: Place<'_, *mut Child>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(child, "child")?;
        let sandbox = handle(policy, "policy")?.sandbox()?;
        *place = Box::into_raw(handle(command, "command")?.spawn(|program| sandbox.command(program))?);
        Ok(())
    })
}

/// Checks a policy and does ahead of the first run what takes some milliseconds, where sub-ids are used.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_prepare(policy: Option<&Policy>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(policy, "policy")?.sandbox()?.prepare_ids()?))
}

/// Moves the calling process, all its threads included, into a cgroup v2 of its own below the one in which it is, so
/// that sandboxes can get theirs beside it. For callers to whom their group was delegated; call it once, early. It does
/// nothing where limits work already. `*group` (may be NULL) is the group beneath which sandboxes will be made, to be
/// freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_adopt_cgroup(group: Place<'_, *mut c_char>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || {
        let place = group.begin(std::ptr::null_mut());
        let path = sandcell::adopt_cgroup()?;
        if let Some(place) = place {
            *place = hand_out(path.into_os_string().into_encoded_bytes());
        }
        Ok(())
    })
}

/// The steps that a run would take, as a JSON array of `{name, subject, words}`, to be freed with sandcell_text_free.
/// Nothing is run.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_explain_json(
    policy: Option<&Policy>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let steps = handle(policy, "policy")?.sandbox()?.explain()?;
        *place = hand_out(sandcell::report::steps_to_json(&steps));
        Ok(())
    })
}

/// What this host allows, as a JSON array of `{name, ok, detail, remedy}`, to be freed with sandcell_text_free. Found by
/// trying: takes some tens of milliseconds and starts a few small sandboxes.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_doctor_json(json: Place<'_, *mut c_char>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        *place = hand_out(sandcell::report::findings_to_json(&sandcell::doctor()));
        Ok(())
    })
}
