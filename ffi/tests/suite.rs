//! The C and C++ programs that look for themselves, shared and static; and a NULL in every place in turn.

mod common;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{HERE, Link, SUITE, Scratch, arguments, compile, holds};

fn suite(link: Link) {
    for name in SUITE {
        let scratch = Scratch::new(&format!("{name} {link:?}"));
        let program = scratch.path("program");
        compile("cc", &["-std=gnu11"], Path::new(&format!("tests/c/{name}.c")), link, &program);
        holds(Command::new(&program).args(arguments(name, &scratch)));
    }
}

#[test]
fn the_c_suite_holds_with_the_shared_library() {
    suite(Link::Shared);
}

#[test]
fn the_c_suite_holds_with_the_static_library() {
    suite(Link::Static);
}

#[test]
fn the_c_plus_plus_header_holds_in_both_of_its_standards() {
    for standard in ["-std=c++17", "-std=c++20"] {
        let scratch = Scratch::new(&format!("wrapper {standard}"));
        let program = scratch.path("program");
        compile("c++", &[standard], Path::new("tests/c/wrapper.cpp"), Link::Shared, &program);
        holds(&mut Command::new(&program));
    }
}

/// Places in which NULL means something.
const OPTIONAL: [&str; 5] = ["error", "group", "dest", "value", "length"];

/// A declaration of the header: what it returns, its name, and type and name of each parameter.
struct Function {
    answer: String,
    name: String,
    parameters: Vec<(String, String)>,
}

fn declared() -> Vec<Function> {
    let header = fs::read_to_string(Path::new(HERE).join("include/sandcell.h")).unwrap();
    let code: Vec<&str> = header.lines().filter(|line| !line.starts_with(['/', '#', ' ']) || line.contains("  ")).collect();
    let code = code.join(" ");
    let split = |text: &str| {
        let text = text.trim();
        let at = text.rfind([' ', '*']).unwrap() + 1;
        (text[..at].trim().to_owned(), text[at..].to_owned())
    };
    let declarations = code.split(';').filter_map(|d| d.trim().strip_suffix(')')?.split_once('('));
    declarations
        .map(|(head, inside)| {
            let (answer, name) = split(head);
            let parameters = if inside == "void" { Vec::new() } else { inside.split(',').map(split).collect() };
            Function { answer: answer.rsplit(['}', '{']).next().unwrap().trim().to_owned(), name, parameters }
        })
        .filter(|function| function.name.starts_with("sandcell_"))
        .collect()
}

/// Something good for a parameter of this type.
fn good(kind: &str, name: &str) -> String {
    match kind {
        "const char *const *" => "argv".to_owned(),
        "const char *" => "\"1\"".to_owned(),
        "char **" => "&text".to_owned(),
        "size_t *" => "&size".to_owned(),
        "int *" => "&fd".to_owned(),
        "sandcell_usage_t *" => "&usage".to_owned(),
        _ if kind.ends_with("**") => format!("&new_{name}"),
        _ if name == "limits" => "policy".to_owned(),
        _ if kind.ends_with('*') => name.to_owned(),
        _ => "1".to_owned(),
    }
}

/// Calls of every function: with all arguments good, with a NULL in each place in turn, with NULL everywhere.
fn calls() -> String {
    let mut text = String::new();
    let functions = declared();
    assert!(functions.len() > 100, "found only {} functions", functions.len());
    for Function { answer, name, parameters } in &functions {
        let places: Vec<usize> = (0..parameters.len()).filter(|&i| parameters[i].0.ends_with('*')).collect();
        let frees = name.ends_with("_free");
        let mut turns: Vec<Vec<usize>> = places.iter().map(|&place| vec![place]).collect();
        turns.push(places.clone());
        if !frees {
            turns.push(Vec::new());
        }
        for nulls in turns {
            let argument = |i: usize| match nulls.contains(&i) {
                true => "NULL".to_owned(),
                false => good(&parameters[i].0, &parameters[i].1),
            };
            let arguments: Vec<String> = (0..parameters.len()).map(argument).collect();
            let call = format!("{name}({})", arguments.join(", "));
            let needed = nulls.iter().any(|&i| !OPTIONAL.contains(&parameters[i].1.as_str()));
            let fails = parameters.iter().any(|(kind, _)| kind == "sandcell_error_t **")
                || ["_set_", "_add_", "_clear_", "_usage"].iter().any(|word| name.contains(word));
            // Words that are good for some functions are none for others: then they may refuse.
            let line = match (answer.as_str(), needed && fails) {
                ("int", true) => format!("CHECK({call} == SANDCELL_ERROR_CONFIG);"),
                ("const char *", _) => format!("CHECK({call} != NULL);"),
                _ => format!("(void){call};"),
            };
            let line = if answer == "void" { format!("{call};") } else { line };
            let line = match name.ends_with("_new") {
                true => format!("{}_free({call});", name.trim_end_matches("_new")),
                false => line,
            };
            writeln!(text, "    begin(); {line} end();").unwrap();
        }
    }
    text
}

#[test]
fn a_null_in_every_place_in_turn_is_an_error_and_no_crash() {
    let source = fs::read_to_string(Path::new(HERE).join("tests/c/nulls.c.in")).unwrap();
    let scratch = Scratch::new("nulls");
    let file = scratch.path("nulls.c");
    fs::write(&file, source.replace("@CALLS@", &calls())).unwrap();
    let program = scratch.path("program");
    compile("cc", &["-std=gnu11", "-fsanitize=address,undefined", "-g"], &file, Link::Static, &program);
    holds(&mut Command::new(&program));
}
