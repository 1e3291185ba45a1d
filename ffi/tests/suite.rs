//! The C and C++ programs that look for themselves, shared and static, plain and under the sanitizers.

mod common;

use std::path::Path;
use std::process::Command;

use common::{IMAGES, Link, SUITE, Scratch, arguments, compile, default_prefix, holds};

fn suite(link: Link, flags: &[&str]) {
    let images = if link == Link::Default { &[] } else { IMAGES };
    for name in SUITE.iter().chain(images) {
        let scratch = Scratch::new(&format!("{name} {link:?} {}", flags.len()));
        let program = scratch.path("program");
        compile("cc", flags, Path::new(&format!("tests/c/{name}.c")), link, &program);
        holds(Command::new(&program).args(arguments(name, &scratch)));
    }
}

#[test]
fn the_c_suite_holds_with_the_shared_library() {
    suite(Link::Shared, &["-std=gnu11"]);
}

#[test]
fn the_c_suite_holds_with_the_static_library() {
    suite(Link::Static, &["-std=gnu11"]);
}

#[test]
fn the_suite_holds_with_the_library_that_is_installed_by_default() {
    if default_prefix().is_some() {
        suite(Link::Default, &["-std=gnu11"]);
        wrapper(Link::Default, "-std=c++17");
    }
}

/// AddressSanitizer counts what the library allocates, too: leaks of either side are found.
#[test]
fn the_c_suite_shows_no_error_and_no_leak_under_address_and_undefined_behaviour_sanitizer() {
    suite(Link::Static, &["-std=gnu11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
}

fn wrapper(link: Link, standard: &str) {
    let scratch = Scratch::new(&format!("wrapper {link:?} {standard}"));
    let program = scratch.path("program");
    compile("c++", &[standard], Path::new("tests/c/wrapper.cpp"), link, &program);
    holds(&mut Command::new(&program));
}

#[test]
fn the_c_plus_plus_header_holds_in_both_of_its_standards() {
    wrapper(Link::Shared, "-std=c++17");
    wrapper(Link::Shared, "-std=c++20");
}

#[test]
fn the_c_plus_plus_header_shows_no_error_under_address_and_undefined_behaviour_sanitizer() {
    let scratch = Scratch::new("wrapper sanitized");
    let program = scratch.path("program");
    let flags = ["-std=c++17", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    compile("c++", &flags, Path::new("tests/c/wrapper.cpp"), Link::Static, &program);
    holds(&mut Command::new(&program));
}
