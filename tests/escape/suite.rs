//! The escape suite: a careless caller starts the probe under every sandbox, and under none.
//!
//! As root the runs are made twice, as root and as an ordinary user; as an ordinary user once, with what that user can
//! prepare. See `mod.rs` for the rooms.

use sandcell_tests::escape::judge::{self, Exception, Report};
use sandcell_tests::escape::launchers::{self, Launcher};
use sandcell_tests::escape::{Row, build, table};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

/// First-priority checks that sandcell does not hold, each with the reason. One that is not needed any more fails.
const EXCEPTIONS: &[Exception] = &[
    except("id.payload_uid", "sandcell-kept by an ordinary user", KEPT),
    except("id.payload_gid", "sandcell-kept by an ordinary user", KEPT),
    except("id.negative_group", "sandcell-kept by an ordinary user", KEPT_GROUPS),
    except("id.payload_uid", "sandcell-nested", ONE_ID),
    except("id.payload_gid", "sandcell-nested", ONE_ID),
    except("id.supp_groups", "sandcell-nested", ONE_ID),
    except("id.supp_group_file", "sandcell-nested", ONE_ID),
    except("id.payload_groups", "sandcell-nested", ONE_ID),
    except("fs.shadow", "sandcell-nested by the current user", ONE_ID),
];

/// Of an ordinary user who runs this suite itself: then the layers are that user's own. Root's run has layers of root's.
const OWN_LAYERS: &[Exception] = &[
    except("id.payload_uid", "sandcell-layers", OWN),
    except("id.payload_gid", "sandcell-layers", OWN),
    except("id.payload_uid", "sandcell-kept", KEPT),
    except("id.payload_gid", "sandcell-kept", KEPT),
];

const OWN: &str = "what only the caller may change has to be changed under the caller's id: the report says so";
const KEPT: &str = "what is kept has to belong to the caller, so the caller's id is used: the report says so";
const KEPT_GROUPS: &str = "the caller's id without its groups may read what only members of one of them may not";
const ONE_ID: &str = "this container has one id, the caller's, and the kernel keeps its groups: the report says so";

const fn except(id: &'static str, of: &'static str, why: &'static str) -> Exception {
    Exception { id, of, why }
}

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
        let cells = launchers::ALL.iter().filter(|l| l.name.starts_with("sandcell"));
        cells
            .flat_map(|launcher| users().iter().map(move |as_user| (launcher, *as_user)))
            .filter(|(launcher, as_user)| !launcher.needs_root || (is_root() && !as_user))
            .map(|(launcher, as_user)| run(launcher, as_user))
            .collect()
    })
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
    let mut known = EXCEPTIONS.to_vec();
    if !is_root() {
        known.extend_from_slice(OWN_LAYERS);
    }
    let failures: Vec<String> = ours().iter().flat_map(|r| judge::failures(r, &known, &lacking)).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    if is_root() {
        assert_eq!(judge::needless(ours(), EXCEPTIONS), Vec::<&str>::new(), "these exceptions are not needed");
    }
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
fn the_table_in_the_security_document_is_what_the_suite_finds() {
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
