//! Files that are named on the command line, in a directory that a program had writable in an earlier run: what it put in
//! their place leads nothing outside, and nobody waits for it.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Scratch, text, within_a_minute};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const PRECIOUS: &str = "of the caller\n";

/// Runs the program with these words before `true`. Options that name a file come last.
fn sandcell(words: &[&str], file: &Path) -> Output {
    let (words, file) = (words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(), file.to_owned());
    within_a_minute("sandcell", move || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sandcell"));
        program.args(words).arg(file).arg("true").output().expect("the program starts")
    })
}

/// A project that a program could write, and a file beside it that it could not.
fn project(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let project = scratch.dir("project");
    (project.join("file"), scratch.file("precious", PRECIOUS))
}

const WRITES: [&[&str]; 2] = [&["run", "--report"], &["learn", "-o"]];
const READS: [&[&str]; 2] = [&["run", "--env-file"], &["run", "--seccomp"]];

#[test]
fn a_link_in_the_place_of_a_report_or_profile_is_not_written_through() {
    for words in WRITES {
        let scratch = Scratch::new();
        let (place, precious) = project(&scratch);
        // The control: without a link it is written, over what was there.
        fs::write(&place, "x".repeat(1 << 16)).unwrap();
        let output = sandcell(words, &place);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output.stderr));
        let written = fs::read_to_string(&place).unwrap();
        assert!(written.starts_with('{') && !written.contains('x'.to_string().repeat(100).as_str()), "{words:?}");
        for target in [&precious, &scratch.path().join("new")] {
            fs::remove_file(&place).unwrap();
            symlink(target, &place).unwrap();
            let output = sandcell(words, &place);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{words:?}: {said}");
            assert!(said.contains("it is a symbolic link"), "{words:?}: {said}");
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), PRECIOUS);
        assert!(!scratch.path().join("new").exists());
    }
}

#[test]
fn a_fifo_in_the_place_of_a_named_file_is_refused_and_not_waited_for() {
    for words in WRITES.into_iter().chain(READS) {
        let scratch = Scratch::new();
        let (place, _) = project(&scratch);
        mkfifo(&place, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let output = sandcell(words, &place);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {said}");
        assert!(said.contains("ordinary file"), "{words:?}: {said}");
    }
}

#[test]
fn settings_without_end_are_refused() {
    let scratch = Scratch::new();
    let (place, _) = project(&scratch);
    fs::File::create(&place).unwrap().set_len(1 << 40).unwrap();
    for words in READS {
        let output = sandcell(words, &place);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(125) && said.contains("longer than"), "{words:?}: {said}");
    }
}

/// What a shell makes of `<(...)` and `>(...)`, and its own streams.
#[test]
fn pipes_that_the_callers_shell_has_made_are_read_and_written() {
    let script = "
printf 'A=b\\n' | \"$0\" run --env-file /dev/stdin -- sh -c 'echo $A'
\"$0\" run --report /dev/stdout -- true | head -c 1; echo
\"$0\" run --report /proc/self/fd/1 -- true | head -c 1; echo
exec 5</dev/null; printf 'C=d\\n' | \"$0\" run --env-file /dev/fd/0 -- sh -c 'echo $C'
\"$0\" run --report /dev/null -- echo it ran";
    let output = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_sandcell")]).output().unwrap();
    assert_eq!(text(&output.stdout), "b\n{\n{\nd\nit ran", "{}", text(&output.stderr));
}
