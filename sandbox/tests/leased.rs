//! A file that a program holds a lease on (fcntl(2), F_SETLEASE) keeps whoever opens it waiting for 45 seconds, which is
//! longer than any timeout here: neither a start nor the clock of the other commands may wait for it.

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use common::{DOOMED, Scratch, kill_the_caller, patiently, text, within_a_minute};
use sandcell::{Cell, Child, Command, Outcome, Sandbox, Stdio};

/// Copies a program and keeps a lease on the copy. What breaks it is a signal, which is passed over.
const LEASE: &str = "
import fcntl, os, shutil, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
shutil.copy('/bin/true', '/tmp/leased')
kept = os.open('/tmp/leased', os.O_RDONLY)
fcntl.fcntl(kept, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('leased', flush=True)
while True: time.sleep(60)
";

fn leased(cell: &Cell) -> Child {
    let mut child = cell.command("python3").args(["-c", LEASE]).stdout(Stdio::Piped).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "leased\n");
    child
}

/// The same outside, and a sandbox that is shown the copy.
struct Held {
    scratch: Scratch,
    holder: std::process::Child,
}

impl Held {
    fn new() -> Held {
        let scratch = Scratch::new();
        let script = LEASE.replace("/tmp/leased", scratch.path().join("leased").to_str().unwrap());
        let mut holder = std::process::Command::new("python3")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "leased\n");
        Held { scratch, holder }
    }

    fn program(&self) -> std::path::PathBuf {
        self.scratch.path().join("leased")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn one_shot(program: &std::path::Path) -> Command {
    let sandbox = Sandbox::builder().ro(program, program).grace(Duration::ZERO).build().unwrap();
    sandbox.command(program)
}

fn children(pid: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.flat_map(|task| of_task(task).split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn a_sandbox_whose_program_is_under_a_lease_times_out() {
    let held = Held::new();
    let program = held.program();
    within_a_minute("leased", move || {
        for learns in [false, true] {
            let output = one_shot(&program).learn(learns).timeout(Duration::from_secs(1)).output();
            let ended = output.map(|output| output.outcome.clone());
            assert_eq!(ended.as_ref().ok(), Some(&Outcome::TimedOut), "{ended:?}");
        }
    });
    // The control: without the lease it starts.
    let program = held.scratch.path().join("other");
    std::fs::copy("/bin/true", &program).unwrap();
    assert_eq!(one_shot(&program).output().unwrap().outcome, Outcome::Exited(0));
}

/// The kernel lets go of it after 45 seconds, and of a file system that does not answer never.
#[test]
fn a_caller_killed_while_its_program_is_under_a_lease_leaves_no_sandbox() {
    let test = "a_caller_killed_while_its_program_is_under_a_lease_leaves_no_sandbox";
    if let Ok(program) = std::env::var(DOOMED) {
        let (program, learns) = program.split_once(' ').unwrap();
        let _ = one_shot(program.as_ref()).learn(learns == "true").output();
        return;
    }
    for learns in [false, true] {
        let held = Held::new();
        let mut caller = std::process::Command::new(std::env::current_exe().unwrap());
        caller.args(["--exact", test, "--nocapture"]).env(DOOMED, format!("{} {learns}", held.program().display()));
        let mut caller = caller.stdout(std::process::Stdio::null()).spawn().unwrap();
        let mut left = Vec::new();
        patiently("a program on its way", || {
            left = children(&caller.id().to_string());
            left.len() == 1 && !children(&left[0]).is_empty()
        });
        std::thread::sleep(Duration::from_millis(300));
        left.extend(children(&left[0]));
        caller.kill().unwrap();
        caller.wait().unwrap();
        let begun = std::time::Instant::now();
        let is_there = |pid: &String| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.starts_with("Name:\tsandcell-init") && !status.contains("State:\tZ")
        };
        patiently("their end", || !left.iter().any(is_there));
        assert!(begun.elapsed() < Duration::from_secs(30), "before the lease: {:?}", begun.elapsed());
    }
}

fn cell(grace: Duration) -> Cell {
    Sandbox::builder().grace(grace).build().unwrap().start().unwrap()
}

/// The control: it is the lease that keeps the program from its start.
#[test]
fn without_a_lease_the_copy_starts() {
    let cell = cell(Duration::ZERO);
    let output = cell.command("sh").args(["-c", "cp /bin/true /tmp/leased"]).output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0));
    assert_eq!(cell.command("/tmp/leased").output().unwrap().outcome, Outcome::Exited(0));
}

#[test]
fn a_program_that_is_under_a_lease_times_out_and_the_cell_lives_on() {
    within_a_minute("leased", || {
        let cell = cell(Duration::ZERO);
        let _leased = leased(&cell);
        let output = cell.command("/tmp/leased").timeout(Duration::from_secs(1)).output();
        let ended = output.map(|output| (output.outcome.clone(), text(&output.stdout)));
        assert_eq!(ended.as_ref().ok(), Some(&(Outcome::TimedOut, String::new())), "{ended:?}");
        assert_eq!(cell.command("true").output().unwrap().outcome, Outcome::Exited(0));
    });
}

/// Waits until a program of the cell is on its way: the first process has one child more, and that one a child.
fn until_it_is_on_its_way(cell: &Cell, others: usize) {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", cell.as_fd().as_raw_fd())).unwrap();
    let init = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().to_owned();
    patiently("a program on its way", || {
        let keepers = children(&init);
        keepers.len() == others + 1 && keepers.iter().all(|keeper| !children(keeper).is_empty())
    });
}

#[test]
fn a_caller_killed_while_a_program_is_under_a_lease_leaves_nothing() {
    let Ok(marker) = std::env::var(DOOMED) else {
        return kill_the_caller("a_caller_killed_while_a_program_is_under_a_lease_leaves_nothing", 1);
    };
    let cell = cell(Duration::ZERO);
    let _leased = leased(&cell);
    let mut sleeps = cell.command("sh");
    sleeps.args(["-c", "read word; exec sleep $0", &marker]).stdin(Stdio::Piped);
    let mut sleeps = sleeps.spawn().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| cell.command("/tmp/leased").output());
        until_it_is_on_its_way(&cell, 2);
        std::io::Write::write_all(&mut sleeps.stdin.take().unwrap(), b"word\n").unwrap();
        let _ = sleeps.wait();
    });
}

/// It is told in time, and has its grace.
#[test]
fn a_program_that_is_under_a_lease_holds_up_no_other_ones_timeout() {
    within_a_minute("leased", || {
        let cell = cell(Duration::from_secs(20));
        let _leased = leased(&cell);
        let mut bystander = cell.command("sh");
        bystander.args(["-c", "trap 'echo TOLD; exit' TERM; echo ready; while :; do sleep 0.1; done"]);
        let mut bystander = bystander.timeout(Duration::from_secs(4)).stdout(Stdio::Piped).spawn().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(cell.command("/tmp/leased").timeout(Duration::from_secs(8)).output()));
            let output = bystander.wait_with_output(None).unwrap();
            assert_eq!((&output.outcome, &text(&output.stdout)[..]), (&Outcome::TimedOut, "ready\nTOLD"));
        });
        assert_eq!(cell.command("true").output().unwrap().outcome, Outcome::Exited(0));
    });
}

/// It has no timeout, and the others none either.
#[test]
fn a_program_that_is_under_a_lease_holds_up_no_signal_to_another_one_and_no_kill() {
    within_a_minute("leased", || {
        let cell = cell(Duration::ZERO);
        let mut leased = leased(&cell);
        let mut bystander = cell.command("sh");
        bystander.args(["-c", "trap 'echo TOLD' USR1; echo ready; while :; do sleep 0.1; done"]);
        let mut bystander = bystander.stdout(Stdio::Piped).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(bystander.stdout.take().unwrap()));
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        std::thread::scope(|scope| {
            let started = scope.spawn(|| cell.command("/tmp/leased").output());
            until_it_is_on_its_way(&cell, 2);
            bystander.signal(libc::SIGUSR1).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "TOLD");
            bystander.kill().unwrap();
            assert_eq!(bystander.wait().unwrap().outcome, Outcome::Killed);
            assert!(!started.is_finished(), "the control: it is on its way all the time");
            // It goes on when nobody holds the file any more.
            leased.kill().unwrap();
            assert_eq!(leased.wait().unwrap().outcome, Outcome::Killed);
            assert_eq!(started.join().unwrap().unwrap().outcome, Outcome::Exited(0));
        });
        assert_eq!(cell.command("true").output().unwrap().outcome, Outcome::Exited(0));
    });
}
