//! The escape suite: a careless caller starts the probe under every sandbox, and under none.
//!
//! As root the runs are made twice, as root and as an ordinary user; as an ordinary user once, with what that user can
//! prepare. See `mod.rs` for the rooms.

use sandcell_tests::escape::judge::{self, Exception, Report};
use sandcell_tests::escape::launchers::LANDLOCK_TIER;
use sandcell_tests::escape::launchers::{self, Launcher};
use sandcell_tests::escape::{Row, build, table};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

/// Checks that no control can open, on any machine.
const NO_CONTROL: &[(&str, &str)] =
    &[("id.rw_owner", "only a sandbox with ids of its own can make files that the caller cannot remove")];

fn escape() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_escape"))
}

fn is_root() -> bool {
    // SAFETY: a call without arguments or effects.
    unsafe { libc::geteuid() == 0 }
}

/// Both users as root, else the one there is.
fn users() -> &'static [bool] {
    if is_root() { &[false, true] } else { &[false] }
}

/// One run after another: they share the machine's keyrings and the probe's build.
fn run(launcher: &Launcher, as_user: bool) -> Report {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock();
    let report = judge::gather(escape(), launcher, as_user);
    drop(guard);
    report.unwrap_or_else(|message| panic!("{message}"))
}

fn controls() -> &'static [Report] {
    static REPORTS: OnceLock<Vec<Report>> = OnceLock::new();
    REPORTS.get_or_init(|| {
        let weak = launchers::ALL.iter().filter(|l| l.control && l.unavailable().is_none());
        weak.flat_map(|launcher| users().iter().map(|as_user| run(launcher, *as_user))).collect()
    })
}

fn ours() -> &'static [Report] {
    static REPORTS: OnceLock<Vec<Report>> = OnceLock::new();
    REPORTS.get_or_init(|| {
        let cells =
            launchers::ALL.iter().filter(|l| l.name.starts_with("sandcell") && (!l.no_namespaces || has_tier()));
        cells
            .flat_map(|launcher| users().iter().map(move |as_user| (launcher, *as_user)))
            .filter(|(launcher, as_user)| !launcher.needs_root || (is_root() && !as_user))
            .map(|(launcher, as_user)| run(launcher, as_user))
            .collect()
    })
}

/// What the tier without namespaces needs of the kernel.
fn has_tier() -> bool {
    const VERSION: usize = 1;
    // SAFETY: asked for its version, the call takes no memory.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    if abi < 6 {
        println!("SKIPPED: {LANDLOCK_TIER} needs Landlock ABI 6, this kernel has {abi}");
    }
    abi >= 6
}

/// First-priority checks that a mode does not hold, as exceptions.md lists them with the reason.
fn exceptions() -> &'static [Exception] {
    static LIST: OnceLock<Vec<Exception>> = OnceLock::new();
    LIST.get_or_init(|| table::exceptions().unwrap().into_iter().filter_map(|e| e.for_caller(is_root())).collect())
}

#[test]
fn the_catalogue_names_every_check_once_and_has_more_than_a_hundred_and_twenty() {
    let entries = build::catalogue(&build::probe().unwrap()).unwrap();
    let ids: BTreeSet<&str> = entries.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids.len(), entries.len());
    assert!(ids.len() > 120, "{}", ids.len());
    assert!(entries.iter().all(|e| !e.remembers.is_empty() && !e.tries.is_empty()));
}

#[test]
fn every_check_fails_where_nothing_guards_or_says_why_it_cannot() {
    let silent: Vec<String> = judge::controls(controls())
        .into_iter()
        .filter(|(id, _)| !NO_CONTROL.iter().any(|(known, _)| known == id))
        .filter_map(|(id, answer)| answer.err().map(|why| (id, why)))
        .filter(|(_, why)| !why.starts_with("unavailable"))
        .map(|(id, why)| format!("{id}: {why}"))
        .collect();
    if is_root() {
        assert!(silent.is_empty(), "no control was open for\n{}", silent.join("\n"));
    } else {
        println!("an ordinary user has no control for {} checks: run as root for all", silent.len());
        assert!(silent.len() < 200, "{}", silent.join("\n"));
    }
}

#[test]
fn nothing_of_first_priority_gets_out_of_sandcell() {
    let lacking: BTreeSet<String> =
        judge::controls(controls()).into_iter().filter(|(_, answer)| answer.is_err()).map(|(id, _)| id).collect();
    let failures: Vec<String> = ours().iter().flat_map(|r| judge::failures(r, exceptions(), &lacking)).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn what_a_mode_does_not_hold_is_just_what_the_list_of_exceptions_says() {
    let known: BTreeSet<String> =
        build::catalogue(&build::probe().unwrap()).unwrap().into_iter().map(|e| e.id).collect();
    assert!(exceptions().iter().all(|e| known.contains(&e.id) && !e.why.is_empty()), "{:?}", exceptions());
    let needless = judge::needless(ours(), exceptions(), controls());
    assert!(needless.is_empty(), "these are held:\n{}", needless.join("\n"));
}

#[test]
fn layers_and_leftovers_that_point_out_are_refused_or_harmless() {
    let plain = run(launchers::named("sandcell-layers").unwrap(), is_root());
    let known: BTreeSet<String> = plain.rows.iter().filter(|row| !row.is_held()).map(|row| row.id.clone()).collect();
    let mut wrong = vec![];
    for launcher in launchers::ALL.iter().filter(|l| l.hostile) {
        let report = run(launcher, is_root());
        let worse = |row: &&Row| row.priority == 1 && row.is_open() && !known.contains(&row.id);
        // A refusal has no status of the program.
        let open = report.rows.iter().filter(worse).filter(|row| !(report.refused && row.id == "life.status"));
        wrong.extend(open.map(|row| format!("{}: {} is open: {}", report.title, row.id, row.detail)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn sandcell_holds_more_than_bubblewrap() {
    let Some(bwrap) = launchers::named("bwrap").filter(|l| l.unavailable().is_none()) else {
        panic!("bubblewrap is not installed: there is nothing to compare with");
    };
    for as_user in users() {
        let (theirs, own) = (run(bwrap, *as_user), run(launchers::named("sandcell").unwrap(), *as_user));
        assert!(judge::held(&own) > judge::held(&theirs), "{} {}", judge::held(&own), judge::held(&theirs));
    }
}

#[test]
fn the_table_of_results_is_what_the_suite_finds() {
    let entries = build::catalogue(&build::probe().unwrap()).unwrap();
    let written = table::current().unwrap();
    for entry in &entries {
        assert!(written.contains(&format!("| `{}` | {} |", entry.id, entry.tries)), "{} is missing", entry.id);
    }
    if is_root() && written.contains(&table::environment()) {
        let compared = ["sandcell", "bwrap", "unshare"].map(|name| run(launchers::named(name).unwrap(), true));
        let found = table::render(&entries, &compared);
        let changed: Vec<(&str, &str)> = written.lines().zip(found.lines()).filter(|(old, new)| old != new).collect();
        assert!(written == found, "run `escape table` if this is right: {changed:#?}");
    }
}
