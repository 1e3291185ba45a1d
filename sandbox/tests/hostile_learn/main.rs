//! What is learned from a program that does anything: data within bounds and in time. Nothing is executed, nothing of the
//! host changes, and the profile allows no more than the policy did.

#![cfg(feature = "json")]

#[path = "../common/mod.rs"]
mod common;

mod behaviours;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use behaviours::{ALL, Ends, PREAMBLE};
use common::{Scratch, marker, patiently, processes_with, text};
use sandcell::syscalls::Profile;
use sandcell::{Outcome, Output, Result, Sandbox};

/// What all of them together may take of the caller's memory.
const MOST: u64 = 64 << 20;
/// What the program gets where it does not end by itself, and where it does beside a busy machine.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);
/// On an idle machine each is back within a second of its timeout; this is what a busy one is given.
const PATIENCE: Duration = Duration::from_secs(60);

fn learned(ends: Ends, script: &str, marker: &str, shown: &Scratch) -> (Result<Output>, Duration) {
    let timeout = if ends == Ends::Not { SHORT } else { LONG };
    let sandbox =
        Sandbox::builder().ro(shown.path(), shown.path()).timeout(timeout).grace(Duration::ZERO).output_limit(1 << 20);
    let script = format!("{PREAMBLE}{script}\nprint('done', flush=True)\n");
    let begun = Instant::now();
    let output = sandbox.build().unwrap().command("python3").args(["-c", &script, marker]).learn(true).output();
    (output, begun.elapsed().saturating_sub(timeout))
}

/// The names of all calls that a profile has a rule for which lets them through.
fn allowed(profile: &Profile) -> BTreeSet<String> {
    let json: serde_json::Value = serde_json::from_str(&profile.to_json().unwrap()).unwrap();
    let rules = json["syscalls"].as_array().expect("rules").iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
    rules.flat_map(|rule| rule["names"].as_array().unwrap()).map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn is_data(name: &str, ends: Ends, result: Result<Output>, most: &BTreeSet<String>) {
    let output = result.unwrap_or_else(|error| panic!("{name}: {error} {}", error.hint()));
    let said = text(&output.stdout);
    assert!(said.starts_with("begun"), "{name}: {} {}", &said[..said.len().min(200)], text(&output.stderr));
    match ends {
        Ends::Done => assert!(said.contains("done"), "{name}: {:?} {said} {}", output.outcome, text(&output.stderr)),
        Ends::Somehow => assert_ne!(output.outcome, Outcome::TimedOut, "{name}: {said} {}", text(&output.stderr)),
        Ends::Not if name.starts_with("output") => assert_eq!(output.outcome, Outcome::OutputLimit, "{name}"),
        Ends::Not => assert_eq!(output.outcome, Outcome::TimedOut, "{name}: {said} {}", text(&output.stderr)),
    }
    let profile = output.report.learned.expect(name);
    let json = profile.to_json().unwrap();
    assert!(json.len() < 1 << 20, "{name}: {}", json.len());
    assert_eq!(Profile::from_json(&json).expect(name).to_json().unwrap(), json, "{name}");
    let calls = allowed(&profile);
    assert!(calls.contains("execve") && calls.contains("write"), "{name}: the control: what it did is in it");
    assert!(calls.is_subset(most), "{name}: {:?}", calls.difference(most));
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// One test for all, because memory is counted for the whole process.
#[test]
fn whatever_a_program_does_while_it_is_learned_from_a_profile_comes_of_it() {
    assert!(ALL.len() >= 60, "{}", ALL.len());
    let shown = Scratch::new();
    let canary = shown.file("canary", "as it was");
    let most = allowed(&Profile::default());
    let marker = marker();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_memory();
    let (next, times) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((name, ends, script)) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (result, late) = learned(*ends, script, &marker, &shown);
            is_data(name, *ends, result, &most);
            assert!(late < PATIENCE, "{name}: {late:?} after its timeout");
            times.lock().unwrap().push((late, *name));
        }
    };
    // One at a time shows how late each is when nothing else runs.
    let beside = std::env::var("SANDCELL_BESIDE").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    std::thread::scope(|scope| (0..beside).for_each(|_| drop(scope.spawn(work))));
    let grown = peak_memory().saturating_sub(before);
    let mut times = times.into_inner().unwrap();
    times.sort_unstable();
    println!("{} programs, {} KiB, the latest: {:?}", ALL.len(), grown >> 10, &times[times.len() - 5..]);
    assert!(grown <= MOST, "{} MiB", grown >> 20);
    assert_eq!(std::fs::read_to_string(canary).unwrap(), "as it was");
    assert_eq!(std::fs::read_dir(shown.path()).unwrap().count(), 1);
    patiently("the end of all of them", || processes_with(&marker).is_empty());
}
