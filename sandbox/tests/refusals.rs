//! Refusals speak: the outcome names the call that the filter ended a program for.

mod common;

use common::{shell, text, told};
use sandcell::seccomp::{Action, Profile};
use sandcell::{Builder, Outcome, Output, Sandbox, Seccomp};

/// The default profile, but that these calls end the program.
fn killing(calls: &[&str], action: Action) -> Builder {
    let mut profile = Profile::new(Action::Allow);
    profile = profile.rule(calls, action, &[]).unwrap();
    Sandbox::builder().seccomp(Seccomp::Profile(profile))
}

fn denied(output: &Output) -> &str {
    match &output.outcome {
        Outcome::SyscallDenied { syscall, .. } => syscall,
        other => panic!("{other}: {}", text(&output.stderr)),
    }
}

fn ran(builder: Builder, script: &str) -> Output {
    shell(&builder.build().unwrap(), script).output().unwrap()
}

/// What mkdir(1) calls: libc has the old call where there is one.
const CALL: &str = if cfg!(target_arch = "x86_64") { "mkdir" } else { "mkdirat" };
const MKDIR: &str = "mkdir /tmp/d; echo made";

#[test]
fn the_call_that_ends_a_program_is_named() {
    for action in [Action::KillProcess, Action::KillThread] {
        // exec: the program itself makes the call, not a child of the shell.
        let output = ran(killing(&["mkdir", "mkdirat"], action), "echo begun; exec mkdir /tmp/d");
        assert_eq!((denied(&output), &*text(&output.stdout)), (CALL, "begun"), "{action:?}");
        assert_eq!(output.outcome.exit_status(), 159);
    }
    // The twin: without the rule it is made.
    assert_eq!(told(killing(&["chroot"], Action::KillProcess), MKDIR), "made");
}

#[test]
fn a_child_of_the_program_that_is_ended_is_the_programs_affair() {
    let output = ran(killing(&["mkdir", "mkdirat"], Action::KillProcess), "mkdir /tmp/d; echo $?");
    assert_eq!((&output.outcome, &*text(&output.stdout)), (&Outcome::Exited(0), "137"));
}

#[test]
fn a_call_of_another_thread_counts_as_the_programs() {
    let script = "import os, threading
def work(): os.chroot('/tmp')
thread = threading.Thread(target=work); thread.start(); thread.join(); print('alive')";
    let run = |calls: &[&str]| {
        let sandbox = killing(calls, Action::KillProcess).build().unwrap();
        sandbox.command("python3").args(["-c", script]).output().unwrap()
    };
    let output = run(&["chroot"]);
    assert_eq!((denied(&output), &*text(&output.stdout)), ("chroot", ""));
    let twin = run(&["setns"]);
    assert_eq!((&twin.outcome, &*text(&twin.stdout)), (&Outcome::Exited(0), "alive"));
}

#[test]
fn a_program_that_may_not_even_execute_is_named_too_and_nothing_hangs() {
    let output = ran(killing(&["execve"], Action::KillProcess), "echo never");
    assert_eq!(denied(&output), "execve");
    // What a failed start needs is refused or ends it: an error or an outcome, never a wait without end.
    for action in [Action::KillProcess, Action::Errno(1), Action::Trap] {
        let sandbox = killing(&["exit_group", "openat"], action).build().unwrap();
        let result = sandbox.command("/no/such/program").output();
        assert!(result.is_err() || !result.unwrap().outcome.success(), "{action:?}");
    }
}

#[test]
fn a_signal_without_a_listener_is_a_denied_call_without_a_name() {
    let output = ran(killing(&["mkdir", "mkdirat"], Action::Trap), "exec mkdir /tmp/d");
    assert_eq!(denied(&output), "unknown");
    // Without a filter it is a signal like others.
    let output = ran(Sandbox::builder().seccomp(Seccomp::Off), "kill -SYS $$");
    assert!(matches!(output.outcome, Outcome::Signaled { signal: 31, .. }), "{}", output.outcome);
}

#[test]
fn the_programs_of_a_cell_have_a_listener_each_and_what_they_leave_behind_keeps_it() {
    let cell = killing(&["mkdir", "mkdirat"], Action::KillProcess).build().unwrap().start().unwrap();
    let sh = |script: &str| cell.command("/bin/sh").args(["-c", script]).output().unwrap();
    // The program ends; its child makes the call later, when a listener nobody holds would answer ENOSYS.
    let left = sh("mkfifo /tmp/go /tmp/done; (cat /tmp/go; mkdir /tmp/d; echo $? >/tmp/done) >/dev/null 2>&1 & :");
    assert_eq!(left.outcome, Outcome::Exited(0), "{}", text(&left.stderr));
    let denied_again = sh("exec mkdir /tmp/e");
    assert_eq!(denied(&denied_again), CALL);
    assert_eq!(text(&sh("echo >/tmp/go; cat /tmp/done").stdout), "137");
    assert_eq!(text(&sh("echo fine").stdout), "fine");
}

#[test]
fn descriptors_of_any_number_reach_a_program_with_a_listener() {
    let sandbox = killing(&["chroot"], Action::KillProcess).build().unwrap();
    let (read, write) = nix::unistd::pipe().unwrap();
    nix::unistd::write(&write, b"through the pipe\n").unwrap();
    drop(write);
    let mut command = shell(&sandbox, "cat <&9; ls /proc/self/fd | tr '\\n' ' '");
    let output = command.pass_fd(read, 9).output().unwrap();
    // 3 is ls's own.
    assert_eq!(text(&output.stdout), "through the pipe\n0 1 2 3 9 ");
}

#[test]
fn a_timeout_and_a_kill_are_not_taken_for_a_denied_call() {
    let sandbox = killing(&["chroot"], Action::KillProcess).grace(std::time::Duration::ZERO).build().unwrap();
    let output = shell(&sandbox, "sleep 60").timeout(std::time::Duration::from_millis(50)).output().unwrap();
    assert_eq!(output.outcome, Outcome::TimedOut);
    let mut child = shell(&sandbox, "sleep 60").spawn().unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
}
