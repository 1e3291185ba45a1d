//! The calling process: nothing of it gets in, nothing of it is changed, and its death ends everything.
//!
//! What changes a whole process runs in one of its own: the test executable, started again for one test.

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{marker, patiently, processes_with, sandbox, shell, text};
use sandcell::{Outcome, Sandbox};

const ROLE: &str = "SANDCELL_TEST_ROLE";

/// The command that runs only this test, with a role to play.
fn helper(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role).stdin(Stdio::null());
    command
}

/// True in the process that plays the role; otherwise starts it and expects it to pass.
fn alone(test: &str) -> bool {
    if std::env::var_os(ROLE).is_some() {
        return true;
    }
    passed(&helper(test, "alone").output().unwrap());
    false
}

fn passed(output: &Output) {
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{:?}: {said}", output.status);
}

fn count(dir: &str) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
#[allow(unsafe_code)]
fn descriptors_of_the_caller_do_not_get_in() {
    if !alone("descriptors_of_the_caller_do_not_get_in") {
        return;
    }
    // Without close-on-exec, as a careless caller has them; a directory among them.
    let open = [File::open("/").unwrap(), File::open("/etc/passwd").unwrap()];
    for file in &open {
        nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    }
    let script = "ls /proc/$$/fd; :";
    let direct = Command::new("/bin/sh").args(["-c", script]).output().unwrap();
    assert!(text(&direct.stdout).lines().count() > 4, "they are there without a sandbox: {}", text(&direct.stdout));
    assert_eq!(text(&shell(&sandbox(), script).output().unwrap().stdout), "0\n1\n2");
    let cell = sandbox().start().unwrap();
    let output = cell.command("/bin/sh").args(["-c", script]).output().unwrap();
    assert_eq!(text(&output.stdout), "0\n1\n2");
}

#[test]
fn the_environment_is_clean_unless_it_is_asked_for() {
    let run = |builder: sandcell::Builder| {
        let sandbox = builder.build().unwrap();
        text(&sandbox.command("/usr/bin/env").output().unwrap().stdout)
    };
    let said = run(sandcell::Sandbox::builder());
    let mut names: Vec<_> = said.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "PATH", "TERM", "USER"]);
    let test_name = "CARGO_PKG_NAME_OF_NOBODY";
    let mut helper = helper("the_kept_environment_is_the_callers_but_for_home_and_user", "keep");
    passed(&helper.env(test_name, "kept").output().unwrap());
}

#[test]
fn the_kept_environment_is_the_callers_but_for_home_and_user() {
    if !std::env::var(ROLE).is_ok_and(|role| role == "keep") {
        return;
    }
    let sandbox = sandcell::Sandbox::builder().keep_env(true).build().unwrap();
    let output = shell(&sandbox, "echo $CARGO_PKG_NAME_OF_NOBODY $HOME $USER").output().unwrap();
    assert_eq!(text(&output.stdout), "kept /home/cell cell");
}

#[test]
fn umask_and_signals_of_the_caller_do_not_get_in_and_stay_its_own() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
    if !alone("umask_and_signals_of_the_caller_do_not_get_in_and_stay_its_own") {
        return;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR1);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).unwrap();
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGPIPE, Signal::SIGHUP] {
        // SAFETY: ignoring a signal runs no code.
        #[allow(unsafe_code)]
        unsafe { nix::sys::signal::sigaction(signal, &ignore) }.unwrap();
    }
    let own = || fs::read_to_string("/proc/thread-self/status").unwrap();
    let signals = |status: &str| -> Vec<String> {
        status.lines().filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ")).map(str::to_owned).collect()
    };
    let before = signals(&own());
    let output = shell(&sandbox(), "umask; exec cat /proc/self/status").output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0), "with SIGCHLD ignored in the caller");
    let said = text(&output.stdout);
    let none = |name: &str| format!("{name}:\t0000000000000000");
    assert!(said.starts_with("0022\n"), "{said}");
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(said.contains(&none(name)), "{name}: {said}");
    }
    assert_eq!(signals(&own()), before);
}

#[test]
fn a_caller_that_reaps_everything_elsewhere_still_gets_the_right_answer() {
    if !alone("a_caller_that_reaps_everything_elsewhere_still_gets_the_right_answer") {
        return;
    }
    std::thread::spawn(|| {
        loop {
            let _ = nix::sys::wait::waitpid(None, None);
        }
    });
    let sandbox = sandbox();
    for code in 0..30 {
        assert_eq!(shell(&sandbox, &format!("exit {code}")).output().unwrap().outcome, Outcome::Exited(code));
    }
}

#[test]
fn a_caller_without_standard_streams_can_run_programs() {
    let name = "a_caller_without_standard_streams_can_run_programs";
    if std::env::var_os(ROLE).is_some() {
        let output = shell(&sandbox(), "cat; echo out; echo err >&2; ls /proc/$$/fd; :").output().unwrap();
        assert_eq!(text(&output.stdout), "out\n0\n1\n2");
        let report = shell(&sandbox(), "cat; echo lost; exit 5").status().unwrap();
        assert_eq!(report.outcome, Outcome::Exited(5));
        std::process::exit(77);
    }
    let program = helper(name, "closed");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"]).arg(program.get_program()).args(program.get_args());
    assert_eq!(shell.env(ROLE, "closed").status().unwrap().code(), Some(77));
}

#[test]
fn a_caller_that_is_out_of_descriptors_gets_one_clear_error() {
    use nix::sys::resource::{Resource, setrlimit};
    if !alone("a_caller_that_is_out_of_descriptors_gets_one_clear_error") {
        return;
    }
    let sandbox = sandbox();
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    let mut all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut successes = 0;
    for free in 0..24 {
        match sandbox.command("/bin/true").output() {
            Ok(output) => {
                assert_eq!(output.outcome, Outcome::Exited(0));
                successes += 1;
            }
            Err(error) => {
                assert_eq!(error.errno(), Some(libc::EMFILE), "{free} free: {error}");
                assert!(error.hint().contains("RLIMIT_NOFILE"), "{free} free: {error} ({})", error.hint());
                assert_eq!(successes, 0, "fewer were enough: {free} free: {error}");
            }
        }
        drop(all.pop());
    }
    assert!(successes > 0, "24 descriptors are enough");
}

#[test]
fn nothing_accumulates_in_the_caller() {
    if !alone("nothing_accumulates_in_the_caller") {
        return;
    }
    let sandbox = sandbox();
    let state = || (count("/proc/self/fd"), count("/proc/self/task"), children());
    // A user namespace for sub-ids is made once and kept.
    sandbox.command("/bin/true").output().unwrap();
    let directory = std::env::current_dir().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = state();
    for run in 0..200 {
        assert_eq!(shell(&sandbox, &format!("exit {}", run % 7)).output().unwrap().outcome, Outcome::Exited(run % 7));
        if run % 10 == 0 {
            drop(sandbox.start().unwrap());
            sandbox.command("/no/such").output().unwrap_err();
        }
    }
    assert_eq!(state(), before);
    assert_eq!(std::env::current_dir().unwrap(), directory);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

/// Children of this process, zombies included.
fn children() -> usize {
    let own = format!(" {} ", std::process::id());
    let parent = |stat: String| stat.rsplit_once(')').is_some_and(|(_, rest)| rest[2..].starts_with(&own));
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok()).filter(|s| parent(s.clone())).count()
}

#[test]
fn starts_from_many_threads_do_not_disturb_each_other() {
    let sandbox = sandbox();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for run in 0..15 {
                    // Allocation in other threads must not matter to a start.
                    let noise: Vec<Vec<u8>> = (0..50).map(|size| vec![1; size * 100]).collect();
                    let output = shell(sandbox, &format!("echo {thread} {run}")).output().unwrap();
                    assert_eq!(text(&output.stdout), format!("{thread} {run}"));
                    drop(noise);
                }
            });
        }
    });
}

#[test]
fn a_caller_killed_at_any_moment_leaves_nothing() {
    let name = "a_caller_killed_at_any_moment_leaves_nothing";
    // With a cgroup, where there is one to be had.
    let limited = || Sandbox::builder().memory(1 << 28).best_effort("memory").build().unwrap();
    if let Ok(marker) = std::env::var(ROLE) {
        let sandbox = limited();
        println!("begun");
        loop {
            let script = format!("sleep {marker} & setsid sleep {marker} & sleep 0.005");
            let cell = sandbox.start().unwrap();
            let in_cell = cell.command("/bin/sleep").arg(&marker).spawn().unwrap();
            shell(&sandbox, &script).status().unwrap();
            in_cell.kill().unwrap();
        }
    }
    let marker = marker();
    let mut seen = 0;
    let mut callers = Vec::new();
    for round in 0..200u64 {
        let mut caller = helper(name, &marker).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut said = String::new();
        let out = caller.stdout.as_mut().unwrap();
        while !said.ends_with("begun\n") {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            said.push(byte[0] as char);
        }
        // Spread over start, run and stop, in steps that share no factor with their lengths.
        std::thread::sleep(Duration::from_micros(round * 7919 % 40_000));
        seen += usize::from(!processes_with(&marker).is_empty());
        caller.kill().unwrap();
        assert_eq!(caller.wait().unwrap().signal(), Some(libc::SIGKILL));
        patiently("the end of the sandboxes", || processes_with(&marker).is_empty());
        callers.push(format!("sandcell-{}-", caller.id()));
    }
    assert!(seen > 0, "no round met a running program");
    let left = |dir: &str| -> Vec<String> {
        let found = Command::new("find").args([dir, "-xdev", "-type", "d", "-name", "sandcell-*"]).output().unwrap();
        let found = text(&found.stdout);
        found.lines().filter(|path| callers.iter().any(|name| path.contains(name))).map(str::to_owned).collect()
    };
    let mut dirs: Vec<String> = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().display().to_string())
        .collect();
    dirs.extend(["/sys/fs/cgroup", "/tmp", "/var/tmp", "/dev/shm", "/run"].map(str::to_owned));
    // Empty groups of callers that were killed go with the next start beside them.
    patiently("the end of their groups", || {
        assert!(shell(&limited(), ":").status().unwrap().outcome.success());
        dirs.iter().all(|dir| left(dir).is_empty())
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!callers.iter().any(|name| mounts.contains(name)), "{mounts}");
}

#[test]
fn where_memory_files_may_not_be_executed_the_supervisor_comes_from_the_disk() {
    let name = "where_memory_files_may_not_be_executed_the_supervisor_comes_from_the_disk";
    if std::env::var_os(ROLE).is_some() {
        let forbidden =
            nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::from_bits_retain(libc::MFD_EXEC));
        assert_eq!(forbidden.err(), Some(nix::errno::Errno::EACCES), "the premise");
        assert_eq!(text(&shell(&sandbox(), "echo here").output().unwrap().stdout), "here");
        return;
    }
    // The setting belongs to a PID namespace (Linux 6.3); in one of ours it is ours.
    let script = format!(
        "echo 2 > /proc/sys/vm/memfd_noexec || exit 77; exec '{}' --exact {name} --nocapture",
        std::env::current_exe().unwrap().display()
    );
    let unshare = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", &script];
    let output = Command::new("unshare").args(unshare).env(ROLE, "forbidden").output().unwrap();
    if output.status.code() == Some(77) {
        println!("SKIPPED: vm.memfd_noexec came with Linux 6.3: {}", text(&output.stderr));
        return;
    }
    passed(&output);
}
