//! 5,000 directories in each other and 64 descriptors: nothing that walks through a tree needs more, and what was kept
//! can be removed by its owner with `rm`.

#![cfg(feature = "image")]

mod image_support;
mod live;

use std::fs;
use std::path::Path;
use std::process::Command;

use image_support::{Scratch, busybox, dir, file, installed, kept_upper, store_image, tar};
use live::in_time;
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use sandcell::image::{Commit, changes};
use sandcell::{Error, Outcome, Root, Sandbox, Upper, User, subid_tree};
use serde_json::json;

const DEPTH: usize = 5000;

/// Runs the calling test again with 64 descriptors. True in that second run.
fn with_few_descriptors(test: &str) -> bool {
    if std::env::var_os("SANDCELL_FEW").is_some() {
        return true;
    }
    if !installed("prlimit") {
        return false;
    }
    let mut few = Command::new("prlimit");
    few.arg("--nofile=64:64").arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = few.env("SANDCELL_FEW", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{}", &said[..said.len().min(4000)]);
    false
}

fn nest(top: &Path, name: &str) {
    let mut dir = rustix::fs::open(top, OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = openat(&dir, name, OFlags::PATH, Mode::empty()).unwrap();
    }
}

fn depth(tree: &Path) -> usize {
    subid_tree::list(tree).unwrap().iter().map(|entry| entry.path.components().count()).max().unwrap_or(0)
}

#[test]
fn a_deep_tree_is_listed_compared_copied_reclaimed_and_removed_with_few_descriptors() {
    if !with_few_descriptors("a_deep_tree_is_listed_compared_copied_reclaimed_and_removed_with_few_descriptors") {
        return;
    }
    let scratch = Scratch::new("depth");
    let (kept, store) = (scratch.path("kept"), scratch.store());
    store_image(&store, "base:1", &[tar(&[dir("etc"), file("etc/x", "x")])], json!({}));
    nest(&kept_upper(&kept), "d");
    let layers = store.use_image("base:1").unwrap().layers.clone();
    in_time("all of it", move || {
        assert_eq!(changes(&kept, &layers).unwrap().len(), DEPTH);
        assert_eq!(depth(&kept.join("upper")), DEPTH);
        let error = store.commit(Some(&kept), &Commit::on("base:1")).expect_err("no layer has such paths");
        assert!(error.to_string().contains("too deep"), "{error}");
        let copy = kept.with_file_name("copy");
        assert!(subid_tree::copy_out(kept.join("upper"), &copy).unwrap().is_empty(), "everything has a copy");
        assert_eq!(depth(&copy), DEPTH);
        subid_tree::reclaim(&kept).unwrap();
        subid_tree::remove(&copy).unwrap();
        subid_tree::remove(&kept).unwrap();
    });
}

#[test]
fn long_names_in_each_other_are_too_much_for_a_list_and_not_for_the_rest() {
    if !with_few_descriptors("long_names_in_each_other_are_too_much_for_a_list_and_not_for_the_rest") {
        return;
    }
    let scratch = Scratch::new("depth-long");
    let kept = scratch.path("kept");
    nest(&kept_upper(&kept), &"n".repeat(255));
    in_time("all of it", move || {
        let error = changes(&kept, &[]).expect_err("3 GB of paths");
        assert!(error.to_string().contains("longer than 40 MiB"), "{error}");
        let error = subid_tree::list(&kept).expect_err("3 GB of paths");
        assert_eq!(error.errno(), Some(libc::E2BIG), "{error}");
        let copy = kept.with_file_name("copy");
        subid_tree::copy_out(&kept, &copy).unwrap();
        subid_tree::remove(&copy).unwrap();
        subid_tree::remove(&kept).unwrap();
    });
}

#[test]
fn the_changes_of_a_run_that_nests_directories_are_listed_with_few_descriptors() {
    if !with_few_descriptors("the_changes_of_a_run_that_nests_directories_are_listed_with_few_descriptors") {
        return;
    }
    let scratch = Scratch::new("depth-run");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&busybox())], json!({}));
    let sandbox = Sandbox::builder().store(store.dir()).root(Root::image("base:1")).user(User::Root).build().unwrap();
    let script = "mkdir /w; cd /w; i=0; while [ $i -lt 2500 ]; do mkdir d && cd d || break; i=$((i+1)); done; true";
    let output =
        in_time("the run", move || sandbox.command("/bin/sh").args(["-c", script]).track_changes(true).output());
    let changes = output.unwrap().report.changes.expect("listed");
    assert!(changes.len() > 2000, "{}", changes.len());
}

/// Whatever a program writes: how it ended is told.
#[test]
fn a_run_that_changes_more_than_a_list_holds_has_its_outcome_and_a_list_that_says_it_is_cut() {
    let scratch = Scratch::new("depth-cut");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&busybox())], json!({}));
    let sandbox = Sandbox::builder().store(store.dir()).root(Root::image("base:1")).user(User::Root).build().unwrap();
    let report = |count: usize| {
        let script = format!(
            "n={}; for d in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do mkdir $n; cd $n; done; \
             i=0; while [ $i -lt {count} ]; do : >$i; i=$((i+1)); done; exit 7",
            "n".repeat(250)
        );
        let mut command = sandbox.command("/bin/sh");
        command.args(["-c", &script]).track_changes(true);
        in_time("the run", move || command.output()).unwrap().report
    };
    let whole = report(100);
    assert!(whole.changes.as_ref().is_some_and(|list| list.len() == 116) && !whole.changes_truncated, "the control");
    let cut = report(12_000);
    assert_eq!(cut.outcome, Outcome::Exited(7));
    let changes = cut.changes.as_ref().expect("what could be listed");
    assert!(cut.changes_truncated && changes.len() > 5000 && changes.len() < 12_016, "{}", changes.len());
    assert!(changes.is_sorted_by(|a, b| a.path < b.path));
    assert!(sandcell::report::to_json(&Ok(cut.clone())).contains("\"changes_truncated\":true"));
}

#[test]
fn rm_removes_what_a_kept_upper_leaves() {
    let scratch = Scratch::new("depth-rm");
    let (layer, kept) = (scratch.path("layer"), scratch.path("kept"));
    fs::create_dir_all(layer.join("bin")).unwrap();
    fs::copy("/bin/busybox", layer.join("bin/sh")).expect("busybox-static is installed");
    let builder = Sandbox::builder().layer(&layer).upper(Upper::Dir(kept.clone())).user(User::Caller);
    let output = builder.build().unwrap().command("/bin/sh").args(["-c", "echo x > /x"]).output().unwrap();
    assert!(output.outcome.success(), "{output:?}");
    assert!(kept.join("work/work").exists(), "the control: the kernel left its directory");
    assert_eq!(fs::read(kept.join("upper/x")).unwrap(), b"x\n");
    let status = Command::new("rm").arg("-rf").arg(&kept).status().unwrap();
    assert!(status.success() && !kept.exists());
}

#[test]
fn what_is_no_kept_upper_is_not_committed() {
    let scratch = Scratch::new("depth-no-upper");
    let store = scratch.store();
    store_image(&store, "base:1", &[tar(&[dir("etc")])], json!({}));
    let kept = scratch.path("kept");
    let upper = kept_upper(&kept);
    fs::write(upper.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("kept", scratch.path("link")).unwrap();
    fs::create_dir_all(scratch.path("odd/work")).unwrap();
    std::os::unix::fs::symlink("../kept/upper", scratch.path("odd/upper")).unwrap();
    for no_upper in ["kept/upper", "kept/work", "store", "odd"] {
        let error = store.commit(Some(&scratch.path(no_upper)), &Commit::on("base:1")).expect_err(no_upper);
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains("not a kept upper"), "{error}");
        let error = changes(&scratch.path(no_upper), &[]).expect_err(no_upper);
        assert!(error.to_string().contains("not a kept upper"), "{error}");
    }
    let image = store.commit(Some(&kept), &Commit::on("base:1")).expect("the control");
    assert_eq!(store.commit(Some(&scratch.path("link")), &Commit::on("base:1")).unwrap().id, image.id);
}
