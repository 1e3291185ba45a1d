//! Every system call of a start fails in turn: a named error or a sandbox as strong as ever, and nothing left behind.
//!
//! With the ids of the caller every call is tried, elsewhere a sample, each with the first of its errnos;
//! `SANDCELL_FAULTS=all` tries every call with every errno, everywhere (an hour).

use sandcell_tests::faults::campaign::{Breadth, Campaign};
use sandcell_tests::faults::errnos;
use sandcell_tests::faults::judge::{self, Verdict, judge};
use sandcell_tests::faults::tracer::{Fault, Site, User};
use std::path::Path;

fn is_root() -> bool {
    // SAFETY: a call without arguments or effects.
    unsafe { libc::geteuid() == 0 }
}

/// As root the victim is the ordinary user of the tests, unless it takes root.
fn campaign(scenario: &str, as_root: bool) -> Campaign {
    let user = if as_root || !is_root() { None } else { User::of_the_tests() };
    Campaign::new(Path::new(env!("CARGO_BIN_EXE_faults-victim")), scenario, user).unwrap()
}

fn every_call_may_fail(scenario: &str, as_root: bool, breadth: Breadth) {
    let all = std::env::var_os("SANDCELL_FAULTS").is_some_and(|value| value == "all");
    let mut results = campaign(scenario, as_root).all(if all { Breadth::All } else { breadth }, (0, 1)).unwrap();
    // By EIO the kernel tells of the end of a terminal: nobody can tell the two apart.
    let end = |wrong: &String| scenario == "terminal" && wrong.starts_with("caller read#") && wrong.contains(" EIO: ");
    results.wrong.retain(|wrong| !end(wrong));
    println!("{scenario}: {} runs, {} calls not made again", results.runs, results.missed.len());
    assert!(
        results.wrong.is_empty(),
        "{} of {} runs:\n{}",
        results.wrong.len(),
        results.runs,
        results.wrong.join("\n")
    );
    // Only what waits for others is not the same each time.
    let missed: Vec<&String> = results.missed.iter().filter(|site| !site.contains("poll")).collect();
    assert!(missed.len() < 20, "{missed:?}");
    assert!(results.runs > 200, "{} runs", results.runs);
    let unnamed: Vec<&str> = stages(scenario).filter(|stage| !results.stages.contains(*stage)).collect();
    assert!(unnamed.is_empty(), "no error named these stages: {unnamed:?}, only {:?}", results.stages);
}

/// The stages that errors of a scenario name, each where it is met first. Elsewhere: `interpreter` and
/// `too-many-commands` in bad_input.rs, `enter-cell` in entry.rs; `subreaper` in all calls of `tier`, by hand.
fn stages(scenario: &str) -> impl Iterator<Item = &'static str> {
    let words = match scenario {
        "shared" => {
            "identity image look descriptors clone uid-map gid-map ambient-capabilities exec-init dumpable \
             setsid signals private-mounts setgid setuid base-fsopen base-option base-fsmount base-attach \
             make-dir make-file make-symlink open-tree root-tree root-attributes root-attach mount-point \
             mount-attributes mount-attach fsopen fsconfig fsmount restrict hostname loopback network-namespace \
             enter-network-namespace cgroup-namespace pivot-root detach-old-root keyring bounding-set \
             landlock-ruleset landlock-rule landlock-enter open-proc events clone-program program-setsid program-stdio rlimit \
             chdir capabilities no-new-privs program-signals umask seccomp exec"
        }
        "leased" => "setgroups id-map sub-ids",
        "cell" => "user-namespace enter-user-namespace lease",
        "layers" => "account open-layer overlay-upper overlay-open overlay-mount output-pipe changes",
        "kept" => "upper nested-namespace nested-map",
        "limits" => "cgroup-find cgroup-create join-cgroup",
        "learned" => "seccomp-listener",
        "tier" => "landlock",
        "terminal" => "terminal-open terminal-set terminal-control",
        _ => "",
    };
    words.split_ascii_whitespace()
}

/// newuidmap(1) and cgroups do their work under a tracer of root's only.
fn for_root_only(what: &str) -> bool {
    if !is_root() {
        println!("SKIPPED: {what} under a tracer needs root");
    }
    is_root()
}

#[test]
fn every_call_of_a_start_with_the_callers_id_may_fail() {
    every_call_may_fail("shared", true, Breadth::EachCall);
}

#[test]
fn every_call_of_a_start_with_leased_ids_may_fail() {
    if for_root_only("newuidmap") {
        every_call_may_fail("leased", false, Breadth::Sample);
    }
}

#[test]
fn every_call_of_a_start_with_ids_that_root_maps_may_fail() {
    if for_root_only("writing maps") {
        every_call_may_fail("leased", true, Breadth::Sample);
    }
}

#[test]
fn every_call_of_a_cell_and_its_programs_may_fail() {
    if for_root_only("newuidmap") {
        every_call_may_fail("cell", false, Breadth::Sample);
    }
}

#[test]
fn every_call_of_a_pool_and_its_programs_may_fail() {
    if for_root_only("newuidmap") {
        every_call_may_fail("pool", false, Breadth::Sample);
    }
}

#[test]
fn every_call_of_a_start_on_layers_with_mounts_and_an_output_limit_may_fail() {
    if for_root_only("newuidmap") {
        every_call_may_fail("layers", false, Breadth::Sample);
    }
}

#[test]
fn every_call_of_a_start_with_a_kept_upper_and_a_capability_may_fail() {
    if for_root_only("newuidmap") {
        every_call_may_fail("kept", false, Breadth::Sample);
    }
}

#[test]
fn every_call_of_a_start_with_limits_may_fail() {
    if for_root_only("a cgroup") {
        every_call_may_fail("limits", true, Breadth::Sample);
    }
}

#[test]
fn every_call_of_a_start_without_namespaces_may_fail() {
    every_call_may_fail("tier", true, Breadth::Sample);
}

#[test]
fn every_call_of_a_run_that_is_learned_from_may_fail() {
    every_call_may_fail("learned", true, Breadth::Sample);
}

#[test]
fn every_call_of_a_run_with_a_terminal_may_fail() {
    every_call_may_fail("terminal", true, Breadth::Sample);
}

/// Older kernels and filters around the caller: what has a substitute is replaced, what has none is named.
#[test]
fn a_call_that_the_kernel_does_not_have_is_replaced_or_named() {
    let campaign = campaign("shared", true);
    let (usual, _) = campaign.usual().unwrap();
    for (process, call, errno, wanted) in [
        ("caller", "clone3", libc::ENOSYS, Verdict::Same),
        ("caller", "clone3", libc::EPERM, Verdict::Same),
        ("caller/1", "close_range", libc::ENOSYS, Verdict::Same),
        ("caller/1", "close_range", libc::EPERM, Verdict::Same),
        ("caller", "memfd_create", libc::EINVAL, Verdict::Same),
        ("init", "keyctl", libc::ENOSYS, Verdict::Same),
        ("caller", "pidfd_open", libc::ENOSYS, Verdict::Error),
        ("init", "openat2", libc::ENOSYS, Verdict::Error),
        ("init", "open_tree", libc::ENOSYS, Verdict::Error),
        ("init", "mount_setattr", libc::ENOSYS, Verdict::Error),
        ("init", "fsopen", libc::ENOSYS, Verdict::Error),
        ("init", "landlock_restrict_self", libc::ENOSYS, Verdict::Error),
        ("init/1", "seccomp", libc::ENOSYS, Verdict::Error),
        ("init/2", "seccomp", libc::ENOSYS, Verdict::Error),
    ] {
        let call_number = errnos::number(call).unwrap();
        let fault = Fault { site: Site { process: process.into(), call: call_number, occurrence: 1 }, errno };
        match campaign.one(&usual, &fault) {
            // The program is init's second child where another made the network namespace.
            Ok(None) if call == "seccomp" => {}
            other => {
                let verdict = other.map(|found| found.map(|(verdict, _)| verdict));
                assert_eq!(verdict, Ok(Some(wanted)), "{process} {call} {}", errnos::errno_name(errno));
            }
        }
    }
}

/// Between clone and exec a child shares memory with a process of many threads: no allocation, no lock, no libc.
#[test]
fn the_launch_child_makes_only_the_calls_that_it_needs() {
    const NEEDED: [&str; 9] =
        ["openat", "write", "close", "capset", "prctl", "dup3", "close_range", "execveat", "sched_setaffinity"];
    let (_, sites) = campaign("shared", true).usual().unwrap();
    let calls: Vec<String> =
        sites.iter().filter(|(site, _)| site.process == "caller/1").map(|(site, _)| errnos::name(site.call)).collect();
    assert_eq!(calls.last().map(String::as_str), Some("execveat"), "{calls:?}");
    let others: Vec<&String> = calls.iter().filter(|call| !NEEDED.contains(&call.as_str())).collect();
    assert!(others.is_empty(), "{others:?}");
    // And the caller itself touches neither its terminal nor its process group (tcsetpgrp would stop it).
    let touched = sites.iter().filter(|(site, _)| site.process == "caller").map(|(site, _)| site.call);
    assert!(!touched.into_iter().any(|call| [libc::SYS_ioctl, libc::SYS_setpgid, libc::SYS_setsid].contains(&call)));
}

/// A filter around the caller may refuse wait4(2). Init, which learns of the ends of its children by nothing else, is
/// blind then: it must not take that for "nobody has ended", which would hold the caller until its timeout. (The
/// campaigns leave these calls alone, whose other errors mean what they say. That a refused `pidfd_send_signal`
/// holds nobody where a start fails, after newuidmap(1) for example, is tested in sandbox/src/launch/mod.rs, by
/// `a_start_that_fails_comes_to_an_end_where_signals_by_pidfd_are_refused`.)
#[test]
fn a_wait_of_inits_that_fails_ends_the_sandbox() {
    let campaign = campaign("shared", true);
    let (usual, sites) = campaign.usual().unwrap();
    let waits =
        sites.iter().map(|(site, _)| site).filter(|site| site.process == "init" && site.call == libc::SYS_wait4);
    let (mut tried, mut told) = (0, 0);
    for site in waits {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let fault = Fault { site: site.clone(), errno };
            // Without an error only where everything has been told already.
            match campaign.one(&usual, &fault).unwrap_or_else(|wrong| panic!("{site}: {wrong}")) {
                None => continue,
                Some((Verdict::Error, _)) => told += 1,
                Some((verdict, _)) => assert_eq!(verdict, Verdict::Same, "{site}"),
            }
            tried += 1;
        }
    }
    println!("{tried} runs, {told} errors");
    assert!(tried >= 2 && told >= 2, "{tried} runs, {told} errors");
}

#[test]
fn a_weaker_sandbox_is_noticed() {
    let (usual, _) = campaign("shared", true).usual().unwrap();
    let mut weak = campaign("weak", true).run(None).unwrap();
    // One that does not even say so, and only once.
    let mut said = judge::said(&weak).unwrap();
    said["first"]["enforced"] = usual["first"]["enforced"].clone();
    said["again"] = usual["first"].clone();
    weak.said = said.to_string();
    let fault =
        Fault { site: Site { process: "init".into(), call: libc::SYS_prctl, occurrence: 1 }, errno: libc::EPERM };
    let wrong = judge(&usual, &weak, &fault).unwrap_err();
    assert!(wrong.contains("-Seccomp: 2"), "{wrong}");
}

#[test]
fn what_is_left_behind_is_noticed() {
    let trace = campaign("careless", true).run(None).unwrap();
    assert!(judge::said(&trace).unwrap_err().contains("processes behind"), "{trace:?}");
    assert!(trace.said.contains("/dev/null") && trace.said.contains("child"), "{}", trace.said);
}
