//! A NULL in every place in turn, of every function that the header declares: an error, no crash, no leak.

mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{HERE, Link, Scratch, compile, declarations, holds, prefix};

/// Places in which NULL means something.
const OPTIONAL: [&str; 16] = [
    "error",
    "group",
    "value",
    "length",
    "store_dir",
    "image_name",
    "image_format",
    "words",
    "options",
    "left_out",
    "pruned",
    "base",
    "owner",
    "commit",
    "progress",
    "data",
];

fn is_optional(function: &str, parameter: &str) -> bool {
    let same_path = parameter == "dest" && ["sandcell_policy_add_ro", "sandcell_policy_add_rw"].contains(&function);
    let empty_cell = parameter == "command" && function == "sandcell_detach";
    same_path || empty_cell || OPTIONAL.contains(&parameter)
}

/// A declaration of the header: what it returns, its name, and type and name of each parameter.
struct Function {
    answer: String,
    name: String,
    parameters: Vec<(String, String)>,
}

fn declared() -> Vec<Function> {
    let split = |text: &str| {
        let text = text.trim();
        let at = text.rfind([' ', '*']).unwrap() + 1;
        (text[..at].trim().to_owned(), text[at..].to_owned())
    };
    let function = |(head, inside): &(String, String)| {
        let (answer, name) = split(head);
        let parameters = if inside == "void" { Vec::new() } else { inside.split(',').map(split).collect() };
        Function { answer, name, parameters }
    };
    declarations(prefix()).iter().map(function).collect()
}

/// What starts a process, or moves ours.
const STARTING: [&str; 8] = [
    "sandcell_run",
    "sandcell_run_command",
    "sandcell_spawn",
    "sandcell_start",
    "sandcell_pool_start",
    "sandcell_prepare",
    "sandcell_explain_json",
    "sandcell_doctor_json",
];

/// What would leave a group behind where it works, make the user a store, ask a registry, or lead this process away.
const REACHING: [&str; 6] = [
    "sandcell_adopt_cgroup",
    "sandcell_store_open",
    "sandcell_store_pull",
    "sandcell_entry_join",
    "sandcell_entry_confine",
    // A cell that nobody ends.
    "sandcell_detach",
];

/// Something good for a parameter of this type.
fn good(kind: &str, name: &str) -> String {
    match kind {
        "const char *const *" => "argv".to_owned(),
        "void *" | "sandcell_build_progress_t" => "NULL".to_owned(),
        "sandcell_pruned_t *" => "&gone".to_owned(),
        "const char *" => "\"1\"".to_owned(),
        "char **" => "&text".to_owned(),
        "const void *" => "\"1\"".to_owned(),
        "char *" => "room".to_owned(),
        "int64_t *" => "&count".to_owned(),
        "size_t *" => "&size".to_owned(),
        "uint64_t *" => "&number".to_owned(),
        "int *" => "&fd".to_owned(),
        "sandcell_usage_t *" => "&usage".to_owned(),
        "sandcell_log_record_t *" => "&record".to_owned(),
        "sandcell_owned_entry_t *" => "&file".to_owned(),
        _ if kind.ends_with("**") => format!("&new_{name}"),
        _ if name == "limits" => "policy".to_owned(),
        _ if kind.ends_with('*') => name.to_owned(),
        _ => "1".to_owned(),
    }
}

/// Calls of every function: with all arguments good, with a NULL in each place in turn, with NULL everywhere.
fn calls(starting: bool) -> String {
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
            let needed = nulls.iter().any(|&i| !is_optional(name, &parameters[i].1));
            let fails = parameters.iter().any(|(kind, _)| kind == "sandcell_error_t **")
                || ["_set_", "_add_", "_clear_", "_usage", "_owned_get"].iter().any(|word| name.contains(word));
            if !needed && (REACHING.contains(&name.as_str()) || !starting && STARTING.contains(&name.as_str())) {
                continue;
            }
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

fn program(scratch: &Scratch, starting: bool, flags: &[&str]) -> PathBuf {
    let source = fs::read_to_string(Path::new(HERE).join("tests/c/nulls.c.in")).unwrap();
    let file = scratch.path("nulls.c");
    fs::write(&file, source.replace("@CALLS@", &calls(starting))).unwrap();
    let program = scratch.path("program");
    compile("cc", &[&["-std=gnu11", "-g"], flags].concat(), &file, Link::Static, &program);
    program
}

#[test]
fn a_null_in_every_place_in_turn_is_an_error_and_neither_a_crash_nor_a_leak() {
    let scratch = Scratch::new("nulls");
    let sanitizers = ["-DSTARTING", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    holds(&mut Command::new(program(&scratch, true, &sanitizers)));
}
