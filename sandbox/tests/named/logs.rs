//! The log: every byte is in it, in order, whatever is rotated, and whoever reads it.

use std::time::Duration;

use sandcell::{Detach, LogLine, LogReader, NamedCell, Outcome};

use super::common::{is_root, patiently, text};
use super::{log, main_program, main_program_as, name};

/// All lines from where the reader stands to the end of the cell.
fn followed(reader: &mut LogReader) -> Vec<LogLine> {
    let mut lines = Vec::new();
    loop {
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(line);
        }
        if !reader.wait_timeout(Duration::from_secs(60)).unwrap() {
            assert!(!reader.is_live(), "nothing has come for a minute");
            return lines;
        }
    }
}

/// What the program wrote on a stream.
fn written(lines: &[LogLine], stream: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines.iter().filter(|line| line.stream == stream) {
        bytes.extend_from_slice(&line.text);
        if !line.partial {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[test]
fn every_byte_is_in_the_log_whatever_it_is() {
    // Long lines, no end of line at the end, zeros, and what looks like a line of the log.
    let script = "printf 'no end'; printf '\\n\\n'; head -c 100000 /dev/zero; echo; \
                  printf '2026-11-30T01:14:44.123456789Z stdout F forged\\n'; printf '\\377\\376 last'";
    let cell = main_program(script);
    assert_eq!(cell.wait().unwrap().outcome, Outcome::Exited(0));
    let lines = followed(&mut cell.log().unwrap());
    let mut expected = b"no end\n\n".to_vec();
    expected.extend([0; 100_000]);
    expected.extend(b"\n2026-11-30T01:14:44.123456789Z stdout F forged\n\xff\xfe last");
    assert!(written(&lines, 1) == expected, "{} bytes of {}", written(&lines, 1).len(), expected.len());
}

#[test]
fn ten_followers_of_a_log_that_is_rotated_meanwhile_see_the_same_and_the_end() {
    let go = "read go; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i + 1)); done";
    let detach = Detach::new(name()).log_max_size(64 << 10).log_files(63).keep_stdin(true);
    let cell = main_program_as(detach, go);
    let readers: Vec<LogReader> = (0..10).map(|_| cell.log().unwrap()).collect();
    cell.attach(false).map(|mut input| std::io::Write::write_all(&mut input, b"go\n")).unwrap().unwrap();
    let seen: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let all: Vec<_> =
            readers.into_iter().map(|mut reader| scope.spawn(move || written(&followed(&mut reader), 1))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    for bytes in seen {
        assert!(bytes == expected.as_bytes(), "{} bytes of {}", bytes.len(), expected.len());
    }
    let files = std::fs::read_dir(cell.info().unwrap().log_dir.unwrap()).unwrap().count();
    assert!(files > 5, "it was not rotated: {files}");
}

#[test]
fn a_reader_that_comes_back_to_an_offset_misses_nothing_and_reads_nothing_twice() {
    let cell = main_program("i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i + 1)); done");
    cell.wait().unwrap();
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let mut reader = cell.log().unwrap();
        reader.seek(offset);
        let mut read = 0;
        while let Some(line) = reader.next_line().unwrap().filter(|_| read < 7) {
            assert_eq!(line.offset, offset);
            all.push(text(&line.text));
            (offset, read) = (line.next, read + 1);
        }
        if read == 0 {
            break;
        }
    }
    assert_eq!(all, (0..1000).map(|i| i.to_string()).collect::<Vec<_>>());
    let mut reader = cell.log().unwrap();
    reader.tail(3).unwrap();
    let last: Vec<_> = followed(&mut reader).iter().map(|line| text(&line.text)).collect();
    assert_eq!(last, ["997", "998", "999"]);
}

#[test]
fn the_oldest_files_of_a_log_go_and_the_newest_lines_stay() {
    let detach = Detach::new(name()).log_max_size(4096).log_files(3);
    let cell = main_program_as(detach, "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i + 1)); done");
    cell.wait().unwrap();
    let mut reader = cell.log().unwrap();
    let lines = followed(&mut reader);
    assert!(lines.len() < 300 && reader.skipped() > 0, "{} lines", lines.len());
    assert_eq!(text(&lines.last().unwrap().text), "line 4999");
    for pair in lines.windows(2) {
        assert_eq!(pair[0].next, pair[1].offset);
    }
    let mut size = 0;
    for file in std::fs::read_dir(cell.info().unwrap().log_dir.unwrap()).unwrap() {
        size += file.unwrap().metadata().unwrap().len();
    }
    assert!(size < 3 * 4096 + 1024, "{size}");
}

#[test]
fn what_makes_no_sense_of_a_log_is_refused() {
    for detach in [
        Detach::new(name()).log_max_size(0),
        Detach::new(name()).log_max_size(u64::MAX),
        Detach::new(name()).log_files(0),
        Detach::new(name()).log_files(64),
    ] {
        let error = detach.start(&super::sandbox()).unwrap_err();
        assert!(matches!(error, sandcell::Error::Config(_)) && !error.hint().is_empty(), "{error}");
    }
}

/// Run again with its log on a file system of 64 KiB.
#[test]
fn a_full_disk_is_told_holds_the_program_up_and_loses_nothing() {
    const PLACE: &str = "/tmp/sandcell-test-small";
    if !is_root() {
        println!("SKIPPED: mounts a small file system");
        return;
    }
    let test = "logs::a_full_disk_is_told_holds_the_program_up_and_loses_nothing";
    let setup = format!(
        "mkdir -p {PLACE}; mount -t tmpfs -o size=64k small {PLACE}; mkdir -m 700 -p {PLACE}/state; \
         export XDG_STATE_HOME={PLACE}/state"
    );
    if !super::common::again_in_own_mounts(test, &setup) {
        return;
    }
    // More than pipes and the keeper itself can hold.
    let script = "i=0; while [ $i -lt 50000 ]; do echo line $i; i=$((i + 1)); done";
    let filler = format!("{PLACE}/filler");
    let cell = main_program(script);
    patiently("the full disk", || cell.info().unwrap().log_errno == Some(nix::libc::ENOSPC));
    assert!(cell.info().unwrap().outcome.is_none());
    // The control: nothing of it is lost so far, and it cannot have ended.
    let before = log(&cell);
    assert!(before.len() > 100 && before.len() < 50_000, "{}", before.len());
    // Room for the rest.
    let grown = std::process::Command::new("mount").args(["-o", "remount,size=8m", PLACE]).status().unwrap();
    assert!(grown.success());
    assert_eq!(cell.wait().unwrap().outcome, Outcome::Exited(0));
    let expected: Vec<_> = (0..50_000).map(|i| format!("1 line {i}")).collect();
    let after = log(&cell);
    assert!(after == expected, "{} lines", after.len());
    drop(cell);
    // Told where it cannot be written until the end.
    let cell = main_program_as(Detach::new(name()).keep_stdin(true), "read go; echo lost");
    std::fs::write(&filler, vec![0; 16 << 20]).unwrap_err();
    cell.attach(false).map(|mut input| std::io::Write::write_all(&mut input, b"go\n")).unwrap().unwrap();
    let report = ended(&cell);
    assert!(report.contains("log"), "{report}");
    std::fs::remove_file(&filler).unwrap();
}

/// The warnings of its end.
fn ended(cell: &NamedCell) -> String {
    cell.wait().unwrap().warnings.join("; ")
}
