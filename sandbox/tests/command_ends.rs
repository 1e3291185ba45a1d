//! The end of a command in a cell is the end of all that it started, in whatever session that is and whoever forked it;
//! and of nothing else.

mod common;

use std::time::Duration;

use common::{marker, patiently, processes_with, sandbox, text, within_a_minute};
use sandcell::{Cell, Child, Command, Leftovers, Outcome, Sandbox, Seccomp, Stdio};

/// Starts, in the background, a process in a session of its own, one that was forked twice, and both together.
fn scatter(marker: &str) -> String {
    format!(
        "setsid sleep {marker} >/dev/null 2>&1 & (sleep {marker} >/dev/null 2>&1 &) ; \
         (setsid sh -c 'setsid sleep {marker} >/dev/null 2>&1 & :' &) "
    )
}

fn sh(cell: &Cell, script: &str) -> Command {
    let mut command = cell.command("/bin/sh");
    command.args(["-c", script]);
    command
}

fn three(marker: &str) {
    patiently("three sleeps", || processes_with(marker).len() == 3);
}

/// One command of the cell that must not be touched.
fn bystander(cell: &Cell, marker: &str) -> Child {
    let child = sh(cell, &format!("{}; wait; sleep 1000", scatter(marker))).spawn().unwrap();
    three(marker);
    child
}

#[test]
fn a_kill_ends_what_a_command_of_a_cell_has_scattered_and_nothing_else() {
    let (ours, others) = (marker(), marker());
    let cell = sandbox().start().unwrap();
    let mut other = bystander(&cell, &others);
    let mut child = sh(&cell, &format!("{}; sleep 1000", scatter(&ours))).spawn().unwrap();
    three(&ours);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
    assert!(processes_with(&ours).is_empty(), "{:?}", processes_with(&ours));
    assert_eq!(processes_with(&others).len(), 3);
    assert!(other.try_wait().unwrap().is_none());
    // A child that is dropped ends the same way.
    drop(other);
    patiently("the end of the others", || processes_with(&others).is_empty());
    assert!(sh(&cell, "true").status().unwrap().outcome.success());
}

#[test]
fn a_timeout_ends_what_a_command_of_a_cell_has_scattered() {
    let (ours, others) = (marker(), marker());
    let cell = Sandbox::builder().grace(Duration::ZERO).build().unwrap().start().unwrap();
    let other = bystander(&cell, &others);
    let script = format!("{}; sleep 1000", scatter(&ours));
    let report = sh(&cell, &script).timeout(Duration::from_secs(2)).status().unwrap();
    assert_eq!(report.outcome, Outcome::TimedOut);
    assert!(processes_with(&ours).is_empty());
    assert_eq!(processes_with(&others).len(), 3);
    drop(other);
}

/// SIGTERM reaches them too, and what obeys it does not wait for SIGKILL.
#[test]
fn the_grace_of_a_timeout_is_for_all_that_a_command_has_started() {
    let cell = Sandbox::builder().grace(Duration::from_secs(600)).build().unwrap().start().unwrap();
    let script = "setsid sh -c 'trap \"echo heard >/tmp/heard; exit\" TERM; : >/tmp/ready; while :; do sleep 0.05; done' \
                  >/dev/null 2>&1 & until [ -e /tmp/ready ]; do sleep 0.05; done; sleep 1000";
    let report = within_a_minute("a timeout with a long grace", {
        let cell = cell.clone();
        move || sh(&cell, script).timeout(Duration::from_secs(3)).status().unwrap()
    });
    assert_eq!(report.outcome, Outcome::TimedOut);
    let heard = || text(&sh(&cell, "cat /tmp/heard").output().unwrap().stdout) == "heard";
    patiently("what was heard", heard);
}

#[test]
fn the_output_limit_ends_what_a_command_of_a_cell_has_scattered() {
    let ours = marker();
    let cell = Sandbox::builder().output_limit(1000).build().unwrap().start().unwrap();
    let script = format!("{}; sleep 0.5; while :; do echo too much; done", scatter(&ours));
    let output = sh(&cell, &script).output().unwrap();
    assert_eq!(output.outcome, Outcome::OutputLimit);
    assert!(processes_with(&ours).is_empty());
}

/// A program that ends by itself leaves what it started: in a cell that goes on, and it is named where that was asked for.
#[test]
fn what_a_command_of_a_cell_leaves_behind_lives_on_and_is_named() {
    let ours = marker();
    let cell = Sandbox::builder().leftovers(Leftovers::Report).build().unwrap().start().unwrap();
    let earlier = sh(&cell, "setsid sleep 1000 >/dev/null 2>&1 &").status().unwrap();
    assert_eq!(earlier.leftovers.len(), 1, "{earlier:?}");
    let report =
        sh(&cell, &format!("{}; until [ $(pgrep -c sleep) = 4 ]; do sleep 0.05; done; exit 3", scatter(&ours)));
    let report = { report }.status().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(3));
    let names: Vec<_> = report.leftovers.iter().map(|left| left.command.as_str()).collect();
    // Its own, and not what others have left.
    assert_eq!(names.iter().filter(|name| **name == format!("sleep {ours}")).count(), 3, "{names:?}");
    assert!(!names.contains(&"sleep 1000"), "{names:?}");
    assert_eq!(processes_with(&ours).len(), 3);
    drop(cell);
    assert!(processes_with(&ours).is_empty());
}

/// A chain of processes of which each lives only until it has forked the next: nobody catches one by its number.
#[test]
fn a_command_that_forks_faster_than_it_is_found_is_ended_all_the_same() {
    let ours = marker();
    let program =
        format!("import os, sys\nos.setsid()\nwhile True:\n    if os.fork(): os._exit(0)\n    os.setsid()\n# {ours}");
    within_a_minute("a chain of processes", {
        let ours = ours.clone();
        move || {
            let cell = Sandbox::builder().grace(Duration::ZERO).build().unwrap().start().unwrap();
            let script = format!("{}; python3 -c \"$0\" {ours} >/dev/null 2>&1 & sleep 1000", scatter(&ours));
            let mut command = cell.command("/bin/sh");
            command.args(["-c", &script, &program]).timeout(Duration::from_secs(2));
            assert_eq!(command.status().unwrap().outcome, Outcome::TimedOut);
            patiently("the end of the chain", || processes_with(&ours).is_empty());
            assert!(sh(&cell, "true").status().unwrap().outcome.success());
        }
    });
}

/// The process between the supervisor and a program can be signalled by programs; then no promise is broken either.
#[test]
fn a_keeper_that_is_killed_or_stopped_does_not_let_its_command_get_away() {
    for signal in ["KILL", "STOP"] {
        let ours = marker();
        let sleeps = ours.clone();
        within_a_minute(signal, move || {
            let cell = Sandbox::builder().seccomp(Seccomp::Off).build().unwrap().start().unwrap();
            let script = format!("{}; sleep 0.5; kill -{signal} $PPID; echo $PPID; sleep 1000", scatter(&sleeps));
            let mut child = sh(&cell, &script).stdout(Stdio::Piped).spawn().unwrap();
            if signal == "STOP" {
                three(&sleeps);
                std::thread::sleep(Duration::from_secs(1));
                child.kill().unwrap();
            }
            let output = child.wait_with_output(None).unwrap();
            // The control: it is not the first process.
            assert!(
                text(&output.stdout).parse::<u32>().is_ok_and(|parent| parent > 1) || signal == "KILL",
                "{output:?}"
            );
            let ended = matches!(output.outcome, Outcome::Killed | Outcome::Signaled { signal: 9, .. });
            assert!(ended, "{signal}: {}", output.outcome);
            patiently("no sleep", || processes_with(&sleeps).is_empty());
            assert!(sh(&cell, "true").status().unwrap().outcome.success());
        });
    }
}

/// kill(-1) by a program ends the programs beside it, as ever; the cell goes on.
#[test]
fn a_program_that_kills_all_it_can_does_not_end_its_cell() {
    let cell = sandbox().start().unwrap();
    let outcome = within_a_minute("kill -9 -1", {
        let cell = cell.clone();
        move || sh(&cell, "kill -9 -1; sleep 1000").status().unwrap().outcome
    });
    assert!(matches!(outcome, Outcome::Signaled { signal: 9, .. }), "{outcome}");
    assert!(sh(&cell, "true").status().unwrap().outcome.success());
}

/// The process beside a command is ours: the limit is the programs'.
#[test]
fn the_limit_of_processes_counts_what_a_command_of_a_cell_starts_and_nothing_of_ours() {
    for count in [1u64, 4] {
        let cell = match Sandbox::builder().pids(count).build().unwrap().start() {
            Ok(cell) => cell,
            Err(error) if error.kind() == "unsupported" => return println!("SKIPPED: no limit of processes: {error}"),
            Err(error) => panic!("{error}"),
        };
        // As many as the limit says, twice at once, and one more.
        let forks = |sleeps: u64| {
            let script = "import os, sys, time\nn = 0\nfor _ in range(int(sys.argv[1])):\n    try:\n        if os.fork() == 0: time.sleep(2); os._exit(0)\n        n += 1\n    except OSError: pass\nprint(n)";
            let mut command = cell.command("python3");
            text(&command.args(["-c", script, &sleeps.to_string()]).output().unwrap().stdout)
        };
        patiently("only the program", || forks(count - 1) == (count - 1).to_string());
        patiently("what the limit allows", || forks(count + 3) == (count - 1).to_string());
    }
}
