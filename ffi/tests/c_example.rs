//! C programs against the built library, shared and static, with every warning an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// A directory of the test's own, gone with it. Its name has a blank: paths are passed whole or not at all.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("sandcell c {name} {}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What cargo built beside this test: it is run without cargo, so nobody else tells where.
fn built(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name(name);
    assert!(path.exists(), "{} is not there: cargo build -p sandcell-ffi", path.display());
    path
}

fn compile(source: &Path, scratch: &Scratch, shared: bool) -> PathBuf {
    let program = scratch.0.join("program");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-I"])
        .arg(Path::new(HERE).join("include"))
        .arg(source)
        .arg("-o")
        .arg(&program);
    if shared {
        // As it is installed: programs ask for the name with the number.
        for name in ["libsandcell.so", "libsandcell.so.0"] {
            std::os::unix::fs::symlink(built("libsandcell_ffi.so"), scratch.0.join(name)).unwrap();
        }
        cc.arg("-L").arg(&scratch.0).arg("-lsandcell");
    } else {
        cc.arg(built("libsandcell_ffi.a")).args(["-lpthread", "-ldl", "-lm", "-lgcc_s"]);
    }
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{cc:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    if shared {
        // What stays is all that a host without the header has: the name with the number.
        fs::remove_file(scratch.0.join("libsandcell.so")).unwrap();
    }
    program
}

fn run(program: &Path, scratch: &Scratch, args: &[&str]) -> Output {
    Command::new(program).args(args).env("LD_LIBRARY_PATH", &scratch.0).output().unwrap()
}

#[test]
fn the_example_runs_a_program_and_passes_its_output_and_status_on() {
    let scratch = Scratch::new("example");
    let program = compile(&Path::new(HERE).join("../examples/c/run.c"), &scratch, true);
    let output = run(&program, &scratch, &["/bin/sh", "-c", "echo $GREETING; id -u; echo oops >&2; exit 7"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "oops\nexited, status 7\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n1234\n");
    assert_eq!(output.status.code(), Some(7));

    let output = run(&program, &scratch, &["/no/such/program"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("/no/such/program: "), "{output:?}");
}

#[test]
fn misuse_is_an_error_object_in_the_shared_library() {
    holds("misuse", "shared", true);
}

#[test]
fn misuse_is_an_error_object_in_the_static_library() {
    holds("misuse", "static", false);
}

#[test]
fn what_the_setters_set_arrives_in_the_sandbox() {
    holds("settings", "settings", true);
}

/// Runs a program that looks for itself.
fn holds(source: &str, name: &str, shared: bool) {
    let scratch = Scratch::new(name);
    let program = compile(&Path::new(HERE).join(format!("tests/{source}.c")), &scratch, shared);
    let output = run(&program, &scratch, &[]);
    assert!(output.status.success(), "{output:?}");
    // Nothing is printed, whatever goes wrong.
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_shared_library_exports_what_the_header_declares_and_nothing_else() {
    let header = fs::read_to_string(Path::new(HERE).join("include/sandcell.h")).unwrap();
    let declared: BTreeSet<&str> = header
        .lines()
        .filter(|line| !line.starts_with(['/', ' ', '#']))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .collect();
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(built("libsandcell_ffi.so")).output().unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<&str> = symbols.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert!(declared.contains("sandcell_run"), "{declared:?}");
    assert_eq!(exported, declared);
}
