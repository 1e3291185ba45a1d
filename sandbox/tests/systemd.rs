//! Limits in transient scopes of systemd. Runs where there is one that may be asked: in the second kernel
//! (`tests/vm/run --session` for a user's, `--system` for root), or in a login session.
#![cfg(feature = "systemd")]

mod common;

use std::path::{Path, PathBuf};

use common::{marker, patiently, processes_with};
use sandcell::{Mechanism, Outcome, Sandbox};

/// Whether there is a systemd that may be asked, and nothing was delegated; if not, says so.
fn has_session() -> bool {
    let uid = nix::unistd::geteuid();
    let socket = match uid.is_root() {
        true => PathBuf::from("/run/systemd/private"),
        false => PathBuf::from(format!("/run/user/{uid}/systemd/private")),
    };
    let found = Path::new("/run/systemd/system").exists() && socket.exists();
    if !found {
        eprintln!("SKIPPED: needs a systemd that the caller may ask");
    }
    found
}

fn group_of(pid: u32) -> PathBuf {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("v2");
    Path::new("/sys/fs/cgroup").join(path)
}

const MEMORY: u64 = 64 << 20;
const MEMORY_BOMB: &str = "head -c 100000000 /dev/zero | tail > /dev/null";

#[test]
fn where_nothing_was_delegated_systemd_gives_a_scope_that_holds_limits_and_goes_with_the_sandbox() {
    if !has_session() {
        return;
    }
    let before = group_of(std::process::id());
    let sandbox = Sandbox::builder().memory(MEMORY).pids(20).cpu_weight(50).build().expect("the policy");
    let output = common::shell(&sandbox, MEMORY_BOMB).output().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    assert_eq!(output.outcome, Outcome::OutOfMemory, "{output:?}");
    for item in ["memory", "pids", "cpu_weight"] {
        let line = output.enforced.iter().find(|line| line.item == item).expect(item);
        assert_eq!(line.by, Mechanism::Cgroup2, "{line:?}");
    }
    let cell = sandbox.start().expect("a cell");
    let mark = marker();
    let mut child = cell.command("/bin/sleep").arg(&mark).spawn().expect("a program");
    patiently("the program sleeps", || !processes_with(&mark).is_empty());
    let group = group_of(processes_with(&mark)[0]);
    let scope =
        group.ancestors().find(|dir| dir.extension().is_some_and(|e| e == "scope")).expect("a scope").to_owned();
    assert!(scope.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sandcell-")), "{scope:?}");
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    drop(child);
    drop(cell);
    assert!(scope.exists(), "the next start uses the same");
    drop(sandbox);
    patiently("the scope goes", || !scope.exists());
    assert_eq!(group_of(std::process::id()), before, "the caller was not moved");
}

#[test]
fn the_doctor_names_what_systemd_holds() {
    if !has_session() {
        return;
    }
    let findings = sandcell::doctor();
    let cgroups = findings.iter().find(|finding| finding.name == "cgroups").expect("a finding");
    assert!(cgroups.ok && cgroups.detail.contains("systemd: memory, pids, cpus"), "{cgroups:?}");
}

const MOVES: &str = "SANDCELL_TEST_MOVES";

/// Not a test of its own: the one below, in a process that may be moved.
#[test]
fn moves_itself_for_another_test() {
    if std::env::var_os(MOVES).is_none() {
        return;
    }
    let base = sandcell::adopt_cgroup().unwrap_or_else(|e| panic!("{e} ({})", e.hint()));
    assert!(base.extension().is_some_and(|e| e == "scope"), "{base:?}");
    assert_eq!(group_of(std::process::id()).parent(), Some(base.as_path()));
    assert_eq!(sandcell::adopt_cgroup().expect("again"), base, "once is enough");
    let output = common::run(Sandbox::builder().memory(MEMORY), MEMORY_BOMB);
    assert_eq!(output.outcome, Outcome::OutOfMemory, "{output:?}");
    println!("\nMOVED");
}

#[test]
fn a_caller_that_asks_for_it_gets_a_scope_of_its_own() {
    if !has_session() {
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "moves_itself_for_another_test", "--nocapture"])
        .env(MOVES, "1")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("MOVED"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}
