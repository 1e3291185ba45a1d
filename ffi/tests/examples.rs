//! The examples, built with the commands at their heads, and under the sanitizers.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{HERE, Link, Scratch, compile, layer, prefix, said};

/// Builds an example as it says itself.
fn build(example: &str, scratch: &Scratch) -> PathBuf {
    let source = Path::new(HERE).join("../examples").join(example);
    let text = fs::read_to_string(&source).unwrap();
    let line = text.lines().find_map(|line| line.find("cc ").or(line.find("c++ ")).map(|at| &line[at..]));
    let line = line.unwrap_or_else(|| panic!("{example} does not say how it is built"));
    let line = line.split(" &&").next().unwrap();
    // The source stays where it is, what is built goes elsewhere.
    let name = source.file_stem().unwrap().to_str().unwrap();
    let program = scratch.path(name);
    let line = line.replace(&format!(" -o {name}"), r#" -o \"\$SANDCELL_PROGRAM\""#);
    // pkg-config writes its answer for a shell to read: a prefix may have blanks.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!(r#"eval "{line} -Wl,-rpath,\"\$SANDCELL_LIB\"""#)])
        .current_dir(source.parent().unwrap())
        .env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"))
        .env("SANDCELL_LIB", prefix().join("lib"))
        .env("SANDCELL_PROGRAM", &program);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{line}:\n{}", said(&output));
    program
}

fn sanitized(example: &str, scratch: &Scratch) -> PathBuf {
    let source = Path::new("../examples").join(example);
    let program = scratch.path("sanitized");
    let (compiler, standard) = if example.ends_with("cpp") { ("c++", "-std=c++17") } else { ("cc", "-std=gnu11") };
    let flags = [standard, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    compile(compiler, &flags, &source, Link::Static, &program);
    program
}

/// Runs both builds; what they say must be the same.
fn both(example: &str, scratch: &Scratch, run: impl Fn(&mut Command) -> Output) -> (String, String, Option<i32>) {
    let plain = run(&mut Command::new(build(example, scratch)));
    let checked = run(&mut Command::new(sanitized(example, scratch)));
    let read = |output: &Output| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    assert_eq!(read(&checked).2, read(&plain).2, "{}", said(&checked));
    read(&plain)
}

#[test]
fn run_passes_output_and_status_on_in_c_and_in_c_plus_plus() {
    for example in ["c/run.c", "cpp/run.cpp"] {
        let scratch = Scratch::new(&example.replace('/', " "));
        let script = "echo $GREETING; id -u; echo oops >&2; exit 7";
        let (out, err, status) = both(example, &scratch, |run| run.args(["/bin/sh", "-c", script]).output().unwrap());
        assert_eq!((out.as_str(), err.as_str(), status), ("hello\n1234\n", "oops\nexited, status 7\n", Some(7)));
        let (_, err, status) = both(example, &scratch, |run| run.arg("/no/such/program").output().unwrap());
        assert_eq!(status, Some(125));
        assert!(err.starts_with("/no/such/program: ") && err.contains("hint: "), "{err}");
    }
}

#[test]
fn poll_hears_the_end_of_every_sandbox() {
    let scratch = Scratch::new("poll");
    let (out, _, status) = both("c/poll.c", &scratch, |poll| poll.arg("5").output().unwrap());
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    let wanted: Vec<String> = (0..5).map(|i| format!("sandbox {i}: exited, status {i}")).collect();
    assert_eq!((lines, status), (wanted.iter().map(String::as_str).collect(), Some(0)));
}

#[test]
fn layers_lists_what_the_program_changed_and_leaves_the_layers_alone() {
    let scratch = Scratch::new("layers");
    let layer = layer(&scratch);
    let script = "echo new >/new; rm /old";
    let (out, err, status) = both("c/layers.c", &scratch, |layers| {
        layers.arg(&layer).args(["--", "/bin/sh", "-c", script]).output().unwrap()
    });
    if status == Some(125) && err.contains("Linux 6.6") {
        println!("SKIPPED: {err}");
        return;
    }
    assert_eq!((out.as_str(), status), ("+ /new\n- /old\n", Some(0)), "{err}");
    assert_eq!(fs::read_to_string(layer.join("old")).unwrap(), "old\n");
}

#[test]
fn the_judge_tells_right_wrong_slow_and_failing_answers_apart() {
    let scratch = Scratch::new("judge");
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
    let submission = scratch.path("submission");
    let script = "#!/bin/sh\nread a b\ncase $a in slow) sleep 1000;; loud) exec yes;; bad) exit 1;; esac\n\
                  echo $((a + b))\n";
    fs::write(&submission, script).unwrap();
    fs::set_permissions(&submission, fs::Permissions::from_mode(0o755)).unwrap();
    let mut files = vec![submission];
    for (number, (input, expected)) in
        [("1 2", "3"), ("2 2", "5"), ("slow 0", "0"), ("loud 0", "0"), ("bad 0", "0")].iter().enumerate()
    {
        for (kind, text) in [("in", input), ("out", expected)] {
            let file = scratch.path(&format!("{number}.{kind}"));
            fs::write(&file, format!("{text}\n")).unwrap();
            files.push(file);
        }
    }
    let (out, err, status) = both("c/judge.c", &scratch, |judge| judge.args(&files).output().unwrap());
    let verdicts: Vec<&str> = out.lines().filter_map(|line| line.rsplit_once(": ")?.1.split(' ').next()).collect();
    assert_eq!((verdicts, status), (vec!["AC", "WA", "TLE", "OLE", "RE"], Some(1)), "{out}{err}");
}

#[test]
fn the_cell_runs_its_programs_at_once_and_gives_up_the_slow_one() {
    let scratch = Scratch::new("cell");
    let (out, err, status) = both("cpp/cell.cpp", &scratch, |cell| cell.output().unwrap());
    assert_eq!((out.as_str(), status), ("1\n4\n9\n16\nkilled\n", Some(0)), "{err}");
}
