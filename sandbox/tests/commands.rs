//! One command run several times, its input and descriptors, and what is told of a program and a cell.

mod common;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command as StdCommand, Stdio as StdStdio};
use std::time::Duration;

use common::{sandbox, shell, text};
use sandcell::{Error, Outcome, Sandbox, Stdio};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn input_is_delivered_to_every_run_of_a_command() {
    let sandbox = sandbox();
    let cell = sandbox.start().unwrap();
    for mut command in [shell(&sandbox, "cat"), { cell.command("/bin/cat") }] {
        command.input("hello");
        for _ in 0..2 {
            assert_eq!(text(&command.output().unwrap().stdout), "hello");
        }
    }
    let mut status = shell(&sandbox, "test \"$(cat)\" = hello");
    status.input("hello");
    for _ in 0..2 {
        assert_eq!(status.status().unwrap().outcome, Outcome::Exited(0));
    }
}

#[test]
fn input_reaches_a_program_that_is_spawned_however_it_is_waited_for() {
    let sandbox = sandbox();
    let mut command = shell(&sandbox, "test \"$(cat)\" = hello");
    command.input("hello");
    let mut child = command.spawn().unwrap();
    assert!(child.stdin.is_none());
    assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(0));
    assert_eq!(command.spawn().unwrap().wait_timeout(MINUTE).unwrap().unwrap().outcome, Outcome::Exited(0));
    assert_eq!(command.spawn().unwrap().wait_with_output(None).unwrap().outcome, Outcome::Exited(0));
    // More than a pipe holds; and none.
    let large = vec![b'x'; 1 << 20];
    let counted = |input: &[u8]| {
        let mut child = shell(&sandbox, "wc -c").input(input).stdout(Stdio::piped()).spawn().unwrap();
        text(&child.wait_with_output(None).unwrap().stdout).to_owned()
    };
    assert_eq!((counted(&large), counted(b"")), ("1048576".to_owned(), "0".to_owned()));
}

#[test]
fn what_would_lose_the_input_is_refused() {
    let sandbox = sandbox();
    for stdin in [Stdio::null(), Stdio::inherit(), File::open("/dev/null").unwrap().into()] {
        let mut command = shell(&sandbox, "cat");
        let error = command.input("hello").stdin(stdin).output().unwrap_err();
        assert!(matches!(error, Error::Config(_)) && error.subject() == "input", "{error}");
        assert_eq!(text(&command.input("hello").output().unwrap().stdout), "hello", "the last counts");
    }
    assert_eq!(text(&shell(&sandbox, "cat").input("hello").stdin(Stdio::piped()).output().unwrap().stdout), "hello");
}

#[test]
fn descriptors_work_for_every_run_of_a_command() {
    let sandbox = sandbox();
    let mut file = tempfile();
    let (mut reader, writer) = std::io::pipe().unwrap();
    file.write_all(b"seven\n").unwrap();
    let mut command = shell(&sandbox, "read -r line <&7; echo out $line");
    let mut given = file.try_clone().unwrap();
    command.pass_fd(file, 7).stdout(writer);
    for _ in 0..2 {
        given.rewind().unwrap();
        assert_eq!(command.spawn().unwrap().wait().unwrap().outcome, Outcome::Exited(0));
    }
    // As with std, the command has the other end until it is dropped.
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said.matches("out seven").count(), 2, "{said}");
}

fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("sandcell-commands-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

#[test]
fn defaults_of_one_kind_of_run_are_not_those_of_the_next() {
    let sandbox = sandbox();
    let mut command = shell(&sandbox, "readlink /proc/self/fd/1");
    assert!(text(&command.output().unwrap().stdout).starts_with("pipe:"));
    let mut child = command.spawn().unwrap();
    assert!(child.stdout.is_none() && child.stderr.is_none());
    assert!(child.wait().unwrap().outcome.success());
}

#[test]
fn streams_are_made_from_those_of_std() {
    let sandbox = sandbox();
    let mut echo = StdCommand::new("echo").arg("from std").stdout(StdStdio::piped()).spawn().unwrap();
    let output = shell(&sandbox, "cat").stdin(echo.stdout.take().unwrap()).output().unwrap();
    assert_eq!(text(&output.stdout), "from std");
    echo.wait().unwrap();

    let mut cat = StdCommand::new("cat").stdin(StdStdio::piped()).stdout(StdStdio::piped()).spawn().unwrap();
    shell(&sandbox, "echo to std").stdout(cat.stdin.take().unwrap()).status().unwrap();
    assert_eq!(text(&cat.wait_with_output().unwrap().stdout), "to std");

    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    shell(&sandbox, "echo to a socket").stdout(theirs).envs([("A", "b")]).status().unwrap();
    let mut said = String::new();
    (&ours).read_to_string(&mut said).unwrap();
    assert_eq!(said, "to a socket\n");

    // From one child into the next.
    let mut first = shell(&sandbox, "echo chained").stdout(Stdio::piped()).spawn().unwrap();
    let output = shell(&sandbox, "cat").stdin(first.stdout.take().unwrap()).output().unwrap();
    assert_eq!(text(&output.stdout), "chained");
    first.wait().unwrap();
}

#[test]
fn output_that_was_read_before_a_deadline_is_in_the_next_answer() {
    let sandbox = sandbox();
    let script = "head -c 200000 /dev/zero; read -r line; echo late";
    let mut child = shell(&sandbox, script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..20 {
        assert!(child.wait_with_output_timeout(Duration::from_millis(5)).unwrap().is_none());
    }
    stdin.write_all(b"\n").unwrap();
    let output = child.wait_with_output_timeout(Duration::MAX).unwrap().unwrap();
    assert_eq!((output.stdout.len(), &output.stdout[200_000..]), (200_005, &b"late\n"[..]));
}

#[test]
fn a_time_without_end_is_no_limit() {
    let sandbox = Sandbox::builder().timeout(Duration::MAX).grace(Duration::MAX).build().unwrap();
    assert_eq!(sandbox.policy().timeout, None);
    let report = shell(&sandbox, "true").timeout(Duration::MAX).status().unwrap();
    assert!(report.outcome.success() && report.enforced.iter().all(|line| line.item != "timeout"));
    let mut child = shell(&sandbox, "true").spawn().unwrap();
    assert!(child.wait_timeout(Duration::MAX).unwrap().is_some());
    // And the other way round: it is one where it is short.
    let limited = Sandbox::builder().timeout(Duration::from_millis(50)).grace(Duration::ZERO).build().unwrap();
    assert_eq!(shell(&limited, "sleep 1000").status().unwrap().outcome, Outcome::TimedOut);
    assert!(shell(&limited, "true").timeout(Duration::MAX).status().unwrap().outcome.success());
}

#[test]
fn the_host_pid_is_that_of_the_program() {
    let sandbox = sandbox();
    let cell = sandbox.start().unwrap();
    for mut command in [shell(&sandbox, "exec cat"), cell.command("/bin/cat")] {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It echoes, so it has been executed.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = child.host_pid().expect("it runs");
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "cat\n");
        assert_ne!(pid, child.id());
        child.wait().unwrap();
        assert_eq!(child.host_pid(), None);
    }
}

#[test]
fn what_the_caller_has_killed_says_so_and_blames_nobody_else() {
    let cell = sandbox().start().unwrap();
    let mut running = cell.command("/bin/sleep").arg("1000").spawn().unwrap();
    cell.kill();
    assert_eq!(running.wait().unwrap().outcome, Outcome::Killed);
    for error in [cell.command("/bin/true").status().unwrap_err(), cell.freeze().unwrap_err(), cell.thaw().unwrap_err()]
    {
        assert!(error.to_string().contains("killed by the caller"), "{error}");
        assert!(matches!(error, Error::Io(_)) && !error.hint().contains("out-of-memory"), "{error:?}");
    }
    // And what somebody else has killed does not.
    let cell = sandbox().start().unwrap();
    let mut child = cell.command("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
    // Between the two is the process that ends all that the program starts.
    let supervisor = parent_of(parent_of(child.host_pid().unwrap()).cast_unsigned());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
    let error = child.wait().unwrap_err();
    assert!(error.to_string().contains("it was killed"), "{error}");
}

fn parent_of(pid: u32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

#[test]
fn a_cell_without_groups_knows_how_long_it_has_lived_and_nothing_else() {
    let cell = sandbox().start().unwrap();
    let first = cell.usage().wall;
    cell.command("/bin/true").status().unwrap();
    let usage = cell.usage();
    assert!(first > Duration::ZERO && usage.wall > first, "{usage:?}");
    assert_eq!((usage.user, usage.system, usage.memory_peak_bytes), (None, None, None));
    cell.kill();
    let over = cell.usage().wall;
    assert!(over >= usage.wall && cell.usage().wall == over);
    #[cfg(feature = "json")]
    {
        let json = sandcell::report::usage_to_json(&usage);
        assert!(json.contains("\"user_seconds\":null,\"system_seconds\":null"), "{json}");
        assert!(!json.contains("\"wall_seconds\":0.0,"), "{json}");
    }
}

#[test]
#[cfg(feature = "json")]
fn reports_and_their_parts_serialize_as_the_report_says() {
    let report = shell(&sandbox(), "exit 7").status().unwrap();
    let whole: serde_json::Value = serde_json::from_str(&sandcell::report::to_json(&Ok(report.clone()))).unwrap();
    assert_eq!(serde_json::to_value(&report).unwrap(), whole);
    assert_eq!(serde_json::to_value(&report.outcome).unwrap(), whole["outcome"]);
    assert_eq!(serde_json::to_value(&report.usage).unwrap(), whole["usage"]);
    assert_eq!(serde_json::to_value(report.identity).unwrap(), whole["identity"]);
    assert_eq!(serde_json::to_value(&report.enforced).unwrap(), whole["enforced"]);
    assert_eq!(whole["outcome"]["code"], 7);
    let error = shell(&sandbox(), "true").current_dir("relative").status().unwrap_err();
    assert_eq!(serde_json::to_value(&error).unwrap()["error"]["kind"], "config");
}
