//! `sandcell test` as test runners call it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Scratch, patiently, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A project with a build directory, in the manner of Cargo, and a test program in it.
struct Project {
    scratch: Scratch,
    program: PathBuf,
}

impl Project {
    fn new(script: &str) -> Project {
        let scratch = Scratch::new();
        scratch.file("Cargo.toml", "");
        scratch.file("src/data.txt", "data\n");
        scratch.file("target/CACHEDIR.TAG", "");
        let program = script_file(&scratch.path().join("target/debug/deps/it-0123"), script);
        Project { scratch, program }
    }

    fn top(&self) -> &Path {
        self.scratch.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
        command.args(["test", "--"]).arg(&self.program).current_dir(self.top());
        command
    }
}

fn script_file(path: &Path, script: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// Status, standard output, standard error.
fn ran(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_project_reached_through_a_link_is_there_under_both_names() {
    let project = Project::new("");
    let scratch = Scratch::new();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(project.top(), &link).unwrap();
    let (real, link) = (project.top().display().to_string(), link.display().to_string());
    script_file(
        &project.program,
        &format!("cat {real}/src/data.txt {link}/src/data.txt && echo x >{link}/target/made"),
    );
    let by_link = format!("{link}/target/debug/deps/it-0123");
    // The shell's own name of the directory, as CTest has it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    command.args(["test", "--", &by_link]).current_dir(&link).env("PWD", &link);
    assert_eq!(ran(&mut command), (Some(0), "data\ndata".to_owned(), String::new()));
    assert!(project.top().join("target/made").exists());
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    let named = ["test", "--source", &link, "--build", &format!("{link}/target"), "--", &by_link];
    command.args(named).current_dir("/").env_remove("PWD");
    assert_eq!(ran(&mut command), (Some(0), "data\ndata".to_owned(), String::new()));
}

#[test]
fn the_source_tree_can_be_read_and_not_written_and_the_build_directory_can() {
    let project = Project::new("cat src/data.txt && echo x >target/made && ! echo x >src/made && ! touch Cargo.toml");
    let (status, out, error) = ran(&mut project.command());
    assert_eq!((status, out.as_str()), (Some(0), "data"), "{error}");
    assert!(project.top().join("target/made").exists() && !project.top().join("src/made").exists());
    // The twin: without the sandbox the same program can.
    let free = Command::new(&project.program).current_dir(project.top()).output().unwrap();
    assert!(!free.status.success() && project.top().join("src/made").exists());
}

#[test]
fn a_build_directory_beside_the_sources_is_found_from_the_working_directory() {
    let project = Project::new("true");
    let build = project.scratch.dir("out");
    fs::write(build.join("CMakeCache.txt"), "").unwrap();
    let deep = project.scratch.dir("out/tests");
    let program = script_file(&deep.join("check"), "echo log >result.log && ! touch ../../src/made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    assert_eq!(ran(command.arg("test").arg(program).current_dir(&deep)).0, Some(0));
    assert!(deep.join("result.log").exists());
}

#[test]
fn a_build_amid_its_sources_is_writable_only_where_that_is_said() {
    let project = Project::new("touch made");
    fs::write(project.top().join("CMakeCache.txt"), "").unwrap();
    assert_ne!(ran(&mut project.command()).0, Some(0));
    let mut said = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    said.args(["test", "--build", "."]).arg(&project.program).current_dir(project.top());
    assert_eq!(ran(&mut said), (Some(0), String::new(), String::new()));
}

#[test]
fn a_program_in_a_directory_made_for_the_run_is_visible_and_may_write_there() {
    let project = Project::new("true");
    let made = Scratch::new();
    let beside = script_file(&made.path().join("rust_out"), "echo x >\"$(dirname \"$0\")/out\" && cat src/data.txt");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    let ran = ran(command.arg("test").arg(beside).current_dir(project.top()));
    assert_eq!(ran, (Some(0), "data".to_owned(), String::new()));
    assert!(made.path().join("out").exists());
}

#[test]
fn roots_tests_read_nothing_that_only_root_may_and_what_a_test_writes_is_its_callers() {
    let project = Project::new("echo x >target/made && cat src/secret");
    let secret = project.scratch.file("src/secret", "secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let root = nix::unistd::geteuid().is_root();
    let (status, out, error) = ran(&mut project.command());
    let made = fs::metadata(project.top().join("target/made")).unwrap();
    assert_eq!(made.uid(), nix::unistd::geteuid().as_raw());
    assert_eq!((status == Some(0), out.as_str()), if root { (false, "") } else { (true, "secret") }, "{error}");
    assert_eq!(error.contains("Permission denied"), root, "{error}");
    // The twin: without the sandbox the same program can.
    let free = Command::new(&project.program).current_dir(project.top()).output().unwrap();
    assert_eq!(text(&free.stdout), "secret");
}

#[test]
fn a_repository_in_the_home_does_not_show_the_home() {
    let home = Scratch::new();
    home.dir(".git");
    home.file("secret", "secret");
    let work = home.dir("work");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
    command.args(["test", "sh", "-c", "ls ..; echo $HOME"]).env("HOME", home.path()).current_dir(&work);
    assert_eq!(ran(&mut command).1, "work\n/home/cell");
}

#[test]
fn the_environment_is_kept_and_temporary_files_are_the_sandboxs_own() {
    let project = Project::new("echo $SOME_SETTING $TMPDIR; ls $TMPDIR | wc -l");
    let mut command = project.command();
    // Its directories are shown too, and cargo's may lie beneath /tmp.
    command.env_remove("LD_LIBRARY_PATH");
    let (status, out, error) = ran(command.env("SOME_SETTING", "kept").env("TMPDIR", "/tmp"));
    // Only the way to the project is in there.
    assert_eq!((status, out.as_str()), (Some(0), "kept /tmp\n1"), "{error}");
}

#[test]
fn leftovers_are_named_and_the_status_is_the_programs() {
    let project = Project::new(&format!("{}; echo $!; exit 3", common::beside("sleep 1000")));
    let mut command = project.command();
    let (status, pid, error) = ran(&mut command);
    assert_eq!(status, Some(3));
    assert!(error.contains(&format!("sleep 1000 (pid {pid})")), "{error}");
}

#[test]
fn profiles_of_llvm_go_where_they_can_be_written_under_a_name_of_their_own() {
    let project = Project::new("echo $LLVM_PROFILE_FILE; touch \"${LLVM_PROFILE_FILE%/*}/made\"");
    let place = project.top().join("profiles");
    let mut command = project.command();
    let (status, name, error) = ran(command.env("LLVM_PROFILE_FILE", place.join("a-%p-%m.profraw")));
    assert_eq!(status, Some(0), "{error}");
    let own = name.strip_prefix(&format!("{}/a-", place.display())).and_then(|n| n.strip_suffix("-%p-%m.profraw"));
    assert!(own.is_some_and(|number| number.parse::<u32>().is_ok()), "{name}");
    assert!(place.join("made").exists());
    let (status, _, error) = ran(project.command().env("LLVM_PROFILE_FILE", "a-%p.profraw"));
    assert_eq!(status, Some(125));
    assert!(error.contains("LLVM_PROFILE_FILE"), "{error}");
}

#[test]
fn a_signal_that_ended_the_program_ends_its_sandcell_and_a_status_is_passed_on() {
    use std::os::unix::process::ExitStatusExt;
    // TERM is held back, SEGV has a handler of Rust's.
    for signal in [Signal::SIGTERM, Signal::SIGSEGV, Signal::SIGKILL] {
        let project = Project::new(&format!("kill -{} $$", signal as i32));
        assert_eq!(project.command().status().unwrap().signal(), Some(signal as i32));
    }
    let project = Project::new("exit 139");
    assert_eq!(project.command().status().unwrap().code(), Some(139));
}

#[test]
fn merged_doctests_are_told_where_they_are_and_other_programs_nothing() {
    let said = |name: &str| {
        let project = Project::new("true");
        let made = Scratch::new();
        let program = script_file(&made.path().join(name), "echo ${RUSTDOC_DOCTEST_BIN_PATH:-nothing}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandcell"));
        (ran(command.arg("test").arg(&program).current_dir(project.top())).1, program.display().to_string())
    };
    let (told, program) = said("rust_out");
    assert_eq!(told, program);
    assert_eq!(said("another").0, "nothing");
}

#[test]
fn a_runner_that_stops_continues_and_ends_the_group_is_obeyed() {
    use std::os::unix::process::CommandExt;
    let project = Project::new("trap 'echo ended; exit 9' TERM; echo $$; while :; do sleep 0.05; done");
    let mut child = project.command().process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    let group = Pid::from_raw(-child.id().cast_signed());
    let program = project.program.to_str().unwrap();
    // The whole group stops. A shell that is just starting a command by vfork(2) waits for its stopped child meanwhile, in state D.
    let stopped = || states(program).iter().all(|state| state == "T" || state == "D");
    kill(group, Signal::SIGTSTP).unwrap();
    patiently("stopping", stopped);
    kill(group, Signal::SIGCONT).unwrap();
    patiently("continuing", || !stopped());
    kill(group, Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(9), "ended\n"));
}

/// The states of what runs this program: `sandcell` and the program inside.
fn states(program: &str) -> Vec<String> {
    let pids = common::processes_with(program);
    let stat = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let found: Vec<_> = pids.iter().filter_map(|pid| Some(stat(pid).rsplit_once(") ")?.1[..1].to_owned())).collect();
    assert!(found.len() >= 2, "{found:?}");
    found
}
