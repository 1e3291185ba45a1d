//! The relay under stress: killed callers, a relay that is stopped, few descriptors, readers that do not read.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandcell::Outcome;

use crate::world::within;
use crate::{children_named, common, probe, tried, user};

/// Says in a process of its own what to do as a caller.
const CALLER: &str = "SANDCELL_TEST_CALLER";

/// In that process: starts a sandbox, tells the number of its relay, and waits.
#[test]
fn caller() {
    if std::env::var_os(CALLER).is_none() {
        return;
    }
    let cell = user().build().unwrap().start().unwrap();
    cell.command("true").status().unwrap();
    println!("relay {}", children_named("sandcell-relay")[0]);
    std::thread::sleep(Duration::from_secs(1000));
    drop(cell);
}

#[test]
fn a_relay_ends_with_a_caller_that_is_killed() {
    within("a_relay_ends_with_a_caller_that_is_killed", |_| {
        let mut caller = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "relay::caller", "--nocapture"])
            .env(CALLER, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines().map_while(Result::ok);
        let relay = lines.find_map(|line| line.split_once("relay ").map(|(_, pid)| pid.to_owned())).unwrap();
        let place = format!("/proc/{relay}/comm");
        assert_eq!(std::fs::read_to_string(&place).unwrap().trim(), "sandcell-relay", "the twin: it runs");
        kill(Pid::from_raw(caller.id().cast_signed()), Signal::SIGKILL).unwrap();
        caller.wait().unwrap();
        // Whoever takes in orphans may take its time to reap.
        let gone = || std::fs::read_to_string(format!("/proc/{relay}/stat")).map_or(true, |stat| stat.contains(") Z "));
        common::patiently("the end of the relay", gone);
    });
}

#[test]
fn a_relay_that_is_stopped_holds_nobody_up_for_ever() {
    within("a_relay_that_is_stopped_holds_nobody_up_for_ever", |_| {
        let sandbox = user().timeout(Duration::from_secs(1)).grace(Duration::ZERO).build().unwrap();
        let since = Instant::now();
        let script = "read go; exec 3<>/dev/tcp/8.8.8.8/80";
        let mut child = sandbox.command("bash").args(["-c", script]).stdin(sandcell::Stdio::Piped).spawn().unwrap();
        let relay = Pid::from_raw(children_named("sandcell-relay")[0]);
        kill(relay, Signal::SIGSTOP).unwrap();
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().outcome, Outcome::TimedOut);
        drop(child);
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
        assert!(children_named("sandcell-relay").is_empty() && children_named("sandcell-init").is_empty());
    });
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody_else() {
    within("a_reader_that_does_not_read_holds_up_nobody_else", |_| {
        let attempts = ["stall 8.8.8.8 80", "stall 2606:4700::1 80", "bulk 8.8.8.8 80 3000000", "tcp 1.1.1.1 80"];
        let tried = tried(user(), &attempts);
        for attempt in attempts {
            assert_eq!(tried.of(attempt), "ok", "{attempt}");
        }
    });
}

#[test]
fn without_descriptors_connections_are_refused_and_come_back() {
    within("without_descriptors_connections_are_refused_and_come_back", |_| {
        // The limit of this process and of all that it starts from here on.
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 128, 128).unwrap();
        let program = std::env::current_exe().unwrap();
        let sandbox = user().ro(&program, "/probe").build().unwrap();
        let mut command = sandbox.command("/probe");
        command.args(["--exact", "inside", "--nocapture"]).env(probe::TRIES, "hold 8.8.8.8 80 100;tcp 8.8.8.8 80");
        let output = command.output().unwrap();
        let text = common::text(&output.stdout);
        let held: usize = text.split_once("=hold 8.8.8.8 80 100=").unwrap().1.lines().next().unwrap().parse().unwrap();
        assert!((20..100).contains(&held), "{held} of 100 at once");
        assert!(text.contains("=tcp 8.8.8.8 80=ok"), "{text}");
        let full =
            output.network.as_ref().unwrap().refused().find(|one| one.why.as_deref().unwrap().contains("too many"));
        assert!(full.is_some_and(|one| one.count >= 100 - held as u64), "{:?}", output.network);
    });
}

#[test]
fn a_thousand_connections_in_a_row_leave_nothing_behind() {
    within("a_thousand_connections_in_a_row_leave_nothing_behind", |_| {
        let cell = user().build().unwrap().start().unwrap();
        let relay = || children_named("sandcell-relay")[0];
        let script = "for i in $(seq 1000); do exec 3<>/dev/tcp/8.8.8.8/80; echo $i >&3; read n <&3; [ $n = $i ] || exit 1; exec 3>&-; done";
        let open = || std::fs::read_dir(format!("/proc/{}/fd", relay())).map(Iterator::count);
        // It has its sockets when it has carried something.
        let first = "exec 3<>/dev/tcp/8.8.8.8/80; echo 1 >&3; read n <&3";
        assert!(cell.command("bash").args(["-c", first]).status().unwrap().success());
        let before = open();
        assert!(cell.command("bash").args(["-c", script]).status().unwrap().success());
        // Its files can be looked at by the host's root alone: it is not dumpable.
        if let Ok(before) = before {
            common::patiently("the end of each", || open().map_or(true, |now| now <= before));
        }
        let output = cell.command("true").output().unwrap();
        assert_eq!(output.network.as_ref().unwrap().connections[0].count, 1001);
    });
}
