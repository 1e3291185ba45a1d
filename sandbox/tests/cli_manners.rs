//! What a user of the shell expects of the program `sandcell`: signals as at a terminal, relative paths, a line for each odd
//! status, the name of what is missing.

#![cfg(feature = "cli")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Scratch, text};

const SANDCELL: &str = env!("CARGO_BIN_EXE_sandcell");

fn sandcell(words: &[&str]) -> Output {
    Command::new(SANDCELL).args(words).output().unwrap()
}

fn sandcell_in(dir: &Path, words: &[&str]) -> Output {
    Command::new(SANDCELL).args(words).current_dir(dir).output().unwrap()
}

fn status_and_error(words: &[&str]) -> (Option<i32>, String) {
    let output = sandcell(words);
    (output.status.code(), text(&output.stderr))
}

/// Runs the script in a shell, with the program as `$0`.
fn by_shell(script: &str) -> Output {
    Command::new("sh").args(["-c", script, SANDCELL]).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn standard_streams_that_are_files_can_be_opened_by_name_and_keep_their_order() {
    let scratch = Scratch::new();
    let path = scratch.path().join("log");
    let file = File::create(&path).unwrap();
    let script = "echo 1; echo 2 >/dev/stderr; echo 3 | tee /dev/stdout; echo 4 >&2";
    let mut command = Command::new(SANDCELL);
    command.args(["run", "--", "sh", "-c", script]).stdout(file.try_clone().unwrap()).stderr(file);
    assert!(command.status().unwrap().success());
    let lines = fs::read_to_string(&path).unwrap();
    assert_eq!(lines, "1\n2\n3\n3\n4\n");
}

#[test]
fn what_the_caller_ignores_is_ignored_inside() {
    let inner = "kill -HUP $$; echo alive";
    let output = by_shell(&format!("trap '' HUP; \"$0\" run -- sh -c '{inner}'"));
    assert_eq!(text(&output.stdout), "alive", "{output:?}");
    assert_eq!(by_shell(&format!("\"$0\" run -- sh -c '{inner}'")).status.code(), Some(129));
    // A signal that the program itself ignores is not passed on either: nohup(1) is meant for both.
    let script =
        "trap '' HUP INT; \"$0\" run -- sh -c 'trap \"echo got\" HUP INT; echo ready; read line; echo end' <fifo &
        exec 9>fifo; until grep -q ready log; do :; done; kill -HUP $!; kill -INT $!; echo >&9; wait $!";
    let scratch = Scratch::new();
    let log = File::create(scratch.path().join("log")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("mkfifo fifo; {script}"), SANDCELL]).current_dir(scratch.path()).stdout(log);
    assert!(command.status().unwrap().success());
    assert_eq!(fs::read_to_string(scratch.path().join("log")).unwrap(), "ready\nend\n");
}

/// A terminal of its own, in which the program runs in the foreground: what is typed once `ready` stands there, and what
/// came out.
fn at_a_terminal(script: &str, typed: &str) -> (i32, String) {
    const DRIVER: &str = r"
import os, pty, sys, fcntl, termios, struct, signal
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], 'run', '--', 'sh', '-c', sys.argv[2]])
said, typed = b'', sys.argv[3]
while True:
    try: more = os.read(terminal, 4096)
    except OSError: break
    if not more: break
    said += more
    if typed and b'ready' in said:
        if typed == 'resize': fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 100, 0, 0))
        else: os.write(terminal, typed.encode('latin-1'))
        typed = ''
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(status); print(said.decode())
";
    let output = Command::new("python3").args(["-c", DRIVER, SANDCELL, script, typed]).output().unwrap();
    let said = text(&output.stdout);
    let (status, rest) = said.split_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    (status.parse().unwrap(), rest.replace('\r', ""))
}

#[test]
fn an_interrupt_at_the_terminal_reaches_the_child_of_a_script() {
    let script = "trap : INT QUIT; sh -c 'echo ready; exec sleep 1000'; echo next";
    for key in ["\x03", "\x1c"] {
        let (status, said) = at_a_terminal(script, key);
        assert!(status == 0 && said.contains("next"), "{status} {said}");
    }
    let (status, said) = at_a_terminal("sh -c 'echo ready; exec sleep 1000'; echo next", "\x03");
    assert!(status == 130 && !said.contains("next"), "{status} {said}");
}

#[test]
fn a_terminal_that_changes_its_size_is_told_to_the_program() {
    let script = "trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.1; done";
    let (status, said) = at_a_terminal(script, "resize");
    assert!(status == 7 && said.contains("40 100"), "{status} {said}");
}

#[test]
fn paths_may_be_relative_to_the_working_directory() {
    let scratch = Scratch::new();
    let here = fs::canonicalize(scratch.dir("here/w")).unwrap();
    let here = here.parent().unwrap();
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    fs::write(here.join("file"), "content\n").unwrap();
    let read = |words: &[&str]| {
        let output = sandcell_in(here, words);
        assert!(output.status.success(), "{words:?} {output:?}");
        text(&output.stdout)
    };
    assert_eq!(read(&["run", "--ro", ".:w", "-C", "w", "--", "cat", "file"]), "content");
    assert_eq!(read(&["run", "--ro", ".:w", "-C", "w", "--", "pwd"]), name(&here.join("w")));
    assert_eq!(read(&["run", "--ro", ".", "-C", ".", "--", "cat", "file"]), "content");
    assert_eq!(read(&["run", "--tmpfs", "t", "-C", "./t", "--", "pwd"]), name(&here.join("t")));
    assert_eq!(
        read(&["run", "--ro", "../here/file:../f", "--", "cat", &name(&here.parent().unwrap().join("f"))]),
        "content"
    );
    // What is no path is refused as before.
    assert_eq!(sandcell_in(here, &["run", "-C", "", "true"]).status.code(), Some(125));
    assert_eq!(sandcell_in(here, &["run", "--ro", "", "true"]).status.code(), Some(125));
}

#[cfg(feature = "landlock")]
#[test]
fn paths_may_be_relative_with_landlock_alone() {
    let scratch = Scratch::new();
    let here = fs::canonicalize(scratch.dir("here")).unwrap();
    fs::create_dir(here.join("p")).unwrap();
    let run = |words: &[&str]| {
        sandcell_in(&here, &[&["run", "--isolation", "landlock", "--network", "host"], words].concat())
    };
    let output = run(&["--rw", "p", "-C", "p", "--", "sh", "-c", "echo x >made"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(here.join("p/made")).unwrap(), "x\n");
    assert!(!run(&["--ro", "p", "-C", "p", "--", "sh", "-c", "echo x >more"]).status.success());
}

#[test]
fn a_working_directory_that_is_not_there_is_named() {
    for words in [&["run", "-C", "/nosuch", "true"][..], &["run", "--isolation", "landlock", "-C", "/nosuch", "true"]] {
        let (status, said) = status_and_error(words);
        assert!(status == Some(125) && said.contains("/nosuch") && !said.contains("doctor"), "{said}");
    }
}

#[test]
fn an_odd_status_comes_with_a_line_that_says_why() {
    let slow = ["run", "--timeout", "300ms", "--grace", "0ms", "--", "sleep", "1000"];
    assert_eq!(status_and_error(&slow), (Some(124), "sandcell: timed out after 300ms".into()));
    let loud = ["run", "--output-limit", "1000", "--", "sh", "-c", "while :; do echo xxxxxxxx; done"];
    assert_eq!(status_and_error(&loud), (Some(153), "sandcell: wrote more than its output limit of 1000 bytes".into()));
    let denied = ["run", "--", "python3", "-c", "import ctypes; ctypes.CDLL(None).syscall(175, 0, 0, 0)"];
    let (status, said) = status_and_error(&denied);
    if status == Some(159) {
        assert_eq!(said, "sandcell: made the denied system call init_module");
    }
    // A program may end so by itself, and then nothing is said.
    assert_eq!(status_and_error(&["run", "--", "sh", "-c", "exit 124"]), (Some(124), String::new()));
    assert_eq!(status_and_error(&["run", "--", "sh", "-c", "kill -KILL $$"]), (Some(137), String::new()));
}

#[test]
fn a_file_that_is_missing_sends_nobody_to_the_doctor() {
    for words in
        [&["load", "/nosuch.tar"][..], &["load", "/dev/null"], &["build", "/nosuch"], &["files", "list", "/nosuch"]]
    {
        let (status, said) = status_and_error(words);
        assert!(status == Some(125) && !said.contains("doctor"), "{words:?} {said}");
    }
}

#[test]
fn the_doctor_fails_where_nothing_can_run() {
    // Where new file systems, roots and Landlock's rules are refused, neither way is open.
    let calls = r#"["mount", "move_mount", "open_tree", "fsopen", "pivot_root", "landlock_create_ruleset"]"#;
    let profile = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": {calls}, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}}]}}"#
    );
    let scratch = Scratch::new();
    let profile = scratch.file("profile.json", &profile);
    let program = format!("{SANDCELL}:/sandcell");
    let words = ["run", "--seccomp", profile.to_str().unwrap(), "--ro", &program, "--", "/sandcell", "doctor"];
    let output = sandcell(&words);
    let said = text(&output.stdout);
    assert!(said.contains("no  sandbox ") && said.contains("no  landlock-only "), "{said} {output:?}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let here = sandcell(&["doctor"]);
    let said = text(&here.stdout);
    assert!(here.status.success() && said.contains("landlock-only"), "{said}");
    assert!(said.lines().any(|line| line.contains(" nested ") && line.contains("inside a container")), "{said}");
}

/// What is told on standard error.
#[track_caller]
fn told(words: &[&str], all_of: &[&str]) {
    let (status, error) = status_and_error(words);
    assert_ne!(status, Some(0), "{words:?}: {error}");
    for part in all_of {
        assert!(error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn a_hint_names_what_can_be_written_on_the_command_line() {
    told(&["run", "--user", "nosuch", "--", "true"], &["Give numbers or one of the words random, root and caller"]);
    told(&["run", "--ro", "/usr", "--", "no-such-program"], &["show it there with `--ro`"]);
    told(&["run", "--", "./x"], &["./x: ", "It is looked for in the working directory: set `-C DIR` to where"]);
    // What a caller of the library can do, a user of the program cannot.
    let output = sandcell(&["doctor"]);
    for word in ["sandcell::", "()", "feature `", "`best_effort`", "`cgroup`"] {
        assert!(!text(&output.stdout).contains(word), "{word}: {}", text(&output.stdout));
    }
    // Where no cgroup holds the limit, or else nothing is refused.
    let (status, error) = status_and_error(&["run", "--memory", "64M", "--", "true"]);
    let instead = "set `--best-effort` to memory: a resource limit stands in";
    assert!(status == Some(0) || error.contains(instead), "{error}");
}

#[test]
fn a_destination_that_is_relative_begins_where_the_user_is() {
    let scratch = Scratch::new();
    scratch.file("src/x", "content");
    let place = scratch.path().join("rel/deep");
    let output =
        sandcell_in(scratch.path(), &["run", "--ro", "src:rel/deep", "--", "cat", &format!("{}/x", place.display())]);
    assert_eq!(text(&output.stdout), "content", "{output:?}");
    let output = sandcell_in(scratch.path(), &["run", "--ro", "src:rel", "--", "cat", "/rel/x"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
