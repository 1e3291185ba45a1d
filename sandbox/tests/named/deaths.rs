//! SIGKILL of the keeper, of a client, of init, at any moment: nothing runs on, and no name is taken by what is gone.

use std::process::{Command, Stdio};
use std::time::Duration;

use sandcell::{Cell, Detach, NamedCell};

use super::common::{DOOMED, marker, patiently, processes_with, sandbox};
use super::{Gone, empty, gone, log, name, told};

/// The keeper of a cell: whoever listens on its socket.
fn keeper(cell: &NamedCell) -> u32 {
    cell.info().unwrap().keeper_pid.expect("it lives")
}

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Nothing of it is there any more, and its name is free.
fn is_free(name: &str) {
    patiently("the end of the cell", || Cell::find(name).is_err());
    Gone(sandbox().detach(name).unwrap_or_else(|error| panic!("{error} ({})", error.hint())));
}

fn sleeping(marker: &str) -> Gone {
    let sandbox = sandbox();
    Gone(Detach::new(name()).run(sandbox.command("sleep").arg(marker)).unwrap())
}

#[test]
fn a_keeper_that_is_killed_leaves_nothing_running_and_its_name_is_free() {
    let marker = marker();
    let cell = sleeping(&marker);
    patiently("the program", || !processes_with(&marker).is_empty());
    kill(keeper(&cell));
    gone(&marker);
    let error = cell.wait().unwrap_err();
    assert!(error.to_string().contains("keeper was killed"), "{error}");
    is_free(cell.name());
}

#[test]
fn an_init_that_is_killed_ends_its_cell_with_an_outcome() {
    let marker = marker();
    let cell = sleeping(&marker);
    kill(cell.info().unwrap().pid.unwrap());
    gone(&marker);
    let error = cell.wait().unwrap_err();
    assert!(error.to_string().contains("something outside killed it"), "{error}");
    cell.remove().unwrap();
    is_free(cell.name());
}

#[test]
fn exec_into_a_cell_that_has_just_ended_is_told() {
    let cell = empty();
    let live = cell.cell().unwrap();
    cell.kill().unwrap();
    let error = live.command("true").status().unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
    let error = cell.command("true").unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
}

/// A caller that starts a cell, a command in it, and waits; killed after so many microseconds.
fn start_and_die(name: &str, marker: &str, micros: u64) {
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "deaths::a_starter_killed_at_any_moment_leaves_a_whole_cell_or_none", "--nocapture"])
        .env(DOOMED, format!("{name} {marker}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_micros(micros));
    starter.kill().unwrap();
    starter.wait().unwrap();
}

#[test]
fn a_starter_killed_at_any_moment_leaves_a_whole_cell_or_none() {
    if let Ok(words) = std::env::var(DOOMED) {
        let (name, marker) = words.split_once(' ').unwrap();
        let sandbox = sandbox();
        let cell = Detach::new(name).run(sandbox.command("sleep").arg(marker)).unwrap();
        let _ = cell.command("sleep").unwrap().arg(marker).status();
        return;
    }
    let rounds: u64 = std::env::var("SANDCELL_DEATHS").map_or(25, |rounds| rounds.parse().unwrap());
    let mut whole = 0;
    for round in 0..rounds {
        let (name, marker) = (name(), marker());
        // Some are killed before they begin, some long after.
        start_and_die(&name, &marker, (round * 7919) % 40_000);
        // A half one is gone in a moment.
        patiently("a state that stays", || match Cell::find(&name) {
            Err(_) => processes_with(&marker).is_empty(),
            Ok(cell) => cell.info().is_ok_and(|info| info.state.as_str() == "running"),
        });
        if let Ok(cell) = Cell::find(&name) {
            whole += 1;
            assert_eq!(told(&cell, "echo whole"), "whole");
            cell.kill().unwrap();
            cell.remove().unwrap();
        }
        gone(&marker);
        is_free(&name);
    }
    println!("{whole} of {rounds} were whole");
}

#[test]
fn a_keeper_killed_at_any_moment_loses_no_line_that_was_written() {
    let rounds: u64 = std::env::var("SANDCELL_DEATHS").map_or(10, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let (sandbox, marker) = (sandbox(), marker());
        // Not faster than it can be read.
        let script = format!(
            "i=0; while :; do echo line $i; i=$((i + 1)); [ $((i % 100)) -eq 0 ] && sleep 0.001; done; sleep {marker}"
        );
        let detach = Detach::new(name()).log_max_size(1 << 20).log_files(63);
        let cell = Gone(detach.run(sandbox.command("/bin/sh").args(["-c", &script])).unwrap());
        let dir = cell.info().unwrap().log_dir.unwrap();
        patiently("some lines", || !log(&cell).is_empty());
        std::thread::sleep(Duration::from_micros((round * 7919) % 30_000));
        let before = log(&cell);
        match round % 2 {
            0 => kill(keeper(&cell)),
            _ => kill(cell.info().unwrap().pid.unwrap()),
        }
        patiently("the end", || cell.wait_timeout(Duration::ZERO).map_or(true, |report| report.is_some()));
        let after = if round % 2 == 1 { log(&cell) } else { lines(&dir) };
        let same = after.iter().zip(&before).take_while(|(a, b)| a == b).count();
        assert!(same == before.len(), "round {round}: {same} lines of {}, {} after", before.len(), after.len());
        for (number, line) in after.iter().enumerate() {
            assert_eq!(*line, format!("1 line {number}"));
        }
    }
}

/// The lines in the files of a log, as `log` tells them.
fn lines(dir: &std::path::Path) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("log."));
    files.sort();
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let (mut all, mut begun) = (Vec::new(), String::new());
    for line in text.lines() {
        begun += &line[40..];
        if &line[38..39] == "F" {
            all.push(format!("1 {}", std::mem::take(&mut begun)));
        }
    }
    all
}
