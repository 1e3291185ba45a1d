//! Standard output and standard error that go to regular files of the caller's.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};

use common::{Scratch, sandbox, shell, text};
use sandcell::{Outcome, Sandbox, Stdio};

const BY_NAME: &str = "echo out >/dev/stdout && echo err >/dev/stderr && echo more | tee -a /dev/stderr";

fn append(path: &std::path::Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

#[test]
fn files_can_be_opened_again_by_name() {
    let scratch = Scratch::new();
    let (out, err) = (scratch.file("out", ""), scratch.file("err", ""));
    let streams = || (append(&out), append(&err));
    let (stdout, stderr) = streams();
    let report = shell(&sandbox(), BY_NAME).stdout(stdout).stderr(stderr).status().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(0));
    let cell = sandbox().start().unwrap();
    let (stdout, stderr) = streams();
    let report = cell.command("/bin/sh").args(["-c", BY_NAME]).stdout(stdout).stderr(stderr).status().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(0));
    assert_eq!(fs::read_to_string(&out).unwrap(), "out\nmore\nout\nmore\n");
    assert_eq!(fs::read_to_string(&err).unwrap(), "err\nmore\nerr\nmore\n");
}

#[test]
fn a_file_for_both_streams_keeps_the_order_of_lines() {
    let lines = "i=0; while [ $i -lt 300 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let expected: String = (0..300).map(|i| format!("o{i}\ne{i}\n")).collect();
    let scratch = Scratch::new();
    // One description of the file; two that append to it.
    let shared = File::create(scratch.path().join("shared")).unwrap();
    let again = shared.try_clone().unwrap();
    assert!(shell(&sandbox(), lines).stdout(shared).stderr(again).status().unwrap().success());
    assert_eq!(fs::read_to_string(scratch.path().join("shared")).unwrap(), expected);
    let path = scratch.file("appended", "first\n");
    let mut counted = shell(&sandbox(), lines);
    let report = counted.stdout(append(&path)).stderr(append(&path)).count_output(true).status().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("first\n{expected}"));
    assert_eq!(report.usage.output_bytes, Some(expected.len() as u64));
}

#[test]
fn a_pipe_for_both_streams_that_is_counted_keeps_the_order_of_lines() {
    let lines = "i=0; while [ $i -lt 300 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let expected: String = (0..300).map(|i| format!("o{i}\ne{i}\n")).collect();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = shell(&sandbox(), lines);
    command.stdout(writer.try_clone().unwrap()).stderr(writer).count_output(true);
    let child = command.spawn();
    drop(command);
    let mut all = String::new();
    std::io::Read::read_to_string(&mut reader, &mut all).unwrap();
    assert!(child.unwrap().wait().unwrap().success());
    assert_eq!(all, expected);
}

#[test]
fn a_file_is_written_from_where_the_caller_stands_and_is_complete_at_the_end() {
    let scratch = Scratch::new();
    let path = scratch.file("log", "header\n");
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    let script = "head -c 3000000 /dev/zero | tr '\\0' x";
    let report = shell(&sandbox(), script).stdout(file.try_clone().unwrap()).status().unwrap();
    assert!(report.success());
    // The place in the file is shared, as it is without a sandbox.
    file.write_all(b"footer").unwrap();
    let all = fs::read_to_string(&path).unwrap();
    assert_eq!(all.len(), 7 + 3_000_000 + 6);
    assert!(all.starts_with("header\nxx") && all.ends_with("xxfooter"));
}

#[test]
fn the_callers_file_is_not_the_programs_to_read_or_truncate() {
    let scratch = Scratch::new();
    let path = scratch.file("log", "secret of the caller\n");
    let script = "timeout 1 head -c 6 </proc/self/fd/1 >&2; : >/proc/self/fd/1; echo mine";
    let open = || OpenOptions::new().read(true).append(true).open(&path).unwrap();
    let output = shell(&sandbox(), script).stdout(open()).output().unwrap();
    assert!(!text(&output.stderr).contains("secret"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&path).unwrap(), "secret of the caller\nmine\n");
}

#[test]
fn a_program_that_gets_the_file_itself_can_seek_in_it() {
    let scratch = Scratch::new();
    let path = scratch.file("image", "");
    let open = || OpenOptions::new().write(true).open(&path).unwrap();
    let seek = "dd if=/dev/zero bs=1 count=1 seek=99 conv=notrunc status=none";
    assert!(shell(&sandbox(), seek).stdout(open()).stderr(Stdio::Null).direct_files(true).status().unwrap().success());
    assert_eq!(fs::metadata(&path).unwrap().len(), 100);
    assert!(!shell(&sandbox(), "test -f /proc/self/fd/1").stdout(open()).status().unwrap().success());
}

#[test]
fn a_file_that_cannot_be_written_is_told() {
    let read_only = File::open("/etc/hostname").unwrap();
    // As without a sandbox: the program itself meets the error.
    assert_eq!(
        shell(&sandbox(), "echo x").stdout(read_only).stderr(Stdio::Null).status().unwrap().outcome.code(),
        Some(1)
    );
}

#[test]
fn what_is_left_in_a_cell_writes_on_into_the_file_for_as_long_as_the_command() {
    let scratch = Scratch::new();
    let path = scratch.file("log", "");
    let cell = Sandbox::builder().build().unwrap().start().unwrap();
    let script = "{ sleep 100; echo late; } & echo soon";
    let report = cell.command("/bin/sh").args(["-c", script]).stdout(append(&path)).status().unwrap();
    assert!(report.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "soon\n");
}
