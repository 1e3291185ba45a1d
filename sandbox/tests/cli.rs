//! The program as its users meet it: exit statuses, reports, mistakes, signals.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn sandcell(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sandcell")).args(arguments).output().expect("the program can be started")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is UTF-8")
}

/// Status, standard output, standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = sandcell(&[&["run"], arguments].concat());
    (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
}

/// A path for a file of one test, removed with the value.
struct Place(std::path::PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        Place(std::env::temp_dir().join(format!("sandcell-cli-{}-{name}", std::process::id())))
    }

    fn as_str(&self) -> &str {
        self.0.to_str().expect("the temporary directory has a readable name")
    }

    fn json(&self) -> Value {
        let text = std::fs::read_to_string(&self.0).expect("the report was written");
        serde_json::from_str(&text).expect("the report is JSON")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_programs_status_and_output_are_passed_on() {
    assert_eq!(run(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]), (Some(7), "out\n".into(), "err\n".into()));
    assert_eq!(run(&["true"]).0, Some(0));
}

#[test]
fn a_caller_that_may_write_no_file_is_told_so_and_the_program_is_not_killed_by_sigxfsz() {
    let limited = |blocks: &str, rest: &str| {
        let script = format!("ulimit -f {blocks}; exec \"$0\" run {rest}");
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_sandcell")]).output().unwrap()
    };
    // In blocks of 512 bytes: nothing, and a megabyte.
    let none = limited("0", "echo hello");
    assert_eq!(none.status.code(), Some(125), "{none:?}");
    assert!(text(&none.stderr).contains("RLIMIT_FSIZE"), "{none:?}");
    let enough = limited("2048", "echo hello");
    assert_eq!((enough.status.code(), text(&enough.stdout)), (Some(0), "hello\n"), "{enough:?}");
}

#[test]
fn a_signal_is_128_and_its_number() {
    assert_eq!(run(&["--", "sh", "-c", "kill -USR1 $$"]).0, Some(128 + 10));
}

#[test]
fn a_learned_profile_runs_the_program_that_it_was_learned_from() {
    let place = Place::new("profile");
    let learned = sandcell(&["learn", "-o", place.as_str(), "--", "sh", "-c", "echo out; exit 7"]);
    assert_eq!((learned.status.code(), text(&learned.stdout)), (Some(7), "out\n"), "{}", text(&learned.stderr));
    assert_eq!(place.json()["defaultAction"], "SCMP_ACT_ERRNO");
    let again = ["--seccomp", place.as_str(), "--", "sh", "-c", "echo out; exit 7"];
    assert_eq!(run(&again), (Some(7), "out\n".into(), String::new()));
    assert_ne!(run(&["--seccomp", place.as_str(), "mkdir", "/tmp/d"]).0, Some(0));
    assert_eq!(run(&["mkdir", "/tmp/d"]).0, Some(0));
    let nowhere = sandcell(&["learn", "-o", "/no/such/place", "true"]);
    assert_eq!(nowhere.status.code(), Some(125));
    assert!(text(&nowhere.stderr).contains("--output /no/such/place"), "{}", text(&nowhere.stderr));
}

#[test]
fn a_profile_can_be_read_in_words() {
    let words = |arguments: &[&str]| {
        let output = sandcell(&[&["explain", "--syscalls"], arguments, &["true"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    assert!(words(&[]).starts_with("A call that is not named here: refused with EPERM.\n"));
    assert!(!words(&[]).contains(" mount ") && words(&["--cap-add", "CAP_SYS_ADMIN"]).contains(" mount "));
    assert_eq!(words(&["--seccomp", "off"]), "Every system call: allowed.\n");
}

#[test]
fn a_denied_call_is_159_and_the_report_names_it() {
    let profile = Place::new("killing");
    let text =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL"}]}"#;
    std::fs::write(profile.as_str(), text).expect("the profile was written");
    let report = Place::new("denied");
    assert_eq!(run(&["--seccomp", profile.as_str(), "--report", report.as_str(), "mkdir", "/tmp/d"]).0, Some(159));
    assert_eq!(report.json()["outcome"], serde_json::json!({"kind": "syscall_denied", "syscall": "mkdir"}));
}

#[test]
fn a_timeout_is_124() {
    assert_eq!(run(&["--timeout", "200ms", "sleep", "100"]).0, Some(124));
    assert_eq!(run(&["--timeout", "100s", "true"]).0, Some(0));
}

#[test]
fn a_program_that_is_not_found_is_127_and_one_that_cannot_be_executed_is_126() {
    let (status, _, error) = run(&["there-is-no-such-program"]);
    assert_eq!(status, Some(127));
    assert!(error.contains("there-is-no-such-program") && error.contains("hint: "), "{error}");
    assert_eq!(run(&["/etc/passwd"]).0, Some(126));
}

#[test]
fn a_sandbox_that_cannot_be_made_is_125_with_the_reason() {
    let (status, _, error) = run(&["--ro", "/there/is/nothing", "true"]);
    assert_eq!(status, Some(125));
    assert!(error.starts_with("sandcell: ") && error.contains("/there/is/nothing"), "{error}");
}

#[test]
fn values_that_make_no_sense_are_named_and_nothing_runs() {
    for (arguments, said) in [
        (["--memory", "99999999999G"], "more bytes than 64 bits"),
        (["--memory", "12X"], "not a size"),
        (["--memory=-1", "--keep-env"], "negative"),
        (["--memory", "0"], "a limit of 0"),
        (["--timeout", "3"], "no unit"),
        (["--timeout", "99999999999999999h"], "longer than"),
        (["--timeout=-3s", "--keep-env"], "negative"),
        (["--grace", "soon"], "not a duration"),
        (["--rlimit", "nonsense=3"], "no resource"),
        (["--rlimit", "nofile=9:3"], "soft limit is above"),
        (["--user", "me"], "names a user of an image"),
        (["--cap-add", "flying"], "not a capability"),
        (["--tmpfs", "/x:big"], "not a size"),
        (["--upper", "tmpfs"], "no layers"),
        (["--best-effort", "luck"], "not a valid best_effort item"),
        (["--best-effort", "timeout"], "not a valid best_effort item"),
        (["--rlimit", "core=unlimited"], "core dumps are off"),
        (["-e", ""], "no name of a variable"),
        (["--seccomp", "/no/such/file"], "Name a file"),
        (["--env-file", "/no/such/file"], "Name a file"),
        (["--memroy", "5M"], "unexpected argument '--memroy'"),
        (["--allow-host", "https://example.org/"], "is a URL and not a name"),
        (["--cpus", "1e300"], "\"1e300\" is not a number"),
    ] {
        let (status, out, error) = run(&[&arguments[..], &["echo", "it ran"]].concat());
        assert_eq!((status, out.as_str()), (Some(125), ""), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn explain_begins_with_what_was_asked_for_and_refuses_what_run_refuses() {
    let asked = ["--timeout", "5s", "--output-limit", "1M", "--env", "TOKEN=hunter2", "--rlimit", "nofile=64"];
    let output = sandcell(&[&["explain"], &asked[..], &["sh", "-c", "echo a b"]].concat());
    let said = text(&output.stdout);
    let (summary, steps) = said.split_once("\n\n").expect("the steps follow");
    let lines: Vec<Vec<&str>> = summary.lines().map(|line| line.splitn(2, ' ').map(str::trim).collect()).collect();
    for line in [
        ["program", r#""sh" "-c" "echo a b""#],
        ["root", "host"],
        ["network", "loopback"],
        ["timeout", "5s"],
        ["output_limit", "1M"],
        ["rlimit", "nofile=64:64"],
        ["env", "TOKEN (7 bytes)"],
    ] {
        assert!(lines.contains(&line.to_vec()), "{line:?}: {summary}");
    }
    assert!(lines.len() <= 14 && !said.contains("hunter2") && steps.starts_with("  1  "), "{said}");
    // An allow rule makes the network one of rules.
    let output = sandcell(&["explain", "--allow-net", "192.0.2.1:80", "true"]);
    let ruled = text(&output.stdout);
    assert!(ruled.contains("\nnetwork          user\n"), "{ruled}");
    for refused in [
        &[""][..],
        &["--chdir", "", "true"],
        &["--ro", "/there/is/nothing", "true"],
        &["--memory", "0", "true"],
        &["--upper", "tmpfs", "true"],
        &["--best-effort", "network", "true"],
    ] {
        let [run, explain] = ["run", "explain"].map(|action| sandcell(&[&[action], refused].concat()));
        assert_eq!((run.status.code(), explain.status.code()), (Some(125), Some(125)), "{refused:?}");
        assert_eq!(text(&run.stderr), text(&explain.stderr), "{refused:?}");
        assert!(explain.stdout.is_empty(), "{refused:?}");
    }
    // As the host has it: who may make no group cannot have this limit.
    let [run, explain] = ["run", "explain"].map(|action| sandcell(&[action, "--memory", "64M", "true"]));
    assert_eq!((run.status.code(), text(&run.stderr)), (explain.status.code(), text(&explain.stderr)));
}

#[test]
fn a_hint_names_options_as_they_are_written_here() {
    let error = run(&["--memory", "1", "true"]).2;
    assert!(error.contains("hint: Raise `--memory` to"), "{error}");
    // The control: in reports the names are the library's, as their keys are.
    let output = sandcell(&["run", "--report", "/dev/stdout", "--memory", "1", "true"]);
    assert!(text(&output.stdout).contains("Raise `memory` to"), "{output:?}");
}

#[test]
fn options_reach_the_program() {
    let script = "hostname; pwd; id -u; echo $GREETING; ulimit -n; cat /mark; touch /scratch/file && echo writable";
    let mark = Place::new("mark");
    std::fs::write(&mark.0, "marked\n").unwrap();
    let bind = format!("{}:/mark", mark.as_str());
    let options = [
        "--hostname",
        "box",
        "--chdir",
        "/usr",
        "--user",
        "1234",
        "-e",
        "GREETING=hello",
        "--rlimit",
        "nofile=99",
        "--ro",
        &bind,
        "--tmpfs",
        "/scratch:1M",
        "--",
        "sh",
        "-c",
        script,
    ];
    let (status, out, error) = run(&options);
    assert_eq!((status, out.as_str()), (Some(0), "box\n/usr\n1234\nhello\n99\nmarked\nwritable\n"), "{error}");
}

#[test]
fn the_report_tells_the_run() {
    let place = Place::new("report");
    let (status, ..) = run(&["--report", place.as_str(), "--timeout", "60s", "--", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!(status, Some(3));
    let report = place.json();
    assert_eq!(report["outcome"], serde_json::json!({"kind": "exited", "code": 3}));
    assert_eq!(report["usage"]["output_bytes"], 6);
    assert!(report["usage"]["wall_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(report["error"], Value::Null);
    assert!(report["identity"]["uid"].as_u64().unwrap() >= 1_000_000);
    let line = |item: &str| {
        let lines = report["enforced"].as_array().unwrap();
        lines.iter().find(|line| line["item"] == item).unwrap_or_else(|| panic!("no {item} in {report}")).clone()
    };
    assert_eq!(line("timeout"), serde_json::json!({"item": "timeout", "requested": 60_000, "by": "supervisor"}));
    assert_eq!(line("identity")["host_uid"], report["identity"]["host_uid"]);
    assert!(line("identity")["disjoint"].is_boolean());
}

#[test]
fn the_report_is_written_when_there_is_no_run() {
    let place = Place::new("failed");
    assert_eq!(run(&["--report", place.as_str(), "there-is-no-such-program"]).0, Some(127));
    let report = place.json();
    assert_eq!((&report["outcome"], &report["usage"]), (&Value::Null, &Value::Null));
    assert_eq!(report["error"]["kind"], "exec");
    assert_eq!(report["error"]["errno"], 2);
    assert_eq!(report["error"]["subject"], "there-is-no-such-program");
    for key in ["stage", "message", "hint"] {
        assert!(!report["error"][key].as_str().unwrap().is_empty(), "{key} in {report}");
    }
}

#[test]
fn the_report_is_written_of_a_command_line_that_makes_no_sense() {
    let place = Place::new("mistake");
    for arguments in [
        &["--timeout", "3", "--report", place.as_str(), "true"][..],
        &["--report", place.as_str(), "--nosuch", "true"],
        &["--report", place.as_str()],
        &["--seccomp", "/no/such/file", "--report", place.as_str(), "true"],
    ] {
        assert_eq!(run(arguments).0, Some(125), "{arguments:?}");
        let report = place.json();
        assert_eq!((&report["outcome"], &report["error"]["kind"]), (&Value::Null, &"config".into()), "{report}");
        let said = run(arguments).2.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(report["error"]["message"].as_str().unwrap()), "{said}{report}");
        assert_ne!(report["error"]["hint"], "", "{report}");
        std::fs::remove_file(&place.0).expect("it was written");
    }
    // A word of the program's own is no place of ours.
    assert_eq!(run(&["--timeout", "3", "touch", "--report", place.as_str()]).0, Some(125));
    assert!(!place.0.exists());
}

#[test]
fn what_begins_with_a_dash_is_an_option_before_the_program_and_the_programs_after_it() {
    let (status, out, error) = run(&["--nosuch", "echo", "it ran"]);
    assert_eq!((status, out.as_str()), (Some(125), ""), "{error}");
    assert_eq!(run(&["echo", "-x", "--timeout", "3", "--", "y"]).1, "-x --timeout 3 -- y\n");
    assert_eq!(run(&["--", "-x"]).0, Some(127), "a program may be called anything");
}

#[test]
fn a_colon_of_a_path_is_written_with_a_backslash() {
    let dir = Place::new("colon:and\\back");
    std::fs::create_dir(&dir.0).expect("a directory");
    std::fs::write(dir.0.join("file"), "inside\n").expect("a file");
    let source = dir.as_str().replace(':', "\\:");
    let cat = |place: &str, path: &str| run(&["--ro", place, "cat", path]);
    assert_eq!(cat(&format!("{source}:/a\\:b"), "/a:b/file"), (Some(0), "inside\n".into(), String::new()));
    assert_eq!(cat(&source, &format!("{}/file", dir.as_str())).1, "inside\n", "without a destination too");
    assert!(cat(dir.as_str(), "/").2.contains(dir.as_str().split(':').next().unwrap()), "what stands before the colon");
    let (status, out, error) = run(&["--tmpfs", "/a\\:b:64K", "--", "sh", "-c", "touch /a:b/x && echo made"]);
    assert_eq!((status, out.as_str()), (Some(0), "made\n"), "{error}");
    std::fs::remove_dir_all(&dir.0).expect("it is ours");
}

#[test]
fn a_file_of_variables_need_not_be_utf_8() {
    let place = Place::new("variables");
    let words = b"# a comment\n\nCAFE=caf\xe9\r\nTWO=two words\nNOT_SET_ANYWHERE\n";
    std::fs::write(&place.0, words).expect("a file");
    let output =
        sandcell(&["run", "--env-file", place.as_str(), "-e", "TWO=2", "--", "sh", "-c", "echo $CAFE $TWO; env"]);
    assert!(output.stdout.starts_with(b"caf\xe9 2\n"), "{output:?}");
    assert!(!output.stdout.windows(16).any(|w| w == b"NOT_SET_ANYWHERE") && !output.stdout.contains(&b'\r'));
}

#[test]
fn a_mistake_in_a_profile_names_the_file_and_the_line() {
    let place = Place::new("bad-profile");
    std::fs::write(&place.0, "{\n\"defaultAction\": \"SCMP_ACT_LUCK\"}").expect("a file");
    let (status, _, error) = run(&["--seccomp", place.as_str(), "true"]);
    assert_eq!(status, Some(125));
    assert!(error.contains(place.as_str()) && error.contains("line 2") && error.contains("hint: "), "{error}");
}

#[test]
fn the_uid_on_the_host_is_leased_shared_or_refused_as_asked() {
    let place = Place::new("host-ids");
    let who = |arguments: &[&str]| {
        let (status, _, error) = run(&[&["--report", place.as_str()], arguments, &["true"]].concat());
        assert_eq!(status, Some(0), "{arguments:?}: {error}");
        let report = place.json();
        let line = report["enforced"].as_array().unwrap().iter().find(|line| line["item"] == "identity").cloned();
        (line.unwrap()["disjoint"] == true, report["identity"]["host_uid"] == nix::unistd::geteuid().as_raw())
    };
    assert_eq!(who(&["--host-ids", "shared"]), (false, true));
    assert_eq!(who(&["--keep-caller"]), (false, true));
    let (status, _, error) = run(&["--host-ids", "disjoint", "true"]);
    match status {
        Some(0) => {
            assert_eq!(who(&["--host-ids", "disjoint"]), (true, false));
            assert_eq!(who(&[]), (true, false));
        }
        // A user without sub-ids.
        _ => assert!(status == Some(125) && error.contains("hint: "), "{error}"),
    }
    assert!(run(&["--host-ids", "mine", "true"]).2.contains("auto, disjoint or shared"));
    assert!(run(&["--host-ids", "disjoint", "--keep-caller", "true"]).2.contains("cannot be disjoint from itself"));
}

#[test]
fn the_report_can_go_to_a_descriptor() {
    let script = format!("'{}' run --report fd:5 -- true 5>&1", env!("CARGO_BIN_EXE_sandcell"));
    let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is on standard output");
    assert_eq!(report["outcome"]["code"], 0);
    let (status, _, error) = run(&["--report", "fd:999", "true"]);
    assert_eq!(status, Some(125));
    assert!(error.contains("fd:999"), "{error}");
    // One that can only be read is found before anything runs.
    let script = format!("'{}' run --report fd:5 -- echo it ran 5</dev/null", env!("CARGO_BIN_EXE_sandcell"));
    let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), ""));
}

#[test]
fn leftovers_fail_a_run_only_where_that_was_asked_for() {
    let left = common::beside("sleep 1000");
    let program = ["--", "sh", "-c", &left];
    assert_eq!(run(&program).0, Some(0));
    let (status, _, error) = run(&[&["--leftovers", "fail"], &program[..]].concat());
    assert_eq!(status, Some(125));
    assert!(error.contains("sleep 1000"), "{error}");
    assert_eq!(run(&["--leftovers", "fail", "true"]).0, Some(0));
    let ended_with = ["--", "sh", "-c", &format!("{left}; exit 3")];
    assert_eq!(run(&[&["--leftovers", "fail"], &ended_with[..]].concat()).0, Some(3), "its own failure goes first");
}

#[test]
fn signals_are_forwarded_to_the_program() {
    for signal in ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"] {
        let script = format!("trap 'echo got {signal}; exit 9' {signal}; echo ready; while :; do sleep 0.05; done");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sandcell"))
            .args(["run", "--timeout", "60s", "--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, format!("SIG{signal}").parse::<nix::sys::signal::Signal>().unwrap()).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!((child.wait().unwrap().code(), rest), (Some(9), format!("got {signal}\n")));
    }
}

#[test]
fn explain_prints_the_steps_and_runs_nothing() {
    let place = Place::new("explained");
    let dir = std::env::temp_dir();
    let arguments = ["explain", "--hostname", "box", "--rw", dir.to_str().unwrap(), "--", "touch", place.as_str()];
    let output = sandcell(&arguments);
    assert!(output.status.success());
    assert!(text(&output.stdout).lines().any(|line| line.contains("hostname") && line.contains("box")));
    let json = sandcell(&[&["explain", "--json"], &arguments[1..]].concat());
    let steps: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(steps.as_array().unwrap().iter().any(|step| step["name"] == "hostname" && step["subject"] == "box"));
    assert!(!place.0.exists());
}

#[test]
fn doctor_tells_what_was_tried() {
    let output = sandcell(&["doctor", "--json"]);
    assert!(output.status.success());
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = |name: &str| findings.as_array().unwrap().iter().find(|f| f["name"] == name).unwrap();
    for name in
        ["kernel", "sandbox", "user-namespaces", "overlay", "sub-ids", "memory", "cgroups", "seccomp", "landlock"]
    {
        let finding = find(name);
        // What does not work comes with something to do about it or at least with what happened.
        assert!(!finding["detail"].as_str().unwrap().is_empty(), "{finding}");
        assert_eq!(finding["remedy"] == "", finding["ok"] == true, "{finding}");
    }
    assert_eq!(find("sandbox")["ok"], run(&["true"]).0 == Some(0));
    let lines = sandcell(&["doctor"]);
    assert_eq!(
        text(&lines.stdout).lines().filter(|line| !line.starts_with(' ')).count(),
        findings.as_array().unwrap().len()
    );
}

#[test]
fn completions_and_the_manual_page_name_the_options() {
    assert!(text(&sandcell(&["completions", "bash"]).stdout).contains("--output-limit"));
    assert!(text(&sandcell(&["man"]).stdout).contains("output\\-limit"));
}

#[test]
fn trees_are_listed_copied_reclaimed_and_removed() {
    let (tree, copy) = (Place::new("tree"), Place::new("copy"));
    std::fs::create_dir_all(tree.0.join("sub")).expect("a tree");
    std::fs::write(tree.0.join("sub/a\nb"), "12345").expect("a file");
    let files = |words: &[&str]| {
        let output = sandcell(&[&["files"], words].concat());
        (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    let (status, list, _) = files(&["list", tree.as_str()]);
    assert_eq!(status, Some(0));
    let last = list.lines().last().expect("two lines");
    assert!(last.starts_with('-') && last.ends_with(" 5 sub/a\\nb"), "one line for each file: {list}");
    assert_eq!(files(&["copy", tree.as_str(), copy.as_str()]).0, Some(0));
    assert_eq!(std::fs::read(copy.0.join("sub/a\nb")).expect("copied"), b"12345");
    assert_eq!(files(&["reclaim", tree.as_str()]), (Some(0), String::new(), String::new()));
    assert_eq!(files(&["rm", tree.as_str(), copy.as_str()]).0, Some(0));
    assert!(!tree.0.exists() && !copy.0.exists());
    let (status, _, error) = files(&["rm", tree.as_str()]);
    assert!(status == Some(125) && error.contains("cannot be removed"), "{error}");
}

/// A program that fails may have failed for what it could not reach.
#[test]
fn what_the_rules_refused_is_told_when_a_program_fails() {
    let run = |script: &str| sandcell(&["run", "--allow-net", "192.0.2.7:9", "--", "sh", "-c", script]);
    let failed = run("getent hosts refused.invalid; exit 3");
    let err = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(3), "{err}");
    assert!(err.contains("sandcell: refused: the name refused.invalid: no rule allows it\n"), "{err}");
    assert!(err.contains("--allow-host"), "{err}");
    let fine = run("getent hosts refused.invalid; exit 0");
    assert_eq!((fine.status.code(), String::from_utf8_lossy(&fine.stderr).into_owned()), (Some(0), String::new()));
}

#[test]
fn a_port_of_the_host_that_was_refused_comes_with_the_option_that_opens_it() {
    let err = refused_at_the_host(&["--allow-host", "allowed.invalid"]);
    assert!(err.contains("hint: Let the host's own port be reached: --host-port PORT;"), "{err}");
    let err = refused_at_the_host(&["--host-port", "1"]);
    assert!(err.contains("hint: Let the host's own port be reached: --host-port 8099;"), "{err}");
}

/// What is told of a program that wanted port 8099 of the host.
fn refused_at_the_host(options: &[&str]) -> String {
    let script = "import socket; socket.create_connection(('host.containers.internal', 8099), 30)";
    let words: Vec<&str> =
        [options, &["--", "python3", "-c", script]].into_iter().flat_map(|words| words.iter().copied()).collect();
    let (status, _, err) = run(&words);
    assert_eq!(status, Some(1), "{err}");
    err
}
