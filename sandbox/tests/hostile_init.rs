//! What a program can do to the first process of its sandbox, without a filter and with capabilities: the timeout is kept
//! all the same, and nothing outlives the caller.

mod common;

use std::process::Command as Host;
use std::time::Duration;

use common::{DOOMED, kill_the_caller, text, within_a_minute};
use sandcell::Capability;
use sandcell::{Builder, Outcome, Sandbox, Seccomp, Stdio};

/// A sandbox without a filter, whose program has a second.
fn open() -> Builder {
    Sandbox::builder().seccomp(Seccomp::Off).timeout(Duration::from_secs(1)).grace(Duration::ZERO)
}

/// Runs a Python program that never ends by itself; what it wrote before its time was up.
fn times_out(builder: Builder, script: &str) -> String {
    let script = format!("{PREAMBLE}{script}\norphan()\nprint('SLEEPS', flush=True)\nwhile True: time.sleep(60)\n");
    within_a_minute(&script.clone(), move || {
        let mut child = builder.build().unwrap().command("python3");
        let mut child = child.args(["-c", &script]).stdout(Stdio::Piped).stderr(Stdio::Piped).spawn().unwrap();
        let output = child.wait_with_output(None).unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.outcome, Outcome::TimedOut, "{said}");
        said
    })
}

const PREAMBLE: &str = "
import ctypes, os, resource, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def did(name, answer):
    print(name, 'done' if answer == 0 else os.strerror(ctypes.get_errno()), flush=True)
def call(name, *arguments):
    did(name, min(0, libc.syscall(*arguments)))
def orphan():
    # The first process reaps it, and waits anew under what has been done to it.
    if os.fork() == 0: os._exit(0) if os.fork() else (time.sleep(0.05), os._exit(0))
    os.wait()
def limit(pid, number, soft, hard):
    pair = (ctypes.c_uint64 * 2)(soft, hard)
    return libc.prlimit(pid, number, pair, None)
";

const RESOURCES: u32 = 16;

/// Each limit of PID 1 down to nothing, and up to what it may be.
#[test]
fn no_resource_limit_of_the_first_process_stops_the_clock() {
    // A hard limit of CPU time does not stop its clock but ends it, by a tick that may come or not: see below.
    let numbers: Vec<u32> = (1..RESOURCES).collect();
    for chunk in numbers.chunks(4) {
        std::thread::scope(|scope| {
            for number in chunk {
                scope.spawn(move || {
                    let said = times_out(open(), &format!("did('limit', limit(1, {number}, 0, 0))"));
                    // The control: nothing but the filter would refuse it.
                    assert!(said.contains("limit done"), "{number}: {said}");
                });
            }
        });
    }
    let all = "for number in range(16): did('soft', limit(1, number, 0, resource.getrlimit(number)[1] % 2**64))";
    let said = times_out(open(), all);
    assert!(said.contains("soft done"), "{said}");
    let raise = "for number in range(16): did('max', limit(1, number, 2**64 - 1, 2**64 - 1))";
    times_out(open(), raise);
}

/// The kernel kills who is beyond a hard limit of CPU time, the first process too, at the next tick that finds it running.
#[test]
fn a_first_process_without_cpu_time_ends_its_sandbox_and_the_error_says_so() {
    let marker = common::marker();
    let script = format!(
        "{PREAMBLE}
if os.fork() == 0:
    os.setsid()
    os.execvp('sleep', ['sleep', '{marker}'])
did('limit', limit(1, 0, 0, 0))
while True:
    # Each of them for the first process to reap.
    os.wait() if os.fork() else os._exit(0 * os.fork())"
    );
    let result = within_a_minute("a first process without CPU time", move || {
        let mut command = open().timeout(Duration::from_secs(50)).build().unwrap().command("python3");
        command.args(["-c", &script]).output()
    });
    let error = result.expect_err("no outcome of the program's");
    assert_eq!((error.stage(), error.subject()), ("wait", "supervisor"), "{error}");
    assert!(error.hint().contains("seccomp"), "{}", error.hint());
    common::patiently("no sleep", || common::processes_with(&marker).is_empty());
}

#[test]
fn the_default_filter_refuses_limits_of_others_and_allows_a_programs_own() {
    let builder = Sandbox::builder().timeout(Duration::from_secs(1)).grace(Duration::ZERO);
    let script = "
did('own', limit(0, 7, 100, 100))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))
print('asks', resource.prlimit(1, resource.RLIMIT_NOFILE)[0] > 0)
for number in range(16): did('other', limit(1, number, 0, 0))
did('itself by number', limit(os.getpid(), 7, 80, 80))";
    let said = times_out(builder, script);
    assert!(said.contains("own done\n100") && said.contains("asks True"), "{said}");
    assert_eq!(said.matches("other Operation not permitted").count(), 16, "{said}");
    assert!(said.contains("itself by number Operation not permitted"), "{said}");
}

#[test]
fn limits_of_the_first_process_of_a_cell_do_not_reach_the_next_command() {
    let cell = Sandbox::builder().seccomp(Seccomp::Off).build().unwrap().start().unwrap();
    let python = |script: &str| {
        let script = format!("{PREAMBLE}{script}");
        text(&cell.command("python3").args(["-c", &script]).output().unwrap().stdout)
    };
    let before = python("print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_FSIZE))");
    // Soft limits come back, however low they are.
    let lower = "for number in (1, 7): did('soft', limit(1, number, 4, resource.getrlimit(number)[1] % 2**64))";
    assert_eq!(python(lower), "soft done\nsoft done");
    let after = python("print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_FSIZE))");
    assert_eq!(before, after);
    // What only the host's root could undo is no silent limit of the next command, but an error that says what it is.
    assert_eq!(python("did('hard', limit(1, 1, 0, 0))"), "hard done");
    let limit = format!("{PREAMBLE}print(resource.getrlimit(resource.RLIMIT_FSIZE)[1] == 0)");
    match cell.command("python3").args(["-c", &limit]).output() {
        // Root of the host has put it back, or a process that was there before starts it, with limits of its own.
        Ok(output) => assert_eq!(text(&output.stdout), "False", "{output:?}"),
        Err(error) => assert_eq!(error.stage(), "supervisor-limits", "{error}"),
    }
}

/// A cell whose program takes all descriptors from PID 1: kill and timeout of a command work, whatever that costs the cell.
#[test]
fn a_first_process_without_descriptors_still_ends_commands() {
    for by_timeout in [true, false] {
        let marker = common::marker();
        let sleeps = marker.clone();
        within_a_minute("a command of a cell without descriptors", move || {
            let cell = Sandbox::builder().seccomp(Seccomp::Off).grace(Duration::ZERO).build().unwrap().start().unwrap();
            let script = format!(
                "{PREAMBLE}did('files', limit(1, 7, 0, 0))\nos.execvp('setsid', ['setsid', '-w', 'sleep', '{sleeps}'])"
            );
            let mut command = cell.command("python3");
            command.args(["-c", &script]).stdout(Stdio::Piped);
            if by_timeout {
                command.timeout(Duration::from_secs(2));
            }
            let mut child = command.spawn().unwrap();
            common::patiently("a sleep", || !common::processes_with(&sleeps).is_empty());
            if !by_timeout {
                child.kill().unwrap();
            }
            let output = child.wait_with_output(None).unwrap();
            assert_eq!(text(&output.stdout), "files done");
            assert_eq!(output.outcome, if by_timeout { Outcome::TimedOut } else { Outcome::Killed });
        });
        common::patiently("no sleep", || common::processes_with(&marker).is_empty());
    }
}

const STEER: &str = "
SCHED_SETSCHEDULER, SCHED_SETAFFINITY, SETPRIORITY, IOPRIO_SET, PTRACE = 144, 203, 141, 251, 101
zero = (ctypes.c_int * 1)(0)
one = (ctypes.c_ulong * 1)(1)
call('idle', SCHED_SETSCHEDULER, 1, 5, zero)
call('affinity', SCHED_SETAFFINITY, 1, 8, one)
call('nice', SETPRIORITY, 0, 1, 19)
call('ioprio', IOPRIO_SET, 1, 1, 3 << 13)
call('group', 109, 1, os.getpid())
call('stop', 62, 1, signal.SIGSTOP)
call('cont', 62, 1, signal.SIGCONT)
call('trace', PTRACE, 0x4206, 1, 0, 0)
call('pidfd', 434, 1, 0)
for name in ('oom_score_adj', 'coredump_filter', 'timerslack_ns', 'comm', 'mem', 'clear_refs', 'attr/exec', 'sched'):
    try:
        with open('/proc/1/' + name, 'w') as file: file.write('1000')
        print(name, 'done', flush=True)
    except OSError as error: print(name, error.strerror, flush=True)
for number in range(1, 65):
    if number not in (9, 19): libc.kill(1, number)
";

/// Capabilities that may be kept, one at a time: CAP_KILL makes ours no more than the program's, CAP_SYS_ADMIN and
/// CAP_SYS_PTRACE are the strongest.
#[test]
fn nothing_that_steers_a_process_stops_the_clock_of_the_first_one() {
    const KEPT: [&[Capability]; 6] = [
        &[],
        &[Capability::CAP_KILL],
        &[Capability::CAP_SYS_ADMIN],
        &[Capability::CAP_SYS_PTRACE],
        &[Capability::CAP_SYS_NICE, Capability::CAP_SYS_RESOURCE, Capability::CAP_KILL],
        &[Capability::CAP_KILL, Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_NICE],
    ];
    for chunk in KEPT.chunks(3) {
        std::thread::scope(|scope| {
            for kept in chunk {
                scope.spawn(move || {
                    let builder = kept.iter().fold(open(), |builder, capability| builder.cap_add(*capability));
                    let said = times_out(builder, STEER);
                    assert!(
                        said.contains("SLEEPS") && said.contains("trace Operation not permitted"),
                        "{kept:?}: {said}"
                    );
                    if kept.contains(&Capability::CAP_KILL) {
                        // The control: ours are no more than its own, and it is let.
                        assert!(said.contains("nice done"), "{kept:?}: {said}");
                    }
                });
            }
        });
    }
}

/// By it a timeout of poll(2) is late, and CAP_SYS_NICE may set it. The caller's own deadline would end the sandbox all the
/// same, but without the SIGTERM before.
#[test]
fn the_timer_slack_of_the_first_process_makes_no_timeout_late() {
    let script = "
signal.signal(signal.SIGTERM, lambda *_: (print('TOLD', flush=True), os._exit(0)))
slack = os.open('/proc/1/timerslack_ns', os.O_RDWR)
os.write(slack, b'100000000000')
print('slack', os.read(slack, 100).decode(), flush=True)
";
    let builder = open().cap_add(Capability::CAP_SYS_NICE).timeout(Duration::from_secs(3));
    let said = times_out(builder.grace(Duration::from_secs(20)), script);
    assert!(said.contains("slack 100000000000") && said.contains("SLEEPS"), "the control: {said}");
    assert!(said.contains("TOLD"), "{said}");
}

/// The control for them all: outside of a sandbox a process of the same user is stopped and traced.
#[test]
fn without_a_sandbox_the_same_calls_reach_a_process_of_the_same_user() {
    let script = format!(
        "{PREAMBLE}
pid = os.fork()
if pid == 0:
    while True: time.sleep(60)
did('limit', limit(pid, 7, 0, 0))
call('trace', 101, 0x4206, pid, 0, 0)
call('stop', 62, pid, signal.SIGSTOP)
os.kill(pid, signal.SIGKILL)"
    );
    let output = Host::new("python3").args(["-c", &script]).output().unwrap();
    assert_eq!(text(&output.stdout), "limit done\ntrace done\nstop done", "{}", text(&output.stderr));
}

fn doomed() -> Option<String> {
    std::env::var(DOOMED).ok()
}

#[test]
fn a_caller_killed_with_a_blind_first_process_leaves_nothing() {
    let Some(marker) = doomed() else {
        return kill_the_caller("a_caller_killed_with_a_blind_first_process_leaves_nothing", 2);
    };
    let sandbox = Sandbox::builder().seccomp(Seccomp::Off).build().unwrap();
    let script = format!(
        "{PREAMBLE}for number in range(16):\n    number in (0, 2) or limit(1, number, 0, 0)\n\
         orphan()\ntime.sleep(0.5)\nos.fork() or os.setsid()\nos.execvp('sleep', ['sleep', '{marker}'])"
    );
    let _ = sandbox.command("python3").args(["-c", &script]).status();
}
