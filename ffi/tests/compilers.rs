//! The headers with every compiler, standard and warning.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{HERE, Link, Scratch, WARNINGS, compile, holds, prefix, said};

const NEED_IMAGES: [&str; 2] = ["image", "pull"];

fn sources(dirs: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(Path::new(HERE).join(dir)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .filter(|path| cfg!(feature = "image") || !NEED_IMAGES.contains(&path.file_stem().unwrap().to_str().unwrap()))
        .collect();
    found.sort();
    assert!(found.len() >= 3, "{found:?}");
    found
}

fn each_is_accepted(compilers: &[&str], standards: &[&str], sources: &[PathBuf]) {
    for compiler in compilers {
        for standard in standards {
            let mut cc = Command::new(compiler);
            cc.args(WARNINGS).args([standard, "-D_GNU_SOURCE", "-fsyntax-only", "-I"]).arg(prefix().join("include"));
            let output = cc.args(sources).output().unwrap_or_else(|e| panic!("{compiler}: {e}"));
            assert!(output.status.success() && output.stderr.is_empty(), "{cc:?}:\n{}", said(&output));
        }
    }
}

#[test]
fn the_suite_and_the_examples_are_c99_c11_c17_and_c23_to_gcc_and_clang() {
    let sources = sources(&["tests/c", "../examples/c"], "c");
    each_is_accepted(&["gcc", "clang"], &["-std=c99", "-std=c11", "-std=c17", "-std=c2x"], &sources);
}

#[test]
fn the_suite_and_the_examples_are_c_plus_plus_17_and_20_to_gcc_and_clang() {
    let sources = sources(&["tests/c", "../examples/cpp"], "cpp");
    each_is_accepted(&["g++", "clang++"], &["-std=c++17", "-std=c++20"], &sources);
}

/// The warnings are really on: this is how the two above would look if they were not.
#[test]
fn a_conversion_that_loses_bits_is_refused() {
    let scratch = Scratch::new("conversion");
    let file = scratch.path("loses.c");
    fs::write(&file, "#include <sandcell.h>\nchar lost(long l);\nchar lost(long l) { return l; }\n").unwrap();
    let mut cc = Command::new("cc");
    cc.args(WARNINGS).args(["-fsyntax-only", "-I"]).arg(prefix().join("include")).arg(&file);
    let output = cc.output().unwrap();
    assert!(said(&output).contains("conversion"), "{}", said(&output));
}

#[test]
fn programs_of_both_compilers_run_with_both_libraries() {
    let source = Path::new("tests/c/misuse.c");
    for compiler in ["gcc", "clang"] {
        for link in [Link::Shared, Link::Static] {
            let scratch = Scratch::new(&format!("{compiler} {link:?}"));
            let program = scratch.path("program");
            compile(compiler, &["-std=c11", "-O2"], source, link, &program);
            holds(&mut Command::new(&program));
        }
    }
}
