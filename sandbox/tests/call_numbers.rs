//! Numbers of system calls differ between architectures: they stand in `sandcell-raw/src/arch` and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => sources(&entry, found),
            false if entry.extension().is_some_and(|end| end == "rs") => found.push(entry),
            false => {}
        }
    }
}

/// What stands for the number in each raw call of a text.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    ["call!(", "syscall6(", "self.call("].into_iter().flat_map(move |start| {
        text.split(start).skip(1).map(|rest| rest.trim_start().split([',', ')']).next().unwrap_or_default())
    })
}

/// A number, or a constant of the file's own.
fn is_own(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn the_number_of_a_raw_call_is_one_of_the_architectures_table() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut files, mut calls) = (Vec::new(), 0);
    ["crates", "sandbox/src"].iter().for_each(|dir| sources(&top.join(dir), &mut files));
    for file in files {
        for word in numbers(&fs::read_to_string(&file).unwrap()) {
            assert!(!is_own(word), "{}: {word} is no number of every architecture; write nr::{word}", file.display());
            calls += usize::from(word.starts_with("nr::") || word.starts_with("$crate::nr::"));
        }
    }
    // Those of the typed wrappers are of the table by their macro.
    assert!(calls > 100, "{calls}");
    assert!(is_own(numbers("let _ = call!(FUTEX, 1)").next().unwrap()), "the control: such a one is found");
}
