//! Cells that have a name: they outlive whoever started them, are found again, and leave their outcome.

#[path = "../common/mod.rs"]
mod common;
mod deaths;
#[path = "../common/gone.rs"]
mod gone;
mod logs;
mod others;

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{DOOMED, marker, patiently, processes_with, sandbox, text};
use gone::Gone;
use sandcell::{Cell, CellState, Detach, Error, NamedCell, Outcome, Restart, Sandbox, cells};

/// A name that no other test has.
fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn empty() -> Gone {
    Gone(sandbox().detach(&name()).unwrap_or_else(|error| panic!("{error} ({})", error.hint())))
}

/// A cell whose main program is this script.
fn main_program(script: &str) -> Gone {
    main_program_as(Detach::new(name()), script)
}

fn main_program_as(detach: Detach, script: &str) -> Gone {
    let sandbox = sandbox();
    Gone(
        detach
            .run(sandbox.command("/bin/sh").args(["-c", script]))
            .unwrap_or_else(|error| panic!("{error} ({})", error.hint())),
    )
}

fn told(cell: &NamedCell, script: &str) -> String {
    text(&cell.command("/bin/sh").unwrap().args(["-c", script]).output().unwrap().stdout)
}

/// The log, as `STREAM TEXT` lines; the last one may lack its end.
fn log(cell: &NamedCell) -> Vec<String> {
    let mut reader = cell.log().unwrap();
    let mut lines = Vec::new();
    let mut begun = [Vec::new(), Vec::new()];
    while let Some(line) = reader.next_line().unwrap() {
        let text = &mut begun[usize::from(line.stream == 2)];
        text.extend(line.text);
        if !line.partial {
            lines.push(format!("{} {}", line.stream, String::from_utf8_lossy(&std::mem::take(text))));
        }
    }
    lines
}

#[test]
fn a_cell_is_found_by_its_name_and_shares_files_between_commands() {
    let cell = empty();
    told(&cell, "echo kept > /tmp/file");
    let found = Cell::find(cell.name()).unwrap();
    assert_eq!(told(&found, "cat /tmp/file"), "kept");
    assert!(cells().iter().any(|other| other.name() == cell.name()));
    assert_eq!(found.info().unwrap().state, CellState::Running);
    found.stop(None).unwrap();
    let info = cell.info().unwrap();
    assert_eq!(info.state, CellState::Ended);
    assert_eq!(info.outcome.unwrap().unwrap().outcome, Outcome::Killed);
    let error = found.command("true").unwrap_err();
    assert_eq!(error.errno(), Some(nix::libc::ESRCH), "{error}");
    cell.remove().unwrap();
    assert!(Cell::find(cell.name()).is_err());
}

#[test]
fn a_main_program_ends_its_cell_and_leaves_its_outcome_until_it_is_removed() {
    let cell = main_program("echo out; echo err >&2; exit 7");
    let report = cell.wait().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(7));
    let mut lines = log(&cell);
    lines.sort();
    assert_eq!(lines, ["1 out", "2 err"]);
    let again = sandbox().detach(cell.name()).unwrap_err();
    assert_eq!(again.errno(), Some(nix::libc::EEXIST), "{again}");
    assert_eq!(Cell::find(cell.name()).unwrap().wait().unwrap().outcome, Outcome::Exited(7));
    cell.remove().unwrap();
    Gone(sandbox().detach(cell.name()).unwrap());
}

#[test]
fn a_taken_name_and_one_that_is_none_are_told() {
    let cell = empty();
    let error = sandbox().detach(cell.name()).unwrap_err();
    assert!(matches!(error, Error::Setup(_)) && error.errno() == Some(nix::libc::EEXIST), "{error}");
    let long = "a".repeat(65);
    for wrong in ["", "a/b", "..", ".", "-a", "a\0b", "a b", "ä", "a\n", &long, ".hidden"] {
        let error = sandbox().detach(wrong).unwrap_err();
        assert!(matches!(error, Error::Config(_)) && !error.hint().is_empty(), "{wrong:?}: {error}");
        assert!(matches!(Cell::find(wrong).unwrap_err(), Error::Config(_)), "{wrong:?}");
    }
    Gone(sandbox().detach(&"a".repeat(64)).unwrap());
    let absent = Cell::find("there-is-none-of-this-name").unwrap_err();
    assert!(!absent.hint().is_empty(), "{absent}");
}

#[test]
fn a_program_that_cannot_be_executed_is_told_by_the_start_and_takes_no_name() {
    let name = name();
    let sandbox = sandbox();
    let error = Detach::new(&name).run(&mut sandbox.command("/does/not/exist")).unwrap_err();
    assert!(matches!(error, Error::Exec(_)), "{error}");
    assert!(Cell::find(&name).is_err());
    Gone(sandbox.detach(&name).unwrap());
}

#[test]
fn stop_sends_sigterm_first_and_kills_after_the_grace() {
    let heard = main_program("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    patiently("the trap", || log(&heard).contains(&"1 ready".to_owned()));
    heard.stop(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(heard.wait().unwrap().outcome, Outcome::Exited(3));
    assert!(log(&heard).contains(&"1 bye".to_owned()));
    let deaf = main_program("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    patiently("the trap", || log(&deaf).contains(&"1 ready".to_owned()));
    deaf.stop(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(deaf.wait().unwrap().outcome, Outcome::Killed);
}

#[test]
fn a_signal_goes_to_the_main_program() {
    let cell = main_program("trap 'echo usr; exit 4' USR1; echo ready; while :; do sleep 0.01; done");
    patiently("the trap", || log(&cell).contains(&"1 ready".to_owned()));
    cell.signal(nix::libc::SIGUSR1).unwrap();
    assert_eq!(cell.wait().unwrap().outcome, Outcome::Exited(4));
    assert!(empty().signal(nix::libc::SIGUSR1).is_err(), "there is no main program");
    assert!(matches!(empty().signal(0).unwrap_err(), Error::Config(_)));
}

/// What is left of a cell: processes with the marker.
fn gone(marker: &str) {
    patiently("the end of what was in the cell", || processes_with(marker).is_empty());
}

#[test]
fn a_command_ends_with_the_client_that_runs_it_and_the_cell_lives_on() {
    let cell = match std::env::var("SANDCELL_TEST_CELL") {
        Ok(name) => Cell::find(&name).unwrap(),
        Err(_) => sandbox().detach(&name()).unwrap(),
    };
    if let Ok(marker) = std::env::var(DOOMED) {
        let _ = cell.command("sleep").unwrap().arg(marker).status();
        return;
    }
    let cell = Gone(cell);
    let marker = marker();
    let mut client = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_command_ends_with_the_client_that_runs_it_and_the_cell_lives_on", "--nocapture"])
        .env(DOOMED, &marker)
        .env("SANDCELL_TEST_CELL", cell.name())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    patiently("the command", || !processes_with(&marker).is_empty());
    client.kill().unwrap();
    client.wait().unwrap();
    gone(&marker);
    assert_eq!(told(&cell, "echo alive"), "alive");
}

#[test]
fn a_cell_outlives_the_process_that_started_it() {
    if let Ok(name) = std::env::var(DOOMED) {
        let sandbox = sandbox();
        Detach::new(name).run(sandbox.command("sleep").arg("100000")).unwrap();
        return;
    }
    let name = name();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_cell_outlives_the_process_that_started_it", "--nocapture"])
        .env(DOOMED, &name)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let cell = Gone(Cell::find(&name).unwrap());
    assert_eq!(told(&cell, "echo inside"), "inside");
    assert_eq!(cell.info().unwrap().state, CellState::Running);
}

#[test]
fn a_restarted_program_runs_again_in_the_same_cell_until_it_succeeds() {
    let script = "n=$(cat /tmp/n 2>/dev/null || echo 0); echo run $n; echo $((n + 1)) > /tmp/n; [ $n -ge 2 ]";
    let cell = main_program_as(Detach::new(name()).restart(Restart::OnFailure), script);
    assert_eq!(cell.wait().unwrap().outcome, Outcome::Exited(0));
    assert_eq!(log(&cell), ["1 run 0", "1 run 1", "1 run 2"]);
    assert_eq!(cell.info().unwrap().restarts, 2);
    let always = main_program_as(Detach::new(name()).restart(Restart::Always), "echo run");
    patiently("the second run", || log(&always).len() > 1);
    always.stop(None).unwrap();
    assert_eq!(always.info().unwrap().state, CellState::Ended);
    let empty = Detach::new(name()).restart(Restart::Always).start(&sandbox()).unwrap_err();
    assert!(matches!(empty, Error::Config(_)), "{empty}");
}

#[test]
fn one_client_at_a_time_has_the_input_of_the_main_program() {
    let cell = main_program_as(Detach::new(name()).keep_stdin(true), "cat; echo end");
    let mut first = cell.attach(false).unwrap();
    first.write_all(b"typed\n").unwrap();
    patiently("the answer", || log(&cell) == ["1 typed"]);
    let error = cell.attach(false).unwrap_err();
    assert_eq!(error.errno(), Some(nix::libc::EBUSY), "{error}");
    let mut second = cell.attach(true).unwrap();
    let refused = first.write_all(b"late\n").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionAborted);
    drop(first);
    second.write_all(b"more\n").unwrap();
    drop(second);
    // Whoever lets go ends nothing.
    let third = cell.attach(false).unwrap();
    third.close().unwrap();
    assert_eq!(cell.wait().unwrap().outcome, Outcome::Exited(0));
    assert_eq!(log(&cell), ["1 typed", "1 more", "1 end"]);
    assert!(main_program("sleep 1000").attach(false).is_err(), "it has no input");
}

#[test]
fn a_paused_cell_stands_still_starts_nothing_and_goes_on() {
    let cell = main_program("while :; do echo tick; sleep 0.01; done");
    match cell.pause() {
        Err(error) if matches!(error, Error::Unsupported(_)) || !common::is_root() => {
            println!("SKIPPED: no cgroup for the caller: {error}");
            return;
        }
        other => other.unwrap(),
    }
    assert_eq!(cell.info().unwrap().state, CellState::Paused);
    let stands = cell.info().unwrap().log_bytes;
    let error = cell.command("true").unwrap().status().unwrap_err();
    assert!(error.to_string().contains("frozen"), "{error}");
    // A timeout of one client's does not end the pause of another one.
    let error = cell.command("true").unwrap().timeout(Duration::from_secs(1)).status().unwrap_err();
    assert!(error.to_string().contains("frozen"), "{error}");
    assert_eq!(cell.info().unwrap().state, CellState::Paused);
    // Another client.
    let found = Cell::find(cell.name()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(found.info().unwrap().log_bytes, stands);
    found.resume().unwrap();
    patiently("it to go on", || found.info().unwrap().log_bytes > stands);
    assert_eq!(told(&found, "echo again"), "again");
    found.pause().unwrap();
    found.stop(None).unwrap();
    let frozen = main_program("sleep 100000");
    frozen.pause().unwrap();
    frozen.kill().unwrap();
    assert_eq!(frozen.wait().unwrap().outcome, Outcome::Killed);
}

#[test]
fn the_environment_the_directory_and_the_limits_of_the_cell_are_those_of_its_commands() {
    let policy = Sandbox::builder().env("KEY", "value").chdir("/tmp").rlimit(sandcell::Resource::RLIMIT_NOFILE, 64, 64);
    let sandbox = policy.timeout(Duration::from_secs(50)).output_limit(1 << 20).build().unwrap();
    let cell = Gone(sandbox.detach(&name()).unwrap());
    let here = sandbox.start().unwrap();
    let script = "echo $KEY $PWD $HOME $USER $PATH; ulimit -n; umask";
    let local = here.command("/bin/sh").args(["-c", script]).output().unwrap();
    let account = |text: String, uid: u32| text.replace(&uid.to_string(), "UID");
    assert_eq!(
        account(told(&cell, script), cell.info().unwrap().identity.uid),
        account(text(&local.stdout), here.identity().uid)
    );
    let loud = cell.command("/bin/sh").unwrap().args(["-c", "head -c 2000000 /dev/zero"]).output().unwrap();
    assert_eq!(loud.outcome, Outcome::OutputLimit);
    let status = cell.command("sleep").unwrap().arg("1000").timeout(Duration::from_millis(50)).status().unwrap();
    assert_eq!(status.outcome, Outcome::TimedOut);
    assert_eq!(cell.command("/does/not/exist").unwrap().status().unwrap_err().kind(), "exec");
}

#[test]
fn a_limit_of_processes_has_room_for_ours_and_for_no_more_of_theirs() {
    let Ok(sandbox) = Sandbox::builder().pids(4).build() else { return };
    let detached = sandbox.detach(&name());
    let cell = match detached {
        Err(error) if matches!(error, Error::Unsupported(_)) => {
            println!("SKIPPED: no cgroup for the caller: {error}");
            return;
        }
        other => Gone(other.unwrap()),
    };
    // The shell and three more are the four; a fifth is one too many.
    let script = |count: u32| format!("for i in $(seq {count}); do sleep 1000 & done 2>/dev/null; jobs -p | wc -l");
    let local = sandbox.start().unwrap();
    for count in [1, 8] {
        let here = local.command("/bin/sh").args(["-c", &script(count)]).output().unwrap();
        let there = cell.command("/bin/sh").unwrap().args(["-c", &script(count)]).output().unwrap();
        assert_eq!(text(&there.stdout), text(&here.stdout), "{count}");
    }
}

#[test]
fn many_cells_live_at_once() {
    let sandbox = sandbox();
    let cells: Vec<Gone> = (0..100).map(|_| Gone(sandbox.detach(&name()).unwrap())).collect();
    std::thread::scope(|scope| {
        for part in cells.chunks(25) {
            scope.spawn(move || {
                for cell in part {
                    assert_eq!(told(cell, "hostname | head -c 5"), "cell-");
                }
            });
        }
    });
    // A directory that grows while it is read may not show all of it at once.
    patiently("the list of all of them", || {
        let live = sandcell::cells();
        cells.iter().all(|cell| live.iter().any(|other| other.name() == cell.name()))
    });
}
