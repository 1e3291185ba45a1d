//! A program that runs.

use std::ffi::{c_char, c_int};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandcell::{Controller, Terminal};

use crate::error::{ErrorObject, entry, free};
use crate::result::RunResult;
use crate::text::{Place, empty, hand_out, handle, wrong};

/// A program that runs. Any number of threads may use it at once; of two that wait, the second waits for the first.
#[derive(Debug)]
pub struct Child {
    running: Mutex<sandcell::Child>,
    /// Apart from the program itself: whoever waits must not keep another from reading.
    pipes: Mutex<Pipes>,
    controller: Controller,
    id: u32,
}

#[derive(Debug)]
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    terminal: Option<Terminal>,
}

impl Child {
    pub(crate) fn new(mut child: sandcell::Child) -> Child {
        let pipes = Pipes {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            terminal: child.terminal.take(),
        };
        Child { controller: child.controller(), id: child.id(), pipes: Mutex::new(pipes), running: Mutex::new(child) }
    }

    fn pipes(&self) -> MutexGuard<'_, Pipes> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, sandcell::Child> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a descriptor where the caller wants it; there is -1 after an error.
pub(crate) fn hand_out_fd(
    place: Place<'_, c_int>,
    make: impl FnOnce() -> Result<OwnedFd, ErrorObject>,
) -> Result<(), ErrorObject> {
    let place = place.begin(-1).ok_or_else(|| wrong("fd", "is NULL: there is no place for the answer"))?;
    *place = make()?.into_raw_fd();
    Ok(())
}

/// Puts a new pidfd into `*fd`: readable when the program has ended, for poll(2), epoll(7) and the like. It is yours to
/// close and CLOEXEC, and each call makes another that shares nothing with the others: epoll forgets it when you close it,
/// unless you have duplicates of it yourself. For a program that has ended and was waited for it may be an eventfd, which
/// is readable, too.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_pidfd(
    child: Option<&Child>,
    fd: Place<'_, c_int>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || hand_out_fd(fd, || Ok(handle(child, "child")?.controller.pidfd()?)))
}

/// The program's process number inside the sandbox; 0 for NULL. sandcell_child_host_id is the one outside.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_id(child: Option<&Child>) -> u32 {
    child.map_or(0, |c| c.id)
}

/// The program's process number as the caller sees it, for perf(1), gdb(1) and the like; 0 where it has ended, or where
/// /proc does not tell it. Signals go by sandcell_child_signal: a number may soon be another process's.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_host_id(child: Option<&Child>) -> u32 {
    child.and_then(|c| c.controller.host_pid()).unwrap_or(0)
}

/// Our end of the pipe to standard input, which is yours from now on and CLOEXEC; -1 where there is none (any more).
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_take_stdin(child: Option<&Child>) -> c_int {
    let pipe = child.and_then(|c| c.pipes().stdin.take());
    pipe.map_or(-1, |pipe| OwnedFd::from(pipe).into_raw_fd())
}

/// Our end of the pipe from standard output, in the same way.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_take_stdout(child: Option<&Child>) -> c_int {
    let pipe = child.and_then(|c| c.pipes().stdout.take());
    pipe.map_or(-1, |pipe| OwnedFd::from(pipe).into_raw_fd())
}

/// Our end of the pipe from standard error, in the same way.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_take_stderr(child: Option<&Child>) -> c_int {
    let pipe = child.and_then(|c| c.pipes().stderr.take());
    pipe.map_or(-1, |pipe| OwnedFd::from(pipe).into_raw_fd())
}

/// The other end of the program's terminal, which is yours from now on, CLOEXEC and O_NONBLOCK; -1 where there is none (any
/// more). When it and all its copies are closed the terminal hangs up, and the program gets SIGHUP.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_take_terminal(child: Option<&Child>) -> c_int {
    let terminal = child.and_then(|c| c.pipes().terminal.take());
    terminal.map_or(-1, Terminal::into_raw_fd)
}

/// Waits for the end of the program, but no longer than `timeout_ms` milliseconds; a negative number waits as long as it
/// takes, and closes a pipe to standard input that is still here first. Where the program still runs then, 0 is returned
/// and `*result` is NULL. May be called again after the end. Pipes of standard output and error are not read: a program that
/// fills one (64 KiB by default) while nobody reads it waits, and never ends. Read them, or call sandcell_child_wait_output.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_wait(
    child: Option<&Child>,
    timeout_ms: i64,
    result: Place<'_, *mut RunResult>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(result, "result")?;
        let child = handle(child, "child")?;
        let report = match u64::try_from(timeout_ms) {
            Ok(milliseconds) => child.running().wait_timeout(Duration::from_millis(milliseconds))?,
            Err(_) => {
                drop(child.pipes().stdin.take());
                Some(child.running().wait()?)
            }
        };
        if let Some(report) = report {
            *place = Box::into_raw(Box::new(report.into()));
        }
        Ok(())
    })
}

/// Closes a pipe to standard input that is still here, reads those outputs that are pipes, and waits for the end of the
/// program, but no longer than `timeout_ms` milliseconds; a negative number waits as long as it takes. Where the program
/// still runs then, 0 is returned and `*result` is NULL: what was read by then is in the result of a later call.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_wait_output(
    child: Option<&Child>,
    timeout_ms: i64,
    result: Place<'_, *mut RunResult>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(result, "result")?;
        let child = handle(child, "child")?;
        // A time that no clock can tell is no end.
        let timeout = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
        let mut running = child.running();
        let mut pipes = child.pipes();
        (running.stdin, running.stdout, running.stderr) =
            (pipes.stdin.take(), pipes.stdout.take(), pipes.stderr.take());
        running.terminal = pipes.terminal.take();
        drop(pipes);
        let output = running.wait_with_output_timeout(timeout);
        // Those from which more may come.
        let mut pipes = child.pipes();
        (pipes.stdout, pipes.stderr) = (running.stdout.take(), running.stderr.take());
        pipes.terminal = running.terminal.take();
        if let Some(output) = output? {
            *place = Box::into_raw(Box::new(output.into()));
        }
        Ok(())
    })
}

/// Sends a signal, 1 to 64, to the program. No error if it has ended already.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_signal(
    child: Option<&Child>,
    signal: c_int,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || Ok(handle(child, "child")?.controller.signal(signal)?))
}

/// Sends a signal, 1 to 64, to the program and to what it started in its process group, as a terminal does for Ctrl-C.
/// Processes that have made a group or session of their own do not get it. No error if the program has ended already.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_signal_group(
    child: Option<&Child>,
    signal: c_int,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || Ok(handle(child, "child")?.controller.signal_group(signal)?))
}

/// Ends the program and all that it started, at once. Waiting tells what came of it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_kill(child: Option<&Child>, error: Place<'_, *mut ErrorObject>) -> c_int {
    entry(error, || Ok(handle(child, "child")?.controller.kill()?))
}

/// The port of the host at which this port of the sandbox is published, by UDP or TCP: the one that was chosen, where 0 was
/// asked for; 0 where it is not published.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_host_port(child: Option<&Child>, cell_port: u16, udp: bool) -> u16 {
    child.map_or(0, |child| host_port(child.running().published(), cell_port, udp))
}

/// Where a port is published first.
pub fn host_port(published: &[sandcell::Published], cell_port: u16, udp: bool) -> u16 {
    let protocol = if udp { "udp" } else { "tcp" };
    let is = |port: &&sandcell::Published| (port.cell_port, port.protocol) == (cell_port, protocol);
    published.iter().find(is).map_or(0, |port| port.host_port)
}

/// Who the program is, what is enforced and which ports are published, as `{identity, enforced, published}` of a report, to be freed with sandcell_text_free.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_report_json(
    child: Option<&Child>,
    json: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(json, "json")?;
        let running = handle(child, "child")?.running();
        let (identity, enforced) = (running.identity(), running.enforced());
        *place = hand_out(sandcell::report::standing_to_json(&identity, enforced, running.published()));
        Ok(())
    })
}

/// Frees a child. A program that still runs is ended, with all that it started. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_child_free(child: Option<Box<Child>>) {
    free(child)
}
