//! Programs: how they end, their streams, their time and their output.

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::{Scratch, beside, run, sandbox, shell, text, told};
use sandcell::{Child, Outcome, Sandbox, Stdio};

/// Starts a script with a piped stdout and waits for its first line: from then on its traps are set.
fn ready(builder: sandcell::Builder, script: &str) -> Child {
    let sandbox = builder.build().unwrap();
    let mut child = shell(&sandbox, script).stdout(Stdio::Piped).stdin(Stdio::Null).spawn().unwrap();
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    child
}

#[test]
fn every_exit_status_comes_back() {
    let cell = sandbox().start().unwrap();
    for code in 0..=255 {
        let report = cell.command("/bin/sh").args(["-c", &format!("exit {code}")]).status().unwrap();
        assert_eq!(report.outcome, Outcome::Exited(code));
    }
    for code in [0, 1, 124, 125, 126, 127, 128, 137, 255] {
        assert_eq!(run(Sandbox::builder(), &format!("exit {code}")).outcome, Outcome::Exited(code));
    }
}

#[test]
fn every_deadly_signal_comes_back() {
    let cell = sandbox().start().unwrap();
    // CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG and WINCH do not end a program. SYS is the filter's: see refusals.rs.
    for signal in (1..=64).filter(|n| ![31, 17, 18, 19, 20, 21, 22, 23, 28, 32, 33].contains(n)) {
        let report = cell.command("/bin/sh").args(["-c", &format!("kill -{signal} $$")]).status().unwrap();
        match report.outcome {
            Outcome::Signaled { signal: got, core_dumped: false, .. } => assert_eq!(got, signal),
            other => panic!("signal {signal}: {other:?}"),
        }
    }
}

#[test]
fn a_program_that_kills_itself_is_not_one_that_was_killed() {
    assert_eq!(run(Sandbox::builder(), "kill -9 $$").outcome.kind(), "signaled");
    let mut child = sandbox().command("/bin/sleep").arg("1000").spawn().unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
}

#[test]
fn a_run_takes_no_less_time_than_its_one_thread_was_running() {
    // Some of it is over before init, which waits for the program's exec, looks at the clock.
    let cell = sandbox().start().unwrap();
    for _ in 0..100 {
        let usage = cell.command("/bin/sh").args(["-c", "exit 7"]).status().unwrap().usage;
        assert!(usage.wall >= usage.user.unwrap() + usage.system.unwrap(), "{usage:?}");
    }
}

#[test]
fn the_streams_are_kept_apart() {
    let output = run(Sandbox::builder(), "echo out; echo err >&2; cat");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
    assert_eq!(output.usage.output_bytes, Some(8));
}

#[test]
fn input_beyond_a_pipes_room_is_written_while_the_output_is_read() {
    let input = vec![b'x'; 3 << 20];
    let output = sandbox().command("/bin/cat").input(input.clone()).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
    assert!(output.stdout == input);
}

#[test]
fn a_program_that_does_not_read_its_input_is_no_error() {
    let output = sandbox().command("/bin/true").input(vec![b'x'; 3 << 20]).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
}

#[test]
fn a_descriptor_of_the_caller_can_be_a_stream() {
    let scratch = Scratch::new();
    let input = std::fs::File::open(scratch.file("in", "from a file")).unwrap();
    let path = scratch.path().join("out");
    let output = std::fs::File::create(&path).unwrap();
    let report = sandbox().command("/bin/cat").stdin(input).stdout(output).status().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(0));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "from a file");
}

#[test]
fn a_passed_descriptor_has_the_number_that_was_asked_for() {
    let scratch = Scratch::new();
    let file = |name: &str| std::fs::File::open(scratch.file(name, name)).unwrap();
    let sandbox = sandbox();
    let mut command = shell(&sandbox, "cat <&7; cat <&3; ls /proc/$$/fd; :");
    command.pass_fd(file("seven"), 7).pass_fd(file("three"), 3);
    assert_eq!(text(&command.output().unwrap().stdout), "seventhree0\n1\n2\n3\n7");
}

#[test]
fn streams_can_be_talked_through_while_the_program_runs() {
    let mut child = sandbox().command("/bin/cat").stdin(Stdio::Piped).stdout(Stdio::Piped).spawn().unwrap();
    for word in ["one\n", "two\n"] {
        child.stdin.as_mut().unwrap().write_all(word.as_bytes()).unwrap();
        let mut back = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
        assert_eq!(back, word.as_bytes());
    }
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(0), "wait closes stdin");
}

#[test]
fn a_timeout_ends_a_program_and_one_in_time_is_left_alone() {
    // Not shorter: an emulated machine takes its time until the program begins.
    let builder = || Sandbox::builder().timeout(Duration::from_secs(2));
    let output = run(builder(), "echo begun; sleep 1000");
    assert_eq!((output.outcome.clone(), text(&output.stdout)), (Outcome::TimedOut, "begun".into()));
    assert_eq!(run(builder().timeout(Duration::from_secs(60)), "true").outcome, Outcome::Exited(0));
}

#[test]
fn a_timed_out_program_is_asked_to_end_first() {
    let script = "trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done";
    let output = run(Sandbox::builder().timeout(Duration::from_secs(2)).grace(Duration::from_secs(60)), script);
    assert_eq!((output.outcome.clone(), text(&output.stdout)), (Outcome::TimedOut, "asked".into()));
}

#[test]
fn a_program_that_ignores_term_is_killed_after_the_grace() {
    let builder = Sandbox::builder().timeout(Duration::from_secs(2)).grace(Duration::from_millis(200));
    let output = run(builder, "trap '' TERM; echo begun; while :; do sleep 1000; done");
    assert_eq!((output.outcome.clone(), text(&output.stdout)), (Outcome::TimedOut, "begun".into()));
}

#[test]
fn an_output_limit_ends_a_program_and_keeps_what_fits() {
    let builder = || Sandbox::builder().output_limit(100_000);
    let output = run(builder(), "yes");
    assert_eq!(output.outcome, Outcome::OutputLimit);
    assert_eq!((output.stdout.len(), output.usage.output_bytes), (100_000, Some(100_000)));
    let output = run(builder(), "head -c 60000 /dev/zero; head -c 40000 /dev/zero >&2");
    assert_eq!(output.outcome, Outcome::Exited(0), "exactly the limit is within it");
    let output = run(builder(), "head -c 60000 /dev/zero; head -c 40001 /dev/zero >&2; sleep 1000");
    assert_eq!(output.outcome, Outcome::OutputLimit, "both streams count");
}

#[test]
fn signals_reach_the_program() {
    let mut child = ready(Sandbox::builder(), "trap 'exit 42' USR1; echo; while :; do sleep 0.05; done");
    child.signal(libc::SIGUSR1).unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(42));
    child.signal(libc::SIGUSR1).expect("no error after the end");
    assert_eq!(child.signal(65).unwrap_err().kind(), "config");
}

#[test]
fn waiting_for_a_time_gives_the_program_back() {
    let mut child = ready(Sandbox::builder(), "echo; sleep 1000");
    assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    child.kill().unwrap();
    assert_eq!(child.wait_timeout(Duration::from_secs(60)).unwrap().unwrap().outcome, Outcome::Killed);
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed, "the answer stays");
}

#[test]
fn leftovers_are_reported_on_request() {
    use sandcell::Leftovers;
    let script = &beside("sleep 1234");
    let output = run(Sandbox::builder().leftovers(Leftovers::Report), script);
    assert_eq!(output.outcome, Outcome::Exited(0));
    let commands: Vec<_> = output.leftovers.iter().map(|leftover| leftover.command.as_str()).collect();
    assert_eq!(commands, ["sleep 1234"]);
    assert_eq!(run(Sandbox::builder().leftovers(Leftovers::Report), "true").leftovers, []);
    assert_eq!(run(Sandbox::builder(), script).leftovers, []);
}

#[test]
fn environment_directory_and_umask_are_those_of_the_policy_and_the_command() {
    let builder = || Sandbox::builder().env("A", "policy").env("B", "policy").current_dir("/usr").umask(0o077);
    assert_eq!(told(builder(), "echo $A $B; pwd; umask"), "policy policy\n/usr\n0077");
    let sandbox = builder().build().unwrap();
    let mut command = shell(&sandbox, "echo $A $B$C; pwd");
    let output = command.env("A", "command").env_remove("B").env("C", "c").current_dir("/etc").output().unwrap();
    assert_eq!(text(&output.stdout), "command c\n/etc");
}

#[test]
fn a_limit_of_each_process_holds() {
    use sandcell::Resource;
    let builder = Sandbox::builder().rlimit(Resource::RLIMIT_NOFILE, 33, 44);
    assert_eq!(told(builder, "ulimit -Sn; ulimit -Hn; ulimit -Hc"), "33\n44\n0");
}
