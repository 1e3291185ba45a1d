//! The examples, built with the commands at their heads, and under the sanitizers.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{HERE, Link, PlainPrefix, Scratch, compile, layer, prefix, said};

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

/// Runs the example of another language on the installed library; nothing where its tool is missing.
fn in_language(tool: &str, example: &str, prepare: impl Fn(&mut Command)) {
    if Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .map_or(true, |found| !found.status.success())
    {
        println!("SKIPPED: {tool} is not installed, so {example} was not run");
        return;
    }
    let source = Path::new(HERE).join("../examples").join(example);
    let run = |program: &[&str]| {
        let mut command = Command::new(tool);
        if tool == "go" {
            command.arg("run");
        }
        command.arg(source.file_name().unwrap()).args(program).current_dir(source.parent().unwrap());
        command.env("SANDCELL_LIBRARY", prefix().join("lib/libsandcell.so.0"));
        prepare(&mut command);
        let output = command.output().unwrap();
        (output.stdout.clone(), String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
    };
    let (out, err, status) = run(&["/bin/sh", "-c", "echo hello; printf 'a\\0b'; exit 7"]);
    // `go run` has a status of its own, and says the program's.
    let wanted = if tool == "go" { 1 } else { 7 };
    assert_eq!((&out[..], status), (&b"hello\na\0b"[..], Some(wanted)), "{example}: {err}");
    assert_eq!(err, if tool == "go" { "exit status 7\n" } else { "" }, "{example}");
    let (_, err, _) = run(&["/bin/sh", "-c", "kill -9 $$"]);
    assert!(err.starts_with("signaled\n"), "{example}: {err}");
    let (out, err, _) = run(&["/no/such/program"]);
    assert!(out.is_empty() && err.starts_with("/no/such/program: "), "{example}: {err}");
    assert!(err.contains("\nhint: ") && err.contains("sandcell_policy_add_ro"), "{example}: {err}");
}

#[test]
fn go_runs_a_program_through_cgo() {
    let (scratch, plain) = (Scratch::new("go"), PlainPrefix::new("go"));
    in_language("go", "go/run.go", |go| {
        go.env("PKG_CONFIG_PATH", plain.0.join("lib/pkgconfig")).env("LD_LIBRARY_PATH", prefix().join("lib"));
        go.env("GOCACHE", scratch.path("cache")).env("GO111MODULE", "off");
    });
}

#[test]
fn ruby_runs_a_program_through_fiddle() {
    in_language("ruby", "ruby/run.rb", |_| {});
}

#[test]
fn python_runs_a_program_through_ctypes() {
    in_language("python3", "ctypes/run.py", |_| {});
}

#[test]
fn node_runs_a_program_through_koffi() {
    let scratch = Scratch::new("node");
    // It retries without end where no registry answers.
    let mut npm = Command::new("timeout");
    npm.args(["120", "npm", "install", "--no-audit", "--no-fund", "--prefix"]).arg(&scratch.0).arg("koffi@3.3.4");
    match npm.output() {
        Ok(installed) if installed.status.success() => {
            in_language("node", "node/run.js", |node| {
                node.env("NODE_PATH", scratch.path("node_modules"));
            });
        }
        Ok(installed) => println!("SKIPPED: npm cannot get koffi, so node/run.js was not run: {}", said(&installed)),
        Err(error) => println!("SKIPPED: npm is not there, so node/run.js was not run: {error}"),
    }
}
