//! Repositories of the caller's that programs look at with git(1).

mod common;

use std::path::Path;
use std::process::Command;

use common::{Scratch, run, text, told};
use sandcell::{Builder, Sandbox};

fn git(dir: &Path, words: &[&str]) {
    let output = Command::new("git").args(words).current_dir(dir).env("HOME", dir).output().expect("git is installed");
    assert!(output.status.success(), "{output:?}");
}

/// A repository with one commit, and another one deeper in the same directory.
fn repositories(scratch: &Scratch) -> std::path::PathBuf {
    let dir = scratch.dir("work tree");
    for place in [dir.clone(), scratch.dir("work tree/inner")] {
        git(&place, &["init", "-q"]);
        git(&place, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"]);
    }
    dir
}

fn shown(dir: &Path) -> Builder {
    Sandbox::builder().ro(dir, "/src").current_dir("/src")
}

#[test]
fn git_works_in_a_repository_that_is_shown() {
    let scratch = Scratch::new();
    let dir = repositories(&scratch);
    assert_eq!(told(shown(&dir), "git log --format=%s"), "first");
    // Read and write, beside another one, at the place that it has outside.
    let builder = Sandbox::builder().rw(&dir, &dir).ro(dir.join("inner"), "/inner");
    assert_eq!(
        told(builder, &format!("git -C '{}' log --format=%s && git -C /inner log --format=%s", dir.display())),
        "first\nfirst"
    );
}

#[test]
fn git_trusts_nothing_else_and_what_the_caller_says_counts() {
    let scratch = Scratch::new();
    let dir = repositories(&scratch);
    let twin = run(shown(&dir).env("GIT_CONFIG_COUNT", "0"), "git log --format=%s");
    if twin.identity.host_uid == nix::unistd::geteuid().as_raw() {
        eprintln!("SKIPPED: here the program has the caller's own UID");
        return;
    }
    // Control: without the variables git refuses, and a repository deeper in the directory was not named.
    assert!(text(&twin.stderr).contains("dubious ownership"), "{}", text(&twin.stderr));
    let inner = run(shown(&dir), "git -C inner log --format=%s");
    assert!(text(&inner.stderr).contains("dubious ownership"), "{}", text(&inner.stderr));
    assert_eq!(told(Sandbox::builder().ro(dir.join(".git"), "/x"), "env | grep -c GIT_ || true"), "0");
}
