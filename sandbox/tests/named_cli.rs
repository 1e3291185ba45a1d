//! Cells with a name from the command line, as their users meet them.

mod common;
#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use common::{Scratch, patiently, text};
use program::{Named, command, done, refused, run};

/// The one test that waits for a minute to begin.
#[test]
fn a_schedule_runs_its_program_when_its_minute_comes_and_outlives_who_started_it() {
    let program = ["sh", "-c", "echo in $0; ls /tmp", "a run"];
    let cell = Named::started(&["--schedule", "CRON_TZ=UTC * * * * *"], &program);
    let name = cell.0.as_str();
    let listed = done(&["ps"]);
    assert!(listed.lines().any(|line| line.starts_with(name) && line.contains("waiting")), "{listed}");
    let told: serde_json::Value = serde_json::from_str(&done(&["inspect", name])).unwrap();
    assert_eq!(told[0]["schedule"], "CRON_TZ=UTC * * * * *");
    assert!(told[0]["next_run"].as_f64().unwrap() % 60.0 == 0.0);
    refused(&["exec", name, "true"], "no cell but a program that runs at its times");
    refused(&["start", name, "--schedule", "@daily", "--", "true"], "taken");
    let mut follower = command(&["logs", "-f", "-t", name]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    // It begins with the minute: that was some seconds ago at most.
    assert!(first.contains(":0") && first.ends_with("Z stdout in a run"), "{first}");
    patiently("the end of the run", || text(&run(&["logs", name]).stderr).contains("run 1 has ended: exited with"));
    done(&["stop", name]);
    assert_eq!(run(&["wait", name]).status.code(), Some(0));
    follower.wait().unwrap();
}

#[test]
fn a_bad_schedule_is_refused_and_takes_no_name() {
    let name = format!("cli-schedule-{}", std::process::id());
    refused(&["start", &name, "--schedule", "61 * * * *", "--", "true"], "\"61\" is no minute");
    refused(&["start", &name, "--schedule", "@daily"], "no program to be run");
    refused(&["start", &name, "--schedule", "@daily", "-i", "--", "true"], "makes no sense");
    refused(&["start", &name, "--schedule-overlap", "--", "true"], "there is no schedule");
    assert!(!done(&["ps", "-a"]).contains(&name));
}

#[test]
fn the_day_of_a_cell() {
    let cell = Named::started(&[], &["sh", "-c", "echo hello; echo error >&2; exec sleep 1000"]);
    let name = cell.0.as_str();
    assert!(done(&["ps"]).lines().any(|line| line.starts_with(name) && line.contains("running")));
    assert_eq!(
        done(&["exec", "-e", "KEY=value", "-C", "/tmp", name, "--", "sh", "-c", "echo $KEY $PWD"]),
        "value /tmp"
    );
    assert_eq!(run(&["exec", name, "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert_eq!(run(&["exec", "--timeout", "100ms", name, "sleep", "1000"]).status.code(), Some(124));
    refused(&["exec", "--timeout", "5", name, "true"], "timeout");
    assert_eq!(run(&["exec", name, "--", "/does/not/exist"]).status.code(), Some(127));
    patiently("the log", || done(&["logs", name]) == "hello");
    assert!(done(&["logs", "-t", name]).contains("Z stdout hello"));
    assert!(done(&["logs", "--since", "1h", "--tail", "5", name]) == "hello");
    assert_eq!(done(&["logs", "--since", "2100-01-01T00:00:00Z", name]), "");
    assert!(done(&["stats", name]).contains(name));
    refused(&["rm", name], "is alive");
    refused(&["start", name, "--", "true"], "taken by a cell that runs");
    assert_eq!(run(&["wait", "--timeout", "10ms", name]).status.code(), Some(124));
    done(&["stop", name]);
    assert_eq!(run(&["wait", name]).status.code(), Some(143));
    assert!(!done(&["ps"]).contains(name) && done(&["ps", "-a"]).contains("SIGTERM"));
    let told: serde_json::Value = serde_json::from_str(&done(&["inspect", name])).unwrap();
    assert_eq!((&told[0]["state"], &told[0]["exit_status"]), (&"ended".into(), &143.into()));
    refused(&["exec", name, "true"], "has ended");
    refused(&["start", name, "--", "true"], "left its outcome");
    done(&["rm", name]);
    refused(&["stop", name], "no cell of this name");
}

#[test]
fn input_reaches_a_command_and_an_attached_program() {
    let cell = Named::started(&["-i"], &["sh", "-c", "read line; echo got $line; exit 4"]);
    let feed = |words: &[&str]| {
        let mut child = command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    assert_eq!(feed(&["exec", "-i", &cell.0, "cat"]), (Some(0), "typed".to_owned()));
    assert_eq!(feed(&["exec", &cell.0, "cat"]), (Some(0), String::new()), "without -i there is none");
    assert_eq!(feed(&["attach", &cell.0]), (Some(4), "got typed".to_owned()));
}

#[test]
fn who_attaches_second_is_told_and_may_take_over_which_the_first_is_told() {
    let cell = Named::started(&["-i"], &["cat"]);
    let attach = |options: &[&str]| {
        let words = [&["attach"], options, &[&cell.0]].concat();
        command(&words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut first = attach(&[]);
    patiently("the first one", || done(&["inspect", &cell.0]).contains("\"attached\": true"));
    refused(&["attach", &cell.0], "somebody else is attached");
    let mut second = attach(&["--takeover"]);
    second.stdin.as_mut().unwrap().write_all(b"second\n").unwrap();
    patiently("the second one", || done(&["logs", &cell.0]) == "second");
    first.stdin.as_mut().unwrap().write_all(b"first\n").unwrap();
    let mut said = String::new();
    BufReader::new(first.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("somebody else has taken over"), "{said}");
    drop(second.stdin.take());
    assert_eq!(run(&["wait", &cell.0]).status.code(), Some(0));
    assert_eq!(done(&["logs", &cell.0]), "second");
    first.wait().unwrap();
    second.wait().unwrap();
}

#[test]
fn logs_follow_to_the_end_of_the_cell() {
    let cell = Named::started(&["-i"], &["sh", "-c", "echo one; read go; echo two"]);
    let mut follower = command(&["logs", "-f", &cell.0]).stdout(Stdio::piped()).spawn().unwrap();
    patiently("the first line", || done(&["logs", &cell.0]) == "one");
    assert!(follower.try_wait().unwrap().is_none());
    let mut attached = command(&["attach", &cell.0]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    attached.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(text(&follower.wait_with_output().unwrap().stdout), "one\ntwo");
    attached.wait().unwrap();
}

#[test]
fn files_are_copied_into_a_cell_and_out_of_it_and_nothing_else_is() {
    let cell = Named::started(&[], &[]);
    let scratch = Scratch::new();
    let inside = |path: &str| format!("{}:{path}", cell.0);
    let outside = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let source = scratch.file("source", "content\n");
    done(&["cp", source.to_str().unwrap(), &inside("/tmp/copy")]);
    assert_eq!(done(&["exec", &cell.0, "cat", "/tmp/copy"]), "content");
    done(&["cp", source.to_str().unwrap(), &inside("/tmp")]);
    assert_eq!(done(&["exec", &cell.0, "cat", "/tmp/source"]), "content");
    done(&["cp", &inside("/tmp/copy"), &outside("back")]);
    assert_eq!(std::fs::read_to_string(outside("back")).unwrap(), "content\n");
    done(&["exec", &cell.0, "sh", "-c", "head -c 3000000 /dev/zero > /tmp/big; : > /tmp/empty; mkfifo /tmp/fifo"]);
    done(&["cp", &inside("/tmp/big"), &outside("big")]);
    assert_eq!(std::fs::metadata(outside("big")).unwrap().len(), 3_000_000);
    done(&["cp", &inside("/tmp/empty"), &outside("empty")]);
    assert_eq!(std::fs::read(outside("empty")).unwrap(), b"");
    // What a program inside may not read, the copy may not: links lead nowhere else.
    let secret = scratch.file("secret", "secret");
    done(&["exec", &cell.0, "ln", "-s", secret.to_str().unwrap(), "/tmp/link"]);
    let fails = |words: &[&str]| assert_eq!(run(words).status.code(), Some(125), "{words:?}");
    fails(&["cp", &inside("/tmp/link"), &outside("back")]);
    assert_eq!(std::fs::read_to_string(outside("back")).unwrap(), "content\n", "it stays as it was");
    refused(&["cp", &inside("/tmp/fifo"), &outside("fifo")], "no ordinary file");
    refused(&["cp", &inside("relative"), &outside("x")], "not absolute");
    refused(&["cp", &outside("source"), &outside("x")], "in a cell");
    fails(&["cp", source.to_str().unwrap(), &inside("/usr/new")]);
    std::os::unix::fs::symlink(&secret, outside("to-secret")).unwrap();
    fails(&["cp", &inside("/tmp/copy"), &outside("to-secret")]);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn exec_gives_a_program_a_terminal_of_its_own_where_that_is_asked_for() {
    let cell = Named::started(&[], &[]);
    let said = |arguments: &[&str]| {
        let output = run(arguments);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let script = "tty; test -t 1 && echo shown";
    // The control: without it there is none.
    assert_eq!(said(&["exec", &cell.0, "sh", "-c", script]), "not a tty");
    assert_eq!(said(&["exec", "-it", &cell.0, "sh", "-c", script]), "/dev/pts/0\r\nshown");
    assert_eq!(run(&["exec", "-t", &cell.0, "sh", "-c", "exit 7"]).status.code(), Some(7));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_hint() {
    let cell = Named::started(&[], &[]);
    let name = cell.0.as_str();
    refused(&["start", "a/b"], "no name for a cell");
    refused(&["start", &"a".repeat(65)], "longer than 64");
    refused(&["start", "x", "--log-max-size", "many"], "log_max_size");
    refused(&["start", "x", "--log-files", "0", "--", "true"], "log_files");
    refused(&["start", "x", "--restart", "always"], "no program");
    refused(&["exec", "-u", "4294967294", name, "true"], "one user");
    refused(&["kill", "-s", "NONSENSE", name], "no signal");
    refused(&["kill", "-s", "USR1", name], "no main program");
    refused(&["logs", "--since", "soon", name], "since: \"soon\" is neither a time nor a duration");
    refused(&["stop", "-g", "5", name], "no unit");
    for verb in ["stop", "kill", "pause", "resume", "logs", "attach", "wait"] {
        refused(&[verb, "there-is-none"], "no cell of this name");
    }
    for verb in ["rm", "inspect"] {
        refused(&[verb, "there-is-none"], "there-is-none: there is neither a cell nor an image of this name");
    }
    done(&["kill", name]);
    assert_eq!(run(&["wait", name]).status.code(), Some(137));
}

#[test]
fn who_is_attached_to_a_cell_that_is_removed_learns_it_whichever_comes_first() {
    let attach = |cell: &Named| {
        let mut words = command(&["attach", &cell.0]);
        words.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let learns = |attached: std::process::Child| {
        let output = attached.wait_with_output().unwrap();
        let said = text(&output.stderr);
        match output.status.code() {
            // Ended by `rm -f`, which removes it after that.
            Some(137) => {}
            Some(125) => assert!(said.contains("removed meanwhile") || said.contains("no cell of this name"), "{said}"),
            other => panic!("{other:?}: {said}"),
        }
    };
    const SPEAKS: [&str; 3] = ["sh", "-c", "while :; do echo line; sleep 0.02; done"];
    for round in 0..12u64 {
        let cell = Named::started(&["-i"], &SPEAKS);
        let attached = attach(&cell);
        if round % 3 == 0 {
            patiently("who is attached", || done(&["inspect", &cell.0]).contains("\"attached\": true"));
        }
        std::thread::sleep(std::time::Duration::from_millis(round % 3 * 3));
        done(&["rm", "-f", &cell.0]);
        learns(attached);
        refused(&["attach", &cell.0], "there is no cell of this name");
    }
}

#[test]
fn what_is_told_of_a_cell_names_it_and_the_timeout_that_held() {
    let cell = Named::started(&["--timeout", "1h"], &[]);
    let name = cell.0.as_str();
    let told = |words: &[&str], status, message: &str| {
        let output = run(words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
        assert!(said.contains(message), "{words:?}: {said}");
    };
    told(&["exec", "--timeout", "200ms", name, "sleep", "1000"], 124, "timed out after 200ms");
    // Nobody is to look for a cell of the name `cell`.
    told(&["kill", "-s", "USR1", name], 125, &format!("{name}: has no main program that runs"));
}
