//! Signals for a program and for its process group, and signals that it ignores from the start.

mod common;

use std::io::{BufRead, BufReader};

use common::{sandbox, shell, text};
use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1};
use sandcell::{Child, Outcome, Sandbox, Stdio};

/// A shell that waits for its child, and says when that child has been executed.
const SCRIPT: &str = "trap 'echo trapped' INT; (exec sh -c 'echo ready; exec sleep 1000'); echo next";

fn begun(mut child: Child) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, lines)
}

fn rest(lines: BufReader<std::process::ChildStdout>) -> Vec<String> {
    lines.lines().map(|line| line.unwrap()).collect()
}

#[test]
fn a_signal_for_the_group_reaches_the_child_of_a_script() {
    let (mut child, lines) = begun(shell(&sandbox(), SCRIPT).stdout(Stdio::Piped).spawn().unwrap());
    child.signal_group(SIGINT).unwrap();
    // The sleep of a thousand seconds is over, and the script goes on.
    assert_eq!(rest(lines), ["trapped", "next"]);
    assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(0));
    // No error, no effect.
    child.signal_group(SIGTERM).unwrap();
    assert_eq!(child.signal_group(0).unwrap_err().kind(), "config");
}

#[test]
fn a_signal_for_the_group_reaches_no_other_command_of_a_cell() {
    let cell = sandbox().start().unwrap();
    let start = || {
        let mut command = cell.command("/bin/sh");
        begun(command.args(["-c", SCRIPT]).stdout(Stdio::Piped).spawn().unwrap())
    };
    let ((mut one, lines), (mut other, _lines)) = (start(), start());
    one.signal_group(SIGINT).unwrap();
    assert_eq!(rest(lines), ["trapped", "next"]);
    assert!(one.wait().unwrap().success());
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    assert_eq!(other.wait().unwrap().outcome, Outcome::Killed);
}

#[test]
fn a_signal_for_the_program_alone_leaves_its_child() {
    // USR1 ends the shell; its child lives on until the sandbox ends, which is at once.
    let (mut child, _lines) = begun(shell(&sandbox(), SCRIPT).stdout(Stdio::Piped).spawn().unwrap());
    child.signal(SIGUSR1).unwrap();
    assert!(matches!(child.wait().unwrap().outcome, Outcome::Signaled { signal: SIGUSR1, .. }));
}

#[test]
fn signals_can_be_ignored_from_the_start_and_only_those() {
    let script = "kill -HUP $$; kill -INT $$; echo alive; kill -TERM $$; echo not reached";
    let check = |mut command: sandcell::Command| {
        let output = command.ignore_signals([SIGHUP, SIGINT, SIGKILL, 0, 65, -1]).output().unwrap();
        assert_eq!(text(&output.stdout), "alive");
        assert!(matches!(output.outcome, Outcome::Signaled { signal: SIGTERM, .. }), "{:?}", output.outcome);
        assert!(matches!(
            command.ignore_signals([]).output().unwrap().outcome,
            Outcome::Signaled { signal: SIGHUP, .. }
        ));
    };
    check(shell(&sandbox(), script));
    let cell = Sandbox::builder().build().unwrap().start().unwrap();
    let mut command = cell.command("/bin/sh");
    command.args(["-c", script]);
    check(command);
}
