//! A frozen cell: what ends a program thaws it, and nothing outlives the caller.

mod common;

use std::time::{Duration, Instant};

use common::{DOOMED, marker, patiently, processes_with, text, within_a_minute};
use sandcell::{Cell, Outcome, Sandbox, Stdio};

/// A cell with a cgroup that can be frozen; `None` where the caller has none.
fn cell(timeout: Option<Duration>) -> Option<Cell> {
    let builder = Sandbox::builder().pids(100).grace(Duration::ZERO);
    let builder = timeout.map_or(builder.clone(), |timeout| builder.timeout(timeout));
    let cell = match builder.build().unwrap().start() {
        Ok(cell) => cell,
        Err(error) => return skip(&error.to_string()),
    };
    match cell.freeze() {
        Ok(()) => {
            cell.thaw().unwrap();
            Some(cell)
        }
        Err(error) if error.kind() == "unsupported" => skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn skip(why: &str) -> Option<Cell> {
    println!("SKIPPED: no cgroup here that can be frozen: {why}");
    None
}

const COUNTS: &str = "n=0; while :; do n=$((n+1)); echo $n >/tmp/n.new; mv /tmp/n.new /tmp/n; done";

fn told(cell: &Cell, script: &str) -> String {
    text(&cell.command("/bin/sh").args(["-c", script]).output().unwrap().stdout)
}

#[test]
fn a_frozen_cell_stands_still_until_it_is_thawed_again_and_again() {
    let Some(cell) = cell(None) else { return };
    let shared = common::Scratch::new();
    let _child = cell.command("/bin/sh").args(["-c", COUNTS]).spawn().unwrap();
    patiently("a number", || !told(&cell, "cat /tmp/n").is_empty());
    let mut last = 0;
    for _ in 0..3 {
        cell.freeze().unwrap();
        // Twice is no mistake.
        cell.freeze().unwrap();
        cell.thaw().unwrap();
        cell.thaw().unwrap();
        let now = || told(&cell, "cat /tmp/n").parse::<u64>().unwrap();
        // The control: it counts on.
        patiently("a higher number", || now() > last + 100);
        last = now();
    }
    drop(shared);
}

#[test]
fn a_program_in_a_frozen_cell_times_out_and_the_cell_is_thawed() {
    let Some(cell) = cell(None) else { return };
    let marker = marker();
    let sleeps = marker.clone();
    let mut command = cell.command("/bin/sh");
    command.args(["-c", &format!("setsid sleep {sleeps} & sleep {sleeps}")]).timeout(Duration::from_secs(1));
    let mut child = command.spawn().unwrap();
    let mut other = cell
        .command("/bin/sh")
        .args(["-c", "read line; echo $line"])
        .stdin(Stdio::Piped)
        .stdout(Stdio::Piped)
        .spawn()
        .unwrap();
    patiently("two sleeps", || processes_with(&sleeps).len() == 2);
    cell.freeze().unwrap();
    let begun = Instant::now();
    let outcome = within_a_minute("a program in a frozen cell", move || child.wait().unwrap().outcome);
    assert_eq!(outcome, Outcome::TimedOut);
    println!("{:?}", begun.elapsed());
    assert!(processes_with(&marker).is_empty());
    // What was frozen beside it goes on.
    let output = within_a_minute("what was frozen beside it", move || {
        use std::io::Write;
        other.stdin.take().unwrap().write_all(b"thawed\n").unwrap();
        other.wait_with_output(None).unwrap()
    });
    assert_eq!((output.outcome.clone(), &*text(&output.stdout)), (Outcome::Exited(0), "thawed"));
    assert_eq!(told(&cell, "echo on"), "on");
    // Once more, now that it was thawed by somebody else than its caller.
    cell.freeze().unwrap();
    cell.thaw().unwrap();
    assert_eq!(told(&cell, "echo on"), "on");
}

#[test]
fn a_program_that_is_started_in_a_frozen_cell_times_out_or_is_refused() {
    let Some(cell) = cell(None) else { return };
    cell.freeze().unwrap();
    let error = cell.command("/bin/true").status().unwrap_err();
    assert_eq!((error.stage(), error.subject()), ("start", "cell"), "{error}");
    assert!(error.hint().contains("`thaw()`"), "{}", error.hint());
    let other = cell.clone();
    let output = within_a_minute("a start in a frozen cell", move || {
        other.command("/bin/echo").arg("ran").timeout(Duration::from_secs(1)).output().unwrap()
    });
    assert_eq!((output.outcome.clone(), &*text(&output.stdout)), (Outcome::TimedOut, ""));
    assert_eq!(told(&cell, "echo on"), "on");
    // Thawed in time it runs.
    cell.freeze().unwrap();
    let other = cell.clone();
    let late = std::thread::spawn(move || {
        other.command("/bin/echo").arg("ran").timeout(Duration::from_secs(50)).output().unwrap()
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!late.is_finished());
    cell.thaw().unwrap();
    let output = late.join().unwrap();
    assert_eq!((output.outcome.clone(), &*text(&output.stdout)), (Outcome::Exited(0), "ran"));
}

#[test]
fn kill_and_drop_end_what_is_frozen() {
    for by_drop in [false, true] {
        let Some(cell) = cell(None) else { return };
        let marker = marker();
        let mut child = cell.command("/bin/sleep").arg(&marker).spawn().unwrap();
        patiently("a sleep", || processes_with(&marker).len() == 1);
        cell.freeze().unwrap();
        within_a_minute("the end of a frozen program", move || {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
        });
        patiently("no sleep", || processes_with(&marker).is_empty());
        assert_eq!(told(&cell, "echo on"), "on");

        let mut child = cell.command("/bin/sleep").arg(&marker).spawn().unwrap();
        patiently("a sleep", || processes_with(&marker).len() == 1);
        cell.freeze().unwrap();
        let begun = Instant::now();
        if by_drop {
            within_a_minute("the end of a frozen cell", move || drop((child, cell)));
        } else {
            within_a_minute("the end of a frozen cell", move || {
                cell.kill();
                assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
            });
        }
        println!("{:?}", begun.elapsed());
        assert!(processes_with(&marker).is_empty());
    }
}

/// Groups of this process id that are left in any hierarchy.
fn groups_of(pid: u32) -> Vec<std::path::PathBuf> {
    let output = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("sandcell-{pid}-*")])
        .output()
        .unwrap();
    text(&output.stdout).lines().map(Into::into).collect()
}

/// A group without a process is removed by whoever starts the next sandbox there: it must be empty.
#[test]
fn a_caller_killed_while_its_cell_is_frozen_leaves_no_process_and_no_group() {
    let name = "a_caller_killed_while_its_cell_is_frozen_leaves_no_process_and_no_group";
    if let Ok(marker) = std::env::var(DOOMED) {
        let cell = cell(None).unwrap();
        let _child = cell.command("/bin/sh").args(["-c", &format!("setsid sleep {marker} & sleep {marker}")]).spawn();
        patiently("two sleeps", || processes_with(&marker).len() == 2);
        cell.freeze().unwrap();
        let mut argument = std::process::Command::new("/bin/sleep").arg(&marker).spawn().unwrap();
        // The third, on the outside: all is ready.
        argument.wait().unwrap();
        return;
    }
    if cell(None).is_none() {
        return;
    }
    // The third sleep is of the caller's own and not of the sandbox: it is ended by its number.
    let marker = marker();
    let mut caller = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(DOOMED, &marker)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = caller.id();
    patiently("a frozen cell", || processes_with(&marker).len() == 3);
    let inside = |sleep: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{sleep}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() != pid.to_string()))
    };
    let left = || processes_with(&marker).into_iter().filter(inside).collect::<Vec<_>>();
    assert_eq!(left().len(), 2);
    assert!(!groups_of(pid).is_empty(), "the control");
    let own = processes_with(&marker).into_iter().find(|sleep| !inside(sleep)).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(own.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    caller.wait().unwrap();
    patiently("the end of what was frozen", || processes_with(&marker).is_empty());
    // Whoever starts next collects the groups, which are empty when the last process has gone.
    patiently("the end of the groups", || {
        drop(cell(None));
        groups_of(pid).is_empty()
    });
}

/// On a host with both, v2 is what freezes. Here the tests run once more where only the freezer of v1 is left.
#[test]
fn the_same_holds_where_only_the_freezer_of_cgroup_v1_is_left() {
    const AGAIN: &str = "SANDCELL_FROZEN_V1";
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = |kind: &str, option: &str| {
        let found = mounts.lines().find(|line| line.contains(kind) && line.ends_with(option))?;
        found.split(' ').nth(4).map(str::to_owned)
    };
    if std::env::var_os(AGAIN).is_some() || std::env::var_os(DOOMED).is_some() {
        return;
    }
    let (Some(v2), Some(_), true) = (at(" - cgroup2 ", ""), at(" - cgroup ", "freezer"), common::is_root()) else {
        return println!("SKIPPED: no freezer of cgroup v1 beside v2 here, or not root");
    };
    let script = format!("umount {v2} && exec \"$0\" --test-threads 2");
    let mut again = std::process::Command::new("unshare");
    again.args(["-m", "--propagation", "private", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    let output = again.env(AGAIN, "1").output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && !said.contains("SKIPPED"), "{said}");
}
