//! Which time ran out: that on the clock, or that of the processor.

mod common;

use std::time::Duration;

use common::{run, shell};
use sandcell::{Isolation, Outcome, Sandbox, TimeLimit};

const SPIN: &str = "while :; do :; done";

#[test]
fn time_on_the_clock_is_told() {
    let builder = || Sandbox::builder().timeout(Duration::from_millis(200)).grace(Duration::from_millis(50));
    let output = run(builder(), "sleep 1000");
    assert_eq!((&output.outcome, output.timed_out), (&Outcome::TimedOut, Some(TimeLimit::Wall)));
    let cell = Sandbox::builder().build().unwrap().start().unwrap();
    let report = cell.command("sleep").arg("1000").timeout(Duration::from_millis(100)).status().unwrap();
    assert_eq!((&report.outcome, report.timed_out), (&Outcome::TimedOut, Some(TimeLimit::Wall)));
    let report = shell(&Sandbox::builder().build().unwrap(), "kill -9 $$").status().unwrap();
    assert_eq!((report.timed_out, report.outcome.kind()), (None, "signaled"));
}

#[test]
fn cpu_time_that_only_a_resource_limit_counts_is_told_too() {
    // Without namespaces nothing counts the CPU time of all: RLIMIT_CPU of each process stands in.
    let builder =
        || Sandbox::builder().isolation(Isolation::Landlock).best_effort("all").cpu_time(Duration::from_secs(1));
    for script in [SPIN, "trap '' XCPU; while :; do :; done"] {
        let output = run(builder(), script);
        assert_eq!((&output.outcome, output.timed_out), (&Outcome::TimedOut, Some(TimeLimit::Cpu)), "{output:?}");
    }
    // The same signals for another reason.
    for signal in ["XCPU", "KILL"] {
        let output = run(builder(), &format!("kill -{signal} $$"));
        assert_eq!((output.outcome.kind(), output.timed_out), ("signaled", None), "{output:?}");
    }
}

#[cfg(feature = "json")]
#[test]
fn the_report_as_json_names_the_time() {
    let report = shell(&Sandbox::builder().timeout(Duration::from_millis(50)).build().unwrap(), "sleep 1000").status();
    let json = sandcell::report::to_json(&report);
    assert!(json.contains(r#""outcome":{"kind":"timed_out","of":"wall"}"#), "{json}");
}
