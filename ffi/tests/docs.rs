//! What README and the documents show in C, C++, CMake and Meson is built and run, and the names in them are real.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{HERE, Link, Scratch, compile, prefix, said};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(HERE).join("..").join(name)).unwrap()
}

/// README and all that is in docs/.
fn pages() -> Vec<String> {
    let names = fs::read_dir(Path::new(HERE).join("../docs")).unwrap();
    let names = names.map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()));
    names.chain(["README.md".to_owned()]).filter(|name| name.ends_with(".md")).collect()
}

/// The blocks of a page in a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let mut blocks = page.split(&begin).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.next();
    blocks.collect()
}

/// Builds a piece as a program, with a `main` around what has none, and runs it: what it prints.
fn run(page: &str, piece: &str, language: &str) -> String {
    let (includes, body): (Vec<&str>, Vec<&str>) = piece.lines().partition(|line| line.starts_with('#'));
    let text = match piece.contains("int main(") {
        true => piece.to_owned(),
        false => {
            format!("{}\n#include <stdio.h>\nint main(void)\n{{\n{}\n}}\n", includes.join("\n"), body.join("\n"))
        }
    };
    let scratch = Scratch::new(&format!("{} {language}", page.replace('/', " ")));
    let (source, program) = (scratch.path(&format!("shown.{language}")), scratch.path("shown"));
    fs::write(&source, text).unwrap();
    let (compiler, standard) = if language == "c" { ("cc", "-std=c99") } else { ("c++", "-std=c++17") };
    compile(compiler, &[standard], &source, Link::Shared, &program);
    let output = Command::new(&program).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{piece}\n{}\n{}", output.status, said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_the_readme_shows_in_c_tells_the_uid_of_somebody_else() {
    let shown = blocks(&page("README.md"), "c");
    let [piece] = &shown[..] else { panic!("{shown:?}") };
    let uid = run("README.md", piece, "c");
    assert!(uid.trim().parse::<u32>().is_ok_and(|uid| uid != 0), "{uid:?}");
}

#[test]
fn what_the_documents_show_in_c_and_c_plus_plus_are_programs() {
    let mut said = Vec::new();
    for name in pages().iter().filter(|name| *name != "README.md") {
        for language in ["c", "cpp"] {
            let ran = |piece: &String| (name.clone(), run(name, piece, language));
            // Some only set something.
            said.extend(blocks(&page(name), language).iter().map(ran).filter(|(_, printed)| !printed.is_empty()));
        }
    }
    let wanted = ["exited 0: \nexited 0: kept\n\n", "kept\n"].map(|text| ("docs/c.md".to_owned(), text.to_owned()));
    assert_eq!(said, wanted);
}

#[test]
fn what_the_c_page_shows_of_cmake_and_meson_builds_a_program() {
    let text = page("docs/c.md");
    let [cmake, meson] = ["cmake", "meson"].map(|language| blocks(&text, language).concat());
    assert!(cmake.contains("find_package") && meson.contains("dependency"), "{cmake}{meson}");
    let scratch = Scratch::new("docs build");
    fs::copy(Path::new(HERE).join("tests/consumer/consumer.c"), scratch.path("program.c")).unwrap();
    let head = "cmake_minimum_required(VERSION 3.16)\nproject(shown C)\nadd_executable(program program.c)\n";
    fs::write(scratch.path("CMakeLists.txt"), format!("{head}{cmake}")).unwrap();
    fs::write(scratch.path("meson.build"), format!("project('shown', 'c')\n{meson}")).unwrap();
    for steps in ["cmake -S . -B by-cmake && cmake --build by-cmake", "meson setup by-meson && ninja -C by-meson"] {
        let mut shell = Command::new("sh");
        shell.args(["-c", steps]).current_dir(&scratch.0).env("CMAKE_PREFIX_PATH", prefix());
        let output = shell.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")).output().unwrap();
        assert!(output.status.success(), "{steps}\n{}", said(&output));
    }
    for program in ["by-cmake/program", "by-meson/program"] {
        common::holds(Command::new(scratch.path(program)).env("LD_LIBRARY_PATH", prefix().join("lib")));
    }
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_…".contains(c));
    words.filter(|word| word.contains('_')).map(str::to_owned).collect()
}

/// `sandcell_name` is one of the header's words, `sandcell_store_…` begins one and `…_add_step` ends one.
#[test]
fn every_name_of_c_in_the_documents_is_in_the_header() {
    let known = words(&page("include/sandcell.h"));
    let mut found = 0;
    for name in pages() {
        // But for the names of headers.
        for word in words(&page(&name).replace("sandcell_images.hpp", "").replace("sandcell_options.hpp", "")) {
            let is_known = match (word.strip_suffix('…'), word.strip_prefix("…_")) {
                (Some(begin), _) if begin.starts_with("sandcell_") => known.iter().any(|k| k.starts_with(begin)),
                (None, Some(end)) => known.iter().any(|k| k.ends_with(end)),
                _ if word.starts_with("sandcell_") => known.contains(&word),
                _ => continue,
            };
            assert!(is_known, "{word:?} of {name} is not in sandcell.h");
            found += 1;
        }
    }
    assert!(found > 50, "{found}");
}
