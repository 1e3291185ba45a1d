//! Long-lived sandboxes, and what ends with what.

#![allow(unsafe_code)]

mod common;

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use common::{marker, patiently, processes_with, sandbox, shell, text};
use sandcell::{Cell, Outcome, Sandbox, Stdio};

fn cell() -> Cell {
    sandbox().start().unwrap()
}

fn told(cell: &Cell, script: &str) -> String {
    text(&cell.command("/bin/sh").args(["-c", script]).output().unwrap().stdout)
}

#[test]
fn commands_of_a_cell_share_files_processes_and_names() {
    let cell = cell();
    told(&cell, "echo kept > /tmp/file");
    assert_eq!(told(&cell, "cat /tmp/file; id -u"), format!("kept\n{}", cell.identity().uid));
    let other = sandbox().start().unwrap();
    assert_eq!(told(&other, "cat /tmp/file 2>/dev/null || echo none"), "none");
    assert_eq!(told(&cell, "hostname"), told(&cell, "hostname"));
}

#[test]
fn threads_run_commands_in_one_cell_at_once() {
    let cell = cell();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let cell = cell.clone();
            scope.spawn(move || {
                for run in 0..10 {
                    let script = format!("cat; echo {thread}; exit {run}");
                    let mut command = cell.command("/bin/sh");
                    let output = command.args(["-c", &script]).input(format!("{run} ")).output().unwrap();
                    assert_eq!(output.outcome, Outcome::Exited(run));
                    assert_eq!(text(&output.stdout), format!("{run} {thread}"));
                }
            });
        }
    });
}

#[test]
fn commands_of_a_cell_run_at_the_same_time() {
    let cell = cell();
    told(&cell, "mkfifo /tmp/a /tmp/b");
    // Each waits for the other: one after the other they would never end.
    let start = |script: &str| cell.command("/bin/sh").args(["-c", script]).spawn().unwrap();
    let mut one = start("echo > /tmp/a; cat /tmp/b >/dev/null");
    let mut two = start("cat /tmp/a >/dev/null; echo > /tmp/b");
    assert_eq!(one.wait().unwrap().outcome, Outcome::Exited(0));
    assert_eq!(two.wait().unwrap().outcome, Outcome::Exited(0));
}

#[test]
fn a_reader_that_stalls_holds_up_nobody_else_in_the_cell() {
    let cell = Sandbox::builder().output_limit(1 << 20).build().unwrap().start().unwrap();
    let write = ["-c", "head -c 100000 /dev/zero"];
    let mut stalled = cell.command("/bin/sh").args(write).stdout(Stdio::Piped).spawn().unwrap();
    let ended = || {
        let look = format!("! kill -0 {}", stalled.id());
        let mut other = cell.command("/bin/sh").args(["-c", &look]).stderr(Stdio::Null).spawn().unwrap();
        let report = other.wait_timeout(Duration::from_secs(10)).unwrap();
        report.expect("a command beside it is held up").outcome.success()
    };
    // More than fits between it and us is still on its way.
    patiently("the end of the program", ended);
    assert!(stalled.try_wait().unwrap().is_none());
    let mut read = Vec::new();
    stalled.stdout.take().unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), 100_000);
    assert_eq!(stalled.wait().unwrap().outcome, Outcome::Exited(0));
}

/// The supervisor hears of the last output and of the program's end at once, while the pipe to us is full.
#[test]
fn a_program_that_ends_with_its_last_words_holds_up_nobody_either() {
    let cell = Sandbox::builder().output_limit(1 << 20).build().unwrap().start().unwrap();
    let script = "head -c 65536 /dev/zero; until [ -e /tmp/go ]; do sleep 0.02; done; echo more";
    let mut stalled = cell.command("/bin/sh").args(["-c", script]).stdout(Stdio::Piped).spawn().unwrap();
    let waiting = || {
        let mut bytes = 0;
        // SAFETY: a place for a number.
        unsafe { nix::libc::ioctl(stalled.stdout.as_ref().unwrap().as_raw_fd(), nix::libc::FIONREAD, &raw mut bytes) };
        bytes
    };
    patiently("a full pipe", || waiting() == 65_536);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", cell.as_fd().as_raw_fd())).unwrap();
    let init = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), signal).unwrap();
    told(&cell, "(sleep 0.2; : >/tmp/go) &");
    signal(nix::sys::signal::Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(1));
    signal(nix::sys::signal::Signal::SIGCONT);
    let (said, heard) = std::sync::mpsc::channel();
    let beside = cell.clone();
    std::thread::spawn(move || said.send(told(&beside, "echo on")));
    let heard = heard.recv_timeout(Duration::from_secs(30));
    let mut read = Vec::new();
    stalled.stdout.take().unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(heard.as_deref(), Ok("on"), "a command beside it is held up");
    assert_eq!((read.len(), stalled.wait().unwrap().outcome), (65_541, Outcome::Exited(0)));
}

#[test]
fn output_that_nobody_reads_is_given_up_with_the_time_of_its_program() {
    let cell = Sandbox::builder().output_limit(1 << 20).build().unwrap().start().unwrap();
    let mut command = cell.command("/bin/sh");
    command.args(["-c", "head -c 100000 /dev/zero"]).stdout(Stdio::Piped).timeout(Duration::from_secs(3));
    let mut stalled = command.spawn().unwrap();
    let report = stalled.wait().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(0));
    assert!(report.warnings.iter().any(|warning| warning.contains("lost")), "{:?}", report.warnings);
    assert_eq!(told(&cell, "echo on"), "on");
}

#[test]
fn a_cell_outlives_the_thread_that_started_it() {
    let cell = std::thread::spawn(cell).join().unwrap();
    for _ in 0..3 {
        assert_eq!(told(&cell, "echo alive"), "alive");
    }
    let mut child =
        std::thread::spawn(|| sandbox().command("/bin/cat").stdin(Stdio::Piped).stdout(Stdio::Null).spawn().unwrap())
            .join()
            .unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(0));
}

#[test]
fn dropping_a_child_ends_its_program() {
    let marker = marker();
    let child = sandbox().command("/bin/sleep").arg(&marker).spawn().unwrap();
    // The kernel lets the parent of a vfork go on just before the command line can be read.
    patiently("a sleep", || processes_with(&marker).len() == 1);
    drop(child);
    assert!(processes_with(&marker).is_empty());
}

#[test]
fn the_last_handle_ends_a_cell_and_all_in_it() {
    let marker = marker();
    let cell = cell();
    told(&cell, &format!("sleep {marker} >/dev/null 2>&1 & setsid sleep {marker} >/dev/null 2>&1 &"));
    patiently("two sleeps", || processes_with(&marker).len() == 2);
    let second = cell.clone();
    drop(cell);
    assert_eq!(processes_with(&marker).len(), 2, "a handle is left");
    drop(second);
    assert!(processes_with(&marker).is_empty());
}

#[test]
fn killing_a_cell_ends_what_runs_in_it_and_refuses_more() {
    let cell = cell();
    let mut child = cell.command("/bin/sleep").arg("1000").spawn().unwrap();
    cell.clone().kill();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
    assert_eq!(cell.command("/bin/true").status().unwrap_err().kind(), "io");
}

#[test]
fn a_daemon_ends_with_the_program_of_a_one_shot_sandbox() {
    let marker = marker();
    let script = format!("(setsid sleep {marker} </dev/null >/dev/null 2>&1 &) ; exit 3");
    let output = shell(&sandbox(), &script).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(3));
    assert!(processes_with(&marker).is_empty());
}

#[test]
fn a_stdout_that_is_kept_open_does_not_hang_the_caller() {
    let output = shell(&sandbox(), "sleep 1000 & echo said").output().unwrap();
    assert_eq!((output.outcome.clone(), text(&output.stdout)), (Outcome::Exited(0), "said".into()));
    // In a cell the process lives on, and still nobody waits for it.
    let cell = cell();
    assert_eq!(told(&cell, "sleep 1000 & echo said"), "said");
    assert_eq!(
        told(&cell, "ps ax 2>/dev/null | grep -c '[s]leep 1000' || cat /proc/[0-9]*/cmdline | grep -c sleep"),
        "1"
    );
}

#[test]
fn a_stopped_program_can_still_be_ended() {
    let sandbox = Sandbox::builder().timeout(std::time::Duration::from_millis(300)).build().unwrap();
    let output = shell(&sandbox, "kill -STOP $$").output().unwrap();
    assert_eq!(output.outcome, Outcome::TimedOut);
}

#[test]
fn fork_storms_end_with_their_sandbox() {
    let marker = marker();
    let script = format!("echo; while :; do sleep {marker} & sleep 0; done");
    let mut child = shell(&sandbox(), &script).stdout(Stdio::Piped).stderr(Stdio::Null).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    patiently("some sleeps", || processes_with(&marker).len() > 5);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
    assert!(processes_with(&marker).is_empty());
}

#[test]
fn zombies_of_others_are_reaped_inside() {
    let cell = cell();
    told(&cell, "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done");
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    patiently("no zombie", || told(&cell, zombies) == "0");
}

#[test]
fn a_controller_ends_a_program_from_another_thread() {
    let mut child = sandbox().command("/bin/sleep").arg("1000").spawn().unwrap();
    let controller = child.controller();
    let thread = std::thread::spawn(move || controller.kill().unwrap());
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
    thread.join().unwrap();
}

#[test]
fn the_pidfd_of_a_program_tells_its_end() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let cell = cell();
    for command in [&mut sandbox().command("/bin/cat"), &mut cell.command("/bin/cat")] {
        let mut child = command.stdin(Stdio::Piped).spawn().unwrap();
        let readable = |child: &sandcell::Child, wait| {
            poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], wait).unwrap() == 1
        };
        assert!(!readable(&child, PollTimeout::ZERO));
        drop(child.stdin.take());
        assert!(readable(&child, PollTimeout::NONE));
        assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(0));
    }
}
