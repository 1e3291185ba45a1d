//! Reading /etc/subuid and its like, and arithmetic on ranges.

use std::path::{Path, PathBuf};

use super::Scratch;
use crate::ids::ranges::{self, Owner, Range, Ranges};

fn alice() -> Owner {
    Owner { name: Some("alice".to_owned()), uid: 1000, own_id: 1000 }
}

fn read(text: &str) -> crate::Result<Ranges> {
    let dir = Scratch::new();
    ranges::read_file(&fixture(&dir, text), &alice())
}

fn fixture(dir: &Scratch, text: &str) -> PathBuf {
    let path = dir.join("subuid");
    std::fs::write(&path, text).expect("write a fixture");
    path
}

fn set(ranges: &[(u32, u32)]) -> Ranges {
    ranges.iter().map(|&(start, count)| Range::new(start, count)).collect()
}

fn refusal(text: &str) -> String {
    let error = read(text).expect_err("must be refused");
    assert_eq!(error.kind(), "config");
    assert!(!error.hint().is_empty());
    error.to_string()
}

#[test]
fn a_user_is_found_by_name_and_by_number() {
    let text = "bob:1:5\nalice:100000:65536\n1000:300000:10\n10000:7:7\nalicex:9:9\n";
    assert_eq!(read(text).expect("well-formed"), set(&[(100_000, 65536), (300_000, 10)]));
}

#[test]
fn comments_blank_lines_and_a_missing_last_newline_are_fine() {
    assert_eq!(read("# ids\n\n  alice:100000:5  \nalice:7:1").expect("well-formed"), set(&[(7, 1), (100_000, 5)]));
}

#[test]
fn overlapping_and_touching_ranges_become_one() {
    assert_eq!(read("alice:2000:100\nalice:2050:100\nalice:2150:1\nalice:2010:5").expect("fine"), set(&[(2000, 151)]));
}

#[test]
fn a_file_that_does_not_exist_has_no_ranges() {
    assert!(ranges::read_file(Path::new("/nonexistent/subuid"), &alice()).expect("no error").is_empty());
}

#[test]
fn a_malformed_line_of_the_caller_is_named_with_file_and_line() {
    for line in
        ["alice", "alice:1", "alice:1:2:3", "alice:x:5", "alice:100000:", "alice:-5:10", "alice:+5:10", "1000:5"]
    {
        let message = refusal(&format!("bob:5:5\n{line}\n"));
        assert!(message.contains("subuid:2"), "{line}: {message}");
    }
}

#[test]
fn a_malformed_line_of_somebody_else_is_not_the_callers_business() {
    assert_eq!(read("bob:x:y\n\u{fffd}:::\nalice:100000:5\n").expect("well-formed"), set(&[(100_000, 5)]));
}

#[test]
fn a_range_that_overflows_is_named_in_the_error() {
    assert!(refusal("alice:4294967295:1").contains("beyond the last id"));
    assert!(refusal("alice:4294967290:100").contains("4294967290 + 100"));
    assert!(refusal("alice:4294967296:1").contains("above 4294967295"));
    assert!(refusal("alice:1:99999999999999999999").contains("above 4294967295"));
    assert_eq!(read("alice:4294967294:1").expect("the last id"), set(&[(u32::MAX - 1, 1)]));
}

#[test]
fn an_empty_range_is_refused() {
    assert!(refusal("alice:100000:0").contains("count is 0"));
}

#[test]
fn a_range_that_overlaps_the_callers_own_uid_or_roots_is_refused() {
    assert!(refusal("alice:999:2").contains("the caller's own id (1000)"));
    assert!(refusal("alice:1000:1").contains("the caller's own id (1000)"));
    assert!(refusal("alice:0:10").contains("root's id 0"));
    assert!(read("alice:1001:5").is_ok());
}

#[test]
fn the_output_of_getsubids_is_understood() {
    let output = "0: alice 100000 65536\n1: alice 300000 10\n";
    let found = ranges::read_getsubids(output, &alice(), "getsubids alice").expect("well-formed");
    assert_eq!(found, set(&[(100_000, 65536), (300_000, 10)]));
    let error = ranges::read_getsubids("0: alice many", &alice(), "getsubids alice").expect_err("malformed");
    assert!(error.to_string().contains("getsubids alice, line 1"), "{error}");
}

#[test]
fn everybodys_ranges_are_read_for_keeping_off_them() {
    let dir = Scratch::new();
    let file = fixture(&dir, "alice:100000:10\nbob:200000:10\nbroken\n");
    assert_eq!(ranges::read_all(&file).expect("readable"), set(&[(100_000, 10), (200_000, 10)]));
}

#[test]
fn differences_and_intersections_are_exact() {
    let all = set(&[(10, 10), (30, 10)]);
    assert_eq!(all.without(&set(&[(15, 20)])), set(&[(10, 5), (35, 5)]));
    assert_eq!(all.without(&set(&[(12, 1), (14, 1), (30, 10)])), set(&[(10, 2), (13, 1), (15, 5)]));
    assert_eq!(all.without(&Ranges::default()), all);
    assert_eq!(all.without(&set(&[(0, 100)])), Ranges::default());
    assert_eq!(all.within(&set(&[(19, 12)])), set(&[(19, 1), (30, 1)]));
}

#[test]
fn slices_cover_every_range_once_and_do_not_overlap() {
    let all = set(&[(10, 10), (30, 7)]);
    assert_eq!(all.slices(3), 5);
    let starts: Vec<_> = (0..6).map(|n| all.slice(n, 3)).collect();
    assert_eq!(starts, [Some(10), Some(13), Some(16), Some(30), Some(33), None]);
    assert_eq!(all.slices(11), 0);
}
