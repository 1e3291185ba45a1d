//! A first process that does not answer: every wait of the caller's comes to an end by itself, and `kill` gets through.

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use common::{marker, patiently, processes_with, within_a_minute};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandcell::{Cell, Outcome, Sandbox, Stdio};

fn cell() -> Cell {
    Sandbox::builder().grace(Duration::ZERO).build().unwrap().start().unwrap()
}

/// The process behind a pidfd.
fn pid_of(pidfd: &impl AsFd) -> Pid {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd())).unwrap();
    Pid::from_raw(info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap())
}

fn stop(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    let stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T");
    patiently("a process that stands still", stopped);
}

#[test]
fn a_program_with_a_timeout_ends_although_the_first_process_stands_still() {
    let marker = marker();
    let cell = cell();
    let mut command = cell.command("/bin/sleep");
    let mut child = command.arg(&marker).timeout(Duration::from_secs(1)).spawn().unwrap();
    stop(pid_of(&cell));
    let outcome = within_a_minute("a wait", move || child.wait().unwrap().outcome);
    assert_eq!(outcome, Outcome::TimedOut);
    assert!(processes_with(&marker).is_empty());
}

/// Its start has a deadline too.
#[test]
fn a_program_that_is_started_while_the_first_process_stands_still_times_out() {
    let cell = cell();
    // The control.
    assert!(cell.command("/bin/true").timeout(Duration::from_secs(30)).status().unwrap().outcome.success());
    stop(pid_of(&cell));
    let outcome = within_a_minute("a start", move || {
        cell.command("/bin/true").timeout(Duration::from_secs(1)).status().unwrap().outcome
    });
    assert_eq!(outcome, Outcome::TimedOut);
}

#[test]
fn kill_gets_through_to_a_program_whose_first_process_stands_still() {
    // In a sandbox of its own, in a cell, and from another thread while the caller waits.
    let marker = marker();
    let sandbox = Sandbox::builder().build().unwrap();
    let mut alone = sandbox.command("/bin/sleep").arg(&marker).spawn().unwrap();
    stop(pid_of(&alone));
    within_a_minute("kill", move || {
        alone.kill().unwrap();
        assert_eq!(alone.wait().unwrap().outcome, Outcome::Killed);
    });
    assert!(processes_with(&marker).is_empty());

    let cell = cell();
    let mut child = cell.command("/bin/sleep").arg(&marker).spawn().unwrap();
    stop(pid_of(&cell));
    let controller = child.controller();
    let waits = std::thread::spawn(move || child.wait().unwrap().outcome);
    within_a_minute("kill by a controller", move || controller.kill().unwrap());
    assert_eq!(within_a_minute("a wait", move || waits.join().unwrap()), Outcome::Killed);
    assert!(processes_with(&marker).is_empty());
}

/// A supervisor that answers is not taken for one that does not, however many threads ask and listen.
#[test]
fn kill_by_many_threads_ends_a_command_and_not_its_cell() {
    let cell = cell();
    for _ in 0..20 {
        let mut child = cell.command("/bin/sleep").arg("1000").spawn().unwrap();
        let controllers: Vec<_> = (0..8).map(|_| child.controller()).collect();
        let threads: Vec<_> =
            controllers.into_iter().map(|controller| std::thread::spawn(move || controller.kill().unwrap())).collect();
        assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
    assert!(cell.command("/bin/true").status().unwrap().outcome.success());
}

#[test]
fn dropping_a_child_or_its_cell_ends_them_although_the_first_process_stands_still() {
    let marker = marker();
    let cell = cell();
    let child = cell.command("/bin/sleep").arg(&marker).spawn().unwrap();
    stop(pid_of(&cell));
    within_a_minute("a drop", move || drop(child));
    assert!(processes_with(&marker).is_empty());
    within_a_minute("a drop of the cell", move || drop(cell));
}

#[cfg(feature = "cli")]
#[test]
fn the_program_sandcell_has_a_deadline_of_its_own() {
    let marker = marker();
    let script = "trap 'echo heard' USR1; echo up; while :; do sleep 0.1; done";
    let mut caller = std::process::Command::new(env!("CARGO_BIN_EXE_sandcell"))
        .args(["run", "--timeout", "5s", "--grace", "0s", "--", "sh", "-c", script, &marker])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (said, hears) = std::sync::mpsc::channel();
    let stdout = caller.stdout.take().unwrap();
    std::thread::spawn(move || {
        use std::io::BufRead;
        std::io::BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| said.send(line).unwrap_or(()))
    });
    assert_eq!(hears.recv_timeout(Duration::from_secs(60)).as_deref(), Ok("up"));
    // Signals are passed on when the start is over.
    patiently("a signal that is passed on", || {
        kill(Pid::from_raw(caller.id().cast_signed()), Signal::SIGUSR1).unwrap();
        hears.try_recv().is_ok()
    });
    let children = format!("/proc/{0}/task/{0}/children", caller.id());
    let inits = std::fs::read_to_string(&children).unwrap();
    stop(Pid::from_raw(inits.split_whitespace().next().unwrap().parse().unwrap()));
    let status = within_a_minute("sandcell run", move || caller.wait().unwrap());
    assert_eq!(status.code(), Some(124));
    patiently("no program", || processes_with(&marker).is_empty());
}

/// A program that writes faster than it is read is always ready: the caller's own deadline counts all the same.
#[test]
fn a_deadline_of_the_caller_is_kept_although_output_comes_without_end() {
    let mut child = cell()
        .command("/bin/sh")
        .args(["-c", "for n in 1 2 3 4 5 6 7 8; do (while :; do echo x; done) & done; wait"])
        .stdout(Stdio::Piped)
        .spawn()
        .unwrap();
    let output = within_a_minute("a wait with a deadline", move || {
        assert!(child.wait_with_output_timeout(Duration::from_secs(1)).unwrap().is_none());
        child.kill().unwrap();
        child.wait_with_output(None).unwrap()
    });
    assert_eq!(output.outcome, Outcome::Killed);
    assert!(output.stdout.starts_with(b"x\nx\n"), "the control: what came before is there");
}

/// What a command of a cell leaves behind may write into its output for ever. When the command has ended, that is no reason
/// to wait, and no more is taken than a pipe holds.
#[test]
fn output_of_what_a_command_has_left_behind_is_not_read_without_end() {
    let cell = cell();
    for _ in 0..5 {
        let cell = cell.clone();
        let output = within_a_minute("a command that leaves a writer", move || {
            // Eight, so that the pipe is never empty.
            let script = "for n in 1 2 3 4 5 6 7 8; do yes & done; exit 3";
            cell.command("/bin/sh").args(["-c", script]).stderr(Stdio::Null).output().unwrap()
        });
        assert_eq!(output.outcome, Outcome::Exited(3));
        assert!(output.stdout.len() < 64 << 20, "{} MiB", output.stdout.len() >> 20);
    }
}
