//! Storms: programs that fork, die, signal, write and take memory as fast as they can. The clock goes on.

mod common;

use std::time::Duration;

use common::{DOOMED, kill_the_caller, patiently, text, within_a_minute, within_minutes};
use sandcell::{Builder, Outcome, Sandbox, Seccomp, Stdio};

fn timed() -> Builder {
    Sandbox::builder().timeout(Duration::from_secs(2)).grace(Duration::ZERO)
}

/// How many children die in the longest storm: fewer where a machine is shared with others.
fn dying() -> u64 {
    std::env::var("SANDCELL_STORM").ok().and_then(|count| count.parse().ok()).unwrap_or(10_000)
}

fn times_out(builder: Builder, what: &str, script: &str) -> String {
    let script = script.to_owned();
    let output = within_a_minute(what, move || {
        let mut command = builder.build().unwrap().command("/usr/bin/python3");
        command.args(["-c", &script]).output().unwrap()
    });
    assert_eq!(output.outcome, Outcome::TimedOut, "{what}: {} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Orphans: the first process reaps each of them.
const ORPHANS: &str = "
import os, time
def storm(count):
    for _ in range(count):
        if os.fork() == 0:
            for _ in range(8):
                if os.fork() == 0: os._exit(0)
            os._exit(0)
        os.waitpid(-1, 0)
";

#[test]
fn dying_orphans_without_end_do_not_stop_the_clock() {
    let script = format!(
        "{ORPHANS}\nprint('begun', flush=True)\nfor _ in range(3):\n    if os.fork() == 0: break\nwhile True: storm(1000)"
    );
    assert_eq!(times_out(timed(), "orphans", &script), "begun");
}

#[test]
fn many_dying_orphans_are_all_reaped() {
    let script = format!(
        "{ORPHANS}\nstorm({} // 8)\ntime.sleep(0.5)\n\
         print(sum(1 for d in os.listdir('/proc') if d.isdigit() and open('/proc/' + d + '/stat').read().rsplit(')')[-1].split()[0] == 'Z'))",
        dying()
    );
    let output = within_minutes(1 + dying() / 10_000, "many orphans", move || {
        Sandbox::builder().build().unwrap().command("/usr/bin/python3").args(["-c", &script]).output().unwrap()
    });
    assert_eq!((output.outcome.clone(), &*text(&output.stdout)), (Outcome::Exited(0), "0"), "{}", text(&output.stderr));
}

#[test]
fn forks_without_end_do_not_stop_the_clock() {
    let script = "
import os, time
print('begun', flush=True)
while True:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: time.sleep(0.01)";
    match timed().pids(500).build().unwrap().command("/bin/true").status() {
        Ok(_) => assert_eq!(times_out(timed().pids(500), "forks", script), "begun"),
        Err(error) => println!("SKIPPED: no limit of processes: {error}"),
    }
}

#[test]
fn signals_without_end_do_not_stop_the_clock() {
    let script = "
import os, signal
print('begun', flush=True)
for _ in range(3):
    if os.fork() == 0: break
while True:
    for number in list(range(1, 9)) + list(range(10, 19)) + list(range(20, 65)):
        try: os.kill(1, number)
        except OSError: pass";
    for builder in [timed(), timed().seccomp(Seccomp::Off)] {
        assert_eq!(times_out(builder, "signals", script), "begun");
    }
}

#[test]
fn memory_at_its_limit_does_not_stop_the_clock() {
    let script = "
import os, time
print('begun', flush=True)
for _ in range(4):
    if os.fork() == 0:
        kept = bytearray(1 << 20)
        while True: kept = bytearray(6 << 20); kept[::4096] = b'x' * len(kept[::4096])
while True: time.sleep(1)";
    let builder = || timed().memory(64 << 20);
    match builder().build().unwrap().command("/bin/true").status() {
        Ok(_) => assert_eq!(times_out(builder(), "memory", script), "begun"),
        Err(error) => println!("SKIPPED: no limit of memory: {error}"),
    }
}

/// Both outputs of a command go into one pipe that nobody reads: others in the cell go on.
#[test]
fn a_full_pipe_for_both_outputs_holds_up_nobody_else() {
    within_a_minute("a full pipe", || {
        let cell = Sandbox::builder().output_limit(1 << 30).grace(Duration::ZERO).build().unwrap().start().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut command = cell.command("/usr/bin/python3");
        let script = "
import os
if os.fork() == 0: os.dup2(2, 1)
while True: os.write(1, b'x' * 4096)";
        command.args(["-c", script]).timeout(Duration::from_secs(4));
        command.stdout(Stdio::Fd(write.try_clone().unwrap())).stderr(Stdio::Fd(write));
        let mut child = command.spawn().unwrap();
        let full = || {
            let mut polls = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&read), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut polls, nix::poll::PollTimeout::ZERO).unwrap() == 1
        };
        patiently("output", full);
        for _ in 0..20 {
            assert!(cell.command("/bin/true").status().unwrap().outcome.success());
        }
        assert_eq!(child.wait().unwrap().outcome, Outcome::TimedOut);
        // And the cell is not the price of it.
        assert!(cell.command("/bin/true").status().unwrap().outcome.success());
    });
}

/// Whatever a program has filled: sockets, queues, its own pipes.
#[test]
fn full_sockets_and_descriptors_do_not_stop_the_clock() {
    let script = "
import os, socket
print('begun', flush=True)
kept = []
for _ in range(64):
    try:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); pair[0].setblocking(False); kept.append(pair)
        while True: pair[0].send(b'x' * 1024)
    except OSError: pass
while True:
    try: kept.append(os.pipe())
    except OSError:
        try: kept.append(os.dup(0))
        except OSError: pass";
    assert_eq!(times_out(timed(), "sockets", script), "begun");
}

#[test]
fn a_caller_killed_in_a_storm_leaves_nothing() {
    let Ok(marker) = std::env::var(DOOMED) else {
        return kill_the_caller("a_caller_killed_in_a_storm_leaves_nothing", 3);
    };
    let script = format!(
        "{ORPHANS}
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        os.execvp('sleep', ['sleep', '{marker}'])
while True: storm(1000)"
    );
    let cell = Sandbox::builder().build().unwrap().start().unwrap();
    let _ = cell.command("/usr/bin/python3").args(["-c", &script]).status();
}
