//! Programs that behave badly: each ends with its own outcome and leaves nothing, on whatever holds limits here (cgroup
//! v1, or v2 in the second kernel). Each has a twin that needs a little less, or is given a little more, and ends well.

mod common;

use std::time::Duration;

use common::{processes_with, run, shell, text};
use sandcell::{Builder, Error, Leftovers, Mechanism, Outcome, Output, Sandbox, Stdio, TimeLimit};

const MEMORY: u64 = 64 << 20;
/// Fills memory until it is stopped; 256 MiB if nobody does.
const MEMORY_BOMB: &str = "head -c 268435456 /dev/zero | tail > /dev/null";

/// Runs it where something here holds its limits. Where nothing does, the start must have been refused with a remedy.
fn held(builder: Builder, script: &str) -> Option<Output> {
    let sandbox = builder.build().expect("the policy");
    match common::shell(&sandbox, script).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(matches!(error, Error::Unsupported(_)) && !error.hint().is_empty(), "{error} ({})", error.hint());
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

fn by_cgroup(output: &Output, item: &str) -> bool {
    let line = output.enforced.iter().find(|line| line.item == item).unwrap_or_else(|| panic!("{item}: {output:?}"));
    matches!(line.by, Mechanism::Cgroup1 | Mechanism::Cgroup2)
}

#[test]
fn a_memory_bomb_is_out_of_memory() {
    let Some(output) = held(Sandbox::builder().memory(MEMORY), MEMORY_BOMB) else { return };
    assert_eq!(output.outcome, Outcome::OutOfMemory, "{output:?}");
    assert!(by_cgroup(&output, "memory"));
    assert!(output.usage.oom_kills.unwrap() >= 1);
    let twin = held(Sandbox::builder().memory(MEMORY * 16), MEMORY_BOMB).expect("as before");
    assert_eq!((&twin.outcome, twin.usage.oom_kills), (&Outcome::Exited(0), Some(0)), "{twin:?}");
}

#[test]
fn memory_counts_however_it_is_taken() {
    const KINDS: [(&str, &str); 8] = [
        ("a file in memory", "f = os.memfd_create('f'); [os.write(f, b'x' * MIB) for _ in range(128)]"),
        ("/dev/shm", "f = open('/dev/shm/f', 'wb', 0); [f.write(b'x' * MIB) for _ in range(128)]"),
        ("/tmp", "f = open('/tmp/f', 'wb', 0); [f.write(b'x' * MIB) for _ in range(128)]"),
        ("shared memory", "m = mmap.mmap(-1, 128 * MIB); [m.write(b'x' * MIB) for _ in range(128)]"),
        // One page in each 2 MiB: 4 KiB of data and 4 KiB of page table each (MAP_NORESERVE).
        (
            "page tables",
            "m = mmap.mmap(-1, 64 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000); [m.seek(n << 21) or m.write(b'x') for n in range(16384)]",
        ),
        (
            "threads",
            "s = threading.stack_size(MIB); e = threading.Event(); t = lambda: (bytearray(4 * MIB), e.wait()); \
          [threading.Thread(target=t, daemon=True).start() for _ in range(32)]; e.wait(20)",
        ),
        // What was written and nobody reads.
        (
            "pipes",
            "p = [os.pipe() for _ in range(1500)]; [os.set_blocking(w, False) or os.write(w, b'x' * 65536) for r, w in p]",
        ),
        (
            "sockets",
            "p = [socket.socketpair() for _ in range(400)]; \
          [a.setblocking(False) or [a.send(b'x' * 32768) for _ in range(5)] for a, b in p]",
        ),
    ];
    for (what, code) in KINDS {
        let script = format!(
            "ulimit -n $(ulimit -Hn); exec /usr/bin/python3 -c \"import mmap, os, socket, threading; MIB = 1 << 20; {code}; os._exit(0)\""
        );
        let Some(output) = held(Sandbox::builder().memory(MEMORY), &script) else { return };
        assert_eq!(output.outcome, Outcome::OutOfMemory, "{what}: {output:?}");
        let twin = held(Sandbox::builder().memory(MEMORY * 64), &script.replace("e.wait(20)", "1")).expect("as before");
        assert_eq!(twin.outcome, Outcome::Exited(0), "{what}: {twin:?}");
    }
}

/// POSIX timers take memory of the kernel's and, when they go off, time: both are bounded.
#[test]
fn a_storm_of_timers_is_bounded_in_number_and_ends_at_its_timeout() {
    // timer_create, timer_settime: each goes off every 100 µs, and its signal has a handler.
    const TIMERS: &str = "
import ctypes, signal
call = ctypes.CDLL(None).syscall
signal.signal(signal.SIGALRM, lambda *_: None)
timers = []
while len(timers) < 3000:
    timer = ctypes.c_long()
    if call(222, 1, None, ctypes.byref(timer)): break
    timers.append(timer)
print(len(timers), flush=True)
for timer in timers: call(223, timer, 0, (ctypes.c_long * 4)(0, 100000, 0, 100000), None)
while True: pass
";
    let storm = |builder: Builder| {
        let sandbox = builder.timeout(Duration::from_secs(2)).grace(Duration::ZERO).build().expect("the policy");
        let output = sandbox.command("/usr/bin/python3").args(["-c", TIMERS]).output().expect("a run");
        assert_eq!(output.outcome, Outcome::TimedOut, "{output:?}");
        assert!(output.usage.wall < Duration::from_millis(2500), "{output:?}");
        text(&output.stdout).parse::<u64>().expect("a number")
    };
    // Each may have a signal pending.
    let pending = sandcell::Resource::RLIMIT_SIGPENDING;
    assert!(storm(Sandbox::builder().rlimit(pending, 100, 100)) <= 100);
    assert_eq!(storm(Sandbox::builder()), 3000);
}

#[test]
fn a_grandchild_killed_for_memory_is_out_of_memory_whatever_the_program_says() {
    let script = format!("({MEMORY_BOMB}; true); exit 0");
    let Some(output) = held(Sandbox::builder().memory(MEMORY), &script) else { return };
    assert_eq!(output.outcome, Outcome::OutOfMemory, "{output:?}");
    let twin = held(Sandbox::builder().memory(MEMORY), "(head -c 1000000 /dev/zero | tail > /dev/null); exit 3");
    assert_eq!(twin.expect("as before").outcome, Outcome::Exited(3));
}

#[test]
fn too_little_memory_to_start_is_told_as_such() {
    if held(Sandbox::builder().memory(MEMORY), "true").is_none() {
        return;
    }
    for kilobytes in [4, 16, 64, 128, 256, 400] {
        let sandbox = Sandbox::builder().memory(kilobytes << 10).build().expect("the policy");
        match common::shell(&sandbox, "head -c 1000000 /dev/zero | tail > /dev/null").output() {
            Ok(output) => assert_eq!(output.outcome, Outcome::OutOfMemory, "{kilobytes} KiB: {output:?}"),
            Err(error) => assert!(
                matches!(error, Error::Setup(_)) && error.subject() == "memory" && error.hint().contains("raise"),
                "{kilobytes} KiB: {error:?}"
            ),
        }
    }
    let output = held(Sandbox::builder().memory(4 << 20), "true").expect("as before");
    assert_eq!(output.outcome, Outcome::Exited(0), "{output:?}");
}

#[test]
fn a_fork_bomb_is_refused_more_processes_and_that_is_counted() {
    let script = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i + 1)); done 2>/dev/null; echo all";
    let Some(output) = held(Sandbox::builder().pids(16), script) else { return };
    assert!(matches!(output.outcome, Outcome::Exited(code) if code != 0), "the shell gives up: {output:?}");
    assert!(by_cgroup(&output, "pids") && output.usage.pids_refused.unwrap() >= 1, "{output:?}");
    let twin = held(Sandbox::builder().pids(64), script).expect("as before");
    assert_eq!((&twin.outcome, twin.usage.pids_refused), (&Outcome::Exited(0), Some(0)), "{twin:?}");
}

#[test]
fn a_fork_bomb_without_end_ends_at_its_timeout_and_leaves_no_process() {
    let mark = common::marker();
    // The program itself forks once, at the beginning: a shell that cannot fork gives up.
    let script = format!("bomb() {{ bomb | bomb & sleep {mark}; }}; bomb 2>/dev/null & exec sleep {mark}");
    let builder = Sandbox::builder().pids(32).timeout(Duration::from_secs(2)).grace(Duration::from_millis(100));
    let Some(output) = held(builder, &script) else { return };
    assert_eq!(output.outcome, Outcome::TimedOut, "{output:?}");
    assert!(output.usage.pids_refused.unwrap() >= 1, "{output:?}");
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
}

#[test]
fn four_spinners_end_when_their_cpu_time_is_used_up_or_time_is() {
    let spin = "for i in 1 2 3 4; do (while :; do :; done) & done; wait";
    let Some(output) = held(Sandbox::builder().cpu_time(Duration::from_millis(500)), spin) else { return };
    assert_eq!((&output.outcome, output.timed_out), (&Outcome::TimedOut, Some(TimeLimit::Cpu)), "{output:?}");
    let used = output.usage.user.unwrap() + output.usage.system.unwrap();
    assert!(used >= Duration::from_millis(400), "{used:?}");
    let twin = held(Sandbox::builder().cpu_time(Duration::from_secs(3600)), "echo done").expect("as before");
    assert_eq!((&twin.outcome, twin.timed_out), (&Outcome::Exited(0), None));
    let slow = Sandbox::builder().cpus(0.5).timeout(Duration::from_secs(1)).grace(Duration::from_millis(100));
    let Some(output) = held(slow, spin) else { return };
    assert_eq!((&output.outcome, output.timed_out), (&Outcome::TimedOut, Some(TimeLimit::Wall)), "{output:?}");
    // How much they got is measured by `cgroup::tests::kernel` and `tests/bench/limits`.
    assert!(by_cgroup(&output, "cpus"), "{output:?}");
}

#[test]
fn a_disk_filler_gets_no_space_left_and_the_host_nothing() {
    let script =
        "cat /dev/zero > /tmp/full; cat /dev/zero > ~/more; echo $(($(stat -c %s /tmp/full) + $(stat -c %s ~/more)))";
    let output = run(Sandbox::builder().disk(16 << 20), script);
    assert_eq!(output.outcome, Outcome::Exited(0));
    let both: u64 = text(&output.stdout).parse().expect("bytes");
    assert!(both <= 16 << 20 && both > 15 << 20, "one budget for all: {both}");
    assert_eq!(text(&output.stderr).matches("No space left").count(), 2, "{}", text(&output.stderr));
    let twin = run(Sandbox::builder().disk(64 << 20), "head -c 33554432 /dev/zero > /tmp/full");
    assert_eq!(twin.outcome, Outcome::Exited(0), "{twin:?}");
}

#[test]
fn an_inode_filler_gets_no_space_left() {
    let script = "i=0; while [ $i -lt 500 ]; do : > /tmp/$i || exit 1; i=$((i + 1)); done";
    let output = run(Sandbox::builder().inodes(200), script);
    assert!(matches!(output.outcome, Outcome::Exited(code) if code != 0), "{output:?}");
    assert!(text(&output.stderr).contains("No space left"), "{}", text(&output.stderr));
    assert_eq!(run(Sandbox::builder().inodes(600), script).outcome, Outcome::Exited(0));
}

#[test]
fn an_output_flood_is_the_output_limit() {
    let output = run(Sandbox::builder().output_limit(100_000), "cat /dev/zero");
    assert_eq!((&output.outcome, output.stdout.len()), (&Outcome::OutputLimit, 100_000));
    let twin = run(Sandbox::builder().output_limit(100_000), "head -c 99999 /dev/zero");
    assert_eq!((&twin.outcome, twin.stdout.len()), (&Outcome::Exited(0), 99_999));
    // What is thrown away counts as well.
    for null in [|| Stdio::Null, || Stdio::from(std::fs::File::options().write(true).open("/dev/null").unwrap())] {
        let of = |bytes: u32| {
            let sandbox = Sandbox::builder().output_limit(100_000).build().unwrap();
            shell(&sandbox, &format!("head -c {bytes} /dev/zero")).stdout(null()).status().unwrap()
        };
        assert_eq!((of(100_001).outcome, of(99_999).outcome), (Outcome::OutputLimit, Outcome::Exited(0)));
        assert_eq!(of(5).usage.output_bytes, Some(5));
    }
}

#[test]
fn a_sleep_beyond_the_timeout_is_timed_out() {
    let builder = || Sandbox::builder().timeout(Duration::from_millis(300)).grace(Duration::from_millis(100));
    assert_eq!(run(builder(), "sleep 1000").outcome, Outcome::TimedOut);
    assert_eq!(run(builder(), "trap '' TERM; sleep 1000; sleep 1000").outcome, Outcome::TimedOut, "deaf to TERM too");
    assert_eq!(run(builder().timeout(Duration::from_secs(600)), "sleep 0.01; exit 4").outcome, Outcome::Exited(4));
}

#[test]
fn a_double_forked_daemon_does_not_outlive_its_program() {
    let mark = common::marker();
    let executed = common::until_executed(&mark, 2);
    let script = format!("(setsid sh -c 'sleep {mark} & sleep {mark} &' &) ; {executed}; exit 5");
    let output = run(Sandbox::builder().leftovers(Leftovers::Report), &script);
    assert_eq!(output.outcome, Outcome::Exited(5), "{output:?}");
    assert!(output.leftovers.iter().any(|left| left.command.contains(&mark)), "{:?}", output.leftovers);
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
}

#[test]
fn leftovers_make_a_failure_of_a_run_where_that_was_asked_for() {
    let script = &common::beside("sleep 1000");
    let facts = |what, script: &str| {
        let output = run(Sandbox::builder().leftovers(what), script);
        (output.success(), output.exit_status(), output.outcome.exit_status(), output.leftovers.len())
    };
    assert_eq!(facts(Leftovers::Fail, script), (false, 125, 0, 1));
    assert_eq!(facts(Leftovers::Fail, &format!("{script}; exit 3")), (false, 3, 3, 1), "its own failure goes first");
    assert_eq!(facts(Leftovers::Report, script), (true, 0, 0, 1));
    assert_eq!(facts(Leftovers::Kill, script), (true, 0, 0, 0));
    assert_eq!(facts(Leftovers::Fail, "sleep 0.01"), (true, 0, 0, 0));
    assert_eq!(facts(Leftovers::Report, "exit 4"), (false, 4, 4, 0));
}

/// The directory of the group that limits the memory of a process, and the file with the limit in it.
fn memory_group(pid: u32) -> (std::path::PathBuf, &'static str) {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process lives");
    let v1 = groups.lines().find_map(|line| line.split_once(":memory:"));
    let v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));
    match (v1, v2) {
        (Some((_, path)), _) => (format!("/sys/fs/cgroup/memory{path}").into(), "memory.limit_in_bytes"),
        (_, path) => (format!("/sys/fs/cgroup{}", path.expect("v2")).into(), "memory.max"),
    }
}

/// Starts a program with a memory limit, has `act` do something to its group, ends it.
fn meddled_with(act: impl FnOnce(u32)) -> Option<Output> {
    let mark = common::marker();
    let sandbox = Sandbox::builder().memory(MEMORY).build().expect("the policy");
    let mut command = common::shell(&sandbox, &format!("sleep {mark}"));
    let mut child = match command.stdin(sandcell::Stdio::Null).spawn() {
        Ok(child) => child,
        Err(error) => {
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
            eprintln!("SKIPPED: {error}");
            return None;
        }
    };
    common::patiently("the program sleeps", || !processes_with(&mark).is_empty());
    act(processes_with(&mark)[0]);
    child.kill().expect("SIGKILL");
    let output = child.wait_with_output(None).expect("its end");
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
    Some(output)
}

#[test]
fn a_limit_that_is_lifted_while_a_program_runs_is_not_in_the_report() {
    let line = |output: &Output| output.enforced.iter().find(|line| line.item == "memory").cloned().expect("a line");
    let Some(output) = meddled_with(|pid| {
        let (group, file) = memory_group(pid);
        // v1 wants this one to be the larger at any time.
        let _ = std::fs::write(group.join("memory.memsw.limit_in_bytes"), "-1");
        std::fs::write(group.join(file), if file == "memory.max" { "max" } else { "-1" }).expect("the caller's own");
    }) else {
        return;
    };
    assert_eq!(line(&output).by, Mechanism::Nothing, "{output:?}");
    assert!(line(&output).why.expect("a reason").contains("lifted"), "{output:?}");
    let twin = meddled_with(|_| ()).expect("as before");
    assert!(by_cgroup(&twin, "memory"), "{twin:?}");
}

#[test]
fn a_group_that_is_removed_while_a_program_runs_is_told_and_the_program_ends_all_the_same() {
    let Some(output) = meddled_with(|pid| {
        let (group, _) = memory_group(pid);
        let above = group.parent().expect("a group above").join("cgroup.procs");
        // Beside the caller on v2, where a group with groups below it takes no process.
        let above = [above.clone(), above.with_file_name("caller").join("cgroup.procs")];
        for pid in std::fs::read_to_string(group.join("cgroup.procs")).expect("its processes").lines() {
            let moved = above.iter().any(|procs| std::fs::write(procs, pid).is_ok());
            assert!(moved, "{pid} cannot be moved out of {}", group.display());
        }
        std::fs::remove_dir(&group).expect("it is empty");
    }) else {
        return;
    };
    let line = output.enforced.iter().find(|line| line.item == "memory").expect("a line");
    assert!(line.by == Mechanism::Nothing && line.why.is_some(), "{line:?}");
}
