//! Leases: random, disjoint between threads and processes, gone with their holder.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Scratch;
use crate::ids::Refusal;
use crate::ids::lease::{Lease, Places};
use crate::ids::ranges::{Range, Ranges};

fn places(dir: &Scratch) -> Places {
    Places { candidates: vec![(dir.to_path_buf(), "leases".to_owned())], uid: nix::unistd::geteuid().as_raw() }
}

fn ids(start: u32, count: u32) -> Ranges {
    std::iter::once(Range::new(start, count)).collect()
}

fn lease(places: &Places, ids: &Ranges, count: u32) -> Lease {
    places.lease(ids, ids, count, None).expect("ids are free")
}

fn refusal(result: Result<Lease, Refusal>) -> crate::Failure {
    match result.expect_err("must be refused") {
        Refusal::Absent(failure) => failure,
        Refusal::Broken(error) => error.failure().clone(),
    }
}

/// As many as descriptors allow are alive at once, 10,000 in all.
#[test]
fn ten_thousand_leases_never_collide_with_a_live_one() {
    let dir = Scratch::new();
    let (places, ids) = (places(&dir), ids(100_000, 1000));
    let mut live: std::collections::VecDeque<Lease> = Default::default();
    let (mut uids, mut gids) = (HashSet::new(), HashSet::new());
    for _ in 0..10_000 {
        if live.len() == 600 {
            let old = live.pop_front().expect("600 of them");
            uids.remove(&old.uid);
            gids.remove(&old.gid);
        }
        let new = lease(&places, &ids, 1);
        assert!(uids.insert(new.uid) && gids.insert(new.gid), "{new:?} is held already");
        live.push_back(new);
    }
}

/// A good generator misses p > 0.001 once in a thousand series; three times in a row it does not.
#[test]
fn the_first_ids_of_a_thousand_runs_show_no_pattern() {
    let series: Vec<f64> = (0..3).map(|_| chi_square_of_a_thousand_first_ids()).collect();
    // 31 degrees of freedom, p = 0.001.
    assert!(series.iter().any(|&chi_square| chi_square < 61.1), "{series:?}");
}

fn chi_square_of_a_thousand_first_ids() -> f64 {
    const CELLS: usize = 32;
    let ids = ids(100_000, 65_536);
    let mut cells = [0u32; CELLS];
    for _ in 0..1000 {
        let dir = Scratch::new();
        let uid = lease(&places(&dir), &ids, 1).uid;
        cells[(uid as usize - 100_000) * CELLS / 65_536] += 1;
    }
    let expected = 1000.0 / CELLS as f64;
    cells.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
}

#[test]
fn slices_of_any_size_stay_disjoint() {
    let dir = Scratch::new();
    let (places, ids) = (places(&dir), ids(100_000, 100_000));
    // The big ones first: small ones in the wrong places leave no room for them.
    let leases: Vec<(Lease, u32)> =
        [65_536, 10_000, 1000, 300, 7, 1, 1, 1].map(|count| (lease(&places, &ids, count), count)).into();
    for (i, (a, a_count)) in leases.iter().enumerate() {
        for (b, b_count) in &leases[i + 1..] {
            assert!(!Range::new(a.uid, *a_count).overlaps(&Range::new(b.uid, *b_count)), "{a:?} {b:?}");
            assert!(!Range::new(a.gid, *a_count).overlaps(&Range::new(b.gid, *b_count)), "{a:?} {b:?}");
        }
    }
}

#[test]
fn uid_and_gid_are_the_same_number_where_they_can_be_and_leased_apart_where_not() {
    let dir = Scratch::new();
    let places = places(&dir);
    let same = lease(&places, &ids(100_000, 1000), 1);
    assert_eq!(same.uid, same.gid);
    let apart = places.lease(&ids(100_000, 10), &ids(500_000, 10), 1, None).expect("free");
    assert!((100_000..100_010).contains(&apart.uid) && (500_000..500_010).contains(&apart.gid), "{apart:?}");
}

#[test]
fn when_ids_run_out_the_error_says_how_many_are_in_use_and_a_dropped_one_is_free() {
    let dir = Scratch::new();
    let (places, ids) = (places(&dir), ids(100_000, 20));
    let mut held: Vec<Lease> = (0..20).map(|_| lease(&places, &ids, 1)).collect();
    let failure = refusal(places.lease(&ids, &ids, 1, None));
    assert!(failure.message.contains("20 of 20 are in use by 20 live sandboxes"), "{failure}");
    assert!(!failure.hint.is_empty());
    let freed = held.swap_remove(7).uid;
    assert_eq!(lease(&places, &ids, 1).uid, freed);
}

#[test]
fn too_few_gids_free_the_uids_again() {
    let dir = Scratch::new();
    let places = places(&dir);
    let (uids, gids) = (ids(100_000, 20), ids(500_000, 1));
    let one = lease_of(&places, &uids, &gids);
    for _ in 0..100 {
        let failure = refusal(places.lease(&uids, &gids, 1, None));
        assert!(failure.message.contains("GIDs"), "{failure}");
    }
    drop(one);
    lease_of(&places, &uids, &gids);
}

fn lease_of(places: &Places, uids: &Ranges, gids: &Ranges) -> Lease {
    places.lease(uids, gids, 1, None).expect("free")
}

#[test]
fn waiting_ends_when_an_id_becomes_free_and_at_the_deadline() {
    let dir = Scratch::new();
    let (places, ids) = (places(&dir), ids(100_000, 1));
    let only = lease(&places, &ids, 1);
    let failure = refusal(places.lease(&ids, &ids, 1, Some(Duration::from_millis(30))));
    assert!(failure.message.contains("after waiting 30ms"), "{failure}");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| places.lease(&ids, &ids, 1, Some(Duration::MAX)).expect("free at last").uid);
        drop(only);
        assert_eq!(waiter.join().expect("no panic"), 100_000);
    });
}

#[test]
fn an_id_is_not_given_out_again_at_once_while_others_are_free() {
    let dir = Scratch::new();
    let (places, ids) = (places(&dir), ids(100_000, 8));
    let mut repeats = 0;
    let mut last = 0;
    for _ in 0..200 {
        let uid = lease(&places, &ids, 1).uid;
        repeats += u32::from(uid == last);
        last = uid;
    }
    // By chance alone it would be 25 in the mean.
    assert_eq!(repeats, 0);
}

#[test]
fn a_lease_in_either_of_two_places_counts() {
    let (a, b) = (Scratch::new(), Scratch::new());
    let both = Places { candidates: [places(&a).candidates, places(&b).candidates].concat(), uid: places(&a).uid };
    let one = ids(100_000, 1);
    for alone in [places(&a), places(&b)] {
        let held = lease(&alone, &one, 1);
        refusal(both.lease(&one, &one, 1, None));
        drop(held);
        let held = lease(&both, &one, 1);
        refusal(alone.lease(&one, &one, 1, None));
        drop(held);
    }
    // A place that is not there does not matter as long as there is another.
    let half = Places { candidates: [vec![("/nonexistent".into(), "x".to_owned())], both.candidates].concat(), ..both };
    lease(&half, &one, 1);
}

/// As a process has one that another thread starts just now.
#[test]
fn a_dropped_lease_is_free_although_a_copy_of_its_descriptors_is_open() {
    let dir = Scratch::new();
    let (places, one) = (places(&dir), ids(100_000, 1));
    let held = lease(&places, &one, 1);
    let copies = held.copies();
    refusal(places.lease(&one, &one, 1, None));
    drop(held);
    let again = lease(&places, &one, 1);
    drop(copies);
    refusal(places.lease(&one, &one, 1, None));
    drop(again);
}

#[test]
fn a_lease_that_is_set_apart_is_held_by_nothing_but_its_own_files() {
    let dir = Scratch::new();
    let (places, two) = (places(&dir), ids(100_000, 2));
    let (mut apart, other) = (lease(&places, &two, 1), lease(&places, &two, 1));
    let shared = other.copies();
    apart.set_apart().expect("moved");
    apart.set_apart().expect("once more is nothing");
    refusal(places.lease(&two, &two, 1, None));
    let copies = apart.copies();
    let uid = apart.uid;
    // Somebody else holds it now, by the copies.
    apart.hand_over();
    refusal(places.lease(&two, &two, 1, None));
    drop(copies);
    assert_eq!(lease(&places, &two, 1).uid, uid, "the other one is held still");
    drop((other, shared));
}

#[test]
fn all_leases_of_a_process_take_the_descriptors_of_one() {
    let dir = Scratch::new();
    let (places, many) = (places(&dir), ids(100_000, 100));
    let leases: Vec<Lease> = (0..100).map(|_| lease(&places, &many, 1)).collect();
    let inode = std::fs::metadata(dir.join("leases/ids")).expect("made").ino();
    let open = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let of_leases = open.filter(|entry| std::fs::metadata(entry.path()).is_ok_and(|file| file.ino() == inode));
    assert_eq!(of_leases.count(), 1);
    refusal(places.lease(&many, &many, 1, None));
    drop(leases);
    lease(&places, &many, 100);
}

#[test]
fn a_directory_that_others_control_is_refused_and_named() {
    let one = ids(100_000, 1);
    let bad = |prepare: &dyn Fn(&Scratch)| {
        let dir = Scratch::new();
        prepare(&dir);
        refusal(places(&dir).lease(&one, &one, 1, None)).to_string()
    };
    let link = bad(&|dir| symlink("/tmp", dir.join("leases")).expect("link"));
    assert!(link.contains("leases: "), "{link}");
    let open = bad(&|dir| {
        std::fs::create_dir(dir.join("leases")).expect("mkdir");
        std::fs::set_permissions(dir.join("leases"), PermissionsExt::from_mode(0o777)).expect("chmod");
    });
    assert!(open.contains("others have permissions"), "{open}");
    let writable = bad(&|dir| std::fs::set_permissions(&**dir, PermissionsExt::from_mode(0o777)).expect("chmod"));
    assert!(writable.contains("writable by others"), "{writable}");
    let file = bad(&|dir| {
        std::fs::create_dir(dir.join("leases")).expect("mkdir");
        std::fs::set_permissions(dir.join("leases"), PermissionsExt::from_mode(0o700)).expect("chmod");
        symlink("/etc/passwd", dir.join("leases/ids")).expect("link");
    });
    assert!(file.contains("leases: "), "{file}");
    let dir = Scratch::new();
    let somebody = Places { uid: places(&dir).uid + 1, ..places(&dir) };
    refusal(somebody.lease(&one, &one, 1, None));
    // The twin: with a directory of one's own it works, and the file is private.
    lease(&places(&dir), &one, 1);
    assert_eq!(std::fs::metadata(dir.join("leases/ids")).expect("made").mode() & 0o777, 0o600);
}

#[test]
fn eight_processes_hold_distinct_ids_and_all_are_free_when_they_are_killed() {
    let dir = Scratch::new();
    let (places, ids) = (places(&dir), ids(100_000, 200));
    let mut processes: Vec<Child> = (0..8).map(|_| holder(&dir)).collect();
    let mut seen = HashSet::new();
    for process in &mut processes {
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let lines = stdout.lines().map(|line| line.expect("text"));
        let uids = lines.filter_map(|l| l.strip_prefix("leased ")?.parse::<u32>().ok()).take(25);
        for uid in uids {
            assert!(seen.insert(uid), "{uid} was leased twice");
        }
    }
    assert_eq!(seen.len(), 200);
    assert!(refusal(places.lease(&ids, &ids, 1, None)).message.contains("200 of 200"));
    for mut process in processes {
        process.kill().expect("kill");
        process.wait().expect("reap");
    }
    let all: Vec<Lease> = (0..200).map(|_| lease(&places, &ids, 1)).collect();
    assert_eq!(all.len(), 200);
}

const HOLDER: &str = "SANDCELL_TEST_LEASES";

/// This test program once more, with nothing to do but to hold 25 leases until it is killed.
fn holder(dir: &Scratch) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "--nocapture", "ids::tests::lease::holds_leases_for_the_test_of_eight_processes"])
        .env(HOLDER, &**dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run the test program")
}

#[test]
fn holds_leases_for_the_test_of_eight_processes() {
    let Some(dir) = std::env::var_os(HOLDER) else { return };
    let places = Places { candidates: vec![(dir.into(), "leases".to_owned())], uid: nix::unistd::geteuid().as_raw() };
    let leases: Vec<Lease> = (0..25).map(|_| lease(&places, &ids(100_000, 200), 1)).collect();
    // One line of its own for each, whatever the test harness printed before.
    println!();
    for lease in &leases {
        println!("leased {}", lease.uid);
    }
    // Until the parent kills us, or is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
}
