//! The set-uid helpers: missing, powerless, failing, hanging. The programs here are fakes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::Scratch;
use crate::Failure;
use crate::ids::namespace::Proxy;
use crate::ids::newidmap::Programs;
use crate::ids::{IdMap, Refusal};

/// Fakes of both programs that run this script.
fn fakes(dir: &Path, script: &str) -> Programs {
    for name in ["newuidmap", "newgidmap", "getsubids"] {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write a program");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    }
    Programs { directories: vec![dir.to_path_buf()], timeout: Duration::from_secs(20), privileged: false }
}

fn write(programs: &Programs) -> Result<(), Refusal> {
    let proxy = Proxy::in_new_namespace().expect("user namespaces are allowed here");
    programs.write_maps(proxy.pid(), &IdMap::one(0, 100_000), &IdMap::one(0, 100_000))
}

fn absent(result: Result<(), Refusal>) -> Failure {
    match result.expect_err("must fail") {
        Refusal::Absent(failure) => failure,
        Refusal::Broken(error) => panic!("not what the host lacks: {error}"),
    }
}

#[test]
fn a_missing_newuidmap_is_named_with_the_places_and_the_package() {
    let dir = Scratch::new();
    let programs = Programs { directories: vec![dir.to_path_buf()], ..Programs::default() };
    let failure = absent(write(&programs));
    assert_eq!(failure.subject, "newuidmap");
    assert!(failure.message.contains("not installed") && failure.message.contains(dir.to_str().expect("text")));
    assert!(failure.hint.contains("uidmap"), "{}", failure.hint);
}

#[test]
fn the_path_variable_is_not_asked() {
    // `$PATH` finds the real ones, if they are installed; the given directories do not.
    let dir = Scratch::new();
    let programs = Programs { directories: vec![dir.join("none")], ..Programs::default() };
    assert!(absent(write(&programs)).message.contains("not installed"));
}

#[test]
fn a_newuidmap_without_its_set_uid_bit_is_named_with_the_command_that_mends_it() {
    let dir = Scratch::new();
    let programs = Programs { privileged: true, ..fakes(&dir, "exit 0") };
    let failure = absent(write(&programs));
    assert!(failure.message.contains("set-uid bit"), "{failure}");
    assert!(failure.hint.contains("chmod u+s"), "{}", failure.hint);
}

#[test]
fn a_failing_newuidmap_is_quoted() {
    let dir = Scratch::new();
    let failure = absent(write(&fakes(&dir, "echo 'uid range [1-2) -> [5-6) not allowed' >&2; exit 3")));
    assert!(failure.message.contains("exit status: 3") && failure.message.contains("not allowed"), "{failure}");
    assert!(!failure.hint.is_empty());
}

#[test]
fn a_newuidmap_that_claims_success_without_a_map_is_found_out() {
    let dir = Scratch::new();
    assert!(absent(write(&fakes(&dir, "exit 0"))).message.contains("it said nothing"));
}

#[test]
fn a_hanging_newuidmap_is_killed_with_its_children_and_reported() {
    let dir = Scratch::new();
    let pids = dir.join("pids");
    let script = format!("echo $$ >>{0}; sleep 1000 & echo $! >>{0}; wait", pids.display());
    let programs = Programs { timeout: Duration::from_millis(500), ..fakes(&dir, &script) };
    let error = match write(&programs).expect_err("must fail") {
        Refusal::Broken(error) => error,
        Refusal::Absent(failure) => panic!("not as what the host lacks: {failure}"),
    };
    assert!(error.to_string().contains("did not end within 500ms"), "{error}");
    assert!(!error.hint().is_empty());
    let pids = std::fs::read_to_string(pids).expect("the script ran");
    assert!(!pids.is_empty());
    for pid in pids.lines() {
        // A killed orphan may be a zombie until init finds it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let dead = stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ");
        let killed = dead || wait_for_end(pid);
        assert!(killed, "{pid} is left: {stat}");
    }
}

fn wait_for_end(pid: &str) -> bool {
    let Ok(pidfd) = crate::ids::sys::pidfd_open(pid.parse().expect("a number")) else { return true };
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, 10_000u16) == Ok(1)
}

#[test]
fn a_flood_of_words_neither_hangs_nor_fills_memory() {
    let dir = Scratch::new();
    let failure = absent(write(&fakes(&dir, "head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1")));
    assert!(failure.message.len() <= (1 << 20) + 5000);
}

#[test]
fn getsubids_is_run_with_the_name_and_its_output_returned() {
    let dir = Scratch::new();
    let programs = fakes(&dir, "echo \"$@\"");
    let output = |groups| match programs.getsubids("alice", groups) {
        Ok(output) => output,
        Err(refusal) => panic!("{refusal:?}"),
    };
    assert_eq!(output(false), "alice\n");
    assert_eq!(output(true), "-g alice\n");
}
